"""Lists of tensors that change: which have a gradient is another matter in every step, and none is checked anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from interrupted import each_point
from memory import expect_bounded

torch = pytest.importorskip("torch")

import optgen.torch as ot
from optgen.frozen import replace
from optgen.runtime.acceptance import Acceptance
from optgen.runtime.collaborators import StateStore
from optgen.torch.optimizer import engine_of
from optgen.torch.tensor_library import TensorLibrary

SHAPES = [(4, 5), (7,), (2, 3, 4), (), (6, 3), (0, 2), (9,)]
#: Rules that count and that do not, with small states, further inputs, and values of all parameters.
RULES: dict[str, Callable[[Any], Any]] = {
    "Adam": lambda ps: ot.Adam(ps, amsgrad=True),
    "SGD": lambda ps: ot.SGD(ps, lr=0.1, momentum=0.9, dampening=0.5),
    "Adafactor": ot.Adafactor,
    "NAdam": ot.NAdam,
    "SM3": ot.SM3,
    "LAMB": ot.LAMB,
    "Sophia": lambda ps: ot.Sophia(ps, lr=0.1),
    "Prodigy": ot.Prodigy,
}


@pytest.fixture(params=["looked at in memory", "asked"], autouse=True)
def _reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "asked":
        known = TensorLibrary.reader
        monkeypatch.setattr(TensorLibrary, "reader", replace(known, readable=lambda: False, look=0))


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[StateStore]:
    """The states of the optimisers that check a list anew, each time."""
    found: list[StateStore] = []
    accept = Acceptance.of

    def noted(self: Acceptance, chosen: Any, *, by_kernel: bool) -> Any:
        found.append(self.states)
        return accept(self, chosen, by_kernel=by_kernel)

    monkeypatch.setattr(Acceptance, "of", noted)
    return found


def parameters() -> list[Any]:
    torch.manual_seed(3)
    return [torch.nn.Parameter(torch.randn(shape)) for shape in SHAPES]


def give(ps: Sequence[Any], chosen: Sequence[int], seed: int) -> None:
    """Gradients, and Hessians beside them, to those that are chosen."""
    torch.manual_seed(seed)
    for i, p in enumerate(ps):
        g, p.hessian = torch.randn(p.shape), torch.randn(p.shape)
        p.grad = g if i in chosen else None


def bits(opt: Any, ps: Sequence[Any]) -> list[bytes]:
    tensors = [x for p in ps for x in (p, *opt.state[p].values()) if x is not None]
    return [x.detach().double().numpy().tobytes() for x in tensors]


def chosen_lists(steps: int) -> list[list[int]]:
    rng, every = np.random.default_rng(0), list(range(len(SHAPES)))
    return [every] + [rng.permutation(every)[: rng.integers(1, len(every))].tolist() for _ in range(steps)]


class Pair:
    """An optimiser, and another that checks every list anew."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self.ps = parameters(), parameters()
        self.opts = [make(ps) for ps in self.ps]

    def step(self, chosen: Sequence[int], seed: int) -> None:
        for opt, ps in zip(self.opts, self.ps, strict=True):
            give(ps, chosen, seed)
            opt.step()
            engine_of(self.opts[1]).plans.clear()
        assert bits(self.opts[0], self.ps[0]) == bits(self.opts[1], self.ps[1])

    def each(self, act: Callable[[Any, Any], object]) -> None:
        for opt, ps in zip(self.opts, self.ps, strict=True):
            act(opt, ps)


@pytest.mark.parametrize("name", RULES)
def test_any_list_of_them_is_stepped_as_if_checked_anew(name: str, checked: list[StateStore]) -> None:
    pair = Pair(RULES[name])
    for seed, chosen in enumerate(chosen_lists(8) * 2):
        pair.step(chosen, seed)
    assert checked.count(engine_of(pair.opts[0]).states) == 1


def raise_count(opt: Any, p: Any) -> None:
    opt.state[p]["step"] += 3


def exchange_count(opt: Any, p: Any) -> None:
    opt.state[p]["step"] = torch.tensor(7.0, dtype=torch.float64)


def exchange_state(opt: Any, p: Any) -> None:
    opt.state[p]["exp_avg"] = torch.full_like(p, 0.25)


def move_state(opt: Any, p: Any) -> None:
    opt.state[p]["exp_avg"].data = torch.full_like(p, 0.25)


