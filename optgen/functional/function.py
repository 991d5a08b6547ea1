"""The step of a rule as a pure function.

In: parameters, gradients, states, a count and hyperparameters, in containers of one structure.
Out: new parameters and states; nothing is written to what came in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from ..errors import ArgumentError, ArrayError, StateError
from ..ir.expr import GRADIENT, PARAMETER
from ..ir.extents import Extent
from ..ir.rule import Rule
from .library import Array, LibraryTable, Shape, array_library
from .tensor_step import TensorStep
from .together import step_together

__all__ = ["RuleFunction", "Stepped"]

#: The numbers of each hyperparameter, as the evaluator takes them.
Values: TypeAlias = Mapping[str, tuple[Any, ...]]


class Stepped(NamedTuple):
    """What a step gives.

    `counts`: whether it counts, True or an array of no dimensions. If it does not, the count of updates stays, and only
    states that always change have changed. `reports`: what the rule reports, for each tensor.
    """

    params: Any
    state: dict[str, Any]
    counts: Any
    reports: list[dict[str, Array]]


class RuleFunction:
    """The step of a rule with its flags, as a pure function of arrays of one library.

    Parameters
    ----------
    library
        "numpy", "torch" or "jax".
    owner
        What messages call the rule.
    rules
        The rule in the variant for a shape, in each phase of a step.
    hyperparameters
        What is computed with where a step is given no others; checked.
    read
        Gives the checked values of hyperparameters that a step is given.

    Attributes
    ----------
    states
        The names of the states.
    phases
        The names of the phases of a step; empty where it has but one.
    """

    def __init__(
        self,
        library: str,
        owner: str,
        rules: Callable[[Shape], Sequence[Rule]],
        hyperparameters: Values,
        read: Callable[[Mapping[str, Any]], Values],
    ) -> None:
        self._library: LibraryTable = array_library(library)
        self._owner = owner
        self._rules = rules
        self._values = hyperparameters
        self._read = read

    def __repr__(self) -> str:
        return f"{self._owner}.function({self._library.name!r})"

    # ---- The function ----

    def init(self, params: Any) -> dict[str, Any]:
        """The state before the first step.

        Parameters
        ----------
        params
            Arrays of the library, in any mappings and sequences; of float32 or float64, or of 16 bits, which are
            computed in float32.

        Returns
        -------
        dict
            For each state of the spec a container like `params`, which holds None for parameters that have no such
            state; or a single array, where all parameters have it together.
        """
        leaves, rebuilt = self._leaves(params)
        runs = [self._run(self._variant(p, None), self._values, 0, {PARAMETER: p}) for p in leaves]
        state: dict[str, Any] = {}
        for name in dict.fromkeys(each.name for run in runs for each in run.rule.states):
            own = [next((each for each in run.rule.states if each.name == name), None) for run in runs]
            found = [
                None if of is None else run.initial(of, i) for i, (run, of) in enumerate(zip(runs, own, strict=True))
            ]
            shared = any(of is not None and of.extent == Extent.GROUP for of in own)
            state[name] = next(x for x in found if x is not None) if shared else rebuilt(found)
        return state

    def __call__(
        self,
        params: Any,
        grads: Any,
        state: Mapping[str, Any],
        t: Any,
        hyperparameters: Mapping[str, Any] | None = None,
        *,
        phase: str | None = None,
        **inputs: Any,
    ) -> tuple[Any, dict[str, Any]]:
        """One update: new parameters, and the new state.

        Parameters
        ----------
        params, grads
            Containers of one structure.
        state
            What `init` gave, or the update before.
        t
            The count of updates, this one included: 1 at first. A number, or an array of no dimensions.
        hyperparameters
            Those that are other than the optimiser's own, by name: numbers, or arrays of no dimensions, in which case
            nothing depends on their values but results.
        phase
            Which phase of a step this is, where it has several.
        inputs
            What else the rule takes: for each parameter an array like the gradient, or one number.

        Raises
        ------
        ArgumentError
            For a phase, an input or a hyperparameter that is missing or unknown.
        ArrayError
            For containers that do not fit each other, and for what cannot be stepped.
        StateError
            For a state that is not this rule's.
        """
        found = self.step(params, grads, state, t, hyperparameters, phase=phase, **inputs)
        return found.params, found.state

    def step(
        self,
        params: Any,
        grads: Any,
        state: Mapping[str, Any],
        t: Any,
        hyperparameters: Mapping[str, Any] | None = None,
        *,
        phase: str | None = None,
        **inputs: Any,
    ) -> Stepped:
        """As a call, with all that the rule says of the step: whether it counts, and what it reports."""
        return self._step(TensorStep.written, params, grads, state, t, hyperparameters, phase, inputs)

    def update(
        self,
        params: Any,
        grads: Any,
        state: Mapping[str, Any],
        t: Any,
        hyperparameters: Mapping[str, Any] | None = None,
        *,
        phase: str | None = None,
        **inputs: Any,
    ) -> Stepped:
        """As `step`, but `params` of the result are what is to be added to the parameters; for a part of chains that
        works on gradients, what it makes of them."""
        return self._step(TensorStep.update, params, grads, state, t, hyperparameters, phase, inputs)

    def evaluated(
        self, params: Any, state: Mapping[str, Any], t: Any, hyperparameters: Mapping[str, Any] | None = None
    ) -> Any:
        """The parameters to evaluate with after update `t`: those of a schedule-free rule are a running mean."""
        leaves, rebuilt = self._leaves(params)
        values = {**self._values, **self._read(hyperparameters or {})}
        rules = [self._variant(p, None) for p in leaves]
        given = zip(rules, leaves, self._states(rules, state), strict=True)
        runs = [self._run(rule, values, t, {PARAMETER: p, **states}, evaluates=True) for rule, p, states in given]
        with self._library.quietly():
            return rebuilt([run.written(PARAMETER) for run in runs])

    # ---- What it is made of ----

    def _step(
        self, result: Callable[[TensorStep, str], Array], params: Any, grads: Any, state: Mapping[str, Any], t: Any,
        hyperparameters: Mapping[str, Any] | None, phase: str | None, inputs: Mapping[str, Any],
    ) -> Stepped:  # fmt: skip
        leaves, rebuilt = self._leaves(params)
        values = {**self._values, **self._read(hyperparameters or {})}
        with self._library.quietly():
            runs = self._runs(leaves, grads, state, t, values, phase, inputs)
            found = step_together(runs, result)
            new = {name: self._gathered(name, runs, found.states, rebuilt) for name in state}
            reports = [{each.name: run.named(each.value) for each in run.rule.reports} for run in runs]
        return Stepped(rebuilt(found.params), new, found.counts, reports)

    def _leaves(self, params: Any) -> tuple[list[Array], Callable[[Sequence[Any]], Any]]:
        leaves, rebuilt = self._library.flatten(params)
        for i, p in enumerate(leaves):
            if not self._library.owns(p):
                message = f"parameter {i}: expected an array of {self._library.name}, got {type(p).__name__}"
                raise ArrayError(message)
        return leaves, rebuilt

    def _variant(self, p: Array, phase: str | None) -> Rule:
        rules = self._rules(tuple(p.shape))
        names = rules[0].phases
        if phase is None:
            return rules[0]
        if phase not in names:
            what = f"one of its phases, {', '.join(names)}" if names else "no phase: its step has but one"
            raise ArgumentError(f"{self._owner}: expected {what}; got {phase!r}")
        return rules[names.index(phase)]

    def _runs(
        self, leaves: Sequence[Array], grads: Any, state: Mapping[str, Any], t: Any, values: Values, phase: str | None,
        inputs: Mapping[str, Any],
    ) -> list[TensorStep]:  # fmt: skip
        rules = [self._variant(p, phase) for p in leaves]
        if rules and rules[0].phases and phase is None:
            raise ArgumentError(f"{self._owner}: expected a phase, {' or '.join(rules[0].phases)}; got none")
        numbers = {name: (inputs[name],) for rule in rules for name in rule.given_numbers if name in inputs}
        given = {GRADIENT: self._like(leaves, grads, "gradients")}
        for name in dict.fromkeys(name for rule in rules for name in rule.given_arrays if name != GRADIENT):
            if name in inputs:
                given[name] = self._like(leaves, inputs[name], name)
        self._refuse_inputs(rules, inputs)
        runs = []
        for i, (rule, p, states) in enumerate(zip(rules, leaves, self._states(rules, state), strict=True)):
            arrays = {PARAMETER: p, **{name: given[name][i] for name in rule.given_arrays}, **states}
            runs.append(self._run(rule, {**values, **numbers}, t, arrays))
        return runs

    def _refuse_inputs(self, rules: Sequence[Rule], inputs: Mapping[str, Any]) -> None:
        takes = {each.name for rule in rules for each in rule.inputs}
        for name in sorted(takes - inputs.keys()):
            raise ArgumentError(f"{self._owner}: expected the input {name!r}, got none", hint=f"give it: {name}=...")
        for name in sorted(inputs.keys() - takes):
            known = f"its inputs are {', '.join(sorted(takes))}" if takes else "it takes none beside the gradients"
            raise ArgumentError(f"{self._owner}: unknown input {name!r}; {known}")

    def _like(self, leaves: Sequence[Array], tree: Any, what: str) -> list[Array]:
        """The arrays of a container that is like the parameters."""
        found, _ = self._library.flatten(tree)
        if len(found) != len(leaves):
            raise ArrayError(f"expected {what} for {len(leaves)} parameters, got {len(found)}")
        for i, (p, x) in enumerate(zip(leaves, found, strict=True)):
            if not self._library.owns(x) or tuple(x.shape) != tuple(p.shape):
                got = f"one of shape {tuple(x.shape)}" if self._library.owns(x) else type(x).__name__
                message = f"{what}, parameter {i}: expected an array of {self._library.name} of shape {tuple(p.shape)}"
                raise ArrayError(f"{message}, got {got}")
        return found

    def _states(self, rules: Sequence[Rule], state: Mapping[str, Any]) -> list[dict[str, Array]]:
        """The states of each tensor, by name."""
        found: list[dict[str, Array]] = [{} for _ in rules]
        for name, of in {each.name: each for rule in rules for each in rule.states}.items():
            if name not in state:
                message = f"{self._owner}: expected the state {name!r}, got {', '.join(state) or 'none'}"
                raise StateError(message, hint="begin with what init(params) gives")
            having = [i for i, rule in enumerate(rules) if any(each.name == name for each in rule.states)]
            own = [state[name]] * len(having) if of.extent == Extent.GROUP else self._library.flatten(state[name])[0]
            if len(own) != len(having):
                raise StateError(f"{self._owner}: expected {name} of {len(having)} parameters, got {len(own)}")
            for i, array in zip(having, own, strict=True):
                found[i][name] = array
        return found

    def _run(
        self, rule: Rule, values: Values, t: Any, arrays: Mapping[str, Array], *, evaluates: bool = False
    ) -> TensorStep:
        return TensorStep(self._library, rule, values, t, arrays, rule.evaluation if evaluates else rule.body)

    def _gathered(
        self, name: str, runs: Sequence[TensorStep], written: Sequence[Mapping[str, Array]],
        rebuilt: Callable[[Sequence[Any]], Any],
    ) -> Any:  # fmt: skip
        of = next(each for run in runs for each in run.rule.states if each.name == name)
        found = [each.get(name) for each in written]
        return next(x for x in found if x is not None) if of.extent == Extent.GROUP else rebuilt(found)
