"""What training loops do with an optimiser of PyTorch: groups, schedulers, hooks, closures, scalers, copies."""

from __future__ import annotations

import copy
import inspect
import io
import os
import pickle
import pydoc
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.optim import lr_scheduler
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch_pairs import (
    NAMES,
    RULES,
    ULPS,
    Scales,
    give,
    numbers,
    optim,
    ours,
    parameters,
    same_bits,
    tensors_of,
    theirs,
    twins,
)

import optgen
from optgen.compiler import (
    catalogue,
    driver,
)
from optgen.errors import ArgumentError, ArrayError, HyperparameterError
from optgen.torch import threads as torch_threads
from optgen.torch.optimizer import engine_of

SMALL = ((3, 4), (5,))


def pair(name: str, shapes: Any = SMALL, **arguments: Any) -> tuple[list[Any], Any, list[Any], Any]:
    params = parameters(shapes=shapes)
    copies = twins(params)
    return params, theirs(name, params, **arguments), copies, ours(name, copies, **arguments)


def run(here: Any, there: Any, copies: list[Any], params: list[Any], steps: int = 6, **more: Any) -> None:
    """Steps both, with `after` called for each, and compares."""
    scales = Scales(ULPS)
    after = more.get("after", lambda optimiser, t: None)
    for t in range(steps):
        give([params, copies], t)
        for optimiser in (there, here):
            optimiser.step()
            after(optimiser, t)
        scales.compare(tensors_of(here, copies), tensors_of(there, params))


# ---- Classes ----


@pytest.mark.parametrize("name", RULES)
def test_every_rule_of_the_library_steps_tensors(name: str) -> None:
    rules = driver.compile_file(catalogue.shipped_names()[name]).rules
    matrices = not any(rule.matrix is None or not rule.matrix for rule in rules)
    params = parameters(shapes=[(3, 4)] if matrices else SMALL)
    optimiser = getattr(optim, name)(params)
    assert isinstance(optimiser, torch.optim.Optimizer)
    assert type(optimiser).__name__ == name
    assert type(optimiser).__doc__
    arrays = [p.detach().numpy().copy() for p in params]
    eps = (float(torch.finfo(torch.float32).eps), 1e-3)
    core = getattr(optgen, name)(**({"eps": eps} if name == "Adafactor" else {}))
    for t in range(4):
        give([params], t)
        optimiser.step(**numbers(optimiser))
        inputs = {each: [p.hessian.numpy() for p in params] for each in core.rule.given_arrays[1:]}
        core.step(arrays, [p.grad.numpy() for p in params], **inputs, **numbers(optimiser))
        if name in NAMES:
            round_small_states(core, arrays)
    for p, array in zip(params, arrays, strict=True):
        if any(rule.multiplies for rule in rules):  # whose products are PyTorch's here, and NumPy's there
            torch.testing.assert_close(p.detach(), torch.from_numpy(array), rtol=1e-4, atol=1e-4)
        else:
            assert torch.equal(p.detach(), torch.from_numpy(array))


def round_small_states(core: Any, arrays: list[Any]) -> None:
    """Between the steps, PyTorch's rules keep in float32 what optgen's keep in float64."""
    saved = core.state_dict()
    for kept in saved["parameters"]:
        kept["state"] = {key: x.astype(np.float32).astype(x.dtype) for key, x in kept["state"].items()}
    core.load_state_dict(saved, arrays)


@pytest.mark.parametrize("name", NAMES)
def test_the_rules_of_pytorch_are_instances_of_its_classes(name: str) -> None:
    import inspect

    there, here = getattr(torch.optim, name), getattr(optim, name)
    assert issubclass(here, there)
    own, theirs = inspect.signature(here), inspect.signature(there)
    taken = [p for p in own.parameters.values() if p.name not in ("storage", "rounding", "seed")]
    assert own.replace(parameters=taken) == theirs


def test_what_optgen_has_no_rule_for_is_pytorchs_own() -> None:
    from optgen.torch import LBFGS

    assert LBFGS is torch.optim.LBFGS
    assert optim.SparseAdam is torch.optim.SparseAdam
    assert optim.lr_scheduler is torch.optim.lr_scheduler


def test_whatever_looks_at_a_module_can_look_at_this_one() -> None:
    assert not hasattr(optim, "ClipNorm")
    assert not hasattr(optim, "ClipGlobalNorm")
    members = dict(inspect.getmembers(optim))
    assert members["LAMB"] is optim.LAMB
    assert {name for name in vars(torch.optim) if not name.startswith("_")} <= set(dir(optim))
    assert members.keys() >= set(dir(optim))
    assert "LAMB" in pydoc.render_doc(optim)


