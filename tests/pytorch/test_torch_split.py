"""Splits in PyTorch: the bits of an optimiser for each line, all lines or none, and what training loops do with one."""

from __future__ import annotations

import copy
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn
from torch.optim import lr_scheduler
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.flop_counter import FlopCounterMode

import optgen
import optgen.torch as optim
from optgen.errors import ArgumentError, ArrayError, HyperparameterError, OptgenError, StateError
from optgen.torch.checkpoint import fitting
from optgen.torch.optimizer import load_fitting

torch.set_num_threads(1)  # the tensors are tiny, and tests run beside each other
INPUTS = torch.arange(24).remainder(11)


def build() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(11, 8), nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3))


def lines() -> dict[str, Any]:
    """A rule of optgen's own, one of PyTorch's, and a chain with a state of all parameters together."""
    return {
        "matrices": optim.Lion.options(lr=1e-2), "rest": optim.AdamW.options(lr=1e-3),
        "last": optgen.chain(optgen.ClipGlobalNorm(0.1), optgen.Prodigy()), "last_names": ("0", "3.bias"),
    }  # fmt: skip


def made(model: Any) -> Any:
    return optim.split(model, **lines())


def apart(model: Any) -> list[Any]:
    """An optimiser for each line."""
    return [
        optim.Lion([model[1].weight, model[3].weight], lr=1e-2), optim.AdamW([model[1].bias], lr=1e-3),
        optim.chain([model[0].weight, model[3].bias], optgen.ClipGlobalNorm(0.1), optgen.Prodigy()),
    ]  # fmt: skip


def backward(model: Any) -> Any:
    model.zero_grad()
    loss = nn.functional.cross_entropy(model(INPUTS), INPUTS.remainder(3))
    loss.backward()
    return loss


def follow(model: Any, optimisers: Any, steps: int = 3, after: Any = ()) -> None:
    for _ in range(steps):
        backward(model)
        for each in optimisers:
            each.step()
        for each in after:
            each.step()


def expected(steps: int) -> Any:
    model = build()
    follow(model, apart(model), steps)
    return model


def same(a: Any, b: Any) -> bool:
    return all(map(torch.equal, a.parameters(), b.parameters()))


def begun(steps: int = 3) -> tuple[Any, Any]:
    model = build()
    opt = made(model)
    follow(model, [opt], steps)
    return model, opt


def bits(opt: Any) -> Any:
    saved = opt.state_dict()
    return [saved["param_groups"], [[*map(str, s), *map(torch.clone, s.values())] for s in saved["state"].values()]]


# ---- Steps ----


def test_a_split_steps_as_an_optimiser_for_each_line() -> None:
    model, opt = begun(5)
    assert same(model, expected(5))
    assert isinstance(opt, torch.optim.Optimizer)
    assert [(g["line"], g["rule"]) for g in opt.param_groups] == [
        ("matrices", "Lion"), ("rest", "AdamW"), ("last", "ClipGlobalNorm_Prodigy")
    ]  # fmt: skip
    assert opt.lines == {
        "matrices": ("1.weight", "3.weight"), "rest": ("1.bias",), "last": ("0.weight", "3.bias")
    }  # fmt: skip
    assert all(opt.state[p] for p in model.parameters())


def sparse(model: Any) -> None:
    model[3].weight.grad = model[3].weight.grad.to_sparse()


def odd(model: Any) -> None:
    model[3].bias.grad = torch.zeros(3).as_subclass(Odd)


@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize("fault", [sparse, odd], ids=lambda fault: fault.__name__)
def test_a_step_that_one_line_refuses_has_touched_nothing(fault: Any, steps: int) -> None:
    model, opt = begun(steps)
    twin, before = copy.deepcopy(model), pickle.dumps(opt.state_dict())
    backward(model)
    fault(model)
    with pytest.raises(ArrayError, match=r"^the line (matrices|last): parameter \d \("):
        opt.step()
    assert same(model, twin)
    assert pickle.dumps(opt.state_dict()) == before
    follow(model, [opt], 3 - steps)
    assert same(model, expected(3))


class Odd(torch.Tensor):
    """A tensor with operations of its own."""

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError("it is looked at, and not computed with")


