"""Expressions of a variant: from terms to typed expressions.

In: terms, and the names of a variant. Out: an `Expr`, or None for a term with a fault.
"""

from __future__ import annotations

from ..ir.draws import DRAWS
from ..ir.expr import (
    COUNTS,
    Call,
    Const,
    Count,
    Draw,
    Expr,
    Extent,
    Load,
    Reduce,
    Scalar,
    Shape,
    dims_of,
    joint_dims,
    joint_extent,
    type_of,
    varies_within,
)
from ..ir.extents import IDENTITY, Dims, default_dims
from ..ir.primitives import FUNCTIONS, LARGEST_POWER, OPS, PRODUCTS, REDUCTIONS, Type
from ..names import close_matches
from .products import Products, sized
from .syntax import Broken, Choice, Gathered, Indexed, Invoke, Item, Name, Number, Operation, Term
from .terms import decided, leaves
from .vocabulary import (
    CALLABLE,
    COMPARE,
    ELEMENT,
    MATRIX,
    NOT_YET,
    OF_MATRICES,
    OVER,
    OVER_WORDS,
    SAID_AS,
    SEED,
    STREAM,
    SUM_AS_PRODUCT,
    WRITTEN_OUT,
)

__all__ = ["Expressions"]

#: The most dimensions that an array can have.
MOST_DIMENSIONS = 64


