"""Classes of optimisers for PyTorch, made from rules and from optimisers of optgen.

In: a compiled rule, or an optimiser. Out: a class that derives from `Adapter`; for PyTorch's own rules from PyTorch's
class too, whose constructor it keeps.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn

from torch.optim import Optimizer

from ..compiler.driver import Compilation, compile_file, compile_text
from ..errors import ArgumentError
from ..frozen import replace
from ..ir.rule import Rule
from ..ir.torch_names import ABSENT, MEANING, chain_names, torch_names, torch_spellings, torch_states
from ..once import once
from ..optimiser.base import compilation_of, module_of, settings_of
from ..optimiser.chain import Chain
from ..optimiser.chain import chain as core_chain
from ..optimiser.chain_settings import ChainSettings
from ..optimiser.classes import module_class
from .inputs import expect_attributes
from .naming import STEP, Naming
from .optimizer import Adapter, naming_of, revive_by
from .param_groups import NO_SCHEDULE, SCHEDULERS, expect_absent
from .storing import STORING, chosen_storing, storing_of
from .strategies import OwnRule, TorchMatrixRule, TorchRule

__all__ = ["adapted", "chain", "load"]


def load(path: str | os.PathLike[str]) -> Any:
    """The optimiser class of the spec at `path`. SpecError lists all its faults."""
    compilation = compile_file(Path(path))
    return of_spec(compilation.text, compilation.file)


def chain(params: Any, *parts: Any, **others: NoReturn) -> Adapter:
    """Several optimisers of optgen as one rule for these parameters, in one kernel: what `optgen.chain` makes of them.

    Raises what that raises.
    """
    if isinstance(params, type) or hasattr(params, "rule"):
        message = f"chain: expected the parameters first, got {type(params).__name__}"
        raise ArgumentError(message, hint="chain(model.parameters(), optgen.ClipGlobalNorm(1.0), optgen.AdamW())")
    if others:
        hint = "give it to the part that it is for: chain(params, optgen.AdamW(lr=0.01))"
        raise ArgumentError(f"chain: expected parameters and parts, got {', '.join(others)}=...", hint=hint)
    return _wrapped(params, core_chain(*parts))


def adapted(
    core: Any,
    theirs: type[Optimizer] | None = None,
    parent: type[Adapter] = Adapter,
) -> type[Adapter]:
    """The class of a rule.

    Parameters
    ----------
    core
        The class that optgen has.
    theirs
        That of PyTorch, if PyTorch has this rule.
    parent
        Ours of the class from which `theirs` derives, if there is one.
    """
    compilation, module = compilation_of(core), module_of(core)
    names = torch_names(compilation.rules[0])
    if theirs is None:
        naming = _own_naming(compilation, module, names)
        return _class_of(core, naming, Adapter, __init__=_constructor(core, naming))
    settled = [flag for flag in naming_of(parent).flags if flag not in names] if parent is not Adapter else []
    strategy = TorchMatrixRule if compilation.rules[0].multiplies else TorchRule
    naming = _torch_naming(compilation, module, strategy(theirs, settled), names)
    return _class_of(core, naming, parent, theirs, __init__=_theirs_too(theirs))


def _class_of(core: type, naming: Naming, *bases: type[Optimizer], **attributes: Any) -> type[Adapter]:
    attributes |= {"__doc__": core.__doc__, "__module__": __package__, "_naming": naming}
    return type(core.__name__, bases, attributes)


def _torch_naming(
    compilation: Compilation, module: str | None, strategy: TorchRule, names: Mapping[str, str]
) -> Naming:
    """A group has PyTorch's keys, and others mean nothing."""
    rule = compilation.rules[0]
    hypers, flags, keys = _keys_of(rule, names)
    keys = [key for key in keys if key in strategy.arguments]
    states, meaning = torch_states(rule), MEANING.get(rule.name, {})
    return Naming(
        compilation, module, strategy, hypers, flags, states, {}, {}, (*keys, *strategy.flags), meaning
    )  # fmt: skip


def _own_naming(compilation: Compilation, module: str | None, names: Mapping[str, str]) -> Naming:
    """A group has PyTorch's keys where PyTorch has such a thing, and others may be spellings of these."""
    rule = compilation.rules[0]
    expect_attributes(rule)
    hypers, flags, keys = _keys_of(rule, names)
    states = {STEP: f"{STEP}_state"}  # a state that has the name of PyTorch's count
    absent = {key: value for key, value in ABSENT.items() if key not in names.values()}
    spelled = torch_spellings(rule, names)
    return Naming(compilation, module, OwnRule(), hypers, flags, states, spelled, absent, (*keys, *absent))