def test_what_pytorchs_own_loop_refuses_leaves_the_rules_of_optgen_untouched() -> None:
    model = build()
    opt = optim.split(model, rest=optim.AdamW.options(), first=optim.Lion.options(), first_names="1")
    twin = copy.deepcopy(model)
    backward(model)
    sparse(model)
    with pytest.raises(RuntimeError, match="sparse gradients"):
        opt.step()
    assert same(model, twin)
    assert not opt.state[model[1].weight]


def test_under_a_dispatch_mode_all_lines_step_or_none() -> None:
    model, twin = build(), build()
    opt = optim.split(model, matrices=optim.AdamW.options(), rest=optim.Lion.options())
    backward(model)
    with FlopCounterMode(display=False), pytest.raises(ArrayError, match=r"the line rest: Lion: .* is active"):
        opt.step()
    assert same(model, twin)
    opt = optim.split(model, matrices=optim.AdamW.options(), rest=optim.SGD.options())
    with FlopCounterMode(display=False):
        opt.step()
    assert not any(map(torch.equal, model.parameters(), twin.parameters()))


def test_a_closure_gives_the_loss_and_each_line_is_given_what_it_takes() -> None:
    model, twin = build(), build()
    opt = optim.split(model, matrices=optim.PolyakSGD.options(), rest=optim.AdamW.options())
    loss = opt.step(lambda: backward(model))
    theirs = backward(twin)
    matrices = [p for p in twin.parameters() if p.dim() == 2]
    optim.PolyakSGD(matrices).step(loss=theirs)
    optim.AdamW([p for p in twin.parameters() if p.dim() == 1]).step()
    assert same(model, twin)
    assert torch.equal(loss, theirs)
    with pytest.raises(ArgumentError, match="got 'lss', which none does"):
        opt.step(loss=1.0, lss=1.0)


def test_inputs_are_taken_in_any_spelling(tmp_path: Path) -> None:
    told = 'name = "Told"\n[inputs]\nrho = { extent = "step" }\n[update]\nformulas = "delta = rho*g"\n'
    (tmp_path / "told.toml").write_text(told)
    model, twin = build(), build()
    for own, given in ((model, {"ρ": 0.5}), (twin, {"rho": 0.5})):
        opt = optim.split(own, matrices=optim.load(tmp_path / "told.toml").options(), rest=optim.AdamW.options())
        backward(own)
        opt.step(**given)
    assert same(model, twin)
    assert not same(model, build())


def test_hooks_see_one_step_of_the_whole() -> None:
    model, opt = begun(0)
    seen: list[Any] = []
    opt.register_step_pre_hook(lambda o, args, kwargs: seen.append(("pre", o)))
    opt.register_step_post_hook(lambda o, args, kwargs: seen.append(("post", o)))
    handle = register_optimizer_step_post_hook(lambda o, args, kwargs: seen.append(("any", o)))
    try:
        follow(model, [opt], 1)
    finally:
        handle.remove()
    assert sorted(seen, key=lambda each: each[0]) == [("any", opt), ("post", opt), ("pre", opt)]


def test_gradients_of_a_scaler_are_divided_once() -> None:
    model, opt = begun(0)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for t in range(3):
        opt.zero_grad()
        scaler.scale(nn.functional.cross_entropy(model(INPUTS), INPUTS.remainder(3))).backward()
        if t == 1:
            model[3].bias.grad[0] = torch.inf
        scaler.step(opt)
        scaler.update()
    assert same(model, expected(2))


def test_a_frozen_parameter_stays_and_may_be_thawed() -> None:
    model, twin = build(), build()
    opt, others = made(model), apart(twin)
    for t in range(4):
        for each in (model, twin):
            each[1].weight.requires_grad_(t >= 2)
        follow(model, [opt], 1)
        follow(twin, others, 1)
    assert same(model, twin)


def test_tied_weights_are_one_parameter_that_goes_by_either_name() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.fc, self.head = nn.Embedding(5, 4), nn.Linear(4, 4), nn.Linear(4, 5, bias=False)
            self.head.weight = self.embed.weight

    for pattern in ("embed", "head", "head.weight"):
        opt = optim.split(Tied(), matrices=optim.Lion.options(), rest=optim.AdamW.options(), rest_names=pattern)
        assert opt.lines == {"matrices": ("fc.weight",), "rest": ("embed.weight", "fc.bias")}