def test_names_are_imported_from_it_as_from_torch_optim() -> None:
    names: dict[str, Any] = {}
    exec("from optgen.torch import *", names)
    assert names["AdamW"] is optim.AdamW
    assert names["LAMB"] is optim.LAMB
    assert names.keys() >= set(torch.optim.__all__)
    exec("from optgen.torch.lr_scheduler import StepLR; import optgen.torch.swa_utils as averages", names)
    assert names["StepLR"] is lr_scheduler.StepLR
    assert names["averages"] is torch.optim.swa_utils


def test_threads_that_use_a_rule_first_get_one_class(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("Lion", "LAMB", "AdamW"):
        monkeypatch.delitem(vars(optim), name, raising=False)
        monkeypatch.setattr(optim, "_made", slowly(optim._made))
        start = threading.Barrier(4)
        found: list[Any] = []

        def use(name: str = name, start: threading.Barrier = start, found: list[Any] = found) -> None:
            start.wait()
            found.append(getattr(optim, name))

        users = [threading.Thread(target=use) for _ in range(4)]
        for user in users:
            user.start()
        for user in users:
            user.join()
        assert len(found) == 4
        assert all(cls is getattr(optim, name) for cls in found)


def slowly(make: Any) -> Any:
    """A maker of classes during which other threads get their turn."""

    def made(name: str) -> Any:
        time.sleep(0.02)
        return make(name)

    return made


def test_a_name_that_is_no_rule_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="AdamWW"):
        optim.AdamWW  # noqa: B018
    assert "LAMB" in dir(optim)
    assert "load" in dir(optim)


def test_tensors_given_to_a_rule_for_arrays_are_shown_the_way() -> None:
    p = torch.nn.Parameter(torch.ones(3))
    for given in ([p], [p.detach().numpy()]):
        with pytest.raises(ArrayError, match=r"optgen\.torch has the same rules for tensors of PyTorch"):
            optgen.AdamW().step(given, [torch.ones(3)])


def test_a_part_says_that_it_belongs_into_a_chain() -> None:
    with pytest.raises(AttributeError, match=r"(?s)part of chains.*optgen\.torch\.chain\("):
        optim.ClipGlobalNorm  # noqa: B018


def test_arguments_of_other_rules_are_checked() -> None:
    params = parameters(shapes=SMALL)
    with pytest.raises(ArgumentError, match="LAMB"):
        optim.LAMB(params, learning_rate=1.0)
    with pytest.raises(HyperparameterError, match="-1"):
        optim.LAMB(params, lr=-1)
    with pytest.raises(HyperparameterError, match=r"group 1.*-1"):
        optim.LAMB([{"params": params[:1]}, {"params": params[1:], "lr": -1.0}])
    assert optim.LAMB(params, 0.5).param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize("name", [*NAMES, "LAMB", "Lion", "Prodigy"])
def test_what_is_no_number_is_refused_when_it_is_set_later(name: str) -> None:
    """PyTorch raises TypeErrors too, from within its arithmetic."""
    params = parameters(shapes=[(3, 4), (5,)])
    optimiser = ours(name, params)
    give([params], 0)
    optimiser.step()
    (group,) = optimiser.param_groups
    tried = 0
    for key, good in list(group.items()):
        several = type(good) is tuple
        if type(good) not in (int, float) and not several:
            continue
        bad = ["0.1", b"0.1", None, 1j, [0.1], {}, "x"]
        if several:
            bad = [*((x, *good[1:]) for x in bad if good[0] is not None or x is not None), 0.1, good[:1], "0.1"]
        before = tensors_of(optimiser, params)
        for x in bad:
            group[key] = x
            expected = rf"{name}, group 0, {key}: expected (a number|\d numbers|\d, since {name} has none), got"
            with pytest.raises(ArgumentError, match=expected):
                optimiser.step()
            tried += 1
        assert same_bits(tensors_of(optimiser, params), before)
        group[key] = good
        optimiser.step()
    assert tried >= 8


def test_a_constant_that_vanishes_is_refused_as_everywhere() -> None:
    params = parameters(shapes=SMALL)
    optimiser = optim.ADAM(params, eps=1e-60)
    give([params], 0)
    with pytest.raises(HyperparameterError, match="float32"):
        optimiser.step()


def test_a_schedule_of_optgen_is_refused_with_what_to_use() -> None:
    params = parameters(shapes=SMALL)
    with pytest.raises(ArgumentError, match="lr_scheduler"):
        optim.ADAM(params, lr=optgen.cosine(0.1, steps=10))
    with pytest.raises(ArgumentError, match="lr_scheduler"):
        optim.chain(params, optgen.ClipNorm(1.0), optgen.ADAM(eta=optgen.cosine(0.1, steps=10)))