class Expressions(Products):
    """The expressions of one choice of flags. A method that finds a fault returns None."""

    def expr(self, term: Term) -> Expr | None:
        match term:
            case Number():
                return Const(term.value)
            case Name():
                return self.name(term)
            case Item():
                return self.item(term)
            case Operation():
                return self.operation(term)
            case Invoke():
                return self.invoke(term)
            case Choice():
                return self.choose(term)
            case Broken() | Indexed() | Gathered():  # the last two are written out
                return None

    def decide(self, test: Term) -> bool | None:
        """Decide a condition of flags. None after a fault."""
        for leaf in leaves(test):
            if isinstance(leaf, Name) and leaf.name in self.choice:
                self.use(leaf.name)
            elif not isinstance(leaf, Broken):
                self.use_all(leaf)
                self.no_flag(leaf)
        return decided(test, self.choice)

    def no_flag(self, term: Term) -> None:
        """Record the fault of a condition of flags that is made of something else."""
        close = close_matches(term.name, self.choice) if isinstance(term, Name) else []
        hint = f"did you mean {close[0]!r}? " if close else ""
        hint += f"flags: {', '.join(self.choice) or 'none here'}"
        self.fault(term.span, "expected a condition of flags (flag, not, and, or)", hint)

    def condition(self, test: Term) -> bool | Expr | None:
        """Decide the flags in a test: true, false, or the condition that is left. None after a fault."""
        for leaf in leaves(test):
            if isinstance(leaf, Name) and leaf.name in self.choice:
                self.use(leaf.name)
        value = decided(test, self.choice)
        return self.undecided(test) if value is None else value

    def undecided(self, test: Term) -> Expr | None:
        """What flags leave of a condition that they do not decide."""
        if isinstance(test, Operation) and test.op in ("not", "and", "or"):
            left = [arg for arg in test.args if decided(arg, self.choice) is None]
            found = [self.undecided(arg) for arg in left]
            return self.call(test.op, test, found) if len(left) == len(test.args) else found[0]
        value = self.expr(test)
        if value is not None and type_of(value) is not Type.BOOL:
            self.fault(test.span, f"expected {Type.BOOL.value}, got {Type.REAL.value}", COMPARE)
            return None
        return value

    def choose(self, term: Choice) -> Expr | None:
        """Choose a side if flags decide. Otherwise, leave the choice to where the rule runs."""
        test = self.condition(term.test)
        if isinstance(test, bool):  # the other side is checked in the variants that have it
            return self.expr(term.then if test else term.other)
        sides = (term.test, term.then, term.other)
        return self.call("where", Invoke(term.span, "where", sides), [test, *map(self.expr, sides[1:])])

    def operation(self, term: Operation) -> Expr | None:
        args = [self.expr(arg) for arg in term.args]
        if term.op in PRODUCTS:
            return self.product(term.op, term, args)
        exponent = term.args[-1]
        whole = isinstance(exponent, Number) and exponent.whole and 2 <= exponent.value <= LARGEST_POWER
        return self.call("powi" if term.op == "pow" and whole else term.op, term, args)

    def invoke(self, term: Invoke) -> Expr | None:
        name, last = term.function, term.args[-1] if term.args else None
        if name in REDUCTIONS:
            if isinstance(last, Name) and last.name == ELEMENT:
                return self.of_element(term)
            if isinstance(last, Name) and last.name in OVER:
                return self.reduce(term, term.args[:-1], OVER[last.name])
            # `max(a, b)` is the larger of two values, `max(a)` the maximum over all elements.
            if name not in FUNCTIONS or len(term.args) != len(OPS[name].takes):
                return self.reduce(term, term.args, None)
        if name in DRAWS:
            return self.draw(term)
        args = [self.expr(arg) for arg in term.args]
        if name not in (*FUNCTIONS, *WRITTEN_OUT, *OF_MATRICES):
            self.unknown_function(term)
            return None
        takes = len(OPS[name].takes) if name in FUNCTIONS else {**PRODUCTS, **WRITTEN_OUT}[name]
        if len(args) != takes:
            arguments = "1 argument" if takes == 1 else f"{takes} arguments"
            hint = f"write {SAID_AS[name]}" if name in SAID_AS else None
            self.fault(term.span, f"{name}(): expected {arguments}, got {len(args)}", hint)
            return None
        if name in OF_MATRICES:
            return self.product(name, term, args)
        return self.length(term) if name == "length" else self.call(name, term, args)

    def length(self, term: Invoke) -> Expr | None:
        """Elaborate the length of a dimension, `length(2)` or `length(-1)`."""
        (arg,), sign = term.args, 1
        if isinstance(arg, Operation) and arg.op == "neg":
            arg, sign = arg.args[0], -1
        if isinstance(arg, Number) and arg.whole and 1 <= arg.value <= MOST_DIMENSIONS:
            return Shape(sign * int(arg.value))
        message = f"length(): expected a dimension from 1 to {MOST_DIMENSIONS}, or from -1 to -{MOST_DIMENSIONS}"
        self.fault(term.args[0].span, message, f"write {SAID_AS['length']}")
        return None

    def draw(self, term: Invoke) -> Expr | None:
        """Elaborate a random number, `normal()`, or those of a matrix, `normal(row, row)`."""
        name = term.function
        dims = self.sides(term.args) if term.args else default_dims(Extent.ELEMENT)
        if dims is None:
            hint = f"write {name}(), which is {DRAWS[name]}, for each element; of another matrix, {name}(row, row)"
            self.fault(term.span, f"{name}(): expected no arguments, or two dimensions; got {len(term.args)}", hint)
            return None
        if term.args and not self.choice[MATRIX]:
            message = f"{name}() of rows and columns, where the parameter is no matrix"
            self.fault(term.span, message, "choose with the given flag: a if matrix else b")
            return None
        self.see_as(Extent.MATRIX if term.args else Extent.CONSTANT, term.span)
        if not self.begun:
            message = f"{name}(): there are no random numbers before the first step"
            self.fault(term.span, message, f"write: m = {name}() if t == 1 else m")
            return None
        if term.span not in self.scope.draws:
            self.fault(
                term.span, f"{name}(): there are no random numbers in [evaluation] and [report]", "draw in [update]"
            )
            return None
        key = (Scalar(SEED, 0), Count(), Load(STREAM, Extent.TENSOR))
        return Draw(name, self.scope.draws[term.span], key, None if dims == default_dims(Extent.ELEMENT) else dims)

    def unknown_function(self, term: Invoke) -> None:
        """Record the fault of a call of what is no function."""
        name, known = term.function, (*CALLABLE, *WRITTEN_OUT, *DRAWS)
        close = close_matches(name, known)
        hint = f"did you mean {close[0]}()? " if close else ""
        hint += f"there are: {', '.join(known)}"
        hint = f"write {SAID_AS[name]}" if name in SAID_AS else hint
        message = f"unknown function {name!r}"
        if what := NOT_YET.get(name):
            message += f": {what} cannot be said in this language yet"
        self.fault(term.span, message, hint)

    def call(self, op: str, term: Operation | Invoke, args: list[Expr | None]) -> Expr | None:
        found = True
        for expected, arg, place in zip(OPS[op].takes, args, term.args, strict=True):
            if arg is None:
                found = False
            elif type_of(arg) is not expected:
                hint = "write 1 if condition else 0" if expected is Type.REAL else COMPARE
                self.fault(place.span, f"expected {expected.value}, got {type_of(arg).value}", hint)
                found = False
        if found and op == "div" and args[1] == Const(0.0):
            self.fault(term.span, "a division by zero", "write the condition that you mean: a/x if x > 0 else b")
            return None
        return self.element_by_element(op, term, [arg for arg in args if arg is not None]) if found else None

    def element_by_element(self, op: str, term: Operation | Invoke, args: list[Expr]) -> Expr | None:
        """A primitive of values whose dimensions fit."""
        if self.refuses_indices(term.span, args):
            return None
        dims = joint_dims(args)
        if dims is None:
            words = dict.fromkeys(dims_of(arg).words for arg in args if dims_of(arg) != Dims("", ""))
            message = f"expected values that fit element by element, got {' and '.join(words)}"
            self.fault(term.span, message, "a product of matrices is written A @ B, a transposed one A.T")
            return None
        if dims != IDENTITY and any(dims_of(arg) == IDENTITY for arg in args):
            args = [sized(arg, dims) for arg in args]
        return Call(op, tuple(args))

    def reduce(self, term: Invoke, given: tuple[Term, ...], named: Extent | None) -> Expr | None:
        """Elaborate a reduction over the `named` extent, or over the parameter if there is none."""
        over, name = named or Extent.TENSOR, term.function
        if len(given) != REDUCTIONS[name]:
            self.wrong_number(term, given, named)
            return None
        args = [self.expr(arg) for arg in given]
        found = [arg for arg in args if arg is not None]
        for arg, place in zip(args, given, strict=True):
            if arg is not None and type_of(arg) is not Type.REAL:
                self.fault(place.span, "expected a number, got a condition", "write 1 if condition else 0")
                found.remove(arg)
        if len(found) < len(args):
            return None
        if not self.choice[MATRIX] and Extent.MATRIX <= over < Extent.ELEMENT:
            what = "value for each index" if over == Extent.INDEX else over.name.lower()
            message = f"there is no {what} where the parameter is no matrix"
            self.fault(term.span, message, "choose with the given flag: a if matrix else b")
            return None
        if self.refuses_reduction(term, found, over):
            return None
        self.see_as(over, term.args[-1].span)
        of = joint_extent(found)
        if IDENTITY in map(dims_of, found):
            self.fault(term.span, f"{name}() was given an identity without a size", "for example: trace(g @ g.T)")
            return None
        if joint_dims(found) is None:
            words = " and ".join(dims_of(arg).words for arg in found)
            self.fault(term.span, f"{name}() was given values of {words}, which do not fit", "a transposed one is A.T")
            return None
        if varies_within(of, over):
            value = Reduce(name, tuple(found), over)
            return Call("bfloat16", (value,)) if all(map(self.is_half, found)) else value
        words = f"{name}() over {OVER_WORDS[over]} was given {of.words}"
        wider = [extent.name.lower() for extent in OVER.values() if extent < over and varies_within(of, extent)]
        written = f"{name}({', '.join('xy'[: len(found)])}, {wider[-1]})" if wider else ""
        if {of, over} == {Extent.ROW, Extent.COLUMN}:
            self.fault(term.span, f"{words}, not one for each element", f"to reduce all of these, write {written}")
        else:
            hint = "leave the reduction out"
            if name == "sum" and over in SUM_AS_PRODUCT:
                hint = f"a sum of equal values is a product: write {SUM_AS_PRODUCT[over]}"
            hint += f", or write {written}" if wider else ""
            self.fault(term.span, f"{words}, which is the same all over it", hint)
        return None

    def wrong_number(self, term: Invoke, given: tuple[Term, ...], named: Extent | None) -> None:
        """Record the fault of a reduction with too few or too many arguments."""
        name, takes, last = term.function, REDUCTIONS[term.function], given[-1] if given else None
        extents = ", ".join(OVER)
        unknown = isinstance(last, Name) and last.name not in self.known() - COUNTS.keys()
        if named is None and len(given) == takes + 1 and isinstance(last, Name) and unknown:
            close = close_matches(last.name, OVER)
            hint = f"did you mean {close[0]!r}? " if close else ""
            self.fault(last.span, f"expected an extent, got {last.spelled!r}", f"{hint}there are: {extents}")
            self.use(last.name)
            given = given[:-1]
        elif name not in FUNCTIONS:
            words, values = "1 value" if takes == 1 else f"{takes} values", ", ".join("xy"[:takes])
            hint = f"write {name}({values}), or {name}({values}, row) with one of {extents}"
            self.fault(term.span, f"{name}(): expected {words}, then an extent if it has one; got {len(given)}", hint)
        elif named is None:
            hint = f"nest it: {name}(a, {name}(b, c)); {name}(x) is that of all elements"
            self.fault(term.span, f"{name}(): expected 1 or 2 values, got {len(given)}", hint)
        else:
            over = named.name.lower()
            hint = f"write {name}(x, {over}); {name}(a, b) has no extent, it is that of two values"
            self.fault(term.span, f"{name}() over {OVER_WORDS[named]}: expected 1 value, got {len(given)}", hint)
        for arg in given:
            if not isinstance(arg, Name) or arg.name not in OVER:
                self.expr(arg)
