"""The one adapter: any rule as a `torch.optim.Optimizer`. Parameters, gradients and states are tensors of PyTorch.

In: a compiled rule, and for PyTorch's own rules the class that PyTorch has for it, whose signature, errors, defaults
and states are then those of the adapter. What kernels cannot step (other dtypes than float32 and float64, sparse
gradients) goes through PyTorch's own loop where there is one, and else through the interpreter in float32.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, ClassVar

import numpy as np
import torch
from torch.optim.optimizer import Optimizer, _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from .. import interp
from ..driver import Compilation
from ..errors import ArgumentError, ArrayError, StateError
from ..host import Always, Steps, Values, evaluate
from ..ir import Extent, Rule
from .mesh import aligned, expect_whole, small_like
from .plan import Member, TensorPlan
from .tensors import DTYPES, local, memory, steppable

__all__ = ["Adapter", "adapted"]

#: What PyTorch calls a hyperparameter or a state that a spec calls otherwise.
_HYPERS = {"eta": "lr"}
_STATES = {"Adagrad": {"state_sum": "sum"}}
#: Rules whose states have no count in PyTorch: whether there has been a step shows in them.
_UNCOUNTED = {"SGD"}
STEP = "step"
_OF_ALL = "of_all_parameters"


class Adapter(Optimizer):
    """Base of all optimisers of `optgen.torch`, which are made from rules."""

    _compilation: ClassVar[Compilation]
    _module: ClassVar[str | None]
    _theirs: ClassVar[type[Optimizer] | None]  # PyTorch's class for the rule
    _hypers: ClassVar[dict[str, str]]  # by the name in the spec
    _keys: ClassVar[tuple[str, ...]]  # what of a group decides about a step
    _states: ClassVar[dict[str, str]]
    _core: Any = None  # the optimiser of optgen that this one was made from, where its class alone does not say

    # What is found out again after a copy or a pickle.
    _plan: TensorPlan | None = None
    _plans: dict[Any, TensorPlan] | None = None
    _raw: list[list[Any]] | None = None
    _sets: Sequence[Steps] = ()
    _variants: tuple[dict[bool, int], ...] = ()
    _group: dict[str, Any] | None = None

    # ---- Steps ----

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every parameter that has a gradient. Gives what `closure` gives, which is called first if there
        is one, to compute the loss and the gradients anew."""
        watched = self._optimizer_step_pre_hooks or self._optimizer_step_post_hooks
        watched = watched or _global_optimizer_pre_hooks or _global_optimizer_post_hooks
        if watched or torch.autograd._profiler_enabled():  # type: ignore[attr-defined]
            return self._watched(closure)
        return self._step(closure)

    step.hooked = True  # type: ignore[attr-defined]  # PyTorch need not wrap it once more

    def _step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        found, scale = getattr(self, "found_inf", None), getattr(self, "grad_scale", None)
        if found is not None and float(found):  # what a GradScaler has found
            return loss
        params = [p for group in self.param_groups for p in group["params"]]
        grads = [p.grad for p in params]
        if scale is not None:
            with torch.no_grad():
                torch._foreach_div_([g for g in grads if g is not None], float(scale))
        self._read_groups()
        plan = self._plan
        if plan is None or not plan.takes(params, grads, self.state):
            plan = self._plan_for(params, grads)
        if plan is not None:
            if plan.members:
                plan.run(self._sets, self.state, self._of_group())
            if plan.rest:
                self._step_rest([params[i] for i in plan.rest])
        return loss

    _watched = Optimizer.profile_hook_step(_step)

    def _read_groups(self) -> None:
        """The hyperparameters of each group, if any has changed: a set for float32, then one for float64."""
        raw = [[group[key] for key in self._keys] for group in self.param_groups]
        if self._raw is not None and raw == self._raw and not _tensors(raw):
            return
        sets: list[Steps] = []
        variants = []
        for group in self.param_groups:
            for dtype in (torch.float32, torch.float64):
                sets.append(Always(self._values(group, dtype)))
            variants.append(self._variants_of(group, sets[-1][1]))
        if tuple(variants) != self._variants:
            self._plan, self._plans = None, None
        self._raw, self._sets, self._variants = raw, sets, tuple(variants)

    def _values(self, group: Mapping[str, Any], dtype: torch.dtype) -> Values:
        """A None stands for the machine epsilon of the dtype, as in PyTorch's Adafactor."""
        eps = torch.finfo(dtype).eps
        values = {}
        for hyper in self._compilation.rules[0].hypers:
            given = group[self._hypers[hyper.name]]
            each = given if hyper.vector else (given,)
            values[hyper.name] = tuple(eps if x is None else float(x) for x in each)
        return values

    def _variants_of(self, group: Mapping[str, Any], values: Values) -> dict[bool, int]:
        flags = {}
        for flag in self._compilation.rules[0].flags:
            given = group.get(flag.name)
            if given is None:
                given = flag.default if flag.when is None else evaluate(flag.when, values, 0, {})
            flags[flag.name] = bool(given)
        return self._compilation.variants(flags)

    def _plan_for(self, params: Sequence[Any], grads: Sequence[Any]) -> TensorPlan | None:
        """A plan for the parameters that have a gradient; one of before, if it still fits."""
        key = tuple(g is not None for g in grads)
        plans = self._plans = self._plans or {}
        plan = plans.get(key)
        if plan is not None and plan.takes(list(params), list(grads), self.state):
            self._plan = plan
            return plan
        owners = [i for i, group in enumerate(self.param_groups) for _ in group["params"]]
        members, places, rest = [], [], []
        overwrites = any(rule.overwrites for rule in self._compilation.rules)
        pairs = enumerate(zip(params, grads, strict=True))
        grads = [g if g is None else aligned(p, g, i, overwrites) for i, (p, g) in pairs]
        for i, (p, g, own) in enumerate(zip(params, grads, owners, strict=True)):
            if g is not None and (steppable(p, g) or self._theirs is None):
                expect_whole(self._compilation.rules[self._variant(p, own, i)], p, i, steppable(p, g))
        for i, (p, g, own) in enumerate(zip(params, grads, owners, strict=True)):
            if g is None:
                continue
            if not steppable(p, g):
                self._expect_other_way(p, g, i)
                rest.append(i)
                continue
            variant = self._variant(p, own, i)
            rule = self._compilation.rules[variant]
            names = [self._states.get(name, name) for name in rule.tensor_states]
            which = 2 * own + (DTYPES[p.dtype] == "float64")
            before = self._begin(p, rule, self._sets[which][1], i)
            members.append(Member(p, g, variant, which, self.state[p], names, before))
            places.append(i)
        if not members and not rest:
            return None
        clocked = type(self).__name__ not in _UNCOUNTED
        plan = TensorPlan(self._compilation, self._module, members, places, rest, len(params), clocked)
        while len(plans) >= 16:
            del plans[next(iter(plans))]
        plans[key] = self._plan = plan
        return plan

    def _variant(self, p: torch.Tensor, own: int, i: int) -> int:
        found = self._variants[own].get(p.dim() >= 2)
        if found is None:
            name, shape = self._compilation.name, tuple(p.shape)
            message = f"{name} works on matrices, of two or more dimensions, got parameter {i} of shape {shape}"
            raise ArrayError(message, hint="step it with another optimiser")
        return found

    def _begin(self, p: torch.Tensor, rule: Rule, values: Values, i: int) -> int:
        """Gives a parameter the states that it lacks, and checks those that it has; how often it was stepped, as far as
        its states show."""
        kept = self.state[p]
        own = {state.name: state for state in rule.states if state.extent > Extent.GROUP}
        before = int(any(kept.get(self._states.get(name, name)) is not None for name in own))
        if p.is_complex() and any(Extent.TENSOR < s.extent < Extent.ELEMENT for s in own.values()):
            raise ArrayError(f"parameter {i}: {rule.name} does not support complex parameters")
        initial: dict[str, Any] = {}
        for name, state in own.items():
            key = self._states.get(name, name)
            small = state.extent < Extent.ELEMENT
            shape = interp.shape_of(state.extent, tuple(p.shape), rule.rows) if small else tuple(p.shape)
            given = kept.get(key)
            if given is None:
                if not initial:
                    initial = interp.initial_state(rule, values, memory(p))
                kept[key] = _new_state(p, shape if small else None, initial[name])
                continue
            if not isinstance(given, torch.Tensor) or tuple(given.shape) != shape:
                got = tuple(given.shape) if isinstance(given, torch.Tensor) else type(given).__name__
                raise StateError(f"parameter {i}: a state {key} of shape {shape} was expected, got {got}")
            if small and given.dtype is not torch.float64:
                kept[key] = given.double()
            elif not small and given.dtype is not p.dtype:
                raise StateError(f"parameter {i}: a state {key} of {p.dtype} was expected, got {given.dtype}")
        return before

    def _of_group(self) -> dict[str, Any]:
        """The states of all parameters together, begun with the first step."""
        if self._group is None:
            rule = self._compilation.rules[next(iter(self._variants[0].values()))]
            names = [state.name for state in rule.states if state.extent == Extent.GROUP]
            initial = interp.initial_state(rule, self._sets[0][1]) if names else {}
            self._group = {name: np.array(initial[name]) for name in names}
        return self._group

    # ---- What kernels do not step ----

    def _expect_other_way(self, p: torch.Tensor, g: torch.Tensor, i: int) -> None:
        """An error that says what to use, unless there is another way to step such a parameter."""
        p, g = local(p), local(g)
        if p.device.type != "cpu" or g.device.type != "cpu":
            device = (p if p.device.type != "cpu" else g).device
            name = self._theirs.__name__ if self._theirs else self._compilation.name
            hint = f"use torch.optim.{name} there" if self._theirs else "keep it and its gradient on the CPU"
            raise ArrayError(f"parameter {i} is on {device}: optgen steps on the CPU", hint=hint)
        if self._theirs is not None:
            return
        if g.layout is not torch.strided or p.layout is not torch.strided:
            raise ArrayError(f"parameter {i}: {self._compilation.name} does not support sparse gradients")
        if p.dtype not in (torch.bfloat16, torch.float16):
            kinds = "float32, float64, bfloat16, float16, complex64 or complex128"
            raise ArrayError(f"parameter {i}: {kinds} was expected, got {p.dtype}", hint="convert the model")
        if any(rule.grouped for rule in self._compilation.rules):
            message = f"parameter {i}: {self._compilation.name} reduces over all parameters, and takes no {p.dtype}"
            raise ArrayError(message, hint="keep the parameters in float32: autocast computes in less")

    def _step_rest(self, params: Sequence[torch.Tensor]) -> None:
        if self._theirs is None:
            with torch.no_grad():
                for p in params:
                    self._step_widened(p)
            return
        # PyTorch's own loop, over nothing but these.
        theirs = vars(self._theirs)["step"]
        theirs = theirs.__wrapped__ if getattr(theirs, "hooked", False) else theirs
        here, chosen = self.param_groups, set(map(id, params))
        one_by_one: dict[str, Any] = {key: False for key in ("foreach", "fused") if key in self.defaults}
        self.param_groups = [
            {**group, "params": [p for p in group["params"] if id(p) in chosen], **one_by_one} for group in here
        ]
        try:
            theirs(self)
        finally:
            self.param_groups = here

    def _step_widened(self, p: torch.Tensor) -> None:
        """One step of a parameter of 16 bits: computed in float32 by the interpreter, rounded once, states too."""
        own = next(i for i, group in enumerate(self.param_groups) if any(q is p for q in group["params"]))
        values = self._sets[2 * own][1]
        rule = self._compilation.rules[self._variant(p, own, 0)]
        kept = self.state[p]
        count = int(kept.get(STEP, 0)) + 1
        wide = local(p).float()
        elements = {s.name: s for s in rule.states}
        if not kept:
            initial = interp.initial_state(rule, values, memory(wide))
            for name, state in elements.items():
                small = state.extent < Extent.ELEMENT
                shape = interp.shape_of(state.extent, tuple(p.shape), rule.rows) if small else None
                kept[self._states.get(name, name)] = _new_state(p, shape, initial[name])
        tensors = {name: local(kept[self._states.get(name, name)]) for name in elements}
        # float64 stays what it is, in place.
        arrays = {name: memory(x if x.dtype is torch.float64 else x.float()) for name, x in tensors.items()}
        arrays |= {"p": memory(wide), "g": memory(local(aligned(p, p.grad, 0, False)).float())}
        interp.step(rule, values, count, arrays)
        for name, x in tensors.items():
            x.copy_(torch.from_numpy(arrays[name]))
        local(p).copy_(torch.from_numpy(arrays["p"]))
        kept[STEP] = torch.tensor(float(count))

    # ---- States ----

    def state_dict(self) -> dict[str, Any]:
        """As PyTorch's: the states of each parameter by its number, and the groups; with the name of the rule."""
        saved = super().state_dict() | {"rule": self._compilation.name}
        if self._group:
            saved["group"] = {name: float(value) for name, value in self._group.items()}
            for group in saved["param_groups"]:  # a distributed checkpoint has room for nothing else
                group[_OF_ALL] = saved["group"]
        return saved

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over what `state_dict` gave, here or by PyTorch's optimiser of the same rule.

        StateError if it is of another rule, or does not fit a parameter: its name, where both sides have names, its
        states, their shapes and dtypes. Then nothing has changed.
        """
        self._expect_fit(state_dict)
        super().load_state_dict(state_dict)
        params = [p for group in self.param_groups for p in group["params"]]
        order = [i for group in state_dict["param_groups"] for i in group["params"]]
        small = {self._states.get(s.name, s.name) for rule in self._compilation.rules for s in rule.small_states}
        for p, i in zip(params, order, strict=True):
            for name, value in state_dict["state"].get(i, {}).items():
                if name in small:  # which PyTorch rounds to the dtype of the parameter
                    self.state[p][name] = value.detach().double().clone()
        kept = [group.pop(_OF_ALL, None) for group in self.param_groups]
        group = state_dict.get("group", kept[0])
        self._group = {name: np.array(value) for name, value in group.items()} if group else None
        self._plan = self._plans = self._raw = None

    def _expect_fit(self, saved: Mapping[str, Any]) -> None:
        name = self._compilation.name
        if saved.get("rule", name) != name:
            raise StateError(f"a state of {name} was expected, got one of {saved['rule']}")
        known = {self._states.get(s.name, s.name) for rule in self._compilation.rules for s in rule.states} | {STEP}
        kinds = {s.name: s for rule in self._compilation.rules for s in rule.states}
        named = {self._states.get(n, n): s for n, s in kinds.items()}
        for group, other in zip(self.param_groups, saved["param_groups"], strict=False):
            names, theirs = group.get("param_names"), other.get("param_names")
            for i, (p, q) in enumerate(zip(group["params"], other["params"], strict=False)):
                what = f"parameter {names[i]}" if names else f"parameter {q}"
                if names and theirs and names[i] != theirs[i]:
                    message = f"{what}: a state of that name was expected, got one of {theirs[i]}"
                    raise StateError(message, hint="give the parameters in the order in which they were saved")
                for key, value in saved["state"].get(q, {}).items():
                    if key not in known:
                        raise StateError(f"{what}: {name} has no state {key!r}; is this of another rule?")
                    if not isinstance(value, torch.Tensor) or key == STEP:
                        continue
                    state = named[key]
                    shape = interp.shape_of(state.extent, tuple(p.shape), self._compilation.rules[0].rows)
                    if tuple(value.shape) != shape:
                        message = f"{what}: {key} of shape {shape} was expected, got {tuple(value.shape)}"
                        raise StateError(message, hint="give the parameters in the order in which they were saved")
                    if state.extent == Extent.ELEMENT and value.dtype is not p.dtype:
                        message = f"{what}: {key} of {p.dtype} was expected, got {value.dtype}"
                        raise StateError(message, hint="convert the saved state, or the model, first")

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._plan = self._plans = self._raw = None

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        self._plan = self._plans = self._raw = None

    def __reduce_ex__(self, protocol: Any) -> Any:
        if self._core is None:
            return super().__reduce_ex__(protocol)
        return _revived, (self._core,), self.__getstate__()


def _tensors(raw: Iterable[Iterable[Any]]) -> bool:
    """Whether a tensor is among the values, which may have changed where it stands."""
    return any(isinstance(x, torch.Tensor) for values in raw for v in values for x in (v if type(v) is tuple else (v,)))


def _new_state(p: torch.Tensor, shape: tuple[int, ...] | None, value: Any) -> torch.Tensor:
    """A state filled with a number or an array: laid out as the parameter is, or small, of this shape and float64."""
    if shape is not None:
        return small_like(p, shape, float(value))
    with torch.no_grad():
        made = torch.zeros_like(p, memory_format=torch.preserve_format)
        if isinstance(value, float):
            if value:
                made.fill_(value)
        else:
            memory(made)[...] = value
    return made


# ---- Classes ----


def adapted(
    compilation: Compilation, module: str | None, theirs: type[Optimizer] | None, core: Any, name: str = ""
) -> type[Adapter]:
    """The class of a rule; `theirs` is PyTorch's, if PyTorch has this rule, `core` the class that optgen has."""
    rule = compilation.rules[0]
    hypers = {hyper.name: _HYPERS.get(hyper.name, hyper.name) for hyper in rule.hypers}
    keys = (*hypers.values(), *(flag.name for flag in rule.flags if flag.when is None))
    attributes: dict[str, Any] = {
        "_compilation": compilation, "_module": module, "_theirs": theirs, "_hypers": hypers, "_keys": keys,
        "_states": _STATES.get(rule.name, {}), "__doc__": core.__doc__, "__module__": "optgen.torch",
    }  # fmt: skip
    if theirs is None:
        attributes["__init__"] = _constructor(core, hypers, keys)
    bases = (Adapter,) if theirs is None else (Adapter, theirs)
    return type(name or rule.name, bases, attributes)


