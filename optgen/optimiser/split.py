"""Split: one optimiser for named arrays that are stepped by several rules, chosen by name and by shape.

In: named parameters, and lines: an optimiser each, with patterns of names; then parameters and gradients. Out:
parameters and states changed in place, in all lines or in none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from functools import partial
from operator import is_
from threading import RLock
from typing import Any

import numpy as np

from ..errors import ArgumentError, ArrayError, OverlapError, shown
from ..runtime.arrays import Array, as_parameter
from ..runtime.interrupts import to_its_end
from ..runtime.overlaps import first_overlap, refuse_overlaps
from ..runtime.slots import Slot, key_of, owner_of
from ..runtime.together import step_together
from .base import Optimiser, engine_of
from .checkpoint_file import FilePath, load_checkpoint, write_checkpoint
from .division import Named, SplitLine, divided, in_line, lines_of, listed_names, named_pairs
from .inputs import respelled
from .split_input import array_engine, in_order, listed_values, optimiser_of
from .split_state import divided_state, joined

__all__ = ["ArraySplit", "split"]


def split(params: Mapping[str, Any] | Iterable[tuple[str, Any]], /, **lines: Any) -> ArraySplit:
    """One optimiser with several rules, each for some of the parameters.

    Parameters
    ----------
    params
        Arrays of float32 or float64, or tracked parameters, by name: a mapping, or pairs.
    lines
        For each line NAME=optimiser, one that has not stepped, of which the split takes a copy; and
        NAME_names=patterns, the names that the line takes. A parameter goes to the first line with a pattern that it
        matches; what matches none goes to the line `matrices`, if it has two dimensions or more, and else to the line
        `rest`. A pattern with wildcards is one of a whole name; any other matches whole words between dots; a function
        is given name and parameter.

    Raises
    ------
    ArgumentError
        For a parameter that no line takes, a pattern that takes nothing, and what is no line.
    ArrayError
        For what is no parameter, for one that is given twice, and for a shape that the rule of its line does not step.
    StateError
        For an optimiser that has stepped.

    Examples
    --------
    >>> import numpy as np
    >>> from optgen import ADAM, Descent, split
    >>> params = {"W": np.ones((3, 4)), "b": np.zeros(3)}
    >>> opt = split(params, matrices=Descent(1e-3), rest=ADAM(1e-2))
    >>> opt.step(params, {"W": np.ones((3, 4)), "b": np.ones(3)})
    True
    >>> opt
    ArraySplit(
      matrices: Descent(eta=0.001), 1 parameter of 12 values: W
      rest: ADAM(eta=0.01, beta=(0.9, 0.999), eps=1e-08), 1 parameter of 3 values: b
    )
    """
    named = dict(named_pairs(params, np.ndarray, "split", "parameters by name", 'such as {"W": W, "b": b}'))
    return ArraySplit(named, [SplitLine(line.name, optimiser_of(line), line.patterns) for line in lines_of(lines)])


class ArraySplit:
    """What `split` makes.

    `opt["matrices"]` is the optimiser of a line, whose hyperparameters are set and scheduled as those of any other. The
    split holds its parameters, and knows them by their memory.
    """

    __slots__ = ("_keys", "_last", "_lines", "_of", "_params")

    def __init__(self, params: Mapping[str, Any], lines: Sequence[SplitLine]) -> None:
        arrays = {name: as_parameter(p, name, len(params)) for name, p in params.items()}
        taken = divided(lines, [Named(params[name], p.ndim, (name,)) for name, p in arrays.items()])
        of = {p.name: line for line, own in taken.items() for p in own}
        for line in lines:
            for p in taken[line.name]:
                with in_line(f"{line.name}, {p.name}"):
                    array_engine(line.rule).settings.variant(None, arrays[p.name].shape)
        self._hold(params, {line.name: line.rule for line in lines}, of)

    def _hold(self, params: Mapping[str, Any], lines: Mapping[str, Optimiser], of: Mapping[str, str]) -> None:
        """Have these parameters and lines. `of`: by the name of each parameter, that of its line."""
        self._params, self._lines, self._of = dict(params), dict(lines), dict(of)
        arrays = list(self._arrays().values())
        self._keys = {key_of(p, owner_of(p)): name for name, p in zip(params, arrays, strict=True)}
        if pair := first_overlap(arrays, len(arrays)):
            one, other = (list(params)[i] for i in pair)
            message = f"split: expected arrays apart in memory, got an overlap of {one!r} and {other!r}"
            raise OverlapError(message, hint="give one of them memory of its own, .copy()")
        #: The parameters of the step before, their names, and by each line that has some where these stand.
        self._last: tuple[list[Any], list[str], dict[str, list[int]]] = [], [], {}

    # ---- Lines ----

    def __getitem__(self, line: str) -> Optimiser:
        if line not in self._lines:
            raise ArgumentError(f"expected a line among {', '.join(self._lines)}, got {shown(line)}")
        return self._lines[line]

    def __iter__(self) -> Iterator[str]:
        return iter(self._lines)

    def __len__(self) -> int:
        return len(self._lines)

    @property
    def lines(self) -> dict[str, tuple[str, ...]]:
        """Who steps what: by the name of its line, the names of all parameters."""
        return {line: tuple(name for name in self._params if self._of[name] == line) for line in self._lines}

    def __repr__(self) -> str:
        told, sizes = [], {name: p.size for name, p in self._arrays().items()}
        for line, own in self.lines.items():
            parameters = f"{len(own)} parameter{'s' * (len(own) != 1)} of {sum(sizes[name] for name in own)} values"
            told.append(f"  {line}: {self._lines[line]!r}, {parameters}: {listed_names(own)}\n")
        return f"{type(self).__name__}(\n{''.join(told)})"

    def __getattr__(self, name: str) -> Any:
        hint = "" if name.startswith("_") else f"; hyperparameters are of its lines: opt[{next(iter(self._lines))!r}]"
        raise AttributeError(f"{type(self).__name__} has no {name!r}{hint}")

    @property
    def _lock(self) -> RLock:
        return engine_of(next(iter(self._lines.values()))).lock

    # ---- Steps ----

    def step(self, params: Any, grads: Any, **inputs: Any) -> bool:
        """One update of every parameter in place, in all lines or in none.

        Parameters
        ----------
        params
            Parameters of this split: a sequence, or a mapping of their names.
        grads
            For each parameter an array of its shape and dtype: a sequence in the same order, or a mapping of the names.
        inputs
            What else rules take, by name: for each parameter an array, or one number. Each line is given what it takes.

        Returns
        -------
        bool
            Whether the step counts in all lines. Where `Unscale` in one of them finds that it does not, that line alone
            is left as it was.

        Raises
        ------
        As a step of each rule does. After an error no parameter, state or count has changed.
        """
        with self._lock:
            ps, names, places = self._found(params)
            gs = in_order(grads, names, "gradients")
            rules = [opt.rule for opt in self._lines.values()]
            taken = respelled(inputs, {each.name for rule in rules for each in rule.inputs}) if inputs else {}
            taken = {name: x for name, x in taken.items() if x is not None}
            with_arrays = {name for rule in rules for name in rule.given_arrays} if taken else set()
            arrays = {name: in_order(x, names, name) for name, x in taken.items() if name in with_arrays}
            steps = []
            for line, own in places.items():
                opt = self._lines[line]
                given = {each.name: taken[each.name] for each in opt.rule.inputs if each.name in taken}
                given |= {name: [arrays[name][i] for i in own] for name in given.keys() & arrays.keys()}
                run = partial(_step, line, opt, [ps[i] for i in own], [gs[i] for i in own], given)
                steps.append((array_engine(opt).engine, run))
            if len(steps) > 1:
                _expect_apart(ps, gs, [x for own in arrays.values() for x in own])
            return all(step_together(steps))

    def _found(self, params: Any) -> tuple[list[Any], list[str], dict[str, list[int]]]:
        """These parameters, their names, and by each line that has some where these stand."""
        ps = list(params.values()) if isinstance(params, Mapping) else listed_values(params, "parameters")
        if len(ps) == len(self._last[0]) and all(map(is_, ps, self._last[0])):
            return self._last
        arrays = [as_parameter(p, i, len(ps)) for i, p in enumerate(ps)]
        names = [self._name(p, i) for i, p in enumerate(arrays)]
        for name, given in zip(names, params if isinstance(params, Mapping) else names, strict=True):
            if name != given:
                raise ArgumentError(f"expected the parameter {given!r} under its name, got {name!r}")
        places: dict[str, list[int]] = {}
        for line in self._lines:
            if own := [i for i, name in enumerate(names) if self._of[name] == line]:
                places[line] = own
        self._last = ps, names, places
        return self._last

    def _name(self, p: Array, i: int) -> str:
        name = self._keys.get(key_of(p, owner_of(p)))
        if name is None:
            hint = "give the arrays that it was made with, in the memory that they had then"
            raise ArrayError(f"parameter {i}: expected one of this split, got another array", hint=hint)
        return name

    # ---- States ----

    def state(self, p: Any = None) -> dict[str, Any]:
        """The state of parameter `p`, as the rule of its line shows it; without one, what all parameters of a line have
        together, as LINE/STATE."""
        with self._lock:
            if p is not None:
                return self._line_of(p).state(p)
            return {f"{line}/{name}": x for line, opt in self._lines.items() for name, x in opt.state().items()}

    def report(self, p: Any = None) -> dict[str, Any]:
        """What the last step reports of parameter `p`, as the rule of its line does; without one, what that is of all
        parameters of a line, as LINE/NAME."""
        with self._lock:
            if p is not None:
                return self._line_of(p).report(p)
            return {f"{line}/{name}": x for line, opt in self._lines.items() for name, x in opt.report().items()}

    def set_state(self, p: Any, /, **values: Any) -> None:
        """Set states of parameter `p`, or its count `t`, by hand, as the rule of its line does."""
        with self._lock:
            self._line_of(p).set_state(p, **values)

    def _line_of(self, p: Any) -> Optimiser:
        return self._lines[self._of[self._name(as_parameter(p, 0, 1), 0)]]

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs, in plain containers and arrays.

        By line the rules, flags and hyperparameters; by name of each parameter that was stepped its shape, dtype, count
        and states (copies); and as LINE/STATE the states of all parameters of a line together.
        """
        with self._lock:
            parts = {line: opt.state_dict() for line, opt in self._lines.items()}
            return joined(parts, {line: self._begun(line) for line in parts})

    def _begun(self, line: str) -> list[str]:
        """The names of the parameters that a line has stepped, in the order in which it did."""
        return [self._keys[key_of(p, owner)] for owner, p, _ in array_engine(self._lines[line]).states.parameters()]

    def load_state_dict(self, saved: Mapping[str, Any], *, convert: bool = False) -> None:
        """Take over what `state_dict` gave: hyperparameters, counts and states (copies). `convert`: as for each rule.

        Raises StateError if `saved` is of other lines, rules, flags, names, shapes or dtypes, HyperparameterError or
        ArgumentError for its hyperparameters. Then nothing has changed.
        """
        with self._lock:
            to_its_end(self._loading(saved, convert=convert))

    def _loading(self, saved: Any, *, convert: bool) -> Callable[[], bool]:
        """What takes over a saved state, which is read and checked here: it may be begun anew at any point."""
        parts = divided_state(saved, self.lines)
        loads = []
        for line, opt in self._lines.items():
            engine = array_engine(opt)
            engine.expect_loadable()
            entries = parts[line]["parameters"]
            with in_line(line):
                part = parts[line] | {"parameters": list(entries.values())}
                loads.append(engine.loading(part, [self._params[name] for name in entries], convert=convert))
        return lambda: all([load() for load in loads])

    # ---- Evaluation ----

    def eval(self) -> None:
        """Give each parameter, in place, the values that the rule of its line says to evaluate it with; `train` gives
        the others back. As of each rule by itself."""
        with self._lock:
            try:
                for opt in self._lines.values():
                    opt.eval()
            except BaseException:
                self.train()
                raise

    def train(self) -> None:
        """Give parameters back what `eval` has set aside: training goes on with the same bits. Else do nothing."""
        with self._lock:
            for opt in self._lines.values():
                opt.train()

    # ---- Files ----

    def save(self, path: FilePath) -> None:
        """Write a checkpoint: all parameters by name, their states, and the settings of all lines.

        As `Optimiser.save` does, and raises.
        """
        with self._lock:
            arrays = self._arrays()
            parts: dict[str, dict[str, Any]] = {}
            slots: dict[str, Slot | None] = {}
            for line, opt in self._lines.items():
                engine = array_engine(opt)
                engine.engine.expect_training("save parameters")
                parts[line] = engine.saved_settings() | {"parameters": (), "group": engine.states.group}
                slots |= {name: engine.states.of(arrays[name]) for name in self.lines[line]}
            saved = joined(parts, dict.fromkeys(parts, ()))
            write_checkpoint(path, saved, arrays, slots, saved.get("group", {}))

    def load(self, path: FilePath, *, convert: bool = False) -> None:
        """Take over what `save` wrote: values of the parameters, in place, their states and counts, hyperparameters.

        As `Optimiser.load` does, and raises; then no parameter, state, count or hyperparameter has changed.
        """
        with self._lock:
            for opt in self._lines.values():
                array_engine(opt).expect_loadable()
            load_checkpoint(path, self._arrays(), partial(self._loading, convert=convert))

    def _arrays(self) -> dict[str, Array]:
        return {name: as_parameter(p, name, len(self._params)) for name, p in self._params.items()}

    # ---- Copies ----

    def __copy__(self) -> ArraySplit:
        """A split of the same parameters, with states of its own."""
        with self._lock:
            return _revived(self._params, {line: copy(opt) for line, opt in self._lines.items()}, self._of)

    def __reduce__(self) -> tuple[Any, ...]:
        """With the parameters: what is copied or pickled together with them steps them."""
        with self._lock:
            return _unpickled, (self._params, self._lines, self._of, {line: self._begun(line) for line in self._lines})