def test_names_go_without_what_wrappers_put_into_them() -> None:
    model = torch.compile(build(), backend="eager")
    opt = optim.split(model, **(lines() | {"last_names": ("0", "3.bias", "_orig_mod.1.bias")}))
    assert opt.lines["matrices"] == ("1.weight", "3.weight")
    saved = made(build()).state_dict()
    made(torch.compile(build(), backend="eager")).load_state_dict(saved)


# ---- Schedules ----


def two(**options: Any) -> tuple[Any, Any, list[Any]]:
    """A model with a split of two lines, and the same apart."""
    model, twin = build(), build()
    opt = optim.split(model, matrices=optim.SGD.options(**options), rest=optim.AdamW.options(lr=1e-3))
    weights = [p for p in twin.parameters() if p.dim() == 2]
    return model, opt, [
        twin, optim.SGD(weights, **options), optim.AdamW([p for p in twin.parameters() if p.dim() == 1], lr=1e-3)
    ]  # fmt: skip


def one_cycle(opt: Any, rates: Any) -> Any:
    return lr_scheduler.OneCycleLR(opt, rates, total_steps=20)


@pytest.mark.parametrize(
    "schedule",
    [
        lambda opt, rates: lr_scheduler.LambdaLR(opt, lambda t: 1 / (1 + t)),
        lambda opt, rates: lr_scheduler.CosineAnnealingLR(opt, 10),
        one_cycle,
        lambda opt, rates: lr_scheduler.CyclicLR(opt, [x / 5 for x in rates], rates, 3),
        lambda opt, rates: lr_scheduler.SequentialLR(
            opt, [lr_scheduler.ConstantLR(opt, 0.5), lr_scheduler.StepLR(opt, 1)], [2]
        ),
    ],
)  # fmt: skip
def test_a_scheduler_does_to_all_lines_what_it_does_to_each(schedule: Any) -> None:
    model, opt, (twin, *others) = two(lr=0.1, momentum=0.9)
    rates = [0.2, 0.01]
    whole = schedule(opt, rates)
    each = [schedule(other, [rate]) for other, rate in zip(others, rates, strict=True)]
    follow(model, [opt], 6, [whole])
    follow(twin, others, 6, each)
    assert same(model, twin)
    assert "momentum" in opt.param_groups[0]


def test_a_scheduler_finds_betas_where_all_lines_have_them() -> None:
    model = build()
    opt = optim.split(model, matrices=optim.Lion.options(), rest=optim.AdamW.options())
    schedule = one_cycle(opt, [0.1, 0.01])
    follow(model, [opt], 2, [schedule])
    assert {round(group["betas"][0], 6) for group in opt.param_groups} == {0.915451}
    descents = optim.split(build(), matrices=optim.Rprop.options(), rest=optim.Adagrad.options())
    with pytest.raises(ValueError, match="must support momentum or beta1"):
        one_cycle(descents, [0.1, 0.01])


def test_the_schedule_of_averaged_weights_is_of_all_lines() -> None:
    model, opt = begun(2)
    schedule = optim.swa_utils.SWALR(opt, swa_lr=0.05, anneal_epochs=1)
    follow(model, [opt], 2, [schedule])
    assert {group["lr"] for group in opt.param_groups} == {0.05}


# ---- States ----


def resumed(opt: Any, model: Any) -> tuple[Any, Any]:
    twin = build()
    other = made(twin)
    twin.load_state_dict(model.state_dict())
    other.load_state_dict(opt.state_dict())
    return other, twin


def through_a_file(opt: Any, model: Any, folder: Path) -> tuple[Any, Any]:
    torch.save({"opt": opt.state_dict()}, folder / "state")
    twin = build()
    twin.load_state_dict(model.state_dict())
    other = made(twin)
    follow(copy.deepcopy(twin), [], 0)
    other.load_state_dict(torch.load(folder / "state", weights_only=True)["opt"])
    return other, twin


