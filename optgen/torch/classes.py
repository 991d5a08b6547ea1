"""Classes of optimisers for PyTorch, made from rules and from optimisers of optgen.

In: a compiled rule, or an optimiser. Out: a class that derives from `Adapter`; for PyTorch's own rules from PyTorch's
class too, whose constructor it keeps.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch.optim import Optimizer

from ..compiler.driver import Compilation, compile_file, compile_text
from ..errors import ArgumentError
from ..ir.torch_names import torch_names, torch_states
from ..once import once
from ..optimiser.base import settings_of
from ..optimiser.chain import chain as core_chain
from ..optimiser.classes import module_class
from .naming import STEP, Kind
from .optimizer import Adapter
from .param_groups import NO_SCHEDULE, SCHEDULERS
from .strategies import OwnRule, Strategy, TorchRule

__all__ = ["adapted", "chain", "load"]


def load(path: str | os.PathLike[str]) -> Any:
    """The optimiser class of the spec at `path`. SpecError lists all its faults."""
    compilation = compile_file(Path(path))
    return of_spec(compilation.text, compilation.file)


def chain(params: Any, *parts: Any) -> Adapter:
    """Several optimisers of optgen as one rule for these parameters, in one kernel: what `optgen.chain` makes of them.

    Raises what that raises.
    """
    if isinstance(params, type) or hasattr(params, "rule"):
        message = f"chain: the parameters were expected first, got {type(params).__name__}"
        raise ArgumentError(message, hint="chain(model.parameters(), optgen.ClipGlobalNorm(1.0), optgen.AdamW())")
    return _wrapped(params, core_chain(*parts))


def adapted(
    compilation: Compilation, module: str | None, theirs: type[Optimizer] | None, core: Any, name: str = ""
) -> type[Adapter]:
    """The class of a rule; `theirs` is PyTorch's, if PyTorch has this rule, `core` the class that optgen has."""
    rule = compilation.rules[0]
    hypers = torch_names(rule)
    attributes: dict[str, Any] = {"__doc__": core.__doc__, "__module__": __package__}
    strategy: Strategy
    if theirs is None:
        strategy = OwnRule()
        states = {STEP: f"{STEP}_state"}  # a state that has the name of PyTorch's count
        attributes["__init__"] = _constructor(core, hypers)
    else:
        strategy, states = TorchRule(theirs), torch_states(rule)
    keys = (*hypers.values(), *(flag.name for flag in rule.flags if flag.when is None), *strategy.flags)
    attributes["_kind"] = Kind(compilation, module, strategy, hypers, states, keys)
    return type(name or rule.name, (Adapter, *strategy.bases), attributes)


@once
def of_spec(text: str, file: str) -> type[Adapter]:
    """The class of a spec that does not ship; the same one each time."""
    compilation = compile_text(text, file)
    made = adapted(compilation, None, None, module_class(compilation))
    made._revival = (_of_spec, (text, file))
    return made


def _of_spec(text: str, file: str) -> Adapter:
    cls = of_spec(text, file)
    return cls.__new__(cls)


def _constructor(core: Any, hypers: Mapping[str, str]) -> Callable[..., None]:
    """Of a rule of optgen's own: the parameters, then what its class takes, by the names that groups have."""
    own = [p for p in inspect.signature(core.__init__).parameters.values() if p.name not in ("self", "backend")]
    theirs = [p.replace(name=hypers.get(p.name, p.name)) for p in own]
    first = inspect.Parameter("params", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    signature = inspect.Signature([first, *theirs])
    spelled = {new: old for old, new in hypers.items()}

    def __init__(self: Adapter, *args: Any, **kwargs: Any) -> None:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise ArgumentError(f"{type(self).__name__}: {error}", hint=f"{type(self).__name__}{signature}") from None
        given = dict(bound.arguments)
        params = given.pop("params")
        Optimizer.__init__(self, params, defaults_of(core(**{spelled.get(k, k): v for k, v in given.items()}), hypers))

    __init__.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD), *signature.parameters.values()]
    )
    return __init__


def defaults_of(core: Any, hypers: Mapping[str, str]) -> dict[str, Any]:
    """The hyperparameters and flags of an optimiser of optgen, as a group has them. ArgumentError for a schedule, which
    is a learning-rate scheduler's here."""
    defaults: dict[str, Any] = {}
    own = settings_of(core)
    for hyper in own.compilation.rules[0].hypers:
        values = own.values[hyper.name]
        if any(map(callable, values)):
            raise ArgumentError(f"{hyper.name}: {NO_SCHEDULE}", hint=SCHEDULERS)
        defaults[hypers[hyper.name]] = values if hyper.vector else values[0]
    return defaults | {name: value for name, value in own.flags.items() if name not in own.decided}


def _wrapped(params: Any, core: Any) -> Adapter:
    """An optimiser of optgen, with its hyperparameters, for tensors of PyTorch."""
    made = _revived(core)
    Optimizer.__init__(made, params, defaults_of(core, made._kind.hypers))
    return made


def _revived(core: Any) -> Adapter:
    cls = adapted(core._compilation, core._module, None, type(core), type(core).__name__)
    made: Adapter = cls.__new__(cls)
    made._revival = (_revived, (core,))
    return made
