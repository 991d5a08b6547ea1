"""Any rule as a `torch.optim.Optimizer`.

In: a compiled rule with its names and its strategy. Out: `Adapter`, the base of all optimiser classes of this wing.

Kernels step dense tensors, real or complex. The strategy decides who steps sparse gradients, and whatever else they do
not take: PyTorch's own loop if it has the rule, otherwise the interpreter.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch.optim.optimizer import Optimizer, _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from ..errors import ArgumentError, OverlapError
from ..runtime.engine import StepEngine
from ..runtime.interrupts import undisturbed
from ..runtime.phases import expect_phase, expect_whole_step
from ..runtime.reports import last_reports
from ..runtime.shapes import first_group_states
from ..runtime.slots import Key
from .agreement import agreed
from .checkpoint import copies_of_states, fitting
from .evaluation import evaluated_tensors
from .inputs import inputs_given
from .naming import Naming
from .options import Options
from .param_groups import Groups, expect_group, named_parameters
from .phases import expect_closure, key_of_numbers, numbers_of_begun, rest_of_step
from .state_dicts import BEGUN, copied, load_with, name_rule, state_dict_with, take_rest
from .states import TensorStates
from .storing import NOTHING, Storing
from .tensor_library import TensorLibrary
from .tensors import early_mode, modes, traced
from .turns import Turns
from .ways import ElsewhereError, TensorWays

__all__ = ["Adapter", "engine_of", "load_fitting", "naming_of", "revival_of", "revive_by", "step_of"]

#: What a parameter is trained with, among its states while it has other values to be evaluated with.
ASIDE = "in_training"
#: Where the states of all parameters together are in a pickle, as 0.1.0 wrote them.
_TOGETHER = "_together"


class Adapter(Optimizer):
    """Base of all optimisers of `optgen.torch`, which are made from rules."""

    param_groups: list[dict[str, Any]]

    _naming: Naming
    #: What this optimiser chose of storages, which its class did not.
    _storing: Storing = NOTHING
    #: How to make one anew that has not been begun, where no module has its class under its name.
    _revival: tuple[Callable[..., Adapter], tuple[Any, ...]] | None = None

    _multiplies: bool  # whether its rule does
    _engine: StepEngine  # found out again after a copy or a pickle
    _states: TensorStates
    _groups: Groups
    _ways: TensorWays
    _turns: Turns

    @classmethod
    def options(cls, *args: Any, **keywords: Any) -> Options:
        """This rule with hyperparameters, given and checked as by the class, without parameters: a line of `split`."""
        return Options(cls, args, keywords)

    # ---- Steps ----

    @torch._disable_dynamo  # torch.compile leaves it as it is
    def step(self, *args: Any, **kwargs: Any) -> Any:
        """Update every parameter that has a gradient.

        Where steps have several phases, a closure runs all that are left, and a call may name the one to run.

        Parameters
        ----------
        closure
            Called first, and before each phase, with autograd on, to compute the loss and the gradients anew.
        phase
            The name of the one phase to run, which must be the one that comes next.
        inputs
            The numbers that the rule takes beside gradients, by name. `loss` is what `closure` returns, if it is not
            given. What the rule takes for each parameter is an attribute of the parameter, as its gradient is.

        Returns
        -------
        What `closure` returns, the first time, or None.
        """
        watched = self._optimizer_step_pre_hooks or self._optimizer_step_post_hooks
        watched = watched or _global_optimizer_pre_hooks or _global_optimizer_post_hooks
        watched = watched or torch.autograd._profiler_enabled()
        # A class that overrides `step` has been wrapped by PyTorch: there the hooks are called already.
        if watched and type(self).step is Adapter.step:
            return self._watched(*args, **kwargs)  # as they were given: hooks see them
        return self._step(*args, **kwargs)

    step.hooked = True  # PyTorch need not wrap it once more

    def _step(self, closure: Callable[[], Any] | None = None, *, phase: str | None = None, **inputs: Any) -> Any:
        engine = self._engine
        engine.expect_training("step")
        following = self._next() if engine.phases or phase is not None else 0
        if phase is not None:
            expect_phase(self._naming.name, engine.phases, following, phase)
        elif engine.phases:
            if closure is None:
                expect_closure(self._naming.name, engine, self._all(), begun=bool(self.state))
            return rest_of_step(engine, lambda: self._step_once(closure, inputs))
        return self._step_once(closure, inputs)

    def _step_once(self, closure: Callable[[], Any] | None, inputs: Mapping[str, Any]) -> Any:
        """One phase of a step; of most rules all of it."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with self._engine.lock:
            if self._multiplies:
                with agreed(self.param_groups, self._engine):
                    self._update(inputs, loss)
            else:
                self._update(inputs, loss)
        return loss

    def _update(self, inputs: Mapping[str, Any], loss: Any) -> None:
        """Step by the gradients as they are. The lock is held."""
        found, scale = getattr(self, "found_inf", None), getattr(self, "grad_scale", None)
        if found is not None and float(found):  # what a GradScaler has found
            return
        params = self._all()
        numbers, given, lacking = inputs_given(self._naming, inputs, loss, params, self._groups.what)
        if scale is not None:
            with torch.no_grad():
                torch._foreach_div_([g for g in given[: len(params)] if g is not None], float(scale))
        engine = self._engine
        self._states.entries.kept = self.state
        if modes() or early_mode() or traced():
            engine.plans.clear()
            self._ways.step_traced([p for p, g in zip(params, given, strict=False) if g is not None])
            return
        if self._groups.read(self.param_groups):
            engine.plans.clear()
            self._turns.tied = len(set(params)) < len(params)
            self._groups.changed = False
        if not (self._turns.tied or self._turns.elsewhere):
            try:
                engine.step(params, given, numbers, lacking)
                return
            except (OverlapError, ElsewhereError):
                pass
        self._turns.step(params, given, numbers, lacking)

    _watched = Optimizer.profile_hook_step(_step)
    step.__signature__ = inspect.signature(_step)

    @property
    def phase(self) -> str | None:
        """The name of the phase of a step that comes next; None for a rule whose steps have but one."""
        return self._engine.phases[self._next()] if self._engine.phases else None

    def _next(self) -> int:
        """The number of the phase that comes next, which hyperparameters decide before the first step."""
        with self._engine.lock:
            self._groups.read(self.param_groups)
            return self._engine.phase

    # ---- Evaluation ----

    def eval(self) -> None:
        """Give each parameter, in place, the values that its rule says to evaluate it with, as a running mean.

        `train` gives the others back, whatever became of the parameters in between; until then a step is refused. A
        second call does nothing. Nor does the first, where a rule says nothing of evaluation. A state dict that is
        saved in between holds what was set aside, and an optimiser that loads it is in evaluation mode.
        """
        with self._engine.lock:
            self._engine.expect_rest("evaluate")
            if self._engine.evaluating or not any([rule.evaluation for rule in self._naming.rules]):
                return
            expect_whole_step("evaluate", self._engine.phases, self._states.group)
            self._states.entries.kept = self.state
            self._groups.read(self.param_groups)
            params, write = evaluated_tensors(self._naming, self._groups, self._engine, self._states, self._all())
            for p in params:
                self.state[p][ASIDE] = p.detach().clone()
            self._engine.evaluating = True
            write()

    def train(self) -> None:
        """Give parameters back what `eval` has set aside: training goes on with the same bits. Else do nothing."""
        with self._engine.lock:
            self._engine.expect_rest("train")
            if not self._engine.evaluating:
                return
            with torch.no_grad():
                for p, kept in self._kept():
                    if ASIDE in kept:
                        p.copy_(kept.pop(ASIDE))
            self._engine.evaluating = False

    def _kept(self) -> list[tuple[torch.Tensor, dict[str, Any]]]:
        """The parameters with states; `state` may have those of other optimisers too, as in a split."""
        return [(p, self.state[p]) for p in self._all() if isinstance(self.state.get(p), dict)]

    def _all(self) -> list[torch.Tensor]:
        """The parameters of all groups."""
        params: list[torch.Tensor] = []
        for group in self.param_groups:
            params += group["params"]
        return params

    # ---- States ----

    def set_state(self, p: torch.Tensor, /, **values: Any) -> None:
        """Set states of parameter `p`, or its count `step`, by hand; those that are not named stay.

        Parameters
        ----------
        p
            A parameter of this optimiser. If it was never stepped, the rest of its state starts as usual.
        values
            By the names in `state[p]`, a tensor of the shape and dtype that the state has; copied.

        Raises
        ------
        ArgumentError
            For what is no parameter, or no state of the rule.
        StateError
            For another shape or dtype.

        After an error no state has changed.
        """
        with self._engine.lock:
            self._engine.expect_rest("set a state")
            owners = [i for i, group in enumerate(self.param_groups) if any([p is q for q in group["params"]])]
            if not owners:
                raise ArgumentError(f"expected a parameter of this {self._naming.name}, got another {type(p).__name__}")
            hypers = Groups(self._naming).values_of(self.param_groups[owners[0]], owners[0])
            copies = copies_of_states(self._naming, p, hypers, values)
            undisturbed(lambda: self.state[p].update(copies))

    def state_of_all(self) -> dict[str, float]:
        """The states that all parameters have together, as numbers; before the first step, what they start as.

        Examples
        --------
        >>> (loss * opt.state_of_all()["scale"]).backward()  # doctest: +SKIP
        """
        with self._engine.lock:
            self._groups.read(self.param_groups)
            rule, begun = self._naming.rules[0], self._states.group
            states = begun or first_group_states(rule, self._groups.values.of(0))
            return {name: float(value) for name, value in states.items()}

    def report(self) -> dict[str, Any]:
        """What the last step reports, for loggers: `{"grad_norm": 1.2, "trust_ratio/layer.weight": 0.8}`.

        What is one for all parameters goes by its name in the spec, in a chain behind that of its part. What each
        parameter has is followed by the parameter's name, or its number where the optimiser was given no names. A
        number is a float; what there is of each matrix, row or column is a tensor. A step that does not count reports
        nothing. StateError before the first step.
        """
        with self._engine.lock:
            found = last_reports(self._engine.reports, self._naming.rules)
            names = {id(p): name for p, name in named_parameters(self.param_groups)}
            values = {name: value for each in found for name, value in each.shared().items()}
            for p, own in (pair for each in found for pair in each.each()):
                values |= {f"{name}/{names.get(id(p), '')}": value for name, value in own.items()}
            return {name: x if isinstance(x, float) else torch.from_numpy(x) for name, x in values.items()}

    def state_dict(self) -> dict[str, Any]:
        """As PyTorch's: the states of each parameter by its number, and the groups; with the name of the rule."""
        with self._engine.lock:
            name = partial(name_rule, self._naming, self._states.group, numbers_of_begun(self._engine, self._all()))
            return state_dict_with(super().state_dict, self, name)

    def load_state_dict(self, state_dict: dict[str, Any], *, convert: bool = False) -> None:
        """Takes over what `state_dict` gave, here or by PyTorch's optimiser of the same rule. `convert`: states of
        another dtype than this one keeps are rounded to the nearest; else they are refused.

        StateError if it is of another rule, or does not fit a parameter: its name, where both sides have names, its
        states, their shapes and dtypes. Then nothing has changed.
        """
        fit = partial(fitting, self._naming, self.param_groups, convert=convert)
        with self._engine.lock:
            self._engine.expect_rest("load a state")
            undisturbed(lambda: self._load(state_dict, fit))

    def _load(self, state_dict: Mapping[str, Any], fit: Callable[[Any], dict[str, Any]]) -> None:
        """What PyTorch does to load a state that is what `fit` makes of this one; or nothing."""
        taken: list[dict[str, Any]] = []

        def expect(_: Any, saved: dict[str, Any]) -> dict[str, Any]:  # what the caller's own hooks have made of it
            taken.append(fit(saved))
            return {**taken[-1], "state": {i: copied(kept) for i, kept in taken[-1]["state"].items()}}

        def take(_: Any) -> None:
            begun = key_of_numbers(taken[-1].get(BEGUN, ()), self._all())
            self._begin(take_rest(self._naming, self, taken[-1]), begun)

        before = {name: vars(self)[name] for name in ("state", "param_groups")}
        together, begun = self._states.group, self._engine.begun
        try:
            load_with(partial(super().load_state_dict, state_dict), self, expect, take)
        except BaseException:  # PyTorch may have come half-way
            self.__dict__.update(before)
            self._begin(together, begun)
            raise

    def _begin(self, together: Mapping[str, Any], begun: Key | None = None) -> None:
        """Look at everything anew in the next step. `together`: the states of all parameters. `begun`: the parameters
        of a step that has phases left."""
        first = {**self.defaults, **(self.param_groups or [{}])[0]}
        naming = type(self)._naming.fitted(first).stored(self._storing)
        self.__dict__.update(_naming=naming, _multiplies=naming.multiplies)  # of this optimiser, not of its class
        groups = Groups(naming)
        self._groups = groups
        self._states = TensorStates(naming, groups)
        self._states.group = dict(together)
        self._ways = TensorWays(naming, groups, weakref.ref(self))
        if "_engine" in vars(self):
            self._engine.begin_anew(groups, self._states, self._ways)
        else:
            self._engine = StepEngine(TensorLibrary(), groups, self._states, self._ways, naming.module)
        self._engine.begun = begun
        self._engine.evaluating = any([ASIDE in kept for _, kept in self._kept()])
        self._turns = Turns(naming, groups, self._ways, self._engine)

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        state |= {"_storing": self._storing} if self._storing is not NOTHING else {}
        begun = numbers_of_begun(self._engine, self._all())
        return state | {_TOGETHER: self._states.group, BEGUN: begun} if self._states.group else state

    def __setstate__(self, state: dict[str, Any]) -> None:
        together = state.get(_TOGETHER) or {}
        super().__setstate__({key: value for key, value in state.items() if key not in (_TOGETHER, BEGUN)})
        for group in (self.defaults, *self.param_groups):  # as former versions left them
            self._naming.respell(group)
        self._begin(together, key_of_numbers(state.get(BEGUN, ()), self._all()))

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As PyTorch's; a hyperparameter out of its range is a HyperparameterError."""
        if self._naming.strategy.checks_values and isinstance(param_group, dict):
            spelled = self._naming.spelled(param_group, self.defaults)
            expect_group(self._naming, spelled, len(self.param_groups))
            if spelled.keys() != param_group.keys():
                param_group.clear()
                param_group.update(spelled)
        if "_engine" not in vars(self):
            super().add_param_group(param_group)
            self._begin({})
            return
        with self._engine.lock:
            self._engine.expect_rest("add a group")
            super().add_param_group(param_group)
            self._begin(self._states.group, self._engine.begun)

    def __reduce_ex__(self, protocol: Any) -> Any:
        # Of its own, and not of a class that this one derives from.
        revival = vars(self).get("_revival") or vars(type(self)).get("_revival")
        return super().__reduce_ex__(protocol) if revival is None else (*revival, self.__getstate__())


def naming_of(optimiser: Adapter | type[Adapter]) -> Naming:
    """The names that the hyperparameters and states of an optimiser, or of a class of them, have in PyTorch."""
    return optimiser._naming


def engine_of(optimiser: Adapter) -> StepEngine:
    """What steps the parameters of an optimiser and keeps their states."""
    return optimiser._engine


def step_of(optimiser: Adapter) -> Callable[..., Any]:
    """The step of an optimiser without its hooks."""
    return optimiser._step


def load_fitting(optimiser: Adapter, saved: Mapping[str, Any]) -> None:
    """Load a state that `fitting` has given for the optimiser, without another look at it."""
    with optimiser._engine.lock:
        optimiser._load(saved, dict)


def revival_of(cls: type[Adapter]) -> tuple[Callable[..., Adapter], tuple[Any, ...]]:
    """A call that makes an optimiser of a class that has not begun; pickles may hold it."""
    return vars(cls).get("_revival") or (cls.__new__, (cls,))


def revive_by(made: Adapter | type[Adapter], revive: Callable[..., Adapter], *given: Any) -> None:
    """Pickle an optimiser, or those of a class, as a call of `revive`, which makes one that has not begun."""
    made._revival = revive, given