@pytest.mark.parametrize("way", ["state dict", "file", "pickle", "deepcopy"])
@pytest.mark.parametrize("steps", [0, 3])
def test_a_resumed_run_has_the_same_bits(way: str, steps: int, tmp_path: Path) -> None:
    model, opt = begun(steps)
    other, twin = {
        "state dict": lambda: resumed(opt, model),
        "file": lambda: through_a_file(opt, model, tmp_path),
        "pickle": lambda: pickle.loads(pickle.dumps((opt, model))),
        "deepcopy": lambda: copy.deepcopy((opt, model)),
    }[way]()
    assert repr(other) == repr(opt)
    follow(twin, [other], 6 - steps)
    follow(model, [opt], 6 - steps)
    assert same(twin, expected(6))
    assert same(model, expected(6))


def test_a_distributed_checkpoint_keeps_what_a_line_has_together() -> None:
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

    model, opt = begun(3)
    saved = get_optimizer_state_dict(model, opt)
    twin = copy.deepcopy(model)
    other = made(twin)
    set_optimizer_state_dict(twin, other, saved)
    follow(twin, [other], 3)
    assert same(twin, expected(6))


def test_hooks_of_states_are_called_once() -> None:
    model, opt = begun(1)
    seen: list[str] = []

    def loading(o: Any, saved: Any) -> Any:
        seen.append("loading")
        return {**saved, "param_groups": [{**group, "lr": 0.5} for group in saved["param_groups"]]}

    opt.register_state_dict_pre_hook(lambda o: seen.append("saving"))
    opt.register_state_dict_post_hook(lambda o, saved: saved.update(mine=1))
    opt.register_load_state_dict_pre_hook(loading)
    opt.register_load_state_dict_post_hook(lambda o: seen.append("loaded"))
    opt.state["theirs"] = {"kept": 1}
    saved = opt.state_dict()
    opt.load_state_dict(saved)
    assert opt.state["theirs"] == {"kept": 1}
    assert seen == ["saving", "loading", "loaded"]
    assert saved["mine"] == 1
    assert {group["lr"] for group in opt.param_groups} == {0.5}
    follow(model, [opt], 1)


def test_reports_and_states_of_all_parameters_go_by_their_line() -> None:
    model, opt = begun(2)
    norm = torch.cat([model[0].weight.grad.flatten(), model[3].bias.grad]).norm()
    assert opt.report() == {"last/clipglobalnorm/norm": pytest.approx(float(norm))}
    assert opt.state_of_all().keys() == {"last/num", "last/d"}


def test_what_is_put_into_the_state_between_steps_counts() -> None:
    model, opt = begun(2)
    opt.state.clear()
    follow(model, [opt], 1)
    assert opt.state[model[1].bias]["step"] == 1
    opt.state = type(opt.state)(dict)
    follow(model, [opt], 1)
    assert opt.state[model[1].bias]["step"] == 1
    opt.set_state(model[1].bias, step=7)
    follow(model, [opt], 1)
    assert opt.state[model[1].bias]["step"] == 8
    with pytest.raises(ArgumentError, match="expected a parameter of this split"):
        opt.set_state(torch.zeros(3), step=7)


def other_rules(model: Any) -> Any:
    return optim.split(model, **(lines() | {"rest": optim.Adam.options()}))


def other_names(model: Any) -> Any:
    return optim.split(model, **(lines() | {"last_names": ("0", "1.bias")}))


def other_lines(model: Any) -> Any:
    own = lines()
    return optim.split(model, hidden=own["matrices"], hidden_names="*.weight", rest=own["rest"])


def alone(*sizes: int) -> Any:
    return optim.AdamW([{"params": [torch.zeros(2) for _ in range(size)]} for size in sizes])


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        (lambda: other_rules(build()).state_dict(), "expected a state of AdamW in the line rest, got one of Adam in"),
        (lambda: other_names(build()).state_dict(), r"the line \w+: parameter \d \(1.bias\): .* of that name"),
        (lambda: other_lines(build()).state_dict(), "different number of parameter groups: 2, not 3"),
        (lambda: optim.AdamW(build().parameters()).state_dict(), "different number of parameter groups: 1, not 3"),
        (lambda: alone(2, 2, 1).state_dict(), "size of optimizer's group: group 1 has 1 parameters, got 2"),
        (
            lambda: alone(2, 1, 2).state_dict(),
            "group 0: expected a state of Lion in the line matrices, got one of AdamW",
        ),
        (lambda: 3, "expected a state dict of an optimiser"),
        (lambda: hostile(rule=torch.ones(3)), r"group 0: expected a state of Lion in the line matrices, got .*tensor"),
        (lambda: hostile(line=["matrices"]), r"got one of Lion in the line \['matrices'\]"),
        (lambda: broken(begun()[1].state_dict()), "the line last: .*expected shape"),
    ],
)  # fmt: skip
def test_a_state_of_another_split_is_refused_and_changes_nothing(saved: Any, message: str) -> None:
    model, opt = begun()
    before, given = pickle.dumps(opt.state_dict()), saved()
    with pytest.raises(StateError, match=message):
        opt.load_state_dict(given)
    assert pickle.dumps(opt.state_dict()) == before
    follow(model, [opt], 3)
    assert same(model, expected(6))