@pytest.mark.parametrize("name", NAMES)
def test_a_schedule_of_optgen_is_refused_by_the_rules_of_pytorch_too(name: str) -> None:
    params, schedule = parameters(shapes=SMALL), optgen.cosine(0.1, steps=10)
    for args, keywords in (((), {"lr": schedule}), ((schedule,), {})):
        with pytest.raises(ArgumentError, match=f"{name}, lr: expected a number, got a schedule.*\n.*lr_scheduler"):
            getattr(optim, name)(params, *args, **keywords)
    with pytest.raises(TypeError, match="bogus"):
        getattr(optim, name)(params, bogus=1)


def test_a_schedule_among_betas_is_refused_and_a_model_is_none() -> None:
    with pytest.raises(ArgumentError, match="Adam, betas: expected a number, got a schedule"):
        optim.Adam(parameters(shapes=SMALL), betas=(optgen.cosine(0.9, steps=10), 0.99))
    with pytest.raises(TypeError, match="not iterable"):
        optim.Adam(torch.nn.Linear(2, 2))


@pytest.mark.parametrize(("key", "hint"), [("lr", "call the learning rate eta"), ("weight_decay", "it is decoupled")])
def test_what_a_rule_has_not_comes_with_what_to_do(key: str, hint: str, tmp_path: Path) -> None:
    spec = tmp_path / "own.toml"
    spec.write_text('name = "Own"\n[hyperparameters]\nr = { default = 0.1 }\n[update]\nformulas = "delta = r*g"\n')
    with pytest.raises(ArgumentError, match=f"Own, {key}: expected .*\n.*{hint}"):
        optim.load(spec)(parameters(shapes=SMALL), **{key: 0.5})


# ---- Groups and hyperparameters ----


@pytest.mark.parametrize("name", NAMES)
def test_groups_have_their_own_numbers(name: str) -> None:
    params = parameters(shapes=[(3,), (2, 2), (4,)])
    copies = twins(params)

    def groups(given: list[Any]) -> list[dict[str, Any]]:
        return [{"params": given[:1]}, {"params": given[1:2], "lr": 0.3}]

    there, here = theirs(name, groups(params)), ours(name, groups(copies))
    run(here, there, copies[:2], params[:2], 3)
    added = {"lr": 0.2} | ({"weight_decay": 0.1} if "weight_decay" in there.defaults else {})
    there.add_param_group({"params": params[2:], **added})
    here.add_param_group({"params": copies[2:], **added})
    run(here, there, copies, params, 3)


SCHEDULERS: dict[str, Any] = {
    "StepLR": lambda o: lr_scheduler.StepLR(o, 2),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [1, 3]),
    "ConstantLR": lambda o: lr_scheduler.ConstantLR(o, total_iters=2),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o, total_iters=4),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.7),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, 5),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 5),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3),
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda t: 1 / (1 + t)),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda t: 0.9),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.3, total_steps=8),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, step_size_up=2),
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ExponentialLR(o, 0.9), lr_scheduler.StepLR(o, 2)]
    ),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.ConstantLR(o, 0.1), lr_scheduler.ExponentialLR(o, 0.9)], [2]
    ),
}


