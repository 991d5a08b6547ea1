"""Steps of several phases in PyTorch: a closure runs them all, or each call names its phase."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import optgen
import optgen.torch as ot
from optgen.errors import ArgumentError, ArrayError, OptgenError, StateError

DTYPES = [torch.float32, torch.float64, torch.bfloat16]


def model_of(dtype: Any = torch.float32) -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1)).to(dtype)


def loss_of(model: Any) -> Any:
    x = torch.linspace(-1, 1, 24, dtype=next(model.parameters()).dtype).reshape(6, 4)
    return (model(x) - x.sum(1, keepdim=True)).square().mean()


def closure_of(model: Any, opt: Any) -> Callable[[], Any]:
    def closure() -> Any:
        opt.zero_grad()
        loss = loss_of(model)
        loss.backward()
        return loss

    return closure


def sam(params: Any, rate: float = 0.1) -> Any:
    return ot.chain(params, optgen.ClipGlobalNorm(2.0), optgen.SAM(0.05), optgen.ADAM(rate), optgen.EMA(0.5))


MADE: dict[str, Callable[[Any], Any]] = {
    "SAM": sam,
    "BSAM": lambda params: ot.BSAM(params, lr=0.1),
    "ExtraGradient": lambda params: ot.ExtraGradient(params, lr=0.1),
}


def same(a: Any, b: Any) -> bool:
    return all(map(torch.equal, a.parameters(), b.parameters()))


def test_a_closure_runs_all_phases_and_gives_the_first_loss() -> None:
    model = model_of(torch.float64)
    opt, seen = sam(model.parameters()), []
    plain = closure_of(model, opt)

    def closure() -> Any:
        assert torch.is_grad_enabled()
        seen.append((opt.phase, plain()))
        return seen[-1][1]

    with torch.no_grad():
        losses = [opt.step(closure) for _ in range(3)]
    assert [phase for phase, _ in seen] == ["ascend", "descend"] * 3
    assert losses == [loss for phase, loss in seen if phase == "ascend"]
    assert [float(opt.state[p]["step"]) for p in model.parameters()] == [3.0] * 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", MADE)
def test_tensors_have_the_bits_of_arrays(name: str, dtype: Any) -> None:
    model = model_of(dtype)
    opt = MADE[name](model.parameters())
    parts = optgen.ClipGlobalNorm(2.0), optgen.SAM(0.05), optgen.ADAM(0.1), optgen.EMA(0.5)
    core = optgen.chain(*parts) if name == "SAM" else getattr(optgen, name)(0.1)
    arrays = [p.detach().numpy().copy() for p in model.parameters()]
    closure = closure_of(model, opt)
    for _ in range(3):
        for phase in core.rule.phases:
            closure()
            core.step(arrays, [p.grad.numpy() for p in model.parameters()], phase=phase)
            opt.step(phase=phase)
        assert all(np.array_equal(p.detach().numpy(), x) for p, x in zip(model.parameters(), arrays, strict=True))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", MADE)
def test_a_call_for_each_phase_is_the_same_as_a_closure(name: str, dtype: Any) -> None:
    models = [model_of(dtype), model_of(dtype)]
    whole, apart = (MADE[name](model.parameters()) for model in models)
    for _ in range(3):
        whole.step(closure_of(models[0], whole))
        for phase in ("ascend", "descend") if name != "ExtraGradient" else ("extrapolate", "update"):
            assert apart.phase == phase
            closure_of(models[1], apart)()
            apart.step(phase=phase)
    assert same(*models)


def by_state_dict(opt: Any, model: Any) -> tuple[Any, Any]:
    again = copy.deepcopy(model)
    made = sam(again.parameters(), 0.3)
    file = io.BytesIO()
    torch.save(opt.state_dict(), file)
    file.seek(0)
    made.load_state_dict(torch.load(file, weights_only=True))
    return made, again


def by_pickle(opt: Any, model: Any) -> tuple[Any, Any]:
    return pickle.loads(pickle.dumps((opt, model)))


def by_deepcopy(opt: Any, model: Any) -> tuple[Any, Any]:
    return copy.deepcopy((opt, model))


@pytest.mark.parametrize("way", [by_state_dict, by_pickle, by_deepcopy])
@pytest.mark.parametrize("phases", [1, 3])
def test_a_step_goes_on_from_between_its_phases(way: Callable[..., tuple[Any, Any]], phases: int) -> None:
    model, twin = model_of(), model_of()
    opt, plain = sam(model.parameters()), sam(twin.parameters())
    for _ in range(3):
        plain.step(closure_of(twin, plain))
    for _ in range(phases):
        closure_of(model, opt)()
        opt.step(phase=opt.phase)
    opt, model = way(opt, model)
    assert opt.phase == "descend"
    for _ in range(3 - phases // 2):
        opt.step(closure_of(model, opt))
    assert same(model, twin)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert all(torch.equal(opt.state[p][key], x) for key, x in plain.state[q].items())


def test_a_closure_that_fails_in_the_middle_is_made_good_by_the_next_step() -> None:
    model, twin = model_of(), model_of()
    opt, plain = sam(model.parameters()), sam(twin.parameters())
    plain.step(closure_of(twin, plain))
    good, calls = closure_of(model, opt), []

    def failing() -> Any:
        calls.append(opt.phase)
        if len(calls) == 2:
            raise RuntimeError("out of data")
        return good()

    with pytest.raises(RuntimeError, match="out of data"):
        opt.step(failing)
    assert opt.phase == "descend"
    opt.step(good)
    assert opt.phase == "ascend"
    assert same(model, twin)


def test_a_scaler_leaves_a_phase_out() -> None:
    model = model_of()
    opt = sam(model.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for phase, bad in (("ascend", True), ("ascend", False), ("descend", True), ("descend", False)):
        before = [p.detach().clone() for p in model.parameters()]
        opt.zero_grad()
        scaler.scale(loss_of(model)).backward()
        if bad:
            model[0].weight.grad[0, 0] = torch.inf
        scaler.step(opt, phase=phase)
        scaler.update()
        assert bad == all(map(torch.equal, before, model.parameters()))
    assert opt.phase == "ascend"
    assert float(opt.state[model[0].weight]["step"]) == 1


def test_a_step_that_makes_states_needs_no_closure() -> None:
    """As torch.distributed.checkpoint takes it, before it loads."""
    model = model_of()
    opt = sam(model.parameters())
    before = [p.detach().clone() for p in model.parameters()]
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    opt.step()
    assert all(map(torch.equal, before, model.parameters()))
    assert set(opt.state[model[0].weight]) == {"step", "start", "m", "v", "avg"}
    with pytest.raises(ArgumentError, match="expected a closure"):
        opt.step()


def test_evaluation_waits_for_the_end_of_a_step() -> None:
    model = model_of()
    opt = MADE["BSAM"](model.parameters())
    closure_of(model, opt)()
    opt.step(phase="ascend")
    with pytest.raises(ArgumentError, match=r"expected to evaluate between two steps, got a call before .* 'descend'"):
        opt.eval()
    closure_of(model, opt)()
    opt.step(phase="descend")
    opt.eval()
    assert torch.equal(model[0].weight, opt.state[model[0].weight]["centre"])


# ---- Bad input ----


def without_closure(opt: Any, model: Any) -> None:
    opt.step()


def another_phase(opt: Any, model: Any) -> None:
    opt.step(phase="ascend")


def an_unknown_phase(opt: Any, model: Any) -> None:
    opt.step(phase="decend")


def without_a_gradient(opt: Any, model: Any) -> None:
    model[0].bias.grad = None
    opt.step(phase="descend")


def with_a_new_parameter(opt: Any, model: Any) -> None:
    extra = torch.nn.Parameter(torch.ones(3))
    extra.grad = torch.ones(3)
    opt.add_param_group({"params": [extra]})
    try:
        opt.step(phase="descend")
    finally:
        opt.param_groups.pop()


def damaged(opt: Any, model: Any) -> None:
    saved = opt.state_dict()
    saved["group"]["phase"] = 3.0
    opt.load_state_dict(saved)


BAD: list[tuple[Callable[..., None], type[OptgenError], str, str]] = [
    (without_closure, ArgumentError, "expected a closure, since a step has the phases ascend, descend", "'descend'"),
    (another_phase, ArgumentError, "expected the phase 'descend', which comes next, got 'ascend'", "phase='descend'"),
    (an_unknown_phase, ArgumentError, "expected one of the phases ascend, descend, got 'decend'", ""),
    (without_a_gradient, ArrayError, "expected the parameters of the phase 'ascend' in 'descend' too", "zeros"),
    (with_a_new_parameter, ArrayError, "expected the parameters of the phase 'ascend' in 'descend' too", "no new ones"),
    (damaged, StateError, "expected the number of a phase, from 0 to 1, as phase, got 3", "damaged"),
]


@pytest.mark.parametrize("steps", [0, 1])
@pytest.mark.parametrize(("fault", "error", "message", "hint"), BAD, ids=[row[0].__name__ for row in BAD])
def test_bad_input_between_phases_touches_nothing(
    fault: Callable[..., None], error: type[OptgenError], message: str, hint: str, steps: int
) -> None:
    model, twin = model_of(), model_of()
    opt, plain = sam(model.parameters()), sam(twin.parameters())
    for _ in range(steps):
        opt.step(closure_of(model, opt))
    for _ in range(steps + 1):
        plain.step(closure_of(twin, plain))
    closure_of(model, opt)()
    opt.step(phase="ascend")
    closure_of(model, opt)()
    with pytest.raises(error, match=message) as caught:
        fault(opt, model)
    assert hint in str(caught.value)
    assert opt.phase == "descend"
    closure_of(model, opt)()
    opt.step(phase="descend")
    assert same(model, twin)


def test_a_rule_without_phases_has_none() -> None:
    model = model_of()
    opt = ot.Lion(model.parameters())
    assert opt.phase is None
    with pytest.raises(ArgumentError, match="Lion: expected no phase, since its steps have but one"):
        opt.step(phase="ascend")


@pytest.mark.parametrize("rule", ["options", "a chain"])
def test_a_split_takes_rules_of_one_phase(rule: str) -> None:
    line = ot.BSAM.options() if rule == "options" else optgen.chain(optgen.SAM(), optgen.SGD(0.1))
    with pytest.raises(ArgumentError, match=r"split: rest: expected a rule whose step takes one gradient, got .*SAM"):
        ot.split(model_of(), rest=line)


@pytest.mark.parametrize("rule", [optgen.ADAM, optgen.AdamMini])
def test_lists_that_change_count_and_keep_states_as_one_list_does(rule: Any) -> None:
    """Also where the plan of a list is made anew: for gradients laid out otherwise, or since others took its room."""
    params = [torch.nn.Parameter(torch.full((4, 3), 1.0 + i)) for i in range(6)]
    alone = [torch.nn.Parameter(p.detach().clone()) for p in params]
    opt = ot.chain(params, optgen.SAM(0.05), rule(0.01))
    others = [ot.chain([p], optgen.SAM(0.05), rule(0.01)) for p in alone]
    for i, p in enumerate(alone):  # the norm of SAM is of all gradients: of one only, whatever the list is
        p.grad = torch.zeros(4, 3) if i else torch.ones(4, 3)
    lists = [[0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4], [0, 1, 2, 3, 5], [0, 2, 4], [0, 1, 2, 3, 4], [0, 1], [0], [0], [0, 1]]
    for n, chosen in enumerate(lists):
        for phase in ("ascend", "descend"):
            for i, p in enumerate(params):
                value = torch.ones if i == 0 else torch.zeros
                grad = value(3, 4).t() if n == len(lists) - 1 else value(4, 3)
                p.grad = grad if i in chosen else None
            opt.step(phase=phase)
            for i in chosen:
                others[i].step(phase=phase)
    for p, own, other in zip(params, alone, others, strict=True):
        assert torch.equal(p, own)
        for name, value in other.state[own].items():
            assert torch.equal(opt.state[p][name], value), name


def test_a_small_state_of_another_shape_is_refused_in_every_list() -> None:
    params = [torch.nn.Parameter(torch.ones(64, 2)) for _ in range(2)]
    opt = ot.AdamMini(params, lr=0.1)
    for p in params:
        p.grad = torch.ones(64, 2)
    opt.step()
    memory = torch.zeros(256, dtype=torch.float64)
    opt.state[params[0]]["v"].data = memory[:2]
    before = params[0].detach().clone()
    for left_out in (None, 1):
        params[1].grad = None if left_out else torch.ones(64, 2)
        with pytest.raises(StateError, match=r"its state v: expected shape \(64,\), got shape \(2,\)"):
            opt.step()
    assert not memory.any()
    assert torch.equal(params[0], before)


# ---- Phases that are left out ----


def look_sam(params: Any, k: int = 3) -> Any:
    return ot.chain(params, optgen.LookSAM(0.1, k), optgen.ADAM(0.1))


def test_a_closure_is_called_for_the_phases_that_a_step_has() -> None:
    model = model_of(torch.float64)
    opt, calls = look_sam(model.parameters()), []
    plain = closure_of(model, opt)

    def closure() -> Any:
        calls.append(opt.phase)
        return plain()

    core, arrays = optgen.chain(optgen.LookSAM(0.1, 3), optgen.ADAM(0.1)), []
    arrays = [p.detach().numpy().copy() for p in model.parameters()]
    twin = copy.deepcopy(model)
    for t in range(7):
        opt.step(closure)
        for _ in range(2 if t % 3 == 0 else 1):
            for p, x in zip(twin.parameters(), arrays, strict=True):
                p.data.copy_(torch.from_numpy(x))
            twin.zero_grad()
            loss_of(twin).backward()
            core.step(arrays, [p.grad.numpy() for p in twin.parameters()])
        assert all(np.array_equal(p.detach().numpy(), x) for p, x in zip(model.parameters(), arrays, strict=True))
    assert calls == ["ascend", *["descend"] * 3, "ascend", *["descend"] * 3, "ascend", "descend"]
    assert [float(opt.state[p]["step"]) for p in model.parameters()] == [7.0] * 4


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 4])
def test_a_checkpoint_knows_which_phases_the_next_step_has(steps: int) -> None:
    models = [model_of(), model_of()]
    whole, opt = (look_sam(model.parameters()) for model in models)
    for _ in range(6):
        whole.step(closure_of(models[0], whole))
    for _ in range(steps):
        opt.step(closure_of(models[1], opt))
    fresh = look_sam(models[1].parameters())
    fresh.load_state_dict(opt.state_dict())
    assert fresh.phase == ("descend" if steps % 3 else "ascend")
    for _ in range(6 - steps):
        fresh.step(closure_of(models[1], fresh))
    assert same(*models)


def test_groups_may_not_differ_in_what_decides_of_phases() -> None:
    model = model_of()
    first, last = model[0], model[2]
    opt = look_sam([{"params": first.parameters()}, {"params": last.parameters(), "k": 4}])
    with pytest.raises(ArgumentError, match=r"k is one for all parameters, got 3\.0 in group 0 and 4\.0 in group 1"):
        opt.step(closure_of(model, opt))


def test_evaluation_does_not_wait_for_a_phase_that_is_left_out() -> None:
    model = model_of()
    opt = ot.chain(model.parameters(), optgen.LookSAM(0.1, 3), optgen.SGD(0.1), optgen.EMA(0.5))
    opt.step(closure_of(model, opt))
    assert opt.phase == "descend"
    opt.eval()
    opt.train()


# ---- Which parameters a step is of ----


@pytest.mark.parametrize("way", [by_state_dict, by_pickle, by_deepcopy])
@pytest.mark.parametrize("left_out", [0, 3])
def test_a_step_that_goes_on_is_of_the_same_parameters(way: Callable[..., tuple[Any, Any]], left_out: int) -> None:
    model = model_of()
    opt = sam(model.parameters())
    opt.step(closure_of(model, opt))
    closure_of(model, opt)()
    list(model.parameters())[left_out].grad = None
    opt.step(phase="ascend")
    opt, model = way(opt, model)
    closure_of(model, opt)()
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(ArrayError, match="expected the parameters of the phase 'ascend' in 'descend' too, got others"):
        opt.step(phase="descend")
    assert all(map(torch.equal, before, model.parameters()))
    list(model.parameters())[left_out].grad = None
    opt.step(phase="descend")
    assert opt.phase == "ascend"


def test_a_group_that_is_added_within_a_step_leaves_its_parameters() -> None:
    model = model_of()
    opt = sam(model.parameters())
    closure_of(model, opt)()
    opt.step(phase="ascend")
    opt.add_param_group({"params": [torch.nn.Parameter(torch.ones(3))]})
    closure_of(model, opt)()
    next(iter(model.parameters())).grad = None
    with pytest.raises(ArrayError, match="expected the parameters of the phase 'ascend' in 'descend' too, got others"):
        opt.step(phase="descend")


@pytest.mark.parametrize("numbers", [[4], [-1], ["0"], 3])
def test_damaged_numbers_of_parameters_are_refused(numbers: Any) -> None:
    model = model_of()
    opt = sam(model.parameters())
    closure_of(model, opt)()
    opt.step(phase="ascend")
    saved = opt.state_dict()
    assert saved["begun"] == [0, 1, 2, 3]
    saved["begun"] = numbers
    with pytest.raises(StateError, match="expected the numbers of the parameters of the step that has begun, from 0"):
        sam(model.parameters()).load_state_dict(saved)