def _revived(params: Mapping[str, Any], lines: Mapping[str, Optimiser], of: Mapping[str, str]) -> ArraySplit:
    made: ArraySplit = object.__new__(ArraySplit)
    made._hold(params, lines, of)
    return made


def _unpickled(
    params: Mapping[str, Any], lines: Mapping[str, Optimiser], of: Mapping[str, str], begun: Mapping[str, Sequence[str]]
) -> ArraySplit:
    for line, opt in lines.items():  # whose states wait for their parameters
        opt.load_state_dict(opt.state_dict(), [params[name] for name in begun[line]])
    return _revived(params, lines, of)


def _expect_apart(params: Sequence[Any], grads: Sequence[Any], inputs: Sequence[Any]) -> None:
    """OverlapError for a gradient or an input in the memory of a parameter, which another line may have: each line
    looks at its own arrays. What is no array is left to these."""
    ps = [as_parameter(p, i, len(params)) if p.__class__ is not np.ndarray else p for i, p in enumerate(params)]
    if all([x.base is None for x in ps]) and all([getattr(x, "base", None) is None for x in (*grads, *inputs)]):
        return  # each has memory of its own
    gs, others = ([x for x in own if isinstance(x, np.ndarray)] for own in (grads, inputs))
    refuse_overlaps(ps, gs, [], others)


def _step(line: str, opt: Optimiser, params: list[Any], grads: list[Any], inputs: Mapping[str, Any]) -> bool:
    with in_line(line):
        return bool(opt.step(params, grads, **inputs))