@pytest.mark.parametrize("kind", SCHEDULERS)
@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_every_scheduler_drives_it(name: str, kind: str) -> None:
    arguments = {"momentum": 0.9} if name == "SGD" else {}
    params, there, copies, here = pair(name, **arguments)
    schedulers = {id(o): SCHEDULERS[kind](o) for o in (there, here)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(here, there, copies, params, after=lambda o, t: schedulers[id(o)].step())
    assert here.param_groups[0]["lr"] == there.param_groups[0]["lr"]


def test_a_scheduler_drives_a_rule_of_optgen() -> None:
    params = parameters(shapes=SMALL)
    optimiser = optim.ADAM(params, lr=0.1)
    scheduler = lr_scheduler.ReduceLROnPlateau(optimiser, patience=0)
    core, arrays = optgen.ADAM(0.1), [p.detach().numpy().copy() for p in params]
    for t in range(4):
        give([params], t)
        optimiser.step()
        core.eta = optimiser.param_groups[0]["lr"] * (10 if t == 0 else 1) / (10 if t == 0 else 1)
        core.step(arrays, [p.grad.numpy() for p in params])
        scheduler.step(1.0)
    assert optimiser.param_groups[0]["lr"] < 0.01
    assert all(torch.equal(p.detach(), torch.from_numpy(a)) for p, a in zip(params, arrays, strict=True))


def test_momentum_may_come_and_go() -> None:
    params, there, copies, here = pair("SGD", lr=0.1)

    def after(optimiser: Any, t: int) -> None:
        optimiser.param_groups[0]["momentum"] = [0.9, 0.9, 0.0, 0.0, 0.8, 0.8, 0.0, 0.9][t]

    run(here, there, copies, params, 8, after=after)


def test_one_cycle_starts_momentum_from_nothing() -> None:
    params, there, copies, here = pair("SGD", lr=0.1)
    made = {id(o): lr_scheduler.OneCycleLR(o, 0.3, total_steps=8, base_momentum=0.1) for o in (there, here)}
    for optimiser in (there, here):
        optimiser.param_groups[0]["momentum"] = 0
    run(here, there, copies, params, after=lambda o, t: made[id(o)].step())
    assert here.param_groups[0]["momentum"] > 0


@pytest.mark.parametrize("name", NAMES)
def test_a_learning_rate_may_be_a_tensor_that_changes_in_place(name: str) -> None:
    rates = torch.tensor(0.1), torch.tensor(0.1)
    params = parameters(shapes=SMALL)
    copies = twins(params)
    there, here = theirs(name, params, lr=rates[0]), ours(name, copies, lr=rates[1])

    def after(optimiser: Any, t: int) -> None:
        optimiser.param_groups[0]["lr"].mul_(0.5)

    run(here, there, copies, params, after=after)


def test_betas_may_be_a_list_that_changes_in_place() -> None:
    params, there, copies, here = pair("Adam")
    for optimiser in (there, here):
        optimiser.param_groups[0]["betas"] = [0.9, 0.99]

    def after(optimiser: Any, t: int) -> None:
        optimiser.param_groups[0]["betas"][0] = 0.1 * t

    run(here, there, copies, params, after=after)


@pytest.mark.parametrize("name", ["SGD", "ADAM"])
def test_a_learning_rate_may_be_an_array_that_changes_in_place(name: str) -> None:
    lr, p = np.array(1.0), torch.nn.Parameter(torch.zeros(3))
    optimiser = getattr(optim, name)([p], lr=0.5)
    optimiser.param_groups[0]["lr"] = lr
    p.grad = torch.ones(3)
    optimiser.step()
    lr[...] = 10
    optimiser.step()
    torch.testing.assert_close(p.detach(), torch.full((3,), -11.0))


@pytest.mark.parametrize("name", ["SGD", "AdamW", "Lion"])
def test_a_parameter_may_go_to_another_group(name: str) -> None:
    a, b, c = (torch.nn.Parameter(torch.zeros(3)) for _ in range(3))
    optimiser = getattr(optim, name)([{"params": [a], "lr": 1.0}, {"params": [b], "lr": 0.01}])
    other = getattr(optim, name)([c], lr=0.01)
    for lr in (0.01, 1.0):
        for p in (a, b, c):
            p.grad = torch.ones(3)
        other.param_groups[0]["lr"] = lr
        optimiser.step()
        other.step()
        if lr < 1:
            optimiser.param_groups[0]["params"].append(optimiser.param_groups[1]["params"].pop())
    assert torch.equal(b, c)


def test_betas_may_be_tensors() -> None:
    params, there, copies, here = pair("Adam", lr=torch.tensor(0.1), betas=(torch.tensor(0.9), torch.tensor(0.99)))
    run(here, there, copies, params)


@pytest.mark.parametrize("name", NAMES)
def test_maximize_climbs(name: str) -> None:
    params, there, copies, here = pair(name, maximize=True)
    run(here, there, copies, params, 3)


def test_named_parameters() -> None:
    model = torch.nn.Linear(3, 2)
    optimiser = optim.AdamW(model.named_parameters())
    assert optimiser.param_groups[0]["param_names"] == ["weight", "bias"]
    model(torch.ones(3)).sum().backward()
    optimiser.step()
    assert optimiser.state_dict()["param_groups"][0]["param_names"] == ["weight", "bias"]
    lamb = optim.LAMB(model.named_parameters())
    lamb.step()
    assert lamb.state_dict()["param_groups"][0]["param_names"] == ["weight", "bias"]


# ---- Gradients that come and go ----


@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_none_and_frozen_parameters(name: str) -> None:
    shapes = [(3,), (2, 2), (4,), ()]
    params, there, copies, here = pair(name, shapes)
    scales = Scales(ULPS)
    patterns = [(1, 1, 1, 1), (1, 0, 1, 1), (0, 0, 0, 0), (0, 1, 0, 1), (1, 1, 1, 1), (1, 0, 1, 1), (0, 1, 0, 0)]
    for t, pattern in enumerate(patterns):
        give([params, copies], t)
        for given in (params, copies):
            for p, has in zip(given, pattern, strict=True):
                p.requires_grad_(bool(has))
                p.grad = p.grad if has else None
        there.step()
        here.step()
        scales.compare(tensors_of(here, copies), tensors_of(there, params))


def test_an_optimiser_steps_from_hooks_of_the_backward() -> None:
    torch.manual_seed(0)
    models = [torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2)) for _ in range(3)]
    for model in models[1:]:
        model.load_state_dict(models[0].state_dict())
    there = torch.optim.AdamW(models[0].parameters(), foreach=False)
    each = {p: optim.AdamW([p]) for p in models[1].parameters()}
    whole = optim.AdamW(models[2].parameters())

    def alone(p: Any) -> None:
        each[p].step()
        p.grad = None

    def together(p: Any) -> None:  # one optimiser, all gradients but one are None
        whole.step()
        p.grad = None

    for p in models[1].parameters():
        p.register_post_accumulate_grad_hook(alone)
    for p in models[2].parameters():
        p.register_post_accumulate_grad_hook(together)
    for t in range(5):
        x = torch.randn(6, 4, generator=torch.Generator().manual_seed(t))
        for model in models:
            model(x).square().sum().backward()
        there.step()
        there.zero_grad()
        for own in models[1:]:
            for p, q in zip(own.parameters(), models[0].parameters(), strict=True):
                assert p.grad is None
                torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