def _keys_of(rule: Rule, names: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """What groups call hyperparameters and flags, and those of them that a caller sets."""
    hypers = {hyper.name: names[hyper.name] for hyper in rule.hypers}
    flags = {flag.name: names[flag.name] for flag in rule.flags}
    return hypers, flags, [*hypers.values(), *(flags[flag.name] for flag in rule.flags if flag.when is None)]


@once
def of_spec(text: str, file: str) -> type[Adapter]:
    """The class of a spec that does not ship; the same one each time."""
    compilation = compile_text(text, file)
    made = adapted(module_class(compilation))
    revive_by(made, _of_spec, text, file)
    return made


def _of_spec(text: str, file: str) -> Adapter:
    cls = of_spec(text, file)
    return cls.__new__(cls)


def _theirs_too(theirs: type[Optimizer]) -> Callable[..., None]:
    """PyTorch's own constructor, which takes storages besides. ArgumentError for a schedule, at which it fails."""
    init: Callable[..., None] = theirs.__init__

    @wraps(init)
    def __init__(self: Adapter, *args: Any, **kwargs: Any) -> None:
        asked = {name: kwargs.pop(name) for name in STORING if name in kwargs}
        seeds: dict[str, float] = {}
        if asked:
            self._storing, seeds = chosen_storing(self._naming.name, self._naming.rules, self._naming.states, asked)
        try:
            init(self, *args, **kwargs)
        except TypeError:
            given = dict(zip(list(inspect.signature(theirs).parameters), args, strict=False)) | kwargs
            for name, value in given.items():
                if name != "params" and any(map(callable, value if isinstance(value, tuple | list) else [value])):
                    raise ArgumentError(f"{theirs.__name__}, {name}: {NO_SCHEDULE}", hint=SCHEDULERS) from None
            raise
        for each in (self.defaults, *self.param_groups) if seeds else ():
            each.update(seeds)

    signature = inspect.signature(init)
    also = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in STORING]
    __init__.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*signature.parameters.values(), *also]
    )
    return __init__


#: What classes for arrays of NumPy take, and those for tensors do not.
_OF_ARRAYS = ("self", "backend")


def _constructor(core: Any, naming: Naming) -> Callable[..., None]:
    """Of a rule of optgen's own: the parameters, then what its class takes, by the names that groups have."""
    names = {**naming.hypers, **naming.flags}
    taken = inspect.signature(core.__init__).parameters.values()
    own = [p for p in taken if p.name not in _OF_ARRAYS]
    theirs = [p.replace(name=names.get(p.name, p.name)) for p in own]
    first = inspect.Parameter("params", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    signature = inspect.Signature([first, *theirs])
    usual = {p.name: p.default for p in theirs}
    spelled = {new: old for old, new in names.items()}
    of_storing = [name for name in STORING if name not in naming.hypers.values()]  # a rule may have a seed of its own

    def __init__(self: Adapter, *args: Any, **kwargs: Any) -> None:
        kwargs = naming.spelled(kwargs, usual)
        expect_absent(naming, kwargs, naming.name)
        try:
            bound = signature.bind(*args, **{key: value for key, value in kwargs.items() if key not in naming.absent})
        except TypeError as error:
            raise ArgumentError(f"{type(self).__name__}: {error}", hint=f"{type(self).__name__}{signature}") from None
        given = dict(bound.arguments)
        params = given.pop("params")
        asked = {name: given.pop(name) for name in of_storing if name in given}
        defaults = defaults_of(core(**{spelled.get(k, k): v for k, v in given.items()}), naming)
        made = naming.fitted(defaults)
        if asked:
            self._storing, seeds = chosen_storing(naming.name, made.rules, naming.states, asked)
            defaults = {**seeds, **defaults}
        self._naming = made.stored(self._storing)
        Optimizer.__init__(self, params, defaults)

    __init__.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD), *signature.parameters.values()]
    )
    return __init__


def defaults_of(core: Any, naming: Naming) -> dict[str, Any]:
    """The hyperparameters and flags of an optimiser of optgen, as a group has them. ArgumentError for a schedule, which
    is a learning-rate scheduler's here."""
    defaults: dict[str, Any] = {}
    own = settings_of(core)
    for hyper in own.compilation.rules[0].hypers:
        values = own.values[hyper.name]
        if any(map(callable, values)):
            raise ArgumentError(f"{hyper.name}: {NO_SCHEDULE}", hint=SCHEDULERS)
        defaults[naming.hypers[hyper.name]] = values if hyper.vector else values[0]
    flags = {naming.flags[name]: value for name, value in own.flags.items() if name not in own.decided}
    return {**defaults, **flags, **naming.absent}


def _wrapped(params: Any, core: Chain) -> Adapter:
    """A chain of optgen, with its hyperparameters, for tensors of PyTorch."""
    made = _revived(core)
    Optimizer.__init__(made, params, defaults_of(core, naming_of(made)))
    return made


def _revived(core: Chain) -> Adapter:
    own = settings_of(core)
    assert isinstance(own, ChainSettings)
    storing = storing_of("chain", own.compilation.rules, own.chosen_storages, own.chosen_rounding)
    names = chain_names((part.rule, named) for part, named in zip(own.parts, own.named, strict=True))
    naming = replace(_own_naming(compilation_of(core), module_of(core), names), storing=storing)
    made: Adapter = object.__new__(_class_of(type(core), naming, Adapter))
    revive_by(made, _revived, core)
    return made
