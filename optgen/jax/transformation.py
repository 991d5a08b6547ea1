"""A rule as a gradient transformation of optax.

In: an optimiser that has not stepped, or a class of them. Out: an `optax.GradientTransformationExtraArgs`.

A transformation has no loop over steps of its own, so a count and schedules are arrays: nothing is traced or compiled
again when they change.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ..errors import ArgumentError
from ..optimiser.base import Optimiser, compilation_of

__all__ = ["TransformationState", "factory", "transform"]


class TransformationState(NamedTuple):
    """The state of a transformation: how many updates there were, and what the rule keeps.

    `states` has for each name of the spec a pytree like the parameters, or one array, where all parameters have it
    together.
    """

    count: jax.Array
    states: dict[str, Any]


def transform(
    optimiser: Optimiser, hyperparameters: Mapping[str, Any] | None = None
) -> optax.GradientTransformationExtraArgs:
    """A transformation that does what an optimiser does.

    Parameters
    ----------
    optimiser
        An optimiser or a chain. Its hyperparameters are numbers; its states are not taken over.
    hyperparameters
        Values in the place of its own, by name: arrays of no dimensions, or schedules as optax has them: functions that
        give one for the number of updates so far, 0 at first.

    Returns
    -------
    optax.GradientTransformationExtraArgs
        Its `update` needs `params`, and takes what the rule has for inputs by name: `update(grads, state, params,
        loss=...)`. What else it is given is left alone. For a part of chains that works on gradients, the updates are
        what it makes of these.

    Raises
    ------
    ArgumentError
        For a rule whose step has several phases, and for a schedule of optgen's, which counts on the host.

    Examples
    --------
    >>> import jax.numpy as jnp, optax, optgen, optgen.jax
    >>> adam = optgen.jax.transform(optgen.chain(optgen.ClipNorm(1.0), optgen.ADAM(0.1)))
    >>> params = jnp.zeros(2)
    >>> state = adam.init(params)
    >>> updates, state = adam.update(jnp.ones(2), state, params)
    >>> optax.apply_updates(params, updates).round(4)
    Array([-0.1, -0.1], dtype=float32)
    """
    name = type(optimiser).__name__
    if optimiser.rule.phases:
        phases = ", ".join(optimiser.rule.phases)
        message = f"{name}: expected a rule with one gradient a step, got one with the phases {phases}"
        raise ArgumentError(message, hint='call its phases in turn: optimiser.function("jax")')
    function = optimiser.function("jax")
    traced = dict(hyperparameters or {})
    inputs = {each.name for each in optimiser.rule.inputs}

    def init(params: Any) -> TransformationState:
        return TransformationState(jnp.zeros((), jnp.int32), function.init(params))

    def update(
        grads: Any, state: TransformationState, params: Any = None, **extra: Any
    ) -> tuple[Any, TransformationState]:
        if params is None:
            raise ArgumentError(f"{name}: expected the parameters, got none", hint="update(grads, state, params)")
        own = {name: value(state.count) if callable(value) else value for name, value in traced.items()}
        given = {name: value for name, value in extra.items() if name in inputs}
        t = optax.safe_increment(state.count)
        found = function.update(params, grads, state.states, t, own, **given)
        count = t if found.counts is True else jnp.where(found.counts, t, state.count)
        return found.params, TransformationState(count, found.state)

    return optax.GradientTransformationExtraArgs(init, update)


def factory(made: type[Optimiser]) -> Callable[..., optax.GradientTransformationExtraArgs]:
    """The function that makes transformations of a rule: hyperparameters by position or name, then flags by name."""
    theirs = inspect.signature(made)
    names = {hyper.name for hyper in compilation_of(made).rules[0].hypers}
    kept = [p for p in theirs.parameters.values() if p.name in names or p.name in _flags(made)]

    def transformation(*args: Any, **kwargs: Any) -> optax.GradientTransformationExtraArgs:
        bound = inspect.Signature(kept).bind(*args, **kwargs)
        traced = {name: value for name, value in bound.arguments.items() if name in names and _is_traced(value)}
        fixed = {name: value for name, value in bound.arguments.items() if name not in traced}
        return transform(made(**fixed), traced)

    transformation.__name__ = transformation.__qualname__ = compilation_of(made).stem
    transformation.__doc__ = made.__doc__
    transformation.__signature__ = inspect.Signature(kept)  # type: ignore[attr-defined]
    return transformation


def _flags(made: type[Optimiser]) -> set[str]:
    return {flag.name for flag in compilation_of(made).rules[0].flags}


def _is_traced(value: Any) -> bool:
    """Whether a hyperparameter is no number of Python, nor a sequence of these."""
    several = value if isinstance(value, tuple | list) else (value,)
    return any(callable(each) or isinstance(each, jax.Array) for each in several)