def test_as_many_patterns_of_gradients_as_parameters_are_remembered() -> None:
    params = parameters(shapes=[(2,)] * 40)
    optimiser = optim.SGD(params, momentum=0.9)
    for _ in range(2):
        plans = []
        for p in params:
            p.grad = torch.ones(2)
            optimiser.step()
            plans.append(engine_of(optimiser).plans.last)
            p.grad = None
    optimiser_again = [id(plan) for plan in plans]
    for p, known in zip(params, optimiser_again, strict=True):
        p.grad = torch.ones(2)
        optimiser.step()
        assert id(engine_of(optimiser).plans.last) == known
        p.grad = None


def test_no_gradient_at_all_is_no_step() -> None:
    params = parameters(shapes=SMALL)
    optimiser = optim.AdamW(params)
    optimiser.step()
    assert not optimiser.state
    assert optimiser.step(lambda: 3.0) == 3.0


# ---- Hooks and closures ----


@pytest.mark.parametrize("name", ["AdamW", "LAMB"])
def test_hooks_are_called_once_and_may_change_the_arguments(name: str) -> None:
    params = parameters(shapes=SMALL)
    optimiser = getattr(optim, name)(params)
    calls: list[str] = []
    optimiser.register_step_pre_hook(lambda o, args, kwargs: calls.append("pre"))
    handle = optimiser.register_step_post_hook(lambda o, args, kwargs: calls.append("post"))
    everywhere = register_optimizer_step_post_hook(lambda o, a, k: calls.append("global"))
    try:
        give([params], 0)
        optimiser.step()
        assert calls == ["pre", "post", "global"]
    finally:
        everywhere.remove()
    handle.remove()
    calls.clear()
    optimiser.step()
    assert calls == ["pre"]
    optimiser.register_step_pre_hook(lambda o, args, kwargs: ((o, lambda: calls.append("closure")), {}))
    calls.clear()
    optimiser.step()
    assert calls == ["pre", "closure"]


@pytest.mark.parametrize("name", ["AdamW", "LAMB"])
def test_hooks_see_the_arguments_as_they_were_given(name: str) -> None:
    params = parameters(shapes=SMALL)
    optimiser, there = getattr(optim, name)(params), theirs("AdamW", twins(params))
    seen: dict[int, list[Any]] = {id(optimiser): [], id(there): []}

    def closure() -> float:
        return 1.0

    for each in (optimiser, there):
        for register in (each.register_step_pre_hook, each.register_step_post_hook):
            register(lambda o, args, kwargs: seen[id(o)].append((args[0] is o, args[1:], kwargs)))
        each.step()
        each.step(closure)
        each.step(closure=closure)
    assert seen[id(optimiser)] == seen[id(there)]
    assert list(inspect.signature(optimiser.step).parameters) == ["closure", "phase", "inputs"]


def test_hooks_of_a_subclass_that_steps_through_ours_are_called_once() -> None:
    class Mine(optim.AdamW):
        def step(self, closure: Any = None) -> Any:
            return super().step(closure)

    params = parameters(shapes=SMALL)
    optimiser = Mine(params)
    calls: list[str] = []
    optimiser.register_step_post_hook(lambda *_: calls.append("post"))
    give([params], 0)
    optimiser.step()
    assert calls == ["post"]


def test_a_subclass_of_sgd_keeps_no_count() -> None:
    class Mine(optim.SGD):
        pass

    params = parameters(shapes=SMALL)
    optimiser = Mine(params, momentum=0.9)
    give([params], 0)
    optimiser.step()
    assert set(optimiser.state[params[0]]) == {"momentum_buffer"}