def hostile(**said: Any) -> dict[str, Any]:
    saved: dict[str, Any] = begun(1)[1].state_dict()
    return {**saved, "param_groups": [{**group, **said} for group in saved["param_groups"]]}


def broken(saved: dict[str, Any]) -> dict[str, Any]:
    kept = saved["state"][4]
    name = next(key for key, value in kept.items() if value.shape == (3,))
    return {**saved, "state": {**saved["state"], 4: {**kept, name: torch.zeros(7)}}}


def test_a_load_that_fails_half_way_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, opt = begun()
    before, saved = pickle.dumps(opt.state_dict()), begun(1)[1].state_dict()

    def fail(member: Any, saved: Any) -> None:
        if isinstance(member, optim.AdamW):
            raise RuntimeError("no memory")
        load_fitting(member, saved)

    monkeypatch.setattr(sys.modules["optgen.torch.split"], "load_fitting", fail)
    with pytest.raises(RuntimeError, match="no memory"):
        opt.load_state_dict(saved)
    assert pickle.dumps(opt.state_dict()) == before
    follow(model, [opt], 3)
    assert same(model, expected(6))


def test_a_saved_state_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    opt, saved = begun()[1], begun(1)[1].state_dict()
    seen: list[str] = []

    def noted(naming: Any, *given: Any, **how: Any) -> Any:
        seen.append(naming.name)
        return fitting(naming, *given, **how)

    for module in ("optgen.torch.split", "optgen.torch.optimizer"):
        monkeypatch.setattr(sys.modules[module], "fitting", noted)
    opt.load_state_dict(saved)
    assert seen == [group["rule"] for group in opt.param_groups]


def test_evaluation_is_of_all_lines_and_is_saved() -> None:
    def free(model: Any) -> Any:
        return optim.split(model, matrices=optim.ScheduleFreeSGD.options(lr=0.1), rest=optim.AdamW.options())

    model = build()
    opt = free(model)
    follow(model, [opt], 3)
    trained = copy.deepcopy(model)
    opt.eval()
    assert not torch.equal(model[1].weight, trained[1].weight)
    assert torch.equal(model[1].bias, trained[1].bias)
    with pytest.raises(ArgumentError, match="in training mode, got evaluation mode"):
        opt.step()
    other, twin = copy.deepcopy((opt, model))
    for each, net in ((opt, model), (other, twin)):
        each.train()
        assert same(net, trained)
        follow(net, [each], 1)
    assert same(model, twin)