def _constructor(core: Any, hypers: Mapping[str, str], keys: Sequence[str]) -> Callable[..., None]:
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
    for hyper in core._compilation.rules[0].hypers:
        values = core._values[hyper.name]
        if any(map(callable, values)):
            message = f"{hyper.name}: a number was expected, got a schedule"
            raise ArgumentError(message, hint="use one of torch.optim.lr_scheduler")
        defaults[hypers[hyper.name]] = values if hyper.vector else values[0]
    decided = core._decided
    return defaults | {k: v for k, v in core._flags.items() if k not in decided}


def wrapped(params: Any, core: Any) -> Adapter:
    """An optimiser of optgen, with its hyperparameters, for tensors of PyTorch."""
    made = _revived(core)
    Optimizer.__init__(made, params, defaults_of(core, made._hypers) if not hasattr(core, "parts") else {
        made._hypers[h.name]: core._values[h.name] if h.vector else core._values[h.name][0]
        for h in core._compilation.rules[0].hypers
    })  # fmt: skip
    return made


def _revived(core: Any) -> Adapter:
    cls = adapted(core._compilation, core._module, None, type(core), type(core).__name__)
    made: Adapter = cls.__new__(cls)
    made._core = core
    return made


def all_params(optimiser: Optimizer) -> list[torch.Tensor]:
    return list(chain.from_iterable(group["params"] for group in optimiser.param_groups))