def test_the_profiler_sees_the_step() -> None:
    params = parameters(shapes=SMALL)
    optimiser = optim.AdamW(params)
    give([params], 0)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        optimiser.step()
    assert any("Optimizer.step#AdamW.step" in event.key for event in profile.key_averages())


def test_a_closure_computes_the_gradients_with_autograd() -> None:
    p = torch.nn.Parameter(torch.tensor([2.0]))
    optimiser = optim.SGD([p], lr=0.25)

    def closure() -> Any:
        optimiser.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss

    with torch.no_grad():
        assert optimiser.step(closure).item() == 4.0
    assert p.item() == 1.0


def test_zero_grad() -> None:
    params = parameters(shapes=SMALL)
    optimiser = optim.Lion(params)
    give([params], 0)
    optimiser.zero_grad(set_to_none=False)
    assert all(not p.grad.any() for p in params)
    optimiser.zero_grad()
    assert all(p.grad is None for p in params)


# ---- Scaled gradients ----


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "Adagrad", "LAMB"])
def test_a_scaler_unscales_and_leaves_out_what_overflowed(name: str, fused: bool) -> None:
    if fused and name == "LAMB":
        pytest.skip("a flag of PyTorch's rules")
    params = parameters(shapes=SMALL)
    copies = twins(params)
    plain = getattr(optim, name)(copies)
    optimiser = getattr(optim, name)(params, **({"fused": True} if fused else {}))
    assert getattr(optimiser, "_step_supports_amp_scaling", False) is fused
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=1000)
    scale = 64.0
    for t in range(4):
        give([params, copies], t)
        scaler.scale(torch.zeros(()))
        for p in params:
            p.grad *= scale
        if t == 2:
            params[0].grad.view(-1)[1] = float("inf")
        else:
            plain.step()
        scaler.step(optimiser)
        scaler.update()
        scale = scaler.get_scale()
    assert scale == 32.0
    assert same_bits(tensors_of(optimiser, params), tensors_of(plain, copies))


# ---- PyTorch's own ways ----


def test_differentiable_goes_through_pytorch() -> None:
    results = []
    for make in (torch.optim.SGD, optim.SGD):
        start = torch.tensor([1.0, 2.0], requires_grad=True)
        p = start.clone()
        p.grad = p.detach() * 2
        lr = torch.tensor(0.5, requires_grad=True)
        optimiser = make([p], lr=lr, differentiable=True)
        optimiser.step()
        p.sum().backward()
        results.append((p.detach().clone(), start.grad.clone(), lr.grad.clone()))
    for ours_, theirs_ in zip(results[1], results[0], strict=True):
        assert torch.equal(ours_, theirs_)


