"""State dicts: of PyTorch's layout, from one to the other in the middle of a run, and checked when they are loaded."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch_pairs import NAMES, ULPS, Scales, give, optim, ours, parameters, same_bits, tensors_of, theirs, twins

import optgen
from optgen.errors import ArgumentError, StateError
from optgen.torch.optimizer import naming_of

SHAPES = ((3, 4), (5,), ())
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in NAMES),
    ("SGD", {"momentum": 0.9, "nesterov": True}),
    ("AdamW", {"amsgrad": True, "maximize": True}),
    ("RMSprop", {"momentum": 0.9, "centered": True}),
    ("ASGD", {"t0": 2}),
]


def titled(case: tuple[str, dict[str, Any]]) -> str:
    return ", ".join([case[0], *case[1]])


def saved(optimiser: Any) -> Any:
    """Through a file, as a checkpoint goes."""
    file = io.BytesIO()
    torch.save(optimiser.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def steps(optimiser: Any, params: list[Any], begin: int, end: int) -> None:
    for t in range(begin, end):
        give([params], t)
        optimiser.step()


@pytest.mark.parametrize("case", VARIANTS, ids=titled)
def test_the_layout_is_that_of_pytorch(case: tuple[str, dict[str, Any]]) -> None:
    name, arguments = case
    params = parameters(shapes=SHAPES)
    copies = twins(params)
    there, here = theirs(name, params, **arguments), ours(name, copies, **arguments)
    steps(there, params, 0, 2)
    steps(here, copies, 0, 2)
    expected, got = there.state_dict(), here.state_dict()
    assert got["rule"] == name
    assert set(got) == {*expected, "rule"}
    for one, other in zip(got["param_groups"], expected["param_groups"], strict=True):
        assert one == other | {key: one[key] for key in ("foreach", "fused") if key in one}
    assert set(got["state"]) == set(expected["state"])
    for number, state in expected["state"].items():
        assert set(got["state"][number]) == set(state)
        for key, value in state.items():
            own = got["state"][number][key]
            assert own.shape == value.shape, key
            assert own.dtype is value.dtype, key
            assert own.stride() == value.stride(), key


@pytest.mark.parametrize("case", VARIANTS, ids=titled)
def test_a_run_changes_from_pytorch_to_here_and_back(case: tuple[str, dict[str, Any]]) -> None:
    name, arguments = case
    params = parameters(shapes=SHAPES)
    copies = twins(params)
    whole = theirs(name, params, **arguments)
    scales = Scales(ULPS)
    current = theirs(name, copies, **arguments)
    for turn in range(4):
        for t in range(5 * turn, 5 * turn + 5):
            give([params, copies], t)
            whole.step()
            current.step()
            scales.compare(tensors_of(current, copies), tensors_of(whole, params))
        make = ours if turn % 2 == 0 else theirs
        following = make(name, copies, **arguments)
        following.load_state_dict(saved(current))
        current = following


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    "name", [*NAMES, "ADAM", "LAMB", "Prodigy", "ScheduleFreeAdamW", "SM3", "NovoGrad", "DAdaptAdamW"]
)
def test_a_resumed_run_is_the_same_bit_for_bit(name: str, dtype: Any) -> None:
    params = parameters(dtype, [(3, 4), (5, 2)])
    copies = twins(params)
    whole, first = getattr(optim, name)(params), getattr(optim, name)(copies)
    steps(whole, params, 0, 9)
    steps(first, copies, 0, 4)
    second = getattr(optim, name)(copies)
    second.load_state_dict(saved(first))
    steps(second, copies, 4, 9)
    assert same_bits(tensors_of(second, copies), tensors_of(whole, params))


def test_a_chain_is_resumed() -> None:
    def made(given: Any) -> Any:
        parts = optgen.ClipGlobalNorm(0.5), optgen.AccumGrad(2), optgen.ADAM(0.1), optgen.EMA(rho=0.9)
        return optim.chain(given, *parts)

    params = parameters(shapes=SHAPES)
    copies = twins(params)
    whole, first = made(params), made(copies)
    steps(whole, params, 0, 7)
    steps(first, copies, 0, 3)
    second = made(copies)
    second.load_state_dict(saved(first))
    steps(second, copies, 3, 7)
    assert same_bits(tensors_of(second, copies), tensors_of(whole, params))
    other = optim.chain(copies, optgen.ADAM(0.1), optgen.EMA(rho=0.9))
    with pytest.raises(StateError, match="expected a state of ADAM_EMA"):
        other.load_state_dict(saved(first))


@pytest.mark.parametrize("name", [*NAMES, "LAMB", "Prodigy", "SM3"])
def test_a_load_shares_no_memory(name: str) -> None:
    params = parameters(shapes=SHAPES)
    first = getattr(optim, name)(params)
    steps(first, params, 0, 3)
    copies = twins(params)
    second = getattr(optim, name)(copies)
    second.load_state_dict(first.state_dict())
    before = tensors_of(second, copies)
    assert same_bits(before, tensors_of(first, params))
    steps(first, params, 3, 4)
    assert same_bits(tensors_of(second, copies), before)
    after = tensors_of(first, params)
    steps(second, copies, 3, 6)
    assert same_bits(tensors_of(first, params), after)


def test_a_load_leaves_a_mapped_file(tmp_path: Any) -> None:
    params = parameters(shapes=SHAPES)
    first, second = optim.AdamW(params), optim.AdamW(twins(params))
    steps(first, params, 0, 2)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    mapped = torch.load(tmp_path / "state.pt", mmap=True, weights_only=True)
    places = {x.data_ptr() for kept in mapped["state"].values() for x in kept.values()}
    second.load_state_dict(mapped)
    assert places.isdisjoint(x.data_ptr() for kept in second.state.values() for x in kept.values())
    assert not places.isdisjoint(x.data_ptr() for kept in mapped["state"].values() for x in kept.values())


def test_counts_may_differ_between_parameters() -> None:
    params = parameters(shapes=SHAPES)
    copies = twins(params)
    there, here = theirs("AdamW", params), ours("AdamW", copies)
    for given, optimiser in ((params, there), (copies, here)):
        for t in range(4):
            give([given], t)
            given[t % 3].grad = None
            optimiser.step()
    assert [int(here.state[p]["step"]) for p in copies] == [2, 3, 3]
    following = ours("AdamW", copies)
    following.load_state_dict(saved(here))
    scales = Scales(ULPS)
    for t in range(3):
        give([params, copies], t)
        there.step()
        following.step()
        scales.compare(tensors_of(following, copies), tensors_of(there, params))


# ---- What does not fit ----


def checkpoint(name: str, params: list[Any] | None = None, **arguments: Any) -> Any:
    params = params or parameters(shapes=SHAPES)
    optimiser = getattr(optim, name)(params, **arguments)
    steps(optimiser, params, 0, 2)
    return optimiser.state_dict()


def refused(optimiser: Any, state: Any, match: str) -> None:
    """Raises, and leaves the optimiser as it was."""
    params = [p for group in optimiser.param_groups for p in group["params"]]
    steps(optimiser, params, 0, 1)
    before, groups = tensors_of(optimiser, params), copy.deepcopy(optimiser.state_dict()["param_groups"])
    with pytest.raises(StateError, match=match):
        optimiser.load_state_dict(state)
    assert same_bits(tensors_of(optimiser, params), before)
    assert optimiser.state_dict()["param_groups"] == groups
    steps(optimiser, params, 1, 2)


def test_other_shapes_are_refused() -> None:
    state = checkpoint("AdamW")
    other = optim.AdamW(parameters(shapes=[(3, 4), (6,), ()]))
    refused(other, state, r"parameter 1: exp_avg: expected shape \(6,\), got shape \(5,\)")


def test_another_order_is_refused() -> None:
    state = checkpoint("AdamW")
    other = optim.AdamW(parameters(shapes=[(5,), (3, 4), ()]))
    refused(other, state, r"parameter 0: exp_avg(.|\n)*order")


def test_another_order_of_names_is_refused() -> None:
    def named(names: str) -> Any:
        return list(zip(names, parameters(shapes=[(3,), (3,)]), strict=True))

    params = named("ab")
    optimiser = optim.AdamW(params)
    steps(optimiser, [p for _, p in params], 0, 1)
    state = optimiser.state_dict()
    refused(optim.AdamW(named("ba")), state, r"parameter 0 \(b\)(.|\n)*got one of a")
    optim.AdamW(named("ab")).load_state_dict(state)
    optim.AdamW([p for _, p in named("ba")]).load_state_dict(state)  # there are no names to compare


def test_another_dtype_is_refused() -> None:
    state = checkpoint("AdamW", parameters(torch.float64, SHAPES))
    refused(
        optim.AdamW(parameters(shapes=SHAPES)),
        state,
        "parameter 0: exp_avg: expected torch.float32(.|\n)*torch.float64",
    )


def test_another_number_of_parameters_or_groups_is_refused() -> None:
    state = checkpoint("AdamW")
    refused(optim.AdamW(parameters(shapes=SHAPES[:2])), state, "doesn't match the size of optimizer's group")
    params = parameters(shapes=SHAPES)
    groups = optim.AdamW([{"params": params[:1]}, {"params": params[1:]}])
    refused(groups, state, "different number of parameter groups")


@pytest.mark.parametrize(
    ("name", "other"), [("Adam", "RMSprop"), ("Adam", "RAdam"), ("RAdam", "NAdam"), ("AdamW", "ADAMW"),
                        ("Adadelta", "RMSprop"), ("LAMB", "ADAM"), ("SGD", "Adagrad")],
)  # fmt: skip
def test_the_state_of_another_rule_is_refused(name: str, other: str) -> None:
    state = checkpoint(name)
    refused(getattr(optim, other)(parameters(shapes=SHAPES)), state, f"expected a state of {other}")


@pytest.mark.parametrize(("name", "other"), [(name, other) for name in NAMES for other in NAMES if name != other])
def test_the_state_of_another_rule_of_pytorch_is_refused(name: str, other: str) -> None:
    params = parameters(shapes=SHAPES)
    optimiser = theirs(name, params)
    steps(optimiser, params, 0, 2)
    if {name, other} == {"Adam", "AdamW"}:  # which are one rule
        return
    refused(getattr(optim, other)(twins(params)), optimiser.state_dict(), "group 0|parameter 0")


#: What other rules call their hyperparameters, flags and states, and what nobody does.
OTHER_KEYS = [
    "lr", "betas", "eps", "weight_decay", "momentum", "alpha", "rho", "amsgrad", "nesterov", "maximize", "decay",
    "beta", "eta", "etas", "step_sizes", "lambd", "t0", "d", "beta2_decay", "momentum_decay", "trust", "omega", "name",
    "lr_scale",
]  # fmt: skip
OTHER_STATES = ["exp_avg", "momentum_buffer", "sum", "m", "v", "acc", "prev", "eta", "slow_buffer", "mine"]


@pytest.mark.parametrize("name", [*NAMES, "ADAM", "LAMB", "Lion", "Prodigy", "SM3", "LARS", "chain"])
def test_an_optimiser_loads_its_own_state_whatever_else_is_in_it(name: str) -> None:
    """Other keys in groups, other entries in the states of a parameter, as Lookahead of timm leaves."""

    def made(given: Any) -> Any:
        return optim.chain(given, optgen.ADAM(), optgen.EMA()) if name == "chain" else getattr(optim, name)(given)

    params = parameters(shapes=[(3, 4), (5, 2)])
    optimiser = made(params)
    spelled = naming_of(optimiser).spellings
    more = {key: 0.5 for key in OTHER_KEYS if key not in optimiser.param_groups[0] and key not in spelled}
    optimiser.param_groups[0] |= more
    steps(optimiser, params, 0, 2)
    naming, extra = naming_of(optimiser), {}
    own = {key for rule in naming.rules for _, key in naming.own_states(rule)}
    for p in params:
        extra[p] = {key: torch.full((2,), 3.0) for key in OTHER_STATES if key not in own} | {"note": 2}
        optimiser.state[p] |= extra[p]
    copies = twins(params)
    resumed = made(copies)
    resumed.load_state_dict(saved(optimiser))
    assert more.items() <= resumed.param_groups[0].items()
    for p, q in zip(params, copies, strict=True):
        kept = resumed.state[q]
        assert kept["note"] == 2
        assert all(torch.equal(kept[key], value) for key, value in extra[p].items() if key != "note")
    steps(optimiser, params, 2, 5)
    steps(resumed, copies, 2, 5)
    for kept in (*optimiser.state.values(), *resumed.state.values()):
        assert kept.pop("note") == 2
    assert same_bits(tensors_of(resumed, copies), tensors_of(optimiser, params))


def test_other_entries_alone_are_no_state_that_has_begun() -> None:
    params = parameters(shapes=SHAPES)
    for name in ("LAMB", "SGD"):
        optimiser = getattr(optim, name)(params)
        optimiser.state[params[0]]["slow_buffer"] = torch.ones(3, 4)
        copies = twins(params)
        resumed = getattr(optim, name)(copies)
        resumed.load_state_dict(saved(optimiser))
        assert resumed.state[copies[0]].keys() == {"slow_buffer"}
        steps(resumed, copies, 0, 2)
    assert optimiser.state[params[0]].keys() == {"slow_buffer"}
    optimiser = optim.AdamW(params)  # PyTorch's own class needs a count wherever there is something
    optimiser.state[params[0]]["slow_buffer"] = torch.ones(3, 4)
    refused(optim.AdamW(twins(params)), saved(optimiser), "'step' of AdamW is not there")


@pytest.mark.parametrize("name", NAMES)
def test_what_no_rule_knows_is_no_reason_to_refuse_a_state_of_pytorch(name: str) -> None:
    params = parameters(shapes=SHAPES)
    optimiser = theirs(name, params)
    optimiser.param_groups[0] |= {"name": "all", "lookahead_k": 6}
    if name not in ("SGD", "NAdam", "RAdam"):  # with whose keys it would be a group of another class
        optimiser.param_groups[0]["momentum"] = 0.5
    steps(optimiser, params, 0, 2)
    for p in params:
        optimiser.state[p]["lookahead_slow_buff"] = p.detach().clone()
    copies = twins(params)
    resumed = getattr(optim, name)(copies)
    resumed.load_state_dict(optimiser.state_dict())
    steps(resumed, copies, 2, 3)
    assert all("lookahead_slow_buff" in resumed.state[p] for p in copies)


# ---- Adam and AdamW ----


decoupled = pytest.mark.skipif(
    not issubclass(torch.optim.AdamW, torch.optim.Adam), reason="two rules in this PyTorch, and one since 2.7"
)


def test_classes_derive_from_each_other_as_those_of_pytorch() -> None:
    for name in NAMES:
        for other in NAMES:
            here = issubclass(getattr(optim, name), getattr(optim, other))
            assert here is issubclass(getattr(torch.optim, name), getattr(torch.optim, other))


@decoupled
@pytest.mark.parametrize("by", ["ours", "theirs"])
@pytest.mark.parametrize(("name", "other"), [("Adam", "AdamW"), ("AdamW", "Adam")])
def test_adam_and_adamw_load_each_other(name: str, other: str, by: str) -> None:
    """Adam takes the flag of what it loads, and AdamW sets it."""
    params = parameters(shapes=SHAPES)
    first = (ours if by == "ours" else theirs)(name, params, weight_decay=0.1)
    steps(first, params, 0, 3)
    copies, others = twins(params), twins(params)
    here, there = ours(other, copies), theirs(other, others)
    state = saved(first)
    here.load_state_dict(state)
    state.pop("rule", None)
    there.load_state_dict(state)
    assert here.param_groups[0]["decoupled_weight_decay"] is there.param_groups[0]["decoupled_weight_decay"] is True
    assert here.param_groups[0]["weight_decay"] == 0.1
    scales = Scales(ULPS)
    for t in range(3, 8):
        give([copies, others], t)
        here.step()
        there.step()
        scales.compare(tensors_of(here, copies), tensors_of(there, others))
    back = ours(name, twins(params))
    back.load_state_dict(saved(here))


@decoupled
def test_adamw_without_its_flag_steps_as_pytorch_does() -> None:
    params = parameters(shapes=SHAPES)
    copies = twins(params)
    there, here = theirs("AdamW", params, weight_decay=0.1), ours("AdamW", copies, weight_decay=0.1)
    scales = Scales(ULPS)
    for t in range(6):
        for optimiser in (there, here):
            optimiser.param_groups[0]["decoupled_weight_decay"] = t % 3 != 1
        give([params, copies], t)
        there.step()
        here.step()
        scales.compare(tensors_of(here, copies), tensors_of(there, params))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
@pytest.mark.parametrize("wrapped", ["saved", "here", "inside"])
def test_names_are_those_within_wrappers(prefix: str, wrapped: str) -> None:
    params = parameters(shapes=[(3,), (2,)])
    names = ["layer.weight", "layer.bias"]
    others = [f"layer.{prefix}{name[6:]}" if wrapped == "inside" else prefix + name for name in names]
    if wrapped == "here":
        names, others = others, names
    optimiser = optim.AdamW(list(zip(others, params, strict=True)))
    steps(optimiser, params, 0, 1)
    copies = twins(params)
    resumed = optim.AdamW(list(zip(names, copies, strict=True)))
    resumed.load_state_dict(optimiser.state_dict())
    swapped = optim.AdamW(list(zip(names[::-1], twins(params), strict=True)))
    refused(swapped, optimiser.state_dict(), r"parameter 0(.|\n)*of that name")


@pytest.mark.parametrize(
    ("name", "absent"),
    [("AdamW", "exp_avg"), ("AdamW", "step"), ("Adagrad", "sum"), ("LAMB", "m"), ("LAMB", "step"), ("Lion", "m")],
)
def test_a_state_that_is_not_whole_is_refused(name: str, absent: str) -> None:
    params = parameters()
    optimiser = ours(name, params)
    give([params], 0)
    optimiser.step()
    saved = copy.deepcopy(optimiser.state_dict())
    del saved["state"][1][absent]
    before = copy.deepcopy(optimiser.state_dict())
    with pytest.raises(StateError, match=f"parameter 1: its state '{absent}' of {name} is not there"):
        optimiser.load_state_dict(saved)
    assert same_bits(list(optimiser.state_dict()["state"].values()), list(before["state"].values()))
    del saved["state"][1]  # which has not been stepped
    optimiser.load_state_dict(saved)
    give([params], 1)
    optimiser.step()


def test_momentum_need_not_have_begun() -> None:
    params = parameters()
    here, there = ours("SGD", params, momentum=0.9), theirs("SGD", twins(params), momentum=0.9)
    give([params], 0)
    here.step()
    saved = here.state_dict()
    for kept in saved["state"].values():
        kept["momentum_buffer"] = None
    here.load_state_dict(saved)
    there.load_state_dict(saved)


@pytest.mark.parametrize("given", [{}, {"weight": 1.0}, [], None])
def test_what_is_no_state_of_an_optimiser_is_refused(given: Any) -> None:
    for name in ("AdamW", "LAMB"):
        with pytest.raises((StateError, AttributeError, TypeError)) as found:
            ours(name, parameters()).load_state_dict(given)
        if isinstance(given, dict):
            assert "expected a state dict of an optimiser, with state and param_groups" in str(found.value)


def test_hooks_of_state_dicts_see_what_is_loaded() -> None:
    params = parameters(shapes=SHAPES)
    optimiser = optim.AdamW(params)
    steps(optimiser, params, 0, 2)
    calls: list[str] = []
    optimiser.register_state_dict_pre_hook(lambda o: calls.append("before saving"))
    optimiser.register_state_dict_post_hook(lambda o, state: calls.append("after saving"))
    state = optimiser.state_dict()
    other = optim.AdamW(twins(params))

    def renamed(o: Any, given: Any) -> Any:  # what comes in does not fit; the hook makes it fit
        calls.append("before loading")
        return given["mine"]

    other.register_load_state_dict_pre_hook(renamed)
    other.register_load_state_dict_post_hook(lambda o: calls.append(f"loaded {int(o.state[o_first(o)]['step'])}"))
    other.load_state_dict({"mine": state})
    assert calls == ["before saving", "after saving", "before loading", "loaded 2"]
    assert not any("expect" in str(hook) for hook in other._optimizer_load_state_dict_pre_hooks.values())


@pytest.mark.parametrize("kind", ["AdamW", "chain"])
def test_a_hook_that_replaces_a_state_dict_has_the_last_word(kind: str) -> None:
    params = parameters(shapes=SHAPES)
    if kind == "chain":
        optimiser = optim.chain(params, optgen.ClipGlobalNorm(0.5), optgen.Unscale(4.0), optgen.AdamW())
    else:
        optimiser = optim.AdamW(params)
    steps(optimiser, params, 0, 2)
    whole = optimiser.state_dict()
    seen: list[Any] = []
    optimiser.register_state_dict_post_hook(lambda o, state: seen.append(state) or {"mine": 1})
    assert optimiser.state_dict() == {"mine": 1}
    assert set(seen[0]) == set(whole)
    assert seen[0]["rule"] == whole["rule"]


def o_first(optimiser: Any) -> Any:
    return optimiser.param_groups[0]["params"][0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", [*NAMES, "SM3", "NovoGrad", "ScheduleFreeAdamW"])
def test_a_load_rounds_no_state(name: str, dtype: Any) -> None:
    params = parameters(dtype, SHAPES)
    optimiser = getattr(optim, name)(params)
    steps(optimiser, params, 0, 3)
    copies = twins(params)
    other = getattr(optim, name)(copies)
    other.load_state_dict(optimiser.state_dict())
    assert same_bits(tensors_of(other, copies), tensors_of(optimiser, params))
    for p, q in zip(params, copies, strict=True):
        assert {key: x.dtype for key, x in other.state[q].items()} == {
            key: x.dtype for key, x in optimiser.state[p].items()
        }


@pytest.mark.parametrize("name", [*NAMES, "LAMB", "SM3"])
def test_tensors_of_a_checkpoint_have_storages_of_their_own(name: str) -> None:
    """What safetensors asks for."""
    params = parameters(shapes=SHAPES)
    optimiser = getattr(optim, name)(params)
    steps(optimiser, params, 0, 2)
    found = [x for kept in optimiser.state_dict()["state"].values() for x in kept.values() if x is not None]
    assert len({x.untyped_storage().data_ptr() for x in found}) == len(found)
    assert all(x.untyped_storage().nbytes() == x.nbytes for x in found)


def test_the_state_of_a_lightning_like_checkpoint_with_more_keys() -> None:
    """Groups may have keys of schedulers and of the user."""
    params = parameters(shapes=SHAPES)
    optimiser = optim.AdamW(params)
    optimiser.param_groups[0]["name"] = "all"
    torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.1, total_steps=5)
    steps(optimiser, params, 0, 1)
    other = optim.AdamW(twins(params))
    other.load_state_dict(optimiser.state_dict())
    assert other.param_groups[0]["name"] == "all"
    assert other.param_groups[0]["max_lr"] == 0.1


# ---- A state set by hand ----


def test_a_state_is_set_by_hand_and_the_next_step_goes_by_it() -> None:
    params, copies = parameters(shapes=SHAPES), parameters(shapes=SHAPES)
    optimiser, other = optim.AdamW(params), torch.optim.AdamW(copies)
    for each, own in ((optimiser, params), (other, copies)):
        steps(each, own, 0, 2)
    average = torch.full_like(params[0], 0.25)
    optimiser.set_state(params[0], exp_avg=average, step=9)
    other.state[copies[0]]["exp_avg"].fill_(0.25)
    other.state[copies[0]]["step"].fill_(9)
    average.zero_()  # what was given is copied
    for each, own in ((optimiser, params), (other, copies)):
        steps(each, own, 2, 4)
    for p, q in zip(params, copies, strict=True):
        torch.testing.assert_close(p, q)
    assert int(optimiser.state[params[0]]["step"]) == 11


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"m": torch.ones(3, 4)}, "expected a state among exp_avg, .*, step, got m"),
        ({"exp_avg": torch.ones(3, 1)}, r"the state exp_avg: expected shape \(3, 4\), got shape \(3, 1\)"),
        ({"exp_avg": torch.ones(3, 4).double()}, "the state exp_avg: expected torch.float32, got torch.float64"),
        ({"step": -1}, "expected a count of updates as 'step', got -1"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_set(values: dict[str, Any], message: str) -> None:
    params = parameters(shapes=[(3, 4)])
    optimiser = optim.AdamW(params)
    steps(optimiser, params, 0, 1)
    before = repr(optimiser.state_dict())
    with pytest.raises((StateError, ArgumentError), match=message):
        optimiser.set_state(params[0], exp_avg_sq=torch.ones(3, 4), **values)
    assert repr(optimiser.state_dict()) == before
    with pytest.raises(ArgumentError, match="expected a parameter of this AdamW, got another Tensor"):
        optimiser.set_state(torch.ones(3, 4), **values)