def change_state(opt: Any, p: Any) -> None:
    opt.state[p]["exp_avg"].fill_(0.5)


def forget_state(opt: Any, p: Any) -> None:
    del opt.state[p]


def add_entry(opt: Any, p: Any) -> None:
    opt.state[p]["of the caller"] = torch.ones(2)


def move_parameter(opt: Any, p: Any) -> None:
    p.data = p.detach().clone()


def load(opt: Any, p: Any) -> None:
    opt.load_state_dict(opt.state_dict())


CHANGES = [
    *(raise_count, exchange_count, exchange_state, move_state, change_state, forget_state),
    *(add_entry, move_parameter, load),
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_what_the_caller_does_between_two_steps_is_noticed(change: Callable[[Any, Any], object]) -> None:
    pair = Pair(ot.Adam)
    for seed, chosen in enumerate(([0, 1, 2, 3], [0, 1], [1, 2], [0, 1], [2, 3, 0], [1, 3], [0, 1])):
        pair.step(chosen, seed)
        if seed in (1, 4):
            pair.each(lambda opt, ps: change(opt, ps[1]))


@pytest.mark.parametrize("name", ["Adam", "SM3"])
def test_a_step_that_is_interrupted_is_done_and_counted_or_neither(name: str) -> None:
    def begun(steps: int = 1) -> tuple[Any, list[Any]]:
        ps = parameters()[:3]
        opt = RULES[name](ps)
        for seed, chosen in enumerate(([0, 1, 2], [0, 1])[:steps]):
            give(ps, chosen, seed)
            opt.step()
        give(ps, [0, 1], 1)
        return opt, ps

    def then(opt: Any, ps: list[Any]) -> list[bytes]:
        for seed, chosen in enumerate(([1, 2], [0, 1, 2], [0, 2])):
            give(ps, chosen, seed)
            opt.step()
        return bits(opt, ps)

    expected = [then(*begun(steps)) for steps in (1, 2)]
    for opt, ps in each_point(begun, lambda made: made[0].step(), 3):
        counts = [int(opt.state[p]["step"]) for p in ps]
        assert counts in ([1, 1, 1], [2, 2, 1])
        assert then(opt, ps) == expected[counts[0] - 1]


def test_one_that_goes_to_another_group_goes_by_its_values() -> None:
    def make(ps: Any) -> Any:
        return ot.Adam([{"params": ps[:3], "lr": 0.1}, {"params": ps[3:], "lr": 0.001}])

    def exchange(opt: Any, ps: Any) -> None:
        first, second = (group["params"] for group in opt.param_groups)
        first[0], second[0] = second[0], first[0]

    pair = Pair(make)
    for seed, chosen in enumerate(([0, 1, 2, 3], [0, 1], [0, 3], [1, 0], [2, 3])):
        pair.step(chosen, seed)
        if seed == 1:
            pair.each(exchange)


def test_those_that_share_memory_follow_one_another() -> None:
    def tied(i: int) -> tuple[Any, list[Any]]:
        memory = torch.arange(10.0)
        ps = [torch.nn.Parameter(memory[:6]), torch.nn.Parameter(memory[4:]), torch.nn.Parameter(torch.ones(3))]
        return ot.SGD(ps, lr=0.5), ps

    (known, own), (anew, copies) = map(tied, range(2))
    for chosen in ([0, 2], [1, 2], [0, 1], [1], [0, 1, 2]):
        for opt, ps in ((known, own), (anew, copies)):
            for i, p in enumerate(ps):
                p.grad = torch.full_like(p, 1.0 + i) if i in chosen else None
            opt.step()
            engine_of(anew).plans.clear()
        assert bits(known, own) == bits(anew, copies)
    assert own[0].tolist() == [-1.5, -0.5, 0.5, 1.5, -1.5, -0.5]


def test_what_is_known_takes_memory_as_the_parameters_do() -> None:
    ps = parameters()
    opt, rng = ot.Adafactor(ps), np.random.default_rng(0)
    give(ps, range(len(ps)), 0)
    opt.step()

    def step() -> None:
        give(ps, rng.permutation(len(ps))[:4].tolist(), 1)
        opt.step()

    expect_bounded(step, 60, 120)
    assert len(engine_of(opt).plans._members) == len(ps)