def test_evaluation_that_fails_half_way_gives_parameters_back(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build()
    opt = optim.split(model, matrices=optim.ScheduleFreeSGD.options(lr=0.1), rest=optim.AdamW.options())
    follow(model, [opt], 2)
    trained = copy.deepcopy(model)

    def fail(self: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(optim.AdamW, "eval", fail)
    with pytest.raises(MemoryError):
        opt.eval()
    assert same(model, trained)
    follow(model, [opt], 1)


# ---- Groups ----


def test_a_group_is_added_to_the_line_that_takes_it_or_that_it_names() -> None:
    model, opt = begun(1)
    more = nn.Linear(3, 3)
    opt.add_param_group({"params": [("more.weight", more.weight)], "lr": 0.5})
    opt.add_param_group({"params": [more.bias], "param_names": ["more.bias"], "line": "last"})
    assert opt.lines["matrices"] == ("1.weight", "3.weight", "more.weight")
    assert opt.lines["last"] == ("0.weight", "3.bias", "more.bias")
    assert [(g["line"], g["lr"]) for g in opt.param_groups][3:] == [("matrices", 0.5), ("last", 1.0)]
    whole = nn.Sequential(*model, more)
    follow(whole, [opt], 2)
    other, twin = copy.deepcopy((opt, whole))
    other.load_state_dict(opt.state_dict())
    follow(twin, [other], 2)
    follow(whole, [opt], 2)
    assert same(whole, twin)
    assert "Lion, lr 0.01, 0.5, 3 parameters" in repr(opt)


def test_a_line_that_took_nothing_may_be_given_a_group() -> None:
    model = nn.Linear(2, 2, bias=False)
    opt = optim.split(model, matrices=optim.Lion.options(), rest=optim.AdamW.options())
    assert "rest: AdamW, 0 parameters of 0 values: none" in repr(opt)
    p = nn.Parameter(torch.zeros(2))
    opt.add_param_group({"params": [("bias", p)]})
    p.grad = torch.ones(2)
    model.weight.grad = torch.ones(2, 2)
    opt.step()
    assert (p < 0).all()
    assert opt.param_groups[1]["rule"] == "AdamW"


def test_a_group_that_no_line_takes_is_refused_with_what_to_say() -> None:
    opt = optim.split(build(), matrices=optim.Lion.options(), biases=optim.AdamW.options(), biases_names=("bias", "0"))
    with pytest.raises(ArgumentError, match=r"none for scale\n.*'line': 'matrices'"):
        opt.add_param_group({"params": [("scale", torch.zeros(2))]})


@pytest.mark.parametrize(
    ("group", "kind", "message"),
    [
        (lambda model: 3, ArgumentError, "expected a group as a dict with params, got 3"),
        (lambda model: {"params": [torch.zeros(2)]}, ArgumentError, "expected named parameters, got"),
        (lambda model: {"params": [("a", torch.zeros(2)), ("b", torch.zeros(2, 2))]}, ArgumentError,
         "expected parameters of one line, got some of rest, matrices"),
        (lambda model: {"params": [("a", torch.zeros(2))], "line": "rets"}, ArgumentError, "expected a line among"),
        (lambda model: {"params": [("a", model[1].bias)]}, ArgumentError, "in one group, got 'a' in two"),
        (lambda model: {"params": [("a", torch.zeros(2, 2))], "lr": -1.0}, HyperparameterError, "lr"),
        (lambda model: {"params": []}, ArgumentError, "expected parameters of one line, got some of none"),
    ],
)  # fmt: skip
def test_a_group_that_does_not_fit_is_refused(group: Any, kind: Any, message: str) -> None:
    model, opt = begun(1)
    with pytest.raises(kind, match=message):
        opt.add_param_group(group(model))
    assert len(opt.param_groups) == 3
    follow(model, [opt], 2)
    assert same(model, expected(3))


def test_a_group_that_no_line_knows_is_refused_by_the_step() -> None:
    _, opt = begun(1)
    opt.param_groups.append({"params": [torch.zeros(2)], "lr": 0.1})
    with pytest.raises(ArgumentError, match="expected groups that name a line of matrices, rest, last, got None"):
        opt.step()


def test_groups_by_patterns_are_those_of_one_rule() -> None:
    model = build()
    groups = optim.groups(model, {("*.bias", "0"): {"weight_decay": 0.0}, "3": {"lr": 0.5}})
    opt = optim.AdamW(groups, lr=0.1, weight_decay=0.2)
    assert [(g["param_names"], g["lr"], g["weight_decay"]) for g in opt.param_groups] == [
        (["0.weight", "1.bias", "3.bias"], 0.1, 0.0), (["3.weight"], 0.5, 0.2), (["1.weight"], 0.1, 0.2)
    ]  # fmt: skip
    assert len(optim.groups(model, {"*": {}})) == 1
    assert len(torch.optim.AdamW(optim.groups(model, {"*.bias": {}})).param_groups) == 2


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ({"*.bais": {}}, r"'\*.bais', got none\n.*did you mean 'bias'"),
        ({"*": {}, "0": {}}, "'0.weight' goes to a pattern before it"),
        ([("*", {})], "expected settings by patterns, got"),
        ({"*": 3}, r"groups: '\*': expected what a group says beside its parameters, got 3"),
        ({"*": {"params": []}}, "expected what a group says beside its parameters"),
        ({3: {}}, "expected patterns of names, got"),
    ],
)
def test_groups_that_cannot_be_are_refused(patterns: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        optim.groups(build(), patterns)


# ---- Options, and what is no line ----


def test_options_are_checked_at_once_and_can_be_pickled(tmp_path: Path) -> None:
    options = optim.AdamW.options(3e-4, weight_decay=0.1)
    assert repr(options) == "AdamW.options(0.0003, weight_decay=0.1)"
    assert repr(pickle.loads(pickle.dumps(options))) == repr(options)
    assert options.made(build().parameters()).defaults["lr"] == 3e-4
    for refused in (
        lambda: optim.AdamW.options(lr=-1.0), lambda: optim.Lion.options(lr=-1.0), lambda: optim.Lion.options(rate=1),
        lambda: optim.AdamW.options(rate=1), lambda: optim.AdamW.options(build().parameters()),
        lambda: optim.Lion.options(params=build()),
    ):  # fmt: skip
        with pytest.raises((OptgenError, ValueError, TypeError)):
            refused()
    with pytest.raises(ArgumentError, match=r"AdamW.options: expected hyperparameters alone, got 'generator'"):
        optim.AdamW.options(build().parameters())


ROWS = """
name = "Rows"
[hyperparameters]
eta = { default = 0.1 }
[update]
formulas = '''
delta = eta*g/(1 + mean(abs(g), row))
'''
"""


def test_a_rule_of_ones_own_is_a_line_and_refuses_shapes_at_once(tmp_path: Path) -> None:
    spec = tmp_path / "rows.toml"
    spec.write_text(ROWS)
    rows = optim.load(spec).options(lr=0.5)
    assert repr(pickle.loads(pickle.dumps(rows))) == "Rows.options(lr=0.5)"
    with pytest.raises(ArrayError, match=r"Rows: expected a matrix, .* got the line rest: 1.bias, of shape"):
        optim.split(build(), rest=rows)
    model = build()
    opt = optim.split(model, matrices=rows, rest=optim.AdamW.options())
    follow(model, [opt], 1)
    opt, model = pickle.loads(pickle.dumps((opt, model)))
    follow(model, [opt], 1)
    p = nn.Parameter(torch.zeros(2))
    with pytest.raises(ArrayError, match="expected a matrix"):
        opt.add_param_group({"params": [("more", p)], "line": "matrices"})


@pytest.mark.parametrize(
    ("params", "rest", "message"),
    [
        (build, optim.AdamW, r"rest: expected options of a rule, got the class AdamW\n.*AdamW.options\(\)"),
        (build, 0.1, "rest: expected options of a rule, got 0.1"),
        (build, optim.AdamW(build().parameters()), "got an optimiser, AdamW, which has parameters already"),
        (build, optgen.ADAM(), "got ADAM for NumPy"),
        (build, None, "rest: expected options of a rule, got None"),
        (lambda: build().parameters(), optim.AdamW.options(), "expected named parameters, got Parameter in place 0"),
        (lambda: torch.zeros(3), optim.AdamW.options(), "expected a model, got Tensor"),
        (lambda: 3, optim.AdamW.options(), "expected a model, got int"),
        (lambda: {"a": 3}, optim.AdamW.options(), "a: expected a parameter, got int"),
        (nn.Tanh, optim.AdamW.options(), "expected named parameters, got none"),
        (lambda: [("a", torch.zeros(1)), ("a", torch.zeros(1))], optim.AdamW.options(), "got 'a' twice"),
    ],
)
def test_bad_input_is_refused(params: Any, rest: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        optim.split(params(), rest=rest)


def test_a_generator_gives_its_parameters_once() -> None:
    named = build().named_parameters()
    optim.split(named, rest=optim.AdamW.options())
    with pytest.raises(ArgumentError, match=r"expected named parameters, got none\n.*a generator gives"):
        optim.split(named, rest=optim.AdamW.options())


def test_it_shows_who_steps_what() -> None:
    assert repr(made(build())).splitlines() == [
        "Split(",
        "  matrices: Lion, lr 0.01, 2 parameters of 176 values: *.weight (2)",
        "  rest: AdamW, lr 0.001, 1 parameter of 16 values: 1.bias",
        "  last: ClipGlobalNorm_Prodigy, lr 1, 2 parameters of 91 values: 0.weight, 3.bias",
        ")",
    ]
