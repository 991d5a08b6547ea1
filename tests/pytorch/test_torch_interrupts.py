"""A step of tensors that is interrupted has moved parameters and counted, or neither."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from interrupted import each_point

import optgen.torch as optim

RULES: dict[str, dict[str, Any]] = {"AdamW": {}, "SGD": {"lr": 0.1, "momentum": 0.9, "dampening": 0.5},
                                    "Lion": {}, "Prodigy": {}}  # fmt: skip


@pytest.mark.parametrize("before", [0, 1], ids=["the first step", "a later step"])
@pytest.mark.parametrize("name", RULES)
def test_a_step_is_done_and_counted_or_neither(name: str, before: int) -> None:
    def begun(steps: int) -> tuple[Any, list[Any]]:
        torch.manual_seed(0)
        dtypes = [torch.float32, torch.float64] + [torch.bfloat16] * (name in ("Lion", "Prodigy"))
        params = [torch.nn.Parameter(torch.randn(5).to(dtype)) for dtype in dtypes]
        optimiser = getattr(optim, name)(params, **RULES[name])
        for t in range(steps):
            step(optimiser, params, t)
        give(params, steps)
        return optimiser, params

    def give(params: list[Any], t: int) -> None:
        for i, p in enumerate(params):
            p.grad = torch.full_like(p, 0.1 * (t + 1) * (i + 1))

    def step(optimiser: Any, params: list[Any], t: int) -> None:
        give(params, t)
        optimiser.step()

    def seen(params: list[Any]) -> list[Any]:
        return [p.detach().double().tolist() for p in params]

    expected = [seen(begun(steps)[1]) for steps in range(before + 3)]
    for optimiser, params in each_point(lambda: begun(before), lambda made: made[0].step(), 67):
        done = expected.index(seen(params))
        assert done in (before, before + 1)
        counts = {int(kept["step"]) for kept in optimiser.state.values() if "step" in kept}
        assert counts in (set(), {done}) or name == "SGD"
        for t in range(done, before + 2):
            step(optimiser, params, t)
        assert seen(params) == expected[-1]


def test_a_list_that_was_stepped_with_others_between_is_done_and_counted_or_neither() -> None:
    """Its step plan counts by a new clock: what the interpreter steps too must not be told by the old one."""

    def step(optimiser: Any, params: list[Any], t: int) -> None:
        for i, p in enumerate(params):
            p.grad = torch.full_like(p, 0.1 * (t + 1) * (i + 1)) if i != 1 or t == 1 else None
        optimiser.step()

    def begun(steps: int) -> tuple[Any, list[Any]]:
        torch.manual_seed(0)
        dtypes = torch.float32, torch.float32, torch.bfloat16
        params = [torch.nn.Parameter(torch.randn(5).to(dtype)) for dtype in dtypes]
        optimiser = optim.Lion(params)
        for t in range(steps):
            step(optimiser, params, t)
        return optimiser, params

    def seen(params: list[Any]) -> list[Any]:
        return [p.detach().double().tolist() for p in params]

    expected = [seen(begun(steps)[1]) for steps in (2, 3, 4)]
    for optimiser, params in each_point(lambda: begun(2), lambda made: step(*made, 2), 7):
        done = 2 + expected.index(seen(params))
        assert [int(optimiser.state[p]["step"]) for p in params] == [done, 1, done]
        for t in range(done, 4):
            step(optimiser, params, t)
        assert seen(params) == expected[-1]


@pytest.mark.parametrize("name", ["AdamW", "Prodigy"])
def test_a_load_is_whole_or_not_at_all(name: str) -> None:
    def begun(steps: int) -> tuple[Any, list[Any]]:
        torch.manual_seed(0)
        params = [torch.nn.Parameter(torch.randn(5).to(dtype)) for dtype in (torch.float32, torch.float64)]
        optimiser = getattr(optim, name)(params)
        for t in range(steps):
            for i, p in enumerate(params):
                p.grad = torch.full_like(p, 0.1 * (t + 1) * (i + 1))
            optimiser.step()
        return optimiser, params

    other, _ = begun(3)
    other.param_groups[0]["lr"] = 0.5
    saved = other.state_dict()

    def everything(optimiser: Any) -> str:
        return repr(optimiser.state_dict())

    before, after, found = everything(begun(1)[0]), everything(other), []
    for optimiser, _ in each_point(lambda: begun(1), lambda made: made[0].load_state_dict(saved), 3):
        found.append(everything(optimiser))
        assert found[-1] in (before, after), f"point {len(found)}"
        optimiser.load_state_dict(saved)
        assert everything(optimiser) == after
        assert not optimiser._optimizer_load_state_dict_pre_hooks
        assert not optimiser._optimizer_load_state_dict_post_hooks
    assert before in found
    assert after in found