@pytest.mark.parametrize("name", ["Adam", "NAdam", "ASGD"])
def test_capturable_raises_what_pytorch_raises(name: str) -> None:
    errors = []
    for make in (theirs, ours):
        params = parameters(shapes=SMALL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            optimiser = make(name, params, capturable=True)
            give([params], 0)
            with pytest.raises((AssertionError, RuntimeError)) as caught:
                optimiser.step()
        errors.append((type(caught.value), str(caught.value)))
    assert errors[0] == errors[1]


# ---- Copies ----


def through_pickle(x: Any) -> Any:
    return pickle.loads(pickle.dumps(x))


def through_save(x: Any) -> Any:
    file = io.BytesIO()
    torch.save(x, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


LION = """
name = "Lion"
[hyperparameters]
"η" = { default = 0.01, range = "[0, inf)", doc = "learning rate" }
[state]
m = { init = "0", doc = "momentum" }
step = { init = "0", doc = "a state that is called as the count" }
[update]
formulas = '''
m = 0.9*m + g
step = step + m
delta = η*sign(m)
'''
"""


def loaded(folder: Any) -> Any:
    (folder / "lion.toml").write_text(LION, "utf-8")
    return optim.load(folder / "lion.toml")


@pytest.mark.parametrize("copied", [copy.deepcopy, through_pickle, through_save], ids=lambda f: f.__name__)
@pytest.mark.parametrize("kind", ["AdamW", "SGD", "Adafactor", "LAMB", "Prodigy", "chain", "load"])
def test_a_copy_goes_on_as_the_original(kind: str, copied: Any, tmp_path: Any) -> None:
    params = parameters(shapes=SMALL)
    if kind == "chain":
        optimiser = optim.chain(params, optgen.ClipGlobalNorm(0.5), optgen.AdamW(0.1), optgen.EMA())
    elif kind == "load":
        optimiser = loaded(tmp_path)(params, lr=0.1)
    else:
        optimiser = getattr(optim, kind)(params, **({"momentum": 0.9} if kind == "SGD" else {}))
    for t in range(3):
        give([params], t)
        optimiser.step()
    twin = copied(optimiser)
    others = [p for group in twin.param_groups for p in group["params"]]
    assert type(twin).__name__ == type(optimiser).__name__
    assert all(p is not q for p, q in zip(params, others, strict=True))
    before = tensors_of(optimiser, params)
    give([others], 3)
    twin.step()
    assert same_bits(tensors_of(optimiser, params), before)
    give([params], 3)
    optimiser.step()
    assert same_bits(tensors_of(optimiser, params), tensors_of(twin, others))
    give([params, others], 4)
    optimiser.step()
    twin.step()
    assert same_bits(tensors_of(optimiser, params), tensors_of(twin, others))


def test_the_same_spec_is_the_same_class(tmp_path: Any) -> None:
    assert loaded(tmp_path) is loaded(tmp_path)
    assert loaded(tmp_path) is not optim.Lion
    params = parameters(shapes=SMALL)
    assert type(through_pickle(loaded(tmp_path)(params))) is loaded(tmp_path)


# ---- Chains ----


def test_a_chain_steps_as_one_of_numpy() -> None:
    params = parameters(shapes=SMALL)
    parts = [optgen.ClipGlobalNorm(0.5), optgen.WeightDecay(0.1), optgen.ADAM(0.1), optgen.EMA(rho=0.9)]
    optimiser, core = optim.chain(params, *parts), optgen.chain(*parts)
    arrays = [p.detach().numpy().copy() for p in params]
    for t in range(4):
        give([params], t)
        optimiser.step()
        core.step(arrays, [p.grad.numpy() for p in params])
    assert all(torch.equal(p.detach(), torch.from_numpy(a)) for p, a in zip(params, arrays, strict=True))
    assert torch.equal(optimiser.state[params[0]]["avg"], torch.from_numpy(core.state(arrays[0])["avg"].copy()))
    assert optimiser.param_groups[0]["lr"] == 0.1


def test_what_is_reduced_over_all_is_reduced_over_those_with_a_gradient() -> None:
    params = parameters(shapes=[(3,), (2, 2), (4,)])
    optimiser = optim.chain(params, optgen.ClipGlobalNorm(0.5), optgen.SGD(1.0))
    before = [p.detach().clone() for p in params]
    for p in params:
        p.grad = torch.ones_like(p)
    params[1].grad = None
    optimiser.step()
    moved = [q - p.detach() for p, q in zip(params, before, strict=True)]
    assert not moved[1].any()
    assert torch.cat([moved[0], moved[2]]).norm().item() == pytest.approx(0.5, rel=1e-5)


def test_reductions_go_over_all_groups() -> None:
    params = parameters(shapes=[(3,), (2, 2)])
    groups = [{"params": params[:1]}, {"params": params[1:], "lr": 0.5}]
    optimiser = optim.chain(groups, optgen.ClipGlobalNorm(0.5), optgen.SGD(1.0))
    before = [p.detach().clone() for p in params]
    for p in params:
        p.grad = torch.ones_like(p)
    optimiser.step()
    moved = [q - p.detach() for p, q in zip(params, before, strict=True)]
    assert torch.cat([moved[0], 2 * moved[1].flatten()]).norm().item() == pytest.approx(0.5, rel=1e-5)


def test_what_holds_for_all_parameters_must_be_the_same_in_every_group() -> None:
    params = parameters(shapes=[(3,), (2, 2)])
    chained = optim.chain(params[:1], optgen.ClipGlobalNorm(0.5), optgen.SGD(1.0))
    name = next(key for key, value in chained.param_groups[0].items() if value == 0.5)
    chained.add_param_group({"params": params[1:], name: 0.25})
    give([params], 0)
    before = [p.detach().clone() for p in params]
    with pytest.raises(ArgumentError, match=rf"{name}.*0\.5.*0\.25"):
        chained.step()
    assert all(torch.equal(p, q) for p, q in zip(params, before, strict=True))
    chained.param_groups[1][name] = 0.5
    chained.step()


def test_a_step_that_does_not_count_leaves_everything() -> None:
    params = parameters(shapes=SMALL)
    optimiser = optim.chain(params, optgen.Unscale(4.0), optgen.AdamW(0.1), optgen.ZeroGrad())
    give([params], 0)
    optimiser.step()
    assert all(not p.grad.any() for p in params)
    before = tensors_of(optimiser, params)
    give([params], 1)
    params[0].grad.view(-1)[0] = float("nan")
    optimiser.step()
    assert same_bits(tensors_of(optimiser, params), before)
    assert all(not p.grad.any() for p in params)
    give([params], 2)
    optimiser.step()
    assert optimiser.state[params[0]]["step"] == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_loss_scale_is_lowered_by_a_step_that_does_not_count_and_saved(dtype: torch.dtype) -> None:
    params = [p.detach().to(dtype).requires_grad_() for p in parameters(shapes=SMALL)]
    parts = optgen.LossScale(8.0, interval=2), optgen.AdamW(0.1)
    optimiser = optim.chain(params, *parts)
    assert optimiser.state_of_all() == {"scale": 8.0, "good": 0.0}
    for bad, scale in ((float("nan"), 4.0), (1.0, 4.0), (1.0, 8.0), (float("inf"), 4.0)):
        give([params], 1)
        params[0].grad.view(-1)[0] *= bad
        before = [p.detach().clone() for p in params]
        optimiser.step()
        assert optimiser.state_of_all()["scale"] == scale
        assert all(torch.equal(p, q) for p, q in zip(params, before, strict=True)) is (bad != 1.0)
    other = optim.chain([p.detach().clone().requires_grad_() for p in params], *parts)
    other.load_state_dict(optimiser.state_dict())
    assert other.state_of_all() == pickle.loads(pickle.dumps(optimiser)).state_of_all() == optimiser.state_of_all()
    assert optimiser.state[params[0]]["step"] == 2


def test_a_chain_needs_the_parameters_first() -> None:
    with pytest.raises(ArgumentError, match="parameters"):
        optim.chain(optgen.ClipNorm(1.0), optgen.AdamW())


def test_a_chain_takes_no_argument_of_a_part() -> None:
    with pytest.raises(ArgumentError, match="chain: expected parameters and parts, got lr=") as error:
        optim.chain([torch.nn.Parameter(torch.ones(2))], optgen.AdamW(), lr=0.1)
    assert "give it to the part" in str(error.value)


# ---- Threads ----

LARGE = """
    import os
    import torch
    import optgen.torch as optim
    from optgen.runtime import library
    torch.set_num_threads(2)
    workers = library.runtime().library.optgen_workers
    p = torch.nn.Parameter(torch.ones(1 << 20))
    p.grad = torch.ones_like(p)
    here = optim.SGD([p], lr=0.5)
    here.step()
"""


def printed(script: str, **environment: str) -> str:
    """What a process with such variables prints; it must end well, and in time."""
    text = textwrap.dedent(LARGE) + textwrap.dedent(script)
    before = {name: value for name, value in os.environ.items() if name != "OPTGEN_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=100,
                          env=before | environment)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


team = pytest.mark.skipif(torch_threads._TEAM is None, reason="PyTorch's threads are not those of GNU's OpenMP")


@team
@pytest.mark.parametrize(("wanted", "workers"), [("", 0), ("2", 0), ("3", 2), ("1", 0)])
def test_steps_run_on_the_threads_of_pytorch(wanted: str, workers: int) -> None:
    """Unless a number is asked for that is not theirs."""
    assert printed("print(workers(), (p == 0.5).all().item())", OPTGEN_NUM_THREADS=wanted) == f"{workers} True\n"


@team
def test_they_are_as_many_as_pytorch_has_now() -> None:
    script = """
        torch.set_num_threads(1)
        here.step()
        print(here._engine.plans.last._bound._threads, (p == 0).all().item())
    """
    assert printed(script) == "1 True\n"


def test_defaults_of_pytorch_do_not_matter() -> None:
    script = """
        from optgen.torch.tensors import _readable
        _readable.cache_clear()
        torch.set_default_device("meta")
        torch.set_default_dtype(torch.float64)
        q = torch.nn.Parameter(torch.ones(3, dtype=torch.float32, device="cpu"))
        q.grad = torch.ones_like(q)
        for each in (optim.SGD([q]), optim.Adam([q]), optim.LAMB([q])):
            each.step()
            each.step()
        print(_readable(), q.device, q.dtype)
    """
    assert printed(script) == "True cpu torch.float32\n"


@team
def test_no_thread_of_pytorch_ends_though_a_step_has_less_to_do_than_all_could() -> None:
    script = """
        torch.set_num_threads(8)
        other = torch.ones(1 << 22)
        q = torch.nn.Parameter(torch.ones(200_000))
        q.grad = torch.ones_like(q)
        less = optim.SGD([q], lr=0.5)
        found = []
        for _ in range(20):
            other.add_(1)
            less.step()
            found.append(frozenset(os.listdir("/proc/self/task")))
        print(len(set(found[1:])))
    """
    assert printed(script) == "1\n"


@team
def test_in_a_process_that_was_forked_they_run_on_threads_of_their_own() -> None:
    """Those of OpenMP are not there, and it would wait for them for ever."""
    script = """
        child = os.fork()
        here.step()
        if child == 0:
            os._exit(0 if workers() == 1 and (p.detach().numpy() == 0).all() else 1) # not an operation of its own
        print(os.waitpid(child, 0)[1], workers())
    """
    assert printed(script) == "0 0\n"
