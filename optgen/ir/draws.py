"""Random numbers: which there are, and how a normal one is made of a uniform one.

In: nothing. Out: the names of the draws, and the expression that the pass `expand_draws` and the interpreter share.

The words of a draw are those of Philox4x32-10 (Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011).
The key is the seed and the number of the parameter; the counter is the number of the element, the count of updates, and
which draw of the rule it is. So a draw is a function of these and nothing else: not of threads, of shares of work, or
of how often a training was broken off.
"""

from __future__ import annotations

from ..frozen import replace
from .expr import Call, Const, Expr, Extent, Ordinal
from .interval import Interval
from .rule import Hyper, Rule, State

__all__ = ["DRAWS", "MOST_DRAWS", "SEED", "STREAM", "normal_of", "with_key"]

#: What random numbers depend on: a hyperparameter, and a state that is the number of the parameter.
SEED = Hyper("seed", (0.0,), False, (Interval(0.0, 1e9, True, True, True),), "which random numbers are drawn")
STREAM = State("stream", Ordinal(), "which parameter they are drawn for", Extent.TENSOR)

#: What formulas may draw for each element, and the extent of its values in words.
DRAWS = {
    "normal": "a normally distributed number",
    "uniform": "a uniformly distributed number, at least 0 and below 1",
    "rademacher": "1 or -1",
}
#: How many draws a spec may have: a sweep keeps a block of each.
MOST_DRAWS = 4

# The quantile of the normal distribution in three regions: Wichura, Algorithm AS 241, Applied Statistics 37 (1988),
# PPND7, whose relative error is about 1e-7.
_NEAR = (0.425, 0.180625)
_NEAR_ABOVE = (5.9109374720e1, 1.5929113202e2, 5.0434271938e1, 3.3871327179e0)
_NEAR_BELOW = (6.7187563600e1, 7.8757757664e1, 1.7895169469e1, 1.0)
_FAR = (5.0, 1.6)
_FAR_ABOVE = (1.7023821103e-1, 1.3067284816e0, 2.7568153900e0, 1.4234372777e0)
_FAR_BELOW = (1.2021132975e-1, 7.3700164250e-1, 1.0)
_LAST_ABOVE = (1.7337203997e-2, 4.2868294337e-1, 3.0812263860e0, 6.6579051150e0)
_LAST_BELOW = (1.2258202635e-2, 2.4197894225e-1, 1.0)


def with_key(rule: Rule) -> Rule:
    """A rule that has a seed and the number of its parameter, whether it draws or not."""
    hypers = () if any(hyper.name == SEED.name for hyper in rule.hypers) else (SEED,)
    states = () if any(state.init == Ordinal() for state in rule.states) else (STREAM,)
    return replace(rule, hypers=(*rule.hypers, *hypers), states=(*rule.states, *states))


def normal_of(tail: Expr) -> Expr:
    """The normally distributed number whose tail has this probability, at most 0.5; with the sign of `tail`."""
    p = Call("abs", (tail,))
    q = Call("sub", (Const(0.5), p))
    near = Call("sub", (Const(_NEAR[1]), Call("mul", (q, q))))
    r = Call("sqrt", (Call("neg", (Call("log", (p,)),)),))
    far, last = Call("sub", (r, Const(_FAR[1]))), Call("sub", (r, Const(_FAR[0])))
    size = Call("where", (
        Call("le", (q, Const(_NEAR[0]))),
        Call("mul", (q, _ratio(_NEAR_ABOVE, _NEAR_BELOW, near))),
        Call("where", (
            Call("le", (r, Const(_FAR[0]))),
            _ratio(_FAR_ABOVE, _FAR_BELOW, far),
            _ratio(_LAST_ABOVE, _LAST_BELOW, last),
        )),
    ))  # fmt: skip
    return Call("where", (Call("lt", (tail, Const(0.0))), Call("neg", (size,)), size))


def _ratio(above: tuple[float, ...], below: tuple[float, ...], x: Expr) -> Expr:
    return Call("div", (_polynomial(above, x), _polynomial(below, x)))


def _polynomial(coefficients: tuple[float, ...], x: Expr) -> Expr:
    """The polynomial with these coefficients, that of the highest power first, by Horner's scheme."""
    value: Expr = Const(coefficients[0])
    for coefficient in coefficients[1:]:
        value = Call("add", (Call("mul", (value, x)), Const(coefficient)))
    return value
