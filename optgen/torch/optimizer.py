"""Any rule as a `torch.optim.Optimizer`.

In: a compiled rule with its names and its strategy. Out: `Adapter`, the base of all optimiser classes of this wing.

Kernels step dense tensors of float32 and float64, real or complex. The strategy decides who steps other dtypes and
sparse gradients: PyTorch's own loop if it has the rule, otherwise the interpreter in float32.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, ClassVar

import numpy as np
import torch
from torch.optim.optimizer import Optimizer, _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from .. import interpreter as interp
from ..errors import ArrayError
from ..ir.evaluate import HyperValues
from ..ir.expr import Extent
from ..ir.rule import Rule
from ..runtime.engine import first_group_states, leave_gradients, variant_for
from .checkpoint import OF_ALL, expect_state, fitting
from .naming import STEP, Kind
from .param_groups import Groups, expect_group
from .plan import Member, TensorPlan, accepted, step_of
from .sharding import aligned, expect_apart, expect_whole, small_like
from .strategies import ANOTHER_RULE
from .tensors import (
    DTYPES,
    compute_dtype,
    early_mode,
    has_memory,
    increment_version,
    local,
    memory,
    mode,
    modes,
    steppable,
    traced,
    wide,
)  # fmt: skip

__all__ = ["Adapter"]



_grad = attrgetter("grad")


class Adapter(Optimizer):
    """Base of all optimisers of `optgen.torch`, which are made from rules."""

    param_groups: list[dict[str, Any]]

    _kind: ClassVar[Kind]
    #: How to make one anew that has not been begun, where no module has its class under its name.
    _revival: tuple[Callable[..., Adapter], tuple[Any, ...]] | None = None

    # What is found out again after a copy or a pickle.
    _plan: TensorPlan | None = None
    _plans: dict[Any, TensorPlan] | None = None
    _groups: Groups
    _together: dict[str, Any] | None = None  # the states of all parameters

    # ---- Steps ----

    @torch._disable_dynamo  # torch.compile leaves it as it is
    def step(self, *args: Any, **kwargs: Any) -> Any:
        """Update every parameter that has a gradient.

        Parameters
        ----------
        closure
            Called first, with autograd on, to compute the loss and the gradients anew.

        Returns
        -------
        What `closure` returns, or None.
        """
        watched = self._optimizer_step_pre_hooks or self._optimizer_step_post_hooks
        watched = watched or _global_optimizer_pre_hooks or _global_optimizer_post_hooks
        watched = watched or torch.autograd._profiler_enabled()
        # A class that overrides `step` has been wrapped by PyTorch: there the hooks are called already.
        if watched and type(self).step is Adapter.step:
            return self._watched(*args, **kwargs)  # as they were given: hooks see them
        return self._step(*args, **kwargs)

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
        grads = list(map(_grad, params))
        if scale is not None:
            with torch.no_grad():
                torch._foreach_div_([g for g in grads if g is not None], float(scale))
        if modes() or early_mode() or traced():
            self._step_traced(params, grads)
            return loss
        if self._groups.read(self.param_groups):
            self._plan = self._plans = None
        plan = self._plan
        if plan is None or not plan.rebind(params, grads, self.state):
            plan = self._plan_for(params, grads)
        if plan is not None:
            if plan.rest:  # first: what PyTorch refuses is refused before anything has changed
                self._step_rest(params, plan.rest)
            if plan.members and not plan.run(self._groups.values.sets, self.state, self._of_group()):
                self._leave_gradients(params, grads)
        return loss

    _watched = Optimizer.profile_hook_step(_step)
    step.__signature__ = inspect.signature(_step)

    def _leave_gradients(self, params: Sequence[Any], grads: Sequence[Any]) -> None:
        """After a step that does not count: gradients are left as the rule leaves them, in any case."""
        owners, rules = self._owners(), self._kind.rules
        given = [(i, p, g) for i, (p, g) in enumerate(zip(params, grads, strict=True)) if g is not None]
        with torch.no_grad():
            fills = ((rules[self._variant(p, owners[i], i)], g.fill_) for i, p, g in given)
            leave_gradients(fills, self._groups.values.of(0))

    # ---- Plans ----

    def _plan_for(self, params: Sequence[Any], grads: Sequence[Any]) -> TensorPlan | None:
        """A plan for the parameters that have a gradient; one of before, if it still fits."""
        key = tuple(g is not None for g in grads)
        plans = self._plans = self._plans or {}
        plan = plans.get(key)
        if plan is not None and plan.rebind(list(params), list(grads), self.state):
            self._plan = plan
            return plan
        owners = self._owners()
        rules = self._kind.rules
        overwrites = self._kind.overwrites
        grads = [
            g if g is None else aligned(p, g, i, overwrites) for i, (p, g) in enumerate(zip(params, grads, strict=True))
        ]
        places: list[int] = []
        rest: list[int] = []
        for i, (p, g) in enumerate(zip(params, grads, strict=True)):
            if g is not None:
                (places if self._takes(p, g, owners[i], i) else rest).append(i)
        if not places and not rest:
            return None
        strategy = self._kind.strategy
        places, rest = strategy.divided(places, rest, grouped=self._kind.grouped)
        for i in (*places, *rest):
            expect_apart(rules, (self._groups.variants[owners[i]] or {}).values(), params[i], i)
        for i in strategy.computed_here(places, rest):
            expect_whole(rules[self._variant(params[i], owners[i], i)], params[i], i, i in places)
        # All that may be refused is, before any parameter is given a state.
        found = [(i, self._variant(params[i], owners[i], i)) for i in places]
        for i, variant in found:
            self._expect_states(params[i], self._kind.rules[variant], i)
        taken = accepted([params[i] for i in places], [grads[i] for i in places], overwrites=overwrites)
        members = []
        for i, variant in found:
            p, rule, own, dtype = params[i], self._kind.rules[variant], owners[i], compute_dtype(params[i])
            names = [self._kind.key(name) for name in rule.tensor_states]
            before = self._begin(p, rule, self._groups.values.of(own, dtype))
            kept = self.state[p] if names or self._kind.counted else {}  # PyTorch has no entry then
            small = len(names) - (len(rule.arrays) - 2)
            members.append(Member(p, variant, self._groups.values.number(own, dtype), kept, names, small, before))
        plan = TensorPlan(self._kind, members, taken, places, rest, params, grads)
        if plan.made_for_one_step is not None:
            self._plan = None
            plans.pop(key, None)
            return plan
        while len(plans) >= 16 + len(params):
            del plans[next(iter(plans))]
        plans[key] = self._plan = plan
        return plan

    def _owners(self) -> list[int]:
        """Of each parameter, the number of its group."""
        return [i for i, group in enumerate(self.param_groups) for _ in group["params"]]

    def _takes(self, p: torch.Tensor, g: torch.Tensor, own: int, i: int) -> bool:
        """Whether kernels step such a parameter; if not, it is an error unless there is another way."""
        rules = self._kind.rules
        by_kernel = steppable(p, g) and self._groups.variants[own] is not None
        if p.is_complex() and any(rule.tiled for rule in rules):  # which would take the two parts for a dimension
            self._kind.strategy.expect_real(self._what(i), self._kind.name)
            by_kernel = False
        if p.is_inference() and not torch.is_inference_mode_enabled():
            message = f"{self._what(i)} was made in inference mode: it cannot be updated outside of it"
            raise ArrayError(message, hint="make the model outside of torch.inference_mode(), or give p.clone()")
        if not by_kernel:
            self._expect_other_way(p, g, i)
        return by_kernel

    def _what(self, i: int) -> str:
        """What parameter i, counted over all groups, is called in messages."""
        within = i
        for group in self.param_groups:
            if within < len(group["params"]):
                names = group.get("param_names")
                return f"parameter {i} ({names[within]})" if names else f"parameter {i}"
            within -= len(group["params"])
        return f"parameter {i}"

    def _variant(self, p: torch.Tensor, own: int, i: int) -> int:
        variants, shape = self._groups.variants[own] or {}, tuple(p.shape)
        return variant_for(variants, shape, self._kind.name, what=self._what(i), hint=ANOTHER_RULE)

    def _expect_states(self, p: torch.Tensor, rule: Rule, i: int) -> None:
        """StateError unless the states that a parameter has fit."""
        kept = self.state.get(p, {})
        for state, key in self._kind.own_states(rule):
            given = kept.get(key)
            if given is not None:
                shape = interp.shape_of(state.extent, tuple(p.shape), rule.rows)
                expect_state(f"{self._what(i)}: its state {key}", state, given, shape, p.dtype)

    def _begin(self, p: torch.Tensor, rule: Rule, values: HyperValues) -> int:
        """Gives a parameter the states that it lacks; how often it was stepped, as far as its states show."""
        own = list(self._kind.own_states(rule))
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
                dtype = self._kind.strategy.small_dtype(state.extent, p)
                kept[key] = _new_state(p, shape, initial[state.name], dtype)
        return before

    def _of_group(self) -> dict[str, Any]:
        """The states of all parameters together, begun with the first step."""
        if self._together is None:
            self._together = first_group_states(self._kind.rules[0], self._groups.values.of(0))
        return self._together

    # ---- What kernels do not step ----

    def _expect_other_way(self, p: torch.Tensor, g: torch.Tensor, i: int) -> None:
        """An error that says what to use, unless there is another way to step such a parameter."""
        p, g, strategy = local(p), local(g), self._kind.strategy
        for x in (p, g):
            if x.device.type == "meta" or not has_memory(x):
                strategy.expect_memory(self._what(i), self._kind.name, x)
                return
        if p.device.type != "cpu" or g.device.type != "cpu":
            device = (p if p.device.type != "cpu" else g).device
            message = f"{self._what(i)} is on {device}: optgen steps on the CPU"
            raise ArrayError(message, hint=strategy.elsewhere)
        if p.dtype not in (*DTYPES, torch.bfloat16, torch.float16):
            kinds = "float32, float64, bfloat16, float16, complex64 or complex128"
            message = f"{self._what(i)}: a parameter of {kinds} was expected, got {p.dtype}"
            raise ArrayError(message, hint="convert the model, or leave the parameter out")
        strategy.expect_gradient(self._what(i), self._kind.name, p, g)

    def _step_traced(self, params: Sequence[torch.Tensor], grads: Sequence[Any]) -> None:
        """A step by operations of PyTorch, which are recorded or replaced. The next one looks at everything anew."""
        strategy = self._kind.strategy
        strategy.expect_not_traced(self._kind.name, mode())
        chosen = [i for i, g in enumerate(grads) if g is not None]
        self._plan = self._plans = None
        self._step_rest(params, chosen)

    def _step_rest(self, params: Sequence[torch.Tensor], places: Sequence[int]) -> None:
        chosen = [params[i] for i in places]
        self._kind.strategy.step_others(self, chosen, lambda: self._interpret(params, places))

    @torch.no_grad()
    def _interpret(self, params: Sequence[torch.Tensor], places: Sequence[int]) -> None:
        """One step by the interpreter. What has 16 bits is computed in float32 and rounded once, states too."""
        owners = self._owners()
        chosen = [(params[i], self._variant(params[i], owners[i], i), owners[i], i) for i in places]
        for p, variant, _, i in chosen:
            self._expect_states(p, self._kind.rules[variant], i)
        tensors, narrow, highest = [], [], 1
        for p, variant, own, i in chosen:
            rule, values = self._kind.rules[variant], self._groups.values.of(own, compute_dtype(p))
            self._begin(p, rule, values)
            kept = self.state[p]
            t = int(kept.get(STEP, 0)) + 1
            highest = max(highest, t)
            named = {"p": p, "g": aligned(p, p.grad, i, False)}
            named |= {state.name: kept[key] for state, key in self._kind.own_states(rule)}
            small = {state.name for state in rule.small_states}
            arrays = {}
            for name, x in named.items():
                x = local(x)
                in_place = x.detach().double() if name in small else wide(x.resolve_conj().resolve_neg())
                arrays[name] = memory(in_place)
                if in_place.data_ptr() != x.data_ptr() and name in rule.stores | {"p"}:
                    narrow.append((x, in_place))
            tensors.append((rule, values, interp.Tensor(t, arrays)))
        counts = interp.step_group(tensors, self._of_group(), self._groups.values.of(0), highest)
        for x, in_place in narrow:
            x.copy_(in_place)
        if counts:
            increment_version([p for p, *_ in chosen])
        for (p, *_), (_, _, tensor) in zip(chosen, tensors, strict=True):
            t = tensor.t if counts else tensor.t - 1
            step_of(self.state[p]).fill_(t)

    # ---- States ----

    def state_dict(self) -> dict[str, Any]:
        """As PyTorch's: the states of each parameter by its number, and the groups; with the name of the rule."""
        handle = self.register_state_dict_post_hook(_name_rule, prepend=True)  # before those of the caller
        try:
            saved: dict[str, Any] = super().state_dict()
        finally:
            handle.remove()
        return saved

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over what `state_dict` gave, here or by PyTorch's optimiser of the same rule.

        StateError if it is of another rule, or does not fit a parameter: its name, where both sides have names, its
        states, their shapes and dtypes. Then nothing has changed.
        """
        taken: list[dict[str, Any]] = []

        def expect(_: Any, saved: dict[str, Any]) -> dict[str, Any]:  # what the caller's own hooks have made of it
            saved = fitting(self._kind, self.param_groups, saved, self._what)
            taken.append(saved)
            return {**saved, "state": {i: _copied(kept) for i, kept in saved["state"].items()}}

        def keep(_: Any) -> None:
            self._keep_whole(taken[-1])

        handles = [
            self.register_load_state_dict_pre_hook(expect), self.register_load_state_dict_post_hook(keep, prepend=True)
        ]  # fmt: skip
        before = {name: vars(self)[name] for name in ("state", "param_groups")}
        try:
            super().load_state_dict(state_dict)
        except BaseException:  # PyTorch may have come half-way
            self.__dict__.update(before)
            raise
        finally:
            for handle in handles:
                handle.remove()

    def _keep_whole(self, saved: Mapping[str, Any]) -> None:
        """After a load: the small states, which PyTorch rounds to the dtype of the parameter, and those of all
        parameters."""
        params = [p for group in self.param_groups for p in group["params"]]
        order = [i for group in saved["param_groups"] for i in group["params"]]
        small = {self._kind.key(s.name) for rule in self._kind.rules for s in rule.small_states}
        for p, i in zip(params, order, strict=True):
            for name, value in saved["state"].get(i, {}).items():
                if name in small and isinstance(value, torch.Tensor):
                    self.state[p][name] = value.detach().to(self.state[p][name].device, copy=True)
        kept = [group.pop(OF_ALL, None) for group in self.param_groups]
        group = saved.get("group", kept[0])
        self._together = {name: np.array(value) for name, value in group.items()} if group else None
        self._forget()

    def _forget(self) -> None:
        """Looks at everything anew in the next step."""
        self._plan = self._plans = None
        self._groups = Groups(self._kind)

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        return state | {"_together": self._together} if self._together else state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in (self.defaults, *self.param_groups):  # as former versions left them
            self._kind.respell(group)
        self._forget()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As PyTorch's; a hyperparameter out of its range is a HyperparameterError."""
        if self._kind.strategy.checks_values and isinstance(param_group, dict):
            spelled = self._kind.spelled(param_group, self.defaults)
            expect_group(self._kind, spelled, len(self.param_groups))
            if spelled.keys() != param_group.keys():
                param_group.clear()
                param_group.update(spelled)
        super().add_param_group(param_group)
        self._forget()

    def __reduce_ex__(self, protocol: Any) -> Any:
        # Of its own, and not of a class that this one derives from.
        revival = vars(self).get("_revival") or vars(type(self)).get("_revival")
        return super().__reduce_ex__(protocol) if revival is None else (*revival, self.__getstate__())


