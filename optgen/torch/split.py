"""Split: one optimiser for a model whose parameters are stepped by several rules, chosen by name and by shape.

In: named parameters, and lines: a rule's options each, with patterns of names. Out: a `Split`, whose groups say by
themselves which line steps them.

Each line is an optimiser of its own rule. All keep their states in one place, the `state` of the split, and go by its
groups. A step is checked in all lines before one of them changes anything.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from threading import RLock
from typing import Any

import torch
from torch.optim import Optimizer

from ..errors import ArgumentError, StateError, excerpt, shown
from ..optimiser.division import Named, SplitLine, divided, in_line, line_of, lines_of, listed_names
from ..runtime.interrupts import undisturbed
from ..runtime.together import step_together
from .agreement import agreed
from .checkpoint import expect_layout, fitting
from .lines import LINE, RULE, inputs_of_lines, options_of, respell_momentum, shared_defaults, step_line
from .named import group_of, parameters_by_name
from .optimizer import Adapter, engine_of, load_fitting, naming_of
from .param_groups import expect_shapes
from .saved_codes import IN_CODES, named_storages
from .state_dicts import OF_ALL, state_dict_with

__all__ = ["Split", "split"]

#: Where a pickle has what the lines keep beside groups and states.
_OF_LINES = "_of_lines"


def split(params: Any, /, **lines: Any) -> Split:
    """One optimiser with groups of several rules.

    Parameters
    ----------
    params
        A model, its named parameters, or a mapping of names.
    lines
        For each line NAME=options: what `Rule.options(...)` gives, or a chain of optgen. NAME_names=patterns: the names
        that the line takes. A parameter goes to the first line with a pattern that it matches; what matches none goes
        to the line `matrices`, if it has two dimensions or more, and else to the line `rest`. A pattern with wildcards
        is one of a whole name; any other matches whole words between dots; a function is given name and parameter.

    Raises
    ------
    ArgumentError
        For a parameter that no line takes, a pattern that takes nothing, and what is no line.
    ArrayError
        For a parameter of a shape that the rule of its line does not step.

    Examples
    --------
    >>> import torch
    >>> import optgen.torch as optim
    >>> model = torch.nn.Sequential(torch.nn.Embedding(5, 4), torch.nn.Linear(4, 2))
    >>> optim.split(model, matrices=optim.Lion.options(lr=1e-3), rest=optim.AdamW.options(), rest_names="0")
    Split(
      matrices: Lion, lr 0.001, 1 parameter of 8 values: 1.weight
      rest: AdamW, lr 0.001, 2 parameters of 22 values: 0.weight, 1.bias
    )
    """
    return Split(params, **lines)


class Split(Optimizer):
    """What `split` makes, of the same arguments. Each of `param_groups` has the names of its `line` and its `rule`."""

    param_groups: list[dict[str, Any]]

    _lines: Sequence[SplitLine]

    def __init__(self, params: Any, /, **lines: Any) -> None:
        self._lines = [SplitLine(line.name, options_of(line), line.patterns) for line in lines_of(lines)]
        self._members: dict[str, Adapter] = {}
        taken = divided(self._lines, parameters_by_name(params, "split"))
        super().__init__([group_of(own, {LINE: name}) for name, own in taken.items() if own], {})
        self.defaults.update(shared_defaults(list(self._members.values())))

    @property
    def lines(self) -> dict[str, tuple[str, ...]]:
        """Who steps what: by the name of its line, the names of all parameters."""
        return {line.name: tuple(name for g in self._groups_of(line.name) for name in g["param_names"])
                for line in self._lines}  # fmt: skip

    def __repr__(self) -> str:
        told = []
        for line in self._lines:
            groups = self._groups_of(line.name)
            params = [p for group in groups for p in group["params"]]
            rates = dict.fromkeys(f"{float(group['lr']):g}" for group in groups)
            names = listed_names(self.lines[line.name])
            parameters = f"{len(params)} parameter{'s' * (len(params) != 1)} of {sum(p.numel() for p in params)} values"
            rate = f", lr {', '.join(rates)}" if rates else ""
            told.append(f"  {line.name}: {line.rule.name}{rate}, {parameters}: {names}\n")
        return f"{type(self).__name__}(\n{''.join(told)})"

    # ---- Lines ----

    def _groups_of(self, name: str) -> list[dict[str, Any]]:
        return [group for group in self.param_groups if group.get(LINE) == name]

    def _current(self) -> dict[str, Adapter]:
        """The optimisers of the lines that have groups, by these groups and states as they are now."""
        groups: dict[Any, list[dict[str, Any]]] = {}
        for group in self.param_groups:
            groups.setdefault(group.get(LINE), []).append(group)
        found = {}
        for name, member in self._members.items():
            if own := groups.pop(name, None):
                found[name] = member
                member.param_groups, member.state = own, self.state
                respell_momentum(naming_of(member).keys, own)
        if groups:
            message = f"expected groups that name a line of {', '.join(self._members)}, got {shown(next(iter(groups)))}"
            raise ArgumentError(message, hint="add them by opt.add_param_group")
        return found

    @property
    def _lock(self) -> RLock:
        return engine_of(next(iter(self._members.values()))).lock

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of named parameters to the line that it names as `line`, or whose patterns and shapes take them.

        Raises
        ------
        ArgumentError
            If the parameters have no names or go to several lines; and what PyTorch and the rule raise.
        """
        if not isinstance(param_group, dict) or "params" not in param_group:
            raise ArgumentError(f"expected a group as a dict with params, got {shown(param_group)}")
        params = _named(param_group)
        line = self._line_for(param_group, params)
        held = {id(p) for group in self.param_groups for p in group["params"]}
        if again := [p.name for p in params if id(p.given) in held]:
            raise ArgumentError(f"expected each parameter in one group, got {again[0]!r} in two")
        param_group |= {**group_of(params, {}), LINE: line.name, RULE: line.rule.name}
        member = self._members.get(line.name)
        fresh = line.rule.made([group_of(params, {})]) if member is None else member
        expect_shapes(naming_of(fresh), fresh.defaults, param_group, len(self.param_groups), f"the line {line.name}")
        if member is None:
            member = line.rule.made([param_group])
            self._members[line.name] = member
        else:
            self._current()  # by which it goes
            member.add_param_group(param_group)
        self.param_groups.append(param_group)

    def _line_for(self, group: Mapping[str, Any], params: Sequence[Named]) -> SplitLine:
        lines = {line.name: line for line in self._lines}
        if LINE in group:
            if group[LINE] not in lines:
                raise ArgumentError(f"expected a line among {', '.join(lines)}, got {shown(group[LINE])}")
            return lines[group[LINE]]
        found = {p.name: line_of(self._lines, p) for p in params}
        if left := [name for name, line in found.items() if line is None]:
            message = f"expected a line for each parameter, got none for {listed_names(left)}"
            raise ArgumentError(message, hint=f"say which: {{'params': ..., 'line': {next(iter(lines))!r}}}")
        names = dict.fromkeys(line.name for line in found.values() if line)
        if len(names) != 1:
            hint = "add a group for each line, or say which: 'line'"
            raise ArgumentError(f"expected parameters of one line, got some of {', '.join(names) or 'none'}", hint=hint)
        return lines[next(iter(names))]

    # ---- Steps ----

    @torch._disable_dynamo  # torch.compile leaves it as it is
    def step(self, closure: Callable[[], Any] | None = None, **inputs: Any) -> Any:
        """Update every parameter that has a gradient, in all lines or in none.

        Parameters
        ----------
        closure
            Called first, with autograd on, to compute the loss and the gradients anew.
        inputs
            The numbers that rules take beside gradients, by name: each line is given those that it takes.

        Returns
        -------
        What `closure` returns, or None.

        Raises
        ------
        As a step of each rule does. What a line refuses is refused before any has changed anything, but for what
        PyTorch's own loop refuses by itself, such as sparse gradients, where two lines have rules of PyTorch.
        """
        for member in self._members.values():
            engine_of(member).expect_training("step")
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with self._lock:
            # Nested: the last one changes its parameters first, and PyTorch's loop may refuse until then.
            members = sorted(self._current().values(), key=lambda member: not naming_of(member).strategy.interprets)
            given = inputs_of_lines(members, inputs, loss)
            steps = [(engine_of(m), partial(step_line, m, own)) for m, own in zip(members, given, strict=True)]
            with agreed([group for m in members if naming_of(m).multiplies for group in m.param_groups]) as agree:
                step_together(steps, agree)
        return loss

    # ---- Evaluation ----

    def eval(self) -> None:
        """Give each parameter, in place, the values that the rule of its line says to evaluate it with; `train` gives
        the others back. As of each rule by itself."""
        with self._lock:
            members = self._current().values()
            try:
                for member in members:
                    member.eval()
            except BaseException:
                for member in members:
                    member.train()
                raise

    def train(self) -> None:
        """Give parameters back what `eval` has set aside: training goes on with the same bits. Else do nothing."""
        with self._lock:
            for member in self._current().values():
                member.train()

    # ---- States ----

    def set_state(self, p: torch.Tensor, /, **values: Any) -> None:
        """Set states of parameter `p`, or its count `step`, by hand, as the rule of its line does."""
        with self._lock:
            for member in self._current().values():
                if any([p is q for group in member.param_groups for q in group["params"]]):
                    member.set_state(p, **values)
                    return
        raise ArgumentError(f"expected a parameter of this split, got another {type(p).__name__}")

    def state_of_all(self) -> dict[str, float]:
        """The states that all parameters of a line have together, as LINE/STATE, in numbers."""
        with self._lock:
            members = self._current().items()
            return {f"{line}/{name}": value for line, m in members for name, value in m.state_of_all().items()}

    def report(self) -> dict[str, Any]:
        """What the last step reports, as each rule does, with the name of its line in front: `rest/grad_norm`."""
        with self._lock:
            members = self._current().items()
            return {f"{line}/{name}": value for line, m in members for name, value in m.report().items()}

    def state_dict(self) -> dict[str, Any]:
        """As PyTorch's: the states of each parameter by its number, and the groups, which name line and rule."""
        with self._lock:
            self._current()
            return state_dict_with(super().state_dict, self, _name_rules)

    def load_state_dict(self, state_dict: dict[str, Any], *, convert: bool = False) -> None:
        """Take over what `state_dict` of a split with these lines gave. States of another dtype than these lines keep
        are refused, unless `convert` is true.

        StateError if it has other lines or rules, or does not fit a parameter. Then nothing has changed.
        """
        with self._lock:
            for member in self._current().values():
                engine_of(member).expect_rest("load a state")
            undisturbed(lambda: self._load(state_dict, convert=convert))

    def _load(self, state_dict: Mapping[str, Any], *, convert: bool) -> None:
        saved: Mapping[str, Any] = dict(state_dict) if isinstance(state_dict, Mapping) else state_dict
        for hook in self._optimizer_load_state_dict_pre_hooks.values():
            changed = hook(self, saved)
            saved = saved if changed is None else changed
        members = self._current()
        parts = self._parts(saved, members, convert=convert)
        before = {name: member.__getstate__() for name, member in members.items()}
        try:
            for name, member in members.items():
                load_fitting(member, parts[name])
        except BaseException:
            for name, member in members.items():
                member.__setstate__(before[name])
            raise
        self._gather(saved, members)
        for hook in self._optimizer_load_state_dict_post_hooks.values():
            hook(self)

    def _parts(self, saved: Any, members: Mapping[str, Adapter], *, convert: bool) -> dict[str, dict[str, Any]]:
        """A saved state as those of the lines. StateError unless it is of these lines and fits them."""
        expect_layout(self.param_groups, saved)
        parts: dict[str, dict[str, Any]] = {name: {"state": {}, "param_groups": []} for name in members}
        for i, (own, group) in enumerate(zip(self.param_groups, saved["param_groups"], strict=True)):
            expected = f"{own[RULE]} in the line {own[LINE]}"
            if (got := _origin(saved, group)) != expected:
                message = f"group {i}: expected a state of {expected}, got one of {excerpt(got)}"
                raise StateError(message, hint="make the split with the lines that it was saved with")
            part = parts[own[LINE]]
            part["param_groups"].append(group)
            part["state"] |= {n: saved["state"][n] for n in group["params"] if n in saved["state"]}
        for name, member in members.items():
            parts[name][RULE] = naming_of(member).name
            with in_line(name):
                parts[name] = fitting(naming_of(member), member.param_groups, parts[name], convert=convert)
        return parts

    def _gather(self, saved: Mapping[str, Any], members: Mapping[str, Adapter]) -> None:
        """Take the groups and states over that the lines have loaded, in the order in which they were saved."""
        loaded = {name: iter(member.param_groups) for name, member in members.items()}
        self.param_groups = [next(loaded[group[LINE]]) for group in self.param_groups]
        numbered = {
            number: (p, members[own[LINE]])
            for own, group in zip(self.param_groups, saved["param_groups"], strict=True)
            for p, number in zip(own["params"], group["params"], strict=True)
        }
        state: defaultdict[Any, Any] = defaultdict(dict)
        for number, kept in saved["state"].items():
            if number in numbered:
                p, member = numbered[number]
                state[p] = member.state[p]
            else:  # the caller's
                state[number] = kept
        self.state = state
        self._current()

    # ---- Copies ----

    def __getstate__(self) -> dict[str, Any]:
        usual: dict[str, Any] = super().__getstate__()
        more = {
            name: {key: value for key, value in member.__getstate__().items() if key not in usual}
            for name, member in self._current().items()
        }
        return {**usual, "_lines": self._lines, _OF_LINES: more}

    def __setstate__(self, state: dict[str, Any]) -> None:
        more = state[_OF_LINES]
        super().__setstate__({key: value for key, value in state.items() if key != _OF_LINES})
        self._members = {}
        for line in self._lines:
            if groups := self._groups_of(line.name):
                member = self._members[line.name] = line.rule.made([{"params": list(groups[0]["params"])}])
                member.__setstate__({"state": self.state, "param_groups": groups, **more.get(line.name, {})})


def _origin(saved: Mapping[str, Any], group: Mapping[str, Any]) -> str:
    """What a saved group is of."""
    said = [group.get(RULE), group.get(LINE)] if LINE in group else [saved.get(RULE, "an optimiser that is no split")]
    return " in the line ".join(x if isinstance(x, str) else shown(x) for x in said)


def _name_rules(optimiser: Any, saved: dict[str, Any]) -> None:
    """Adds to a state dict what PyTorch's has not: the rules, and what all parameters of a line have together."""
    members = optimiser._current()
    saved[RULE] = " + ".join(naming_of(member).name for member in members.values())
    for group in saved["param_groups"]:
        together = engine_of(members[group[LINE]]).states.group
        if together:
            group[OF_ALL] = {name: float(value) for name, value in together.items()}
        if codes := named_storages(naming_of(members[group[LINE]])):
            group[IN_CODES] = codes


def _named(group: Mapping[str, Any]) -> list[Named]:
    """The parameters of a group, which has names beside them or with them."""
    params, names = group["params"], group.get("param_names")
    if names is not None and not isinstance(params, torch.Tensor):
        params = list(zip(names, params, strict=True))
    return parameters_by_name(params, "add_param_group")
