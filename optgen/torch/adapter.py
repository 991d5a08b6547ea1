"""The one adapter: any rule as a `torch.optim.Optimizer`. Parameters, gradients and states are tensors of PyTorch.

In: a compiled rule, and for PyTorch's own rules the class that PyTorch has for it, whose signature, errors, defaults
and states are then those of the adapter. What kernels cannot step (other dtypes than float32 and float64, sparse
gradients) goes through PyTorch's own loop where there is one, and else through the interpreter in float32.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
from torch.optim.optimizer import Optimizer, _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from .. import interp
from ..constants import vanishing
from ..driver import Compilation, compile_text, module_class
from ..emit.text import expression
from ..errors import ArgumentError, ArrayError, HyperparameterError, StateError
from ..host import Always, Steps, Values, evaluate
from ..hyperparameters import checked
from ..ir import GRADIENT, Call, Expr, Extent, Hyper, Local, Rule, Scalar, State, extent_of, walk
from .mesh import aligned, expect_whole, small_like
from .plan import Member, TensorPlan, accepted
from .tensors import DTYPES, count_dtype, increment_version, local, memory, steppable, wide

__all__ = ["Adapter", "adapted", "of_spec", "wrapped"]

#: What PyTorch calls a hyperparameter or a state that a spec calls otherwise.
_HYPERS = {"eta": "lr"}
_STATES = {"Adagrad": {"state_sum": "sum"}}
#: Rules whose states have no count in PyTorch: whether there has been a step shows in them.
_UNCOUNTED = {"SGD"}
STEP = "step"
_OF_ALL = "of_all_parameters"
#: Flags of PyTorch's rules that say how a step is computed; those with which it does so itself.
_HOW = frozenset({"foreach", "fused", "capturable", "differentiable"})
_OWN_WAYS = ("capturable", "differentiable")
_NO_SCHEDULE = "a number was expected, got a schedule"
_SCHEDULERS = "use one of torch.optim.lr_scheduler"


class Adapter(Optimizer):
    """Base of all optimisers of `optgen.torch`, which are made from rules."""

    param_groups: list[dict[str, Any]]

    _compilation: ClassVar[Compilation]
    _module: ClassVar[str | None]
    _theirs: ClassVar[type[Optimizer] | None]  # PyTorch's class for the rule
    _hypers: ClassVar[dict[str, str]]  # by the name in the spec
    _keys: ClassVar[tuple[str, ...]]  # what of a group decides about a step
    _states: ClassVar[dict[str, str]]
    _source: ClassVar[tuple[str, str] | None]  # the text and the file of a spec that does not ship
    _core: Any = None  # the optimiser of optgen that this one was made from, where its class alone does not say

    # What is found out again after a copy or a pickle.
    _plan: TensorPlan | None = None
    _plans: dict[Any, TensorPlan] | None = None
    _raw: list[list[Any]] | None = None
    _sets: Sequence[Steps] = ()
    _variants: tuple[dict[bool, int] | None, ...] = ()  # None for a group that PyTorch's own loop steps
    _group: dict[str, Any] | None = None  # the states of all parameters together

    # ---- Steps ----

    @torch._disable_dynamo  # torch.compile leaves it as it is
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every parameter that has a gradient. Gives what `closure` gives, which is called first if there
        is one, to compute the loss and the gradients anew."""
        watched = self._optimizer_step_pre_hooks or self._optimizer_step_post_hooks
        watched = watched or _global_optimizer_pre_hooks or _global_optimizer_post_hooks
        watched = watched or torch.autograd._profiler_enabled()
        # A class that overrides `step` has been wrapped by PyTorch: there the hooks are called already.
        if watched and type(self).step is Adapter.step:
            return self._watched(closure)
        return self._step(closure)

    step.hooked = True  # PyTorch need not wrap it once more

    def _step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        found, scale = getattr(self, "found_inf", None), getattr(self, "grad_scale", None)
        if found is not None and float(found):  # what a GradScaler has found
            return loss
        params: list[torch.Tensor] = []
        for group in self.param_groups:
            params += group["params"]
        grads = [p.grad for p in params]
        if scale is not None:
            with torch.no_grad():
                torch._foreach_div_([g for g in grads if g is not None], float(scale))
        self._read_groups()
        plan = self._plan
        if plan is None or not plan.takes(params, grads, self.state):
            plan = self._plan_for(params, grads)
        if plan is not None:
            if plan.rest:  # first: what PyTorch refuses is refused before anything has changed
                self._step_rest(params, plan.rest)
            if plan.members and not plan.run(self._sets, self.state, self._of_group()):
                self._leave_gradients(params, grads)
        return loss

    _watched = Optimizer.profile_hook_step(_step)

    def _leave_gradients(self, params: Sequence[Any], grads: Sequence[Any]) -> None:
        """After a step that does not count: gradients are left as the rule leaves them, in any case."""
        owners = self._owners()
        for i, (p, g) in enumerate(zip(params, grads, strict=True)):
            if g is None:
                continue
            for assign in self._compilation.rules[self._variant(p, owners[i], i)].body:
                if assign.target == GRADIENT:
                    with torch.no_grad():
                        g.fill_(evaluate(assign.value, self._sets[0][1], 0, {}))

    # ---- Hyperparameters ----

    def _read_groups(self) -> None:
        """The hyperparameters of each group, if any has changed: a set for float32, then one for float64."""
        raw = [[group[key] for key in self._keys] for group in self.param_groups]
        if self._raw is not None and raw == self._raw and not _tensors(raw):
            return
        raw = [[tuple(x) if type(x) is list else x for x in each] for each in raw]
        sets: list[Steps] = []
        variants: list[dict[bool, int] | None] = []
        for i, group in enumerate(self.param_groups):
            for dtype in (torch.float32, torch.float64):
                sets.append(Always(self._values(group, dtype, i)))
            own_way = self._theirs is not None and any(group.get(flag) for flag in _OWN_WAYS)
            variants.append(None if own_way else self._variants_of(group, sets[-1][1]))
            if self._theirs is None:
                self._refuse_vanishing(group, sets[-2:], variants[-1], i)
        if len(self.param_groups) > 1:
            self._refuse_different(sets)
        if tuple(variants) != self._variants:
            self._plan, self._plans = None, None
        self._raw, self._sets, self._variants = raw, sets, tuple(variants)

    def _values(self, group: Mapping[str, Any], dtype: torch.dtype, i: int) -> Values:
        """A None stands for the machine epsilon of the dtype, as in PyTorch's Adafactor."""
        eps = torch.finfo(dtype).eps
        values = {}
        for hyper in self._compilation.rules[0].hypers:
            given = group[self._hypers[hyper.name]]
            each = given if hyper.vector else (given,)
            found = tuple(eps if x is None else _number(x) for x in each)
            if self._theirs is None:  # PyTorch looks at its own when the optimiser is made, and never again
                self._expect_value(hyper, found if hyper.vector else found[0], i)
            values[hyper.name] = found
        return values

    def _expect_value(self, hyper: Hyper, value: Any, i: int) -> None:
        """HyperparameterError or ArgumentError unless a group may have such a value."""
        where = f"{self._compilation.name}, group {i}, {self._hypers[hyper.name]}"
        try:
            values = checked(hyper, value)
        except (HyperparameterError, ArgumentError) as error:
            raise type(error)(f"{where}: {error.message}", hint=error.hint) from None
        if any(map(callable, values)):
            raise ArgumentError(f"{where}: {_NO_SCHEDULE}", hint=_SCHEDULERS)

    def _variants_of(self, group: Mapping[str, Any], values: Values) -> dict[bool, int]:
        flags = {}
        for flag in self._compilation.rules[0].flags:
            given = group.get(flag.name)
            if given is None:
                given = flag.default if flag.when is None else evaluate(flag.when, values, 0, {})
            flags[flag.name] = bool(given)
        return self._compilation.variants(flags)

    def _refuse_vanishing(
        self, group: Mapping[str, Any], sets: Sequence[Steps], variants: Mapping[bool, int] | None, i: int
    ) -> None:
        """HyperparameterError if a constant of the rule is not zero, but would be in the dtype of a parameter."""
        constants = [self._compilation.constants[place] for place in set((variants or {}).values())]
        dtypes = {DTYPES.get(p.dtype, "float32") for p in group["params"]}
        for dtype, steps in zip(("float32", "float64"), sets, strict=True):
            if dtype in dtypes and (found := vanishing(constants, steps[1], dtype)):
                message = f"{self._compilation.name}, group {i}: {expression(found[0])} = {found[1]:g} would be 0"
                raise HyperparameterError(f"{message} in {dtype}", hint="take a larger value, or parameters of float64")

    def _refuse_different(self, sets: Sequence[Steps]) -> None:
        """ArgumentError if groups differ in a value that a rule needs once for all parameters."""
        for name in _of_all(self._compilation.rules):
            first = sets[0][1][name]
            for i in range(1, len(self.param_groups)):
                if sets[2 * i][1][name] != first:
                    key, (one, other) = self._hypers[name], (_shown(first), _shown(sets[2 * i][1][name]))
                    message = f"{self._compilation.name}: {key} is one for all parameters, got {one} in group 0"
                    hint = f"give all groups the same {key}, or make an optimiser for each"
                    raise ArgumentError(f"{message} and {other} in group {i}", hint=hint)

    # ---- Plans ----

    def _plan_for(self, params: Sequence[Any], grads: Sequence[Any]) -> TensorPlan | None:
        """A plan for the parameters that have a gradient; one of before, if it still fits."""
        key = tuple(g is not None for g in grads)
        plans = self._plans = self._plans or {}
        plan = plans.get(key)
        if plan is not None and plan.takes(list(params), list(grads), self.state):
            self._plan = plan
            return plan
        owners = self._owners()
        rules = self._compilation.rules
        overwrites = any(rule.overwrites for rule in rules)
        grads = [
            g if g is None else aligned(p, g, i, overwrites)
            for i, (p, g) in enumerate(zip(params, grads, strict=True))
        ]
        places: list[int] = []
        rest: list[int] = []
        for i, (p, g) in enumerate(zip(params, grads, strict=True)):
            if g is not None:
                (places if self._takes(p, g, owners[i], i) else rest).append(i)
        if not places and not rest:
            return None
        if rest and self._theirs is None and any(rule.grouped for rule in self._compilation.rules):
            places, rest = [], sorted([*places, *rest])  # what depends on all parameters is computed at once
        for i in places if self._theirs is not None else sorted([*places, *rest]):
            expect_whole(rules[self._variant(params[i], owners[i], i)], params[i], i, i in places)
        # All that may be refused is, before any parameter is given a state.
        found = [(i, self._variant(params[i], owners[i], i)) for i in places]
        for i, variant in found:
            self._expect_states(params[i], self._compilation.rules[variant], i)
        taken = accepted([params[i] for i in places], [grads[i] for i in places], overwrites=overwrites)
        clocked = self._compilation.name not in _UNCOUNTED
        members = []
        for i, variant in found:
            p, rule, which = params[i], self._compilation.rules[variant], self._set_of(params[i], owners[i])
            names = [self._states.get(name, name) for name in rule.tensor_states]
            before = self._begin(p, rule, self._sets[which][1])
            kept = self.state[p] if names or clocked else {}  # PyTorch has no entry then
            members.append(Member(p, grads[i], variant, which, kept, names, before))
        plan = TensorPlan(self._compilation, self._module, members, taken, places, rest, params, grads, clocked)
        while len(plans) >= 16 + len(params):
            del plans[next(iter(plans))]
        plans[key] = self._plan = plan
        return plan

    def _owners(self) -> list[int]:
        """Of each parameter, the number of its group."""
        return [i for i, group in enumerate(self.param_groups) for _ in group["params"]]

    def _takes(self, p: torch.Tensor, g: torch.Tensor, own: int, i: int) -> bool:
        """Whether kernels step such a parameter; if not, it is an error unless there is another way."""
        rules = self._compilation.rules
        by_kernel = steppable(p, g) and self._variants[own] is not None
        if p.is_complex() and any(rule.tiled for rule in rules):  # which would take the two parts for a dimension
            if self._theirs is None:
                message = f"{self._what(i)}: {self._compilation.name} does not support complex parameters"
                raise ArrayError(message, hint="step it with another optimiser")
            by_kernel = False
        if p.is_inference() and not torch.is_inference_mode_enabled():
            message = f"{self._what(i)} was made in inference mode: it cannot be updated outside of it"
            raise ArrayError(message, hint="make the model outside of torch.inference_mode(), or give p.clone()")
        if not by_kernel:
            self._expect_other_way(p, g, i)
        return by_kernel

    def _what(self, i: int) -> str:
        """What parameter i, counted over all groups, is called in messages."""
        names = [name for group in self.param_groups for name in group.get("param_names", ())]
        return f"parameter {i} ({names[i]})" if names else f"parameter {i}"

    def _set_of(self, p: torch.Tensor, own: int) -> int:
        return 2 * own + (DTYPES.get(p.dtype) == "float64")

    def _variant(self, p: torch.Tensor, own: int, i: int) -> int:
        found = (self._variants[own] or {}).get(p.dim() >= 2)
        if found is None:
            name, shape = self._compilation.name, tuple(p.shape)
            message = f"{name} works on matrices, of two or more dimensions, got {self._what(i)} of shape {shape}"
            raise ArrayError(message, hint="step it with another optimiser")
        return found

    def _own_states(self, rule: Rule) -> Iterator[tuple[State, str]]:
        """The states that each parameter has, and what they are called here."""
        for state in rule.states:
            if state.extent > Extent.GROUP:
                yield state, self._states.get(state.name, state.name)

    def _expect_states(self, p: torch.Tensor, rule: Rule, i: int) -> None:
        """StateError unless the states that a parameter has fit."""
        kept = self.state.get(p, {})
        for state, key in self._own_states(rule):
            given = kept.get(key)
            if given is not None:
                shape = interp.shape_of(state.extent, tuple(p.shape), rule.rows)
                self._expect_state(f"{self._what(i)}: its state {key}", state, given, shape, p.dtype)

    def _expect_state(self, what: str, state: State, given: Any, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        if not isinstance(given, torch.Tensor) or tuple(given.shape) != shape:
            got = f"shape {tuple(given.shape)}" if isinstance(given, torch.Tensor) else type(given).__name__
            message = f"{what}: shape {shape} was expected, got {got}"
            raise StateError(message, hint="give the parameters in the order in which they were saved")
        if given.layout is not torch.strided or given.device.type != "cpu":
            raise StateError(f"{what}: a dense tensor on the CPU was expected, got {given.layout} on {given.device}")
        if state.extent == Extent.ELEMENT and given.dtype is not dtype:
            hint = "convert the state, or the model, first"
            raise StateError(f"{what}: {dtype}, as the parameter, was expected, got {given.dtype}", hint=hint)

    def _begin(self, p: torch.Tensor, rule: Rule, values: Values) -> int:
        """Gives a parameter the states that it lacks; how often it was stepped, as far as its states show."""
        own = list(self._own_states(rule))
        if not own:
            return 0
        kept = self.state[p]
        before = int(any(kept.get(key) is not None for _, key in own))
        initial: dict[str, Any] = {}
        for state, key in own:
            small = state.extent < Extent.ELEMENT
            given = kept.get(key)
            if given is None:
                initial = initial or interp.initial_state(rule, values, memory(wide(p)))
                shape = interp.shape_of(state.extent, tuple(p.shape), rule.rows) if small else None
                kept[key] = _new_state(p, shape, initial[state.name])
            elif small and given.dtype is not torch.float64:
                kept[key] = given.double()
        return before

    def _of_group(self) -> dict[str, Any]:
        """The states of all parameters together, begun with the first step."""
        if self._group is None:
            rule = self._compilation.rules[0]
            names = [state.name for state in rule.states if state.extent == Extent.GROUP]
            initial = interp.initial_state(rule, self._sets[0][1]) if names else {}
            self._group = {name: np.array(initial[name]) for name in names}
        return self._group

    # ---- What kernels do not step ----

    def _expect_other_way(self, p: torch.Tensor, g: torch.Tensor, i: int) -> None:
        """An error that says what to use, unless there is another way to step such a parameter."""
        p, g, name = local(p), local(g), self._compilation.name
        if p.device.type != "cpu" or g.device.type != "cpu":
            device = (p if p.device.type != "cpu" else g).device
            hint = (
                f"use torch.optim.{self._theirs.__name__} there, which takes the same state_dict"
                if self._theirs
                else "keep it and its gradient on the CPU"
            )
            raise ArrayError(f"{self._what(i)} is on {device}: optgen steps on the CPU", hint=hint)
        if p.dtype not in (*DTYPES, torch.bfloat16, torch.float16):
            kinds = "float32, float64, bfloat16, float16, complex64 or complex128"
            message = f"{self._what(i)}: a parameter of {kinds} was expected, got {p.dtype}"
            raise ArrayError(message, hint="convert the model, or leave the parameter out")
        if self._theirs is not None:
            return
        if g.layout is not torch.strided or p.layout is not torch.strided:
            message = f"{self._what(i)}: {name} does not support sparse gradients"
            raise ArrayError(message, hint="make them dense, or use optgen.torch.SGD or Adagrad for this parameter")
        if g.dtype is not p.dtype:
            raise ArrayError(f"{self._what(i)}: a gradient of {p.dtype} was expected, got {g.dtype}")

    def _step_rest(self, params: Sequence[torch.Tensor], places: Sequence[int]) -> None:
        if self._theirs is None:
            self._interpret(params, places)
            return
        # PyTorch's own loop, over nothing but these.
        theirs: Any = self._theirs.step
        theirs = theirs.__wrapped__ if getattr(theirs, "hooked", False) else theirs
        here = self.param_groups
        chosen = {id(params[i]) for i in places}
        one_by_one: dict[str, Any] = {key: False for key in ("foreach", "fused") if key in self.defaults}
        self.param_groups = [
            {**group, "params": [p for p in group["params"] if id(p) in chosen], **one_by_one} for group in here
        ]
        try:
            theirs(self)
        finally:
            self.param_groups = here

    @torch.no_grad()
    def _interpret(self, params: Sequence[torch.Tensor], places: Sequence[int]) -> None:
        """One step by the interpreter. What has 16 bits is computed in float32 and rounded once, states too."""
        owners = self._owners()
        chosen = [(params[i], self._variant(params[i], owners[i], i), self._set_of(params[i], owners[i]), i)
                  for i in places]  # fmt: skip
        for p, variant, _, i in chosen:
            self._expect_states(p, self._compilation.rules[variant], i)
        tensors, narrow, highest = [], [], 1
        for p, variant, which, i in chosen:
            rule, values = self._compilation.rules[variant], self._sets[which][1]
            self._begin(p, rule, values)
            kept = self.state[p]
            t = int(kept.get(STEP, 0)) + 1
            highest = max(highest, t)
            named = {"p": p, "g": aligned(p, p.grad, i, False)}
            named |= {state.name: kept[key] for state, key in self._own_states(rule)}
            arrays = {}
            for name, x in named.items():
                x = local(x)
                in_place = wide(x.resolve_conj().resolve_neg())
                arrays[name] = memory(in_place)
                if in_place is not x and name in rule.stores | {"p"}:
                    narrow.append((x, in_place))
            tensors.append((rule, values, interp.Tensor(t, arrays)))
        counts = interp.step_group(tensors, self._of_group(), self._sets[0][1], highest)
        for x, in_place in narrow:
            x.copy_(in_place)
        if counts:
            increment_version([p for p, *_ in chosen])
            for (p, *_), (_, _, tensor) in zip(chosen, tensors, strict=True):
                self.state[p][STEP] = torch.tensor(float(tensor.t), dtype=count_dtype())

    # ---- States ----

    def state_dict(self) -> dict[str, Any]:
        """As PyTorch's: the states of each parameter by its number, and the groups; with the name of the rule."""
        saved: dict[str, Any] = super().state_dict()
        saved = {**saved, "rule": self._compilation.name}
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
        taken: list[dict[str, Any]] = []

        def expect(_: Any, saved: dict[str, Any]) -> None:  # what the caller's own hooks have made of it
            self._expect_fit(saved)
            taken.append(saved)

        def keep(_: Any) -> None:
            self._keep_whole(taken[-1])

        handles = [
            self.register_load_state_dict_pre_hook(expect), self.register_load_state_dict_post_hook(keep, prepend=True)
        ]  # fmt: skip
        try:
            super().load_state_dict(state_dict)
        finally:
            for handle in handles:
                handle.remove()

    def _keep_whole(self, saved: Mapping[str, Any]) -> None:
        """After a load: the states that PyTorch rounds to the dtype of the parameter, and those of all parameters."""
        params = [p for group in self.param_groups for p in group["params"]]
        order = [i for group in saved["param_groups"] for i in group["params"]]
        small = {self._states.get(s.name, s.name) for rule in self._compilation.rules for s in rule.small_states}
        for p, i in zip(params, order, strict=True):
            for name, value in saved["state"].get(i, {}).items():
                if name in small and p.dtype in DTYPES and isinstance(value, torch.Tensor):
                    self.state[p][name] = value.detach().to("cpu", torch.float64, copy=True)
        kept = [group.pop(_OF_ALL, None) for group in self.param_groups]
        group = saved.get("group", kept[0])
        self._group = {name: np.array(value) for name, value in group.items()} if group else None
        self._forget()

    def _expect_fit(self, saved: Mapping[str, Any]) -> None:
        """StateError unless a saved state is of this rule, and of these parameters."""
        name, groups = self._compilation.name, saved["param_groups"]
        if saved.get("rule", name) != name:
            raise StateError(f"a state of {name} was expected, got one of {saved['rule']}")
        sizes, theirs = [len(g["params"]) for g in self.param_groups], [len(g["params"]) for g in groups]
        if len(theirs) != len(sizes):
            message = f"loaded state dict has a different number of parameter groups: {len(theirs)}, not {len(sizes)}"
            raise StateError(message, hint="make the optimiser with the groups that it was saved with")
        for i, (size, other) in enumerate(zip(sizes, theirs, strict=True)):
            if size != other:
                theirs_say = "contains a parameter group that doesn't match the size of optimizer's group"
                raise StateError(f"loaded state dict {theirs_say}: group {i} has {size} parameters, got {other}")
        for i, group in enumerate(groups):
            self._expect_rule(group, i)
        named = {key: state for rule in self._compilation.rules for state, key in self._own_states(rule)}
        number = 0
        for group, other in zip(self.param_groups, groups, strict=True):
            names, saved_names = group.get("param_names"), other.get("param_names")
            for j, (p, q) in enumerate(zip(group["params"], other["params"], strict=True)):
                what = self._what(number)
                number += 1
                if names and saved_names and names[j] != saved_names[j]:
                    message = f"{what}: a state of that name was expected, got one of {saved_names[j]}"
                    raise StateError(message, hint="give the parameters in the order in which they were saved")
                for key, value in saved["state"].get(q, {}).items():
                    if key == STEP or value is None:
                        continue
                    if key not in named:
                        raise StateError(f"{what}: {name} has no state {key!r}; is this of another rule?")
                    shape = interp.shape_of(named[key].extent, tuple(p.shape), self._compilation.rules[0].rows)
                    given = value.cpu() if isinstance(value, torch.Tensor) else value
                    self._expect_state(f"{what}: {key}", named[key], given, shape, p.dtype)

    def _expect_rule(self, saved: Mapping[str, Any], i: int) -> None:
        """StateError if a saved group has not the hyperparameters of this rule, or those of another one."""
        name, own = self._compilation.name, set(self._hypers.values())
        absent = [key for key in own if key not in saved]
        if absent:
            raise StateError(f"group {i}: {name} has {absent[0]!r}, and the saved one has not; is it of another rule?")
        if self._theirs is None:
            return
        foreign = [key for key in saved if key in _arguments_of_pytorch() and key not in self.defaults]
        if foreign:
            raise StateError(f"group {i}: {name} has no {foreign[0]!r}; is this of another rule?")
        # A flag of PyTorch's class that is no choice here, such as that which makes an Adam an AdamW.
        for key, value in self.defaults.items():
            fixed = isinstance(value, bool) and key not in self._keys and key not in _HOW
            if fixed and saved.get(key, value) != value:
                raise StateError(f"group {i}: {key}={value} was expected of {name}, got {saved[key]}")

    def _forget(self) -> None:
        """Looks at everything anew in the next step."""
        self._plan = self._plans = self._raw = None

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        return state | {"_group": self._group} if self._group else state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._forget()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As PyTorch's; a hyperparameter out of its range is a HyperparameterError."""
        if self._theirs is None and isinstance(param_group, dict):
            for hyper in self._compilation.rules[0].hypers:
                value = param_group.get(self._hypers[hyper.name], 0.0 if not hyper.vector else None)
                if self._hypers[hyper.name] in param_group and not _tensors([[value]]):
                    self._expect_value(hyper, value, len(self.param_groups))
        super().add_param_group(param_group)
        self._forget()

    def __reduce_ex__(self, protocol: Any) -> Any:
        if self._core is not None:
            return _revived, (self._core,), self.__getstate__()
        source = vars(type(self)).get("_source")
        if source is not None:  # a class that no module has under its name
            return _of_spec, source, self.__getstate__()
        return super().__reduce_ex__(protocol)


def _number(x: Any) -> float:
    return float(x.detach() if isinstance(x, torch.Tensor) else x)


def _shown(values: tuple[float, ...]) -> str:
    return str(values[0] if len(values) == 1 else values)


@cache
def _of_all(rules: tuple[Rule, ...]) -> tuple[str, ...]:
    """The hyperparameters of which a value is made that all parameters have together."""
    found: set[str] = set()
    for rule in rules:
        known = {assign.target: assign.value for assign in (*rule.scalars, *rule.body)}

        def gather(expr: Expr, known: Mapping[str, Expr] = known) -> None:
            for part in walk(expr):
                if isinstance(part, Scalar):
                    found.add(part.hyper)
                elif isinstance(part, Local) and part.extent <= Extent.STEP and part.name in known:
                    gather(known[part.name])

        for assign in rule.body:
            for part in walk(assign.value):
                if extent_of(part) == Extent.GROUP and isinstance(part, Call):
                    for arg in part.args:
                        if extent_of(arg) <= Extent.STEP:
                            gather(arg)
    return tuple(hyper.name for hyper in rules[0].hypers if hyper.name in found)


@cache
def _arguments_of_pytorch() -> frozenset[str]:
    """The names of all arguments that any optimiser of PyTorch has."""
    classes = [cls for cls in vars(torch.optim).values() if inspect.isclass(cls) and issubclass(cls, Optimizer)]
    names = {name for cls in classes for name in inspect.signature(cls).parameters}
    return frozenset(names - {"params", "defaults"} - _HOW)


def _tensors(raw: Iterable[Iterable[Any]]) -> bool:
    """Whether a tensor is among the values, which may have changed where it stands."""
    return any(isinstance(x, torch.Tensor) for values in raw for v in values for x in (v if type(v) is tuple else (v,)))


def _new_state(p: torch.Tensor, shape: tuple[int, ...] | None, value: Any) -> torch.Tensor:
    """A state filled with a number or an array: laid out as the parameter is, or small, of this shape and float64."""
    if shape is not None:
        return small_like(p, shape, float(value))
    with torch.no_grad():
        made = torch.zeros_like(p, memory_format=torch.preserve_format)
        parts = torch.view_as_real(made) if made.is_complex() else made  # of a complex number, either part
        if not isinstance(value, float):
            local(parts).copy_(torch.from_numpy(value))
        elif value:
            parts.fill_(value)
    return made


# ---- Classes ----


def adapted(
    compilation: Compilation, module: str | None, theirs: type[Optimizer] | None, core: Any, name: str = ""
) -> type[Adapter]:
    """The class of a rule; `theirs` is PyTorch's, if PyTorch has this rule, `core` the class that optgen has."""
    rule = compilation.rules[0]
    taken = {hyper.name for hyper in rule.hypers}
    hypers = {name: other if (other := _HYPERS.get(name, name)) not in taken else name for name in taken}
    hypers = {hyper.name: hypers[hyper.name] for hyper in rule.hypers}
    keys = (*hypers.values(), *(flag.name for flag in rule.flags if flag.when is None))
    known = inspect.signature(theirs).parameters if theirs is not None else {}
    attributes: dict[str, Any] = {
        "_compilation": compilation, "_module": module, "_theirs": theirs, "_hypers": hypers,
        "_keys": (*keys, *(flag for flag in _OWN_WAYS if flag in known)),
        "_states": {STEP: "step_state"} if theirs is None else _STATES.get(rule.name, {}),
        "__doc__": core.__doc__, "__module__": __package__,
    }  # fmt: skip
    if theirs is None:
        attributes["__init__"] = _constructor(core, hypers)
    bases = (Adapter,) if theirs is None else (Adapter, theirs)
    return type(name or rule.name, bases, attributes)


@cache
def of_spec(text: str, file: str) -> type[Adapter]:
    """The class of a spec that does not ship; the same one each time."""
    compilation = compile_text(text, file)
    made = adapted(compilation, None, None, module_class(compilation))
    made._source = (text, file)
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
    for hyper in core._compilation.rules[0].hypers:
        values = core._values[hyper.name]
        if any(map(callable, values)):
            raise ArgumentError(f"{hyper.name}: {_NO_SCHEDULE}", hint=_SCHEDULERS)
        defaults[hypers[hyper.name]] = values if hyper.vector else values[0]
    decided = core._decided
    flags = {flag.name for flag in core._compilation.rules[0].flags}  # a chain has those of its parts beside it
    return defaults | {k: v for k, v in core._flags.items() if k not in decided and k in flags}


def wrapped(params: Any, core: Any) -> Adapter:
    """An optimiser of optgen, with its hyperparameters, for tensors of PyTorch."""
    made = _revived(core)
    Optimizer.__init__(made, params, defaults_of(core, made._hypers))
    return made


def _revived(core: Any) -> Adapter:
    cls = adapted(core._compilation, core._module, None, type(core), type(core).__name__)
    made: Adapter = cls.__new__(cls)
    made._core = core
    return made