def _name_rule(optimiser: Any, saved: dict[str, Any]) -> None:
    """Adds to a state dict what PyTorch's has not: the name of the rule, and the states of all parameters together."""
    saved["rule"] = optimiser._kind.name
    if optimiser._together:
        saved["group"] = {name: float(value) for name, value in optimiser._together.items()}
        for group in saved["param_groups"]:  # a distributed checkpoint has room for nothing else
            group[OF_ALL] = saved["group"]


def _copied(kept: Any) -> Any:
    """The states of a parameter in memory of their own, so that neither side of a load changes the other."""
    if not isinstance(kept, Mapping):
        return kept
    return {key: x.detach().clone() if isinstance(x, torch.Tensor) else x for key, x in kept.items()}


def _new_state(p: torch.Tensor, shape: tuple[int, ...] | None, value: Any, dtype: torch.dtype) -> torch.Tensor:
    """A state filled with a number or an array: laid out as the parameter is, or small, of this shape and dtype."""
    if shape is not None:
        return small_like(p, shape, float(value), dtype)
    with torch.no_grad():
        made = torch.zeros_like(p, memory_format=torch.preserve_format)
        parts = torch.view_as_real(made) if made.is_complex() else made  # of a complex number, either part
        if not isinstance(value, float):
            local(parts).copy_(torch.from_numpy(value))
        elif value:
            parts.fill_(value)
    return made
