"""Names at PyTorch's boundary: what groups call hyperparameters, in any spelling, for all rules."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch.optim import lr_scheduler
from torch_pairs import OWN, RULES, give, numbers, optim, parameters, same_bits, tensors_of, twins

import optgen
from optgen.errors import ArgumentError, HyperparameterError
from optgen.names import greek
from optgen.runtime.shapes import chosen_once
from optgen.torch.optimizer import naming_of

SHAPES = ((3, 4), (5, 2))
#: What the documentation of a hyperparameter says, and what PyTorch calls such a thing.
BY_MEANING = {
    "learning rate": "lr", "factor of the estimated learning rate": "lr", "weight decay": "weight_decay",
    "decay rates of the ": "betas", "weights of the step and of the momentum": "betas",
    "how much of the last step is kept": "momentum", "keeps the denominator from zero": "eps",
}  # fmt: skip


def key_of(name: str, hyper: Any) -> str:
    """What the groups of a rule call a hyperparameter."""
    return naming_of(getattr(optim, name)).hypers[hyper.name]


def other(hyper: Any, factor: float = 0.75) -> Any:
    """A value in the range that is not the default."""
    values = tuple(factor * x or 0.25 * factor for x in hyper.default)
    values = tuple(x if x in within else 1.0 for x, within in zip(values, hyper.ranges, strict=True))
    return values if hyper.vector else values[0]


def spellings(hyper: Any) -> list[str]:
    return list(dict.fromkeys([hyper.name, greek(hyper.name)]))


def stepped(optimiser: Any, params: list[Any], steps: int = 3) -> list[Any]:
    for t in range(steps):
        give([params], t)
        optimiser.step(**numbers(optimiser))
    return tensors_of(optimiser, params)


# ---- Names ----


@pytest.mark.parametrize("name", OWN)
def test_groups_call_hyperparameters_as_pytorch_does(name: str) -> None:
    group = getattr(optim, name)(parameters(shapes=SHAPES)).param_groups[0]
    for hyper in RULES[name].hypers:
        key = key_of(name, hyper)
        assert key in group
        assert key == next((theirs for words, theirs in BY_MEANING.items() if hyper.doc.startswith(words)), key)
        assert key not in {"eta", "decay"}
        assert not hyper.vector or key == "betas" or hyper.name != "beta"


@pytest.mark.parametrize("name", ["Momentum", "Nesterov", "LARS", "SignSGD", "SM3", "ScheduleFreeSGD"])
def test_what_is_kept_of_the_last_steps_is_momentum(name: str) -> None:
    assert "momentum" in getattr(optim, name)(parameters(shapes=SHAPES)).defaults


def test_a_decay_rate_is_no_momentum() -> None:
    params = parameters(shapes=SHAPES)
    assert {"alpha", "centered"} <= optim.RMSProp(params).defaults.keys()
    for name in ("ADADelta", "Prodigy"):
        assert "rho" in getattr(optim, name)(params).defaults


def test_a_chain_has_the_names_of_its_rule() -> None:
    params = parameters(shapes=SHAPES)

    def keys(*parts: Any) -> set[str]:
        return set(optim.chain(params, *parts).param_groups[0])

    assert {"lr", "betas", "weight_decay"} <= keys(optgen.WeightDecay(), optgen.ADAM())
    assert {"lr", "weight_decay", "lam"} <= keys(optgen.WeightDecay(), optgen.AdamW())
    assert {"lr", "weight_decay", "expdecay_eta", "expdecay_decay"} <= keys(optgen.ExpDecay(), optgen.ADAMW())
    assert {"lr", "weight_decay", "expdecay_eta"} <= keys(optgen.ExpDecay(), optgen.Momentum())


@pytest.mark.parametrize("name", RULES)
def test_loggers_find_a_learning_rate_and_a_weight_decay(name: str) -> None:
    group = getattr(optim, name)(parameters(shapes=SHAPES)).param_groups[0]
    assert isinstance(group["lr"], float)
    assert name == "Rprop" or float(group["weight_decay"]) >= 0


def test_a_rule_without_a_learning_rate_says_how_to_give_it_one(tmp_path: Any) -> None:
    (tmp_path / "plain.toml").write_text("name = 'Plain'\n[update]\nformulas = 'delta = g'\n", "utf-8")
    (p,) = params = parameters(shapes=[(3,)])
    optimiser = optim.load(tmp_path / "plain.toml")(params, lr=1.0)
    before = p.detach().clone()
    give([params], 0)
    optimiser.param_groups[0]["lr"] = 0.5
    with pytest.raises(ArgumentError, match=r"(?s)Plain, group 0, lr.*got 0\.5.*optgen\.Descent\(0\.5\)"):
        optimiser.step(**numbers(optimiser))
    assert torch.equal(p, before)
    two = optim.chain(params, optgen.ADADelta(), optgen.Descent(0.5))
    assert {"adadelta_eta", "descent_eta"} <= two.defaults.keys()
    two.param_groups[0]["lr"] = 0.5
    with pytest.raises(ArgumentError, match="ADADelta_Descent, group 0, lr"):
        two.step(**numbers(two))


# ---- Spellings ----


@pytest.mark.parametrize("name", OWN)
def test_every_spelling_is_taken_by_constructors_and_groups(name: str) -> None:
    make, params = getattr(optim, name), parameters(shapes=SHAPES)
    for hyper in RULES[name].hypers:
        value = other(hyper)
        expected = make(params, **{key_of(name, hyper): value}).state_dict()["param_groups"]
        assert expected[0][key_of(name, hyper)] == value
        for spelled in spellings(hyper):
            assert make(params, **{spelled: value}).state_dict()["param_groups"] == expected
            assert make([{"params": params, spelled: value}]).state_dict()["param_groups"] == expected


@pytest.mark.parametrize("name", OWN)
def test_every_spelling_acts_in_a_group_that_is_changed(name: str) -> None:
    make, start = getattr(optim, name), parameters(shapes=SHAPES)
    for hyper in RULES[name].hypers:
        if hyper.name in chosen_once([RULES[name]]):
            continue  # no group may change how large blocks are
        value, key, results = other(hyper), key_of(name, hyper), []
        for spelled in [key, *spellings(hyper)]:
            params = twins(start)
            optimiser = make(params)
            stepped(optimiser, params, 1)
            optimiser.param_groups[0][spelled] = value
            results.append(stepped(optimiser, params, 2))
            assert optimiser.param_groups[0][key] == value
            optimiser.param_groups[0][spelled] = other(hyper, 0.5)  # again, now that it has been read
            stepped(optimiser, params, 1)
            assert optimiser.param_groups[0][key] == other(hyper, 0.5)
        assert all(same_bits(result, results[0]) for result in results)


#: Rules with several values of beta.
OF_BETAS = [name for name in OWN if any(hyper.vector and hyper.name == "beta" for hyper in RULES[name].hypers)]


@pytest.mark.parametrize("name", OF_BETAS)
def test_one_of_the_betas_has_a_name(name: str) -> None:
    params = parameters(shapes=SHAPES)
    betas = getattr(optim, name)(params).defaults["betas"]
    for spelled in ("beta1", "β1"):
        for optimiser in (
            getattr(optim, name)(params, **{spelled: 0.5}), getattr(optim, name)([{"params": params, spelled: 0.5}])
        ):  # fmt: skip
            assert optimiser.param_groups[0]["betas"] == (0.5, *betas[1:])
            optimiser.param_groups[0][spelled] = 0.25
            stepped(optimiser, params, 1)
            assert optimiser.param_groups[0]["betas"] == (0.25, *betas[1:])


def test_the_same_in_two_spellings_is_refused() -> None:
    params = parameters(shapes=SHAPES)
    for twice in ({"decay": 0.1, "weight_decay": 0.2}, {"beta": (0.5, 0.5), "beta1": 0.5}, {"eta": 0.1, "η": 0.1}):
        with pytest.raises(ArgumentError, match="twice"):
            optim.LAMB(params, **twice)
        with pytest.raises(ArgumentError, match="twice"):
            optim.LAMB([{"params": params, **twice}])
    with pytest.raises(ArgumentError, match="lr"):
        optim.LAMB(params, 0.1, eta=0.1)


def test_a_spelling_out_of_its_range_is_refused() -> None:
    params = parameters(shapes=SHAPES)
    optimiser = optim.LAMB(params)
    with pytest.raises(HyperparameterError, match="weight_decay"):
        optimiser.add_param_group({"params": parameters(shapes=[(2,)]), "decay": -1.0})
    assert len(optimiser.param_groups) == 1
    give([params], 0)
    before = tensors_of(optimiser, params)
    optimiser.param_groups[0]["decay"] = -1.0
    for _ in range(2):
        with pytest.raises(HyperparameterError, match="weight_decay"):
            optimiser.step(**numbers(optimiser))
    assert same_bits(tensors_of(optimiser, params), before)


# ---- Groups as trainers make them ----


def decays(name: str) -> bool:
    """Whether a rule has a weight decay."""
    return any(key_of(name, hyper) == "weight_decay" for hyper in RULES[name].hypers)


#: Rules whose decay is a part of what all parameters have together.
IN_COMMON = {"AdamS", "DAdaptAdan"}


@pytest.mark.parametrize(
    ("name", "key"),
    [*((name, "weight_decay") for name in RULES), *((name, "decay") for name in OWN if decays(name))],
)
def test_weight_decay_of_a_group_acts_or_is_refused(name: str, key: str) -> None:
    """0.1 and 0.0; where a rule has none, 0.1 is an error that says what to do, and as in PyTorch for its own rules."""
    make, params = getattr(optim, name), parameters(shapes=SHAPES)

    def groups(given: list[Any]) -> list[dict[str, Any]]:
        return [{"params": given[:1], key: 0.1}, {"params": given[1:], key: 0.0}]

    has = decays(name)
    if not has and name in OWN:
        with pytest.raises(ArgumentError, match=r"(?s)weight_decay.*0\.1.*optgen\.WeightDecay\(0\.1\)"):
            make(groups(params))
        optimiser = make(params)
        give([params], 0)
        optimiser.param_groups[0][key] = 0.1
        before = tensors_of(optimiser, params)
        with pytest.raises(ArgumentError, match=r"optgen\.WeightDecay\(0\.1\)"):
            optimiser.step(**numbers(optimiser))
        assert same_bits(tensors_of(optimiser, params), before)
        return
    if name in IN_COMMON:
        with pytest.raises(ArgumentError, match="one for all parameters"):
            stepped(make(groups(params)), params)
        return
    copies = twins(params)
    more = {"d0": 0.01} if name in ("Prodigy", "DAdaptAdamW") else {}  # so that the first steps are no tiny ones
    optimiser, none = make(groups(params), **more), make(copies, **({"weight_decay": 0.0} if has else {}), **more)
    decayed, plain = stepped(optimiser, params), stepped(none, copies)
    reduces = RULES[name].grouped  # then the one group changes what the other does
    assert reduces or same_bits(decayed[1:], plain[1:])
    assert same_bits(decayed[:1], plain[:1]) is not has


@pytest.mark.parametrize("name", OWN)
def test_a_constructor_takes_a_weight_decay_of_zero(name: str) -> None:
    params = parameters(shapes=SHAPES)
    assert getattr(optim, name)(params, weight_decay=0.0).param_groups[0]["weight_decay"] == 0
    if not decays(name):
        with pytest.raises(ArgumentError, match=r"optgen\.WeightDecay\(0\.1\)"):
            getattr(optim, name)(params, weight_decay=0.1)


def test_what_is_recommended_for_a_weight_decay_works() -> None:
    params = parameters(shapes=SHAPES)
    copies = twins(params)
    groups = [{"params": params[:1], "weight_decay": 0.1}, {"params": params[1:], "weight_decay": 0.0}]
    optimiser = optim.chain(groups, optgen.WeightDecay(0.1), optgen.ADAM())
    plain = optim.ADAM(copies)
    decayed, expected = stepped(optimiser, params), stepped(plain, copies)
    assert same_bits(decayed[1:], expected[1:])
    assert not same_bits(decayed[:1], expected[:1])


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("kind", ["OneCycleLR", "CyclicLR"])
@pytest.mark.parametrize("cycle_momentum", [True, False])
def test_schedulers_that_cycle_drive_every_rule(name: str, kind: str, cycle_momentum: bool) -> None:
    params = parameters(shapes=SHAPES)
    rate = getattr(optim, name)(params).defaults["lr"]
    optimiser = getattr(optim, name)(params)

    def made() -> Any:
        if kind == "OneCycleLR":
            return lr_scheduler.OneCycleLR(optimiser, rate, total_steps=5, cycle_momentum=cycle_momentum)
        return lr_scheduler.CyclicLR(optimiser, rate / 4, rate, step_size_up=2, cycle_momentum=cycle_momentum)

    key = next((key for key in ("betas", "momentum") if key in optimiser.defaults), "")
    if cycle_momentum and not key:
        with pytest.raises(ValueError, match="momentum"):
            made()
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scheduler = made()
        found = []
        for t in range(4):
            give([params], t)
            optimiser.step(**numbers(optimiser))
            group = optimiser.param_groups[0]
            found.append((group["lr"], group[key] if cycle_momentum else None))
            scheduler.step()
    assert len({lr for lr, _ in found}) > 1
    assert not cycle_momentum or len({momentum for _, momentum in found}) > 1


# ---- Other keys ----


@pytest.mark.parametrize("name", RULES)
def test_other_keys_of_a_group_are_kept_and_change_nothing(name: str) -> None:
    params = parameters(shapes=SHAPES)
    copies = twins(params)
    more = {"name": "all", "lr_scale": 0.5, "note": [1, 2], "n": 3}
    optimiser, plain = getattr(optim, name)([{"params": params, **more}]), getattr(optim, name)(copies)
    assert same_bits(stepped(optimiser, params), stepped(plain, copies))
    optimiser.param_groups[0]["later"] = 1
    assert same_bits(stepped(optimiser, params), stepped(plain, copies))
    group = optimiser.param_groups[0]
    assert more.items() <= group.items()
    assert group["later"] == 1


def test_a_spelling_that_takes_the_place_of_another_key_acts() -> None:
    params = parameters(shapes=SHAPES)
    optimiser = optim.LAMB([{"params": params, "name": "all"}])
    stepped(optimiser, params, 1)
    group = optimiser.param_groups[0]
    del group["name"]
    group["decay"] = 0.5
    stepped(optimiser, params, 1)
    assert group["weight_decay"] == 0.5
    del group["weight_decay"]
    group["decay"] = 0.25
    stepped(optimiser, params, 1)
    assert group["weight_decay"] == 0.25


# ---- What was saved with the names of specs ----


@pytest.mark.parametrize("name", OWN)
def test_a_state_whose_groups_have_the_names_of_the_spec_loads(name: str) -> None:
    hypers = RULES[name].hypers
    params = parameters(shapes=SHAPES)
    values = {hyper.name: other(hyper) for hyper in hypers}
    optimiser = getattr(optim, name)(params, **values)
    stepped(optimiser, params, 2)
    saved = copy.deepcopy(optimiser.state_dict())
    (group,) = saved["param_groups"]
    former = {hyper.name: group.pop(key_of(name, hyper)) for hyper in hypers}
    group.pop("weight_decay", None)
    group.pop("lr", None)
    group |= former
    copies = twins(params)
    resumed = getattr(optim, name)(copies)
    resumed.load_state_dict(saved)
    assert resumed.param_groups[0].keys() == optimiser.param_groups[0].keys()
    assert same_bits(stepped(resumed, copies), stepped(optimiser, params))
