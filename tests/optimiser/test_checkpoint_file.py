"""`opt.save` and `opt.load`: a file holds all that a run needs, is replaced as a whole, and is refused as a whole."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from rules import make
from test_state import arrays, bits, run

import optgen
from optgen import ADAM, EMA, SGD, Descent, Momentum, chain, cosine
from optgen.errors import ArgumentError, ArrayError, HyperparameterError, OptgenError, StateError


@pytest.fixture
def file(tmp_path):
    return tmp_path / "run.safetensors"


def begun(steps=2, opt=None, shapes=((3, 4), (5,))):
    """An optimiser that has stepped parameters W and b."""
    opt = opt or ADAM(backend="interpreter")
    params = dict(zip(("W", "b"), arrays(shapes=shapes), strict=True))
    run(opt, list(params.values()), steps)
    return opt, params


def contents(file):
    with safetensors.safe_open(file, framework="np") as opened:
        return {key: opened.get_tensor(key) for key in opened.keys()}, opened.metadata()  # noqa: SIM118


# ---- What a file holds ----


def test_a_file_has_parameters_states_and_settings_that_anyone_can_read(file):
    opt, params = begun(opt=make("Prodigy", backend="interpreter"))
    opt.save(file, params)
    found, metadata = contents(file)
    assert np.array_equal(found["parameter/W"], params["W"])
    assert np.array_equal(found["state/b/m"], opt.state(params["b"])["m"])
    assert found["group/d"] == opt.state(params["b"])["d"]
    assert metadata.pop("optgen") == optgen.__version__
    assert {name: json.loads(text) for name, text in metadata.items()} == {
        "format": 1,
        "rule": "Prodigy",
        "flags": {"safeguard": False},
        "hyperparameters": json.loads(json.dumps(opt.state_dict()["hyperparameters"])),
        "parameters": {"W": 2, "b": 2},
    }


def test_parameters_are_found_by_their_names_and_those_of_a_sequence_by_their_places(file):
    opt, params = begun()
    opt.save(file, params)
    want = bits(opt, list(params.values()))
    twin, others = ADAM(backend="interpreter"), {name: np.zeros_like(params[name]) for name in ("b", "W")}
    twin.load(file, others)
    assert bits(twin, [others["W"], others["b"]]) == want
    opt.save(file, list(params.values()))
    twin.load(file, {"1": others["b"], "0": others["W"]})
    assert bits(twin, [others["W"], others["b"]]) == want


@pytest.mark.parametrize("name", ["", "a/b", "a/b/m", "m", "layer.0.weight", "β", "parameter/x", "\n", "__metadata__"])
def test_a_name_may_be_any_text(name, file):
    opt, params = begun()
    named = {name: params["W"], "other": params["b"]}
    opt.save(file, named)
    want = bits(opt, list(params.values()))
    params["W"][...] = 0
    opt.load(file, named)
    assert bits(opt, list(params.values())) == want


def test_parameters_of_any_layout_and_of_two_dtypes_are_saved_as_they_are_seen(file):
    base = np.arange(24.0).reshape(4, 6)
    ps = [base[::2, ::-2], np.arange(6, dtype=np.float32).reshape(2, 3).T, np.array(2.0), np.zeros((0, 3), np.float32)]
    opt = ADAM(backend="interpreter")
    run(opt, ps, 2)
    opt.save(file, ps)
    found, _ = contents(file)
    for i, p in enumerate(ps):
        assert found[f"parameter/{i}"].dtype == p.dtype
        assert np.array_equal(found[f"parameter/{i}"], p)
    want = bits(opt, ps)
    run(opt, ps, 1)
    opt.load(file, ps)
    assert bits(opt, ps) == want


def test_counts_of_their_own_are_kept_and_a_parameter_that_was_never_stepped_has_none(file):
    opt, params = begun()
    run(opt, [params["W"]], 1)
    params["new"] = np.ones(2)
    opt.save(file, params)
    twin, others = ADAM(backend="interpreter"), {name: np.zeros_like(p) for name, p in params.items()}
    twin.load(file, others)
    assert [twin.state(p)["t"] for p in others.values()] == [3, 2, 0]
    assert np.array_equal(others["new"], np.ones(2))
    assert len(twin.state_dict()["parameters"]) == 2


def test_an_optimiser_that_has_not_stepped_is_saved_with_its_hyperparameters(file):
    p = np.ones(3)
    ADAM(eta=0.25).save(file, {"p": p})
    opt, q = ADAM(), np.zeros(3)
    opt.step([q], [q + 1])
    opt.load(file, {"p": q})
    assert opt.eta == 0.25
    assert opt.state(q)["t"] == 0
    assert np.array_equal(p, q)


def test_tracked_parameters_are_parameters(file):
    W = optgen.param(np.ones((2, 3)))
    opt = ADAM(backend="interpreter")
    opt.step([W], [np.ones((2, 3))])
    opt.save(file, {"W": W})
    want = W.data.copy()
    W.data[...] = 0
    opt.load(file, {"W": W})
    assert np.array_equal(W.data, want)


def test_schedules_come_along_and_a_function_stays_where_it_is(file):
    rate = cosine(0.1, steps=1000)
    opt, params = begun(opt=ADAM(eta=rate, backend="interpreter"))
    opt.save(file, params)
    twin = ADAM(backend="interpreter")
    twin.load(file, params)
    assert twin.eta == rate
    opt.eta = own = lambda t: 1 / t
    opt.save(file, params)
    with pytest.raises(
        StateError, match=r"run\.safetensors: eta: expected a number or a saved schedule, got a function of the step"
    ):
        ADAM(backend="interpreter").load(file, params)
    twin.eta = own
    twin.load(file, params)
    assert twin.eta is own


def test_a_chain_is_saved_as_a_whole(file):
    made = lambda rate: chain(Descent(rate), EMA(rho=0.5), backend="interpreter")  # noqa: E731
    opt, params = begun(opt=made(0.5))
    opt.save(file, params)
    twin = made(0.25)
    twin.load(file, params)
    assert twin[0].eta == 0.5
    assert bits(twin, list(params.values())) == bits(opt, list(params.values()))
    with pytest.raises(
        ArgumentError, match="part 0 of a chain has hyperparameters and states, and no steps of its own"
    ):
        opt[0].save(file, params)
    with pytest.raises(
        ArgumentError, match="part 1 of a chain has hyperparameters and states, and no steps of its own"
    ):
        opt[1].load(file, params)


# ---- What is not saved ----


def test_a_checkpoint_has_every_parameter_that_was_stepped(file):
    opt, params = begun()
    with pytest.raises(StateError, match="expected all parameters that this optimiser has stepped, got all but 1"):
        opt.save(file, {"W": params["W"], "b": params["b"].copy()})
    waiting = ADAM()
    waiting.load_state_dict(opt.state_dict())
    with pytest.raises(StateError, match="2 loaded states wait for their parameters"):
        waiting.save(file, params)
    assert not file.exists()


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({1: np.ones(3)}, ArgumentError, "expected a text as the name of a parameter, got 1"),
        ({"\ud800": np.ones(3)}, ArgumentError, "expected a text as the name of a parameter, got '.ud800'"),
        ({"p": [1.0], "q": np.ones(3)}, ArrayError, "parameter p: expected a NumPy array or param.*, got a list"),
        ([np.ones(3, np.int8)], ArrayError, "expected float32, float64, bfloat16 or float16, got int8"),
        (np.ones(3), ArrayError, "expected a sequence of parameters, got an array of shape"),
        (None, ArrayError, "expected a sequence of parameters, got NoneType"),
    ],
)
def test_what_is_no_parameter_is_refused(params, error, message, file):
    for act in (ADAM().save, ADAM().load):
        with pytest.raises(error, match=message):
            act(file, params)
    same = np.ones(3)
    with pytest.raises(ArrayError, match="expected each parameter once"):
        ADAM().save(file, [same, same])
    assert not file.exists()


def test_without_the_library_a_message_says_how_to_get_it(file, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    for act in (ADAM().save, ADAM().load):
        with pytest.raises(
            OptgenError, match=r'(?s)needs the library safetensors.*pip install "optgen\[safetensors\]"'
        ):
            act(file, [])
    assert not file.exists()


def failing(at, error):
    """`at` does its work, or half of it, and then fails."""

    def fail(*args, **kwargs):
        if at == "save_file":
            args[1].write_bytes(b"half of it")
        raise error

    return fail


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "key"])
@pytest.mark.parametrize("at", ["save_file", "fsync", "replace"])
def test_a_save_that_fails_leaves_the_file_of_before(at, error, file, monkeypatch):
    opt, params = begun()
    opt.save(file, params)
    before = file.read_bytes()
    run(opt, list(params.values()), 1)
    owner = {"save_file": safetensors.numpy, "fsync": os, "replace": type(file)}[at]
    monkeypatch.setattr(owner, at, failing(at, error))
    with pytest.raises(type(error)):
        opt.save(file, params)
    monkeypatch.undo()
    assert file.read_bytes() == before
    assert os.listdir(file.parent) == [file.name]


def test_a_full_disk_leaves_the_file_of_before(file):
    opt, params = begun()
    opt.save(file, params)
    before = file.read_bytes()
    program = (
        "import resource, signal, sys, numpy as np, optgen\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "optgen.ADAM().save(sys.argv[1], [np.ones(4096)])\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program, file], capture_output=True, text=True, env=environment)
    assert re.search(r"OSError: expected to write .*run\.safetensors", done.stderr), done.stderr
    assert file.read_bytes() == before
    assert os.listdir(file.parent) == [file.name]


def test_where_nothing_can_be_written_or_read_python_says_so(tmp_path):
    opt, params = begun()
    for act in (opt.save, opt.load):
        with pytest.raises(FileNotFoundError, match=r"none/run\.safetensors"):
            act(tmp_path / "none" / "run.safetensors", params)
        with pytest.raises(OSError, match=r"directory|no regular file"):
            act(tmp_path, params)
    assert os.listdir(tmp_path) == []
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="no regular file"):
        opt.load(tmp_path / "pipe", params)


def test_a_link_keeps_leading_to_the_file(tmp_path):
    opt, params = begun()
    (tmp_path / "runs").mkdir()
    target, link = tmp_path / "runs" / "7.safetensors", tmp_path / "latest.safetensors"
    link.symlink_to(target)
    opt.save(link, params)
    assert link.is_symlink()
    opt.save(str(link), params)
    opt.load(target, params)
    assert os.listdir(target.parent) == [target.name]


# ---- What is not loaded ----


def changed(metadata, **fields):
    return metadata | {name: json.dumps(value) for name, value in fields.items()}


def with_hyper(metadata, **values):
    return changed(metadata, hyperparameters=json.loads(metadata["hyperparameters"]) | values)


def without(named, *names):
    return {name: value for name, value in named.items() if name not in names}


WRITTEN = r"expected a checkpoint that opt\.save\(path, params\) wrote, got"
V = np.zeros(5)
#: What is done to the arrays and the metadata of a checkpoint of W and b, the error and what it says.
FAULTS = [
    (lambda a, m: (a, None), StateError, f"{WRITTEN} a safetensors file without the metadata optgen, format, rule"),
    (lambda a, m: (a, without(m, "rule")), StateError, f"{WRITTEN} a safetensors file without the metadata rule"),
    (lambda a, m: (a, m | {"rule": "ADAM"}), StateError, f"{WRITTEN} metadata in which rule is no JSON"),
    (lambda a, m: (a, m | {"flags": "[" * 10**5}), StateError, "metadata in which flags is no JSON"),
    (lambda a, m: (a, m | {"format": "9" * 5000}), StateError, "metadata in which format is no JSON"),
    (lambda a, m: (a, changed(m, format=2) | {"optgen": "9.0"}), StateError, "(?s)format 1, got .* 2.*optgen 9.0"),
    (lambda a, m: (a, changed(m, rule="Descent")), StateError, "expected a state of ADAM, got one of Descent"),
    (lambda a, m: (a, changed(m, rule=["ADAM"])), StateError, "expected a state of ADAM, got"),
    (lambda a, m: (a, changed(m, flags={"x": True})), StateError, "expected a state with the flags {}"),
    (lambda a, m: (a, changed(m, hyperparameters=[])), StateError, "expected the hyperparameters eta, beta, eps"),
    (lambda a, m: (a, with_hyper(m, eta=-1)), HyperparameterError, r"run\.safetensors: eta .*a value in \[0, inf\)"),
    (lambda a, m: (a, with_hyper(m, eta=float("nan"))), HyperparameterError, "expected a value in .*, got nan"),
    (lambda a, m: (a, with_hyper(m, eta="1")), ArgumentError, "expected a number, got '1'"),
    (lambda a, m: (a, with_hyper(m, beta=[0.5])), ArgumentError, "expected 2 numbers"),
    (lambda a, m: (a, changed(m, parameters=["W", "b"])), StateError, "parameters are no names with counts"),
    (
        lambda a, m: (a, changed(m, parameters={"W": 2})),
        StateError,
        "(?s)W, b; got W.*not in the file: b",
    ),
    (lambda a, m: (a, changed(m, parameters={"W": 2, "b": 2, "c": 2})), StateError, "only in the file: c"),
    (lambda a, m: (a, changed(m, parameters={"W": 2, "b": -1})), StateError, "expected a count of updates as t"),
    (lambda a, m: (a, changed(m, parameters={"W": 2, "b": "2"})), StateError, "expected a count of updates as t"),
    (lambda a, m: (a, changed(m, parameters={"W": 2, "b": None})), StateError, "got an array state/b/."),
    (
        lambda a, m: (without(a, "parameter/b"), m),
        StateError,
        "expected an array parameter/b, got none",
    ),
    (
        lambda a, m: (a | {"parameter/b": V[:3]}, m),
        StateError,
        r"parameter b: expected \(5,\), float64; got \(3,\), flo",
    ),
    (
        lambda a, m: (a | {"parameter/b": V.astype("f4")}, m),
        StateError,
        r"b: expected \(5,\), float64; got \(5,\), float32",
    ),
    (
        lambda a, m: (a | {"parameter/b": V.astype("i8")}, m),
        StateError,
        r"b: expected \(5,\), float64; got \(5,\), I64",
    ),
    (lambda a, m: (without(a, "state/b/m"), m), StateError, "expected the states m, v, got v"),
    (lambda a, m: (a | {"state/b/u": V}, m), StateError, "expected the states m, v, got m, u, v"),
    (lambda a, m: (a | {"state/b/m": V[:3]}, m), StateError, r"expected m as an array of \(5,\), float64"),
    (lambda a, m: (a | {"state/b/m": V.astype("f4")}, m), StateError, r"expected m as an array of \(5,\), float64"),
    (
        lambda a, m: (a | {"state/b/m": V.astype("f2")}, m),
        StateError,
        "state/b/m: expected float32 or float64, got F16",
    ),
    (lambda a, m: (a | {"state/c/m": V}, m), StateError, "states, got an array state/c/m"),
    (lambda a, m: (a | {"weight": V}, m), StateError, "states, got an array weight"),
    (lambda a, m: (a | {"group/d": V}, m), StateError, "expected the states none of the group, got d"),
]


def expect_refusal(opt, params, file, error, message):
    """A refused file changes nothing, of an optimiser that has stepped, of one that has not, and of the parameters."""
    fresh, want, before = ADAM(backend="interpreter"), bits(opt, list(params.values())), file.read_bytes()
    was = repr(opt), repr(fresh)
    for each in (opt, fresh):
        with pytest.raises(error, match=message) as caught:
            each.load(file, params)
        assert str(caught.value).startswith(f"{file}: ")
        assert len(str(caught.value)) < 1000
    assert bits(opt, list(params.values())) == want
    assert (repr(opt), repr(fresh)) == was
    assert fresh.state_dict()["parameters"] == []
    assert file.read_bytes() == before


@pytest.mark.parametrize(("damage", "error", "message"), FAULTS)
def test_a_file_that_does_not_fit_is_refused_and_nothing_is_changed(damage, error, message, file):
    opt, params = begun()
    opt.eta = 0.5
    opt.save(file, params)
    changed_arrays, metadata = damage(*contents(file))
    safetensors.numpy.save_file(changed_arrays, file, metadata)
    opt.eta = 0.25
    run(opt, list(params.values()), 1)
    expect_refusal(opt, params, file, error, message)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda p: {"W": p["W"]}, "only in the file: b"),
        (lambda p: {"W": p["W"], "c": p["b"]}, "(?s)W, c; got W, b.*in the file: b; not in the file: c"),
        (lambda p: list(p.values()), "(?s)0, 1; got W, b.*in a sequence, parameters are called 0, 1"),
        (lambda p: {f"p{i}": np.ones(1) for i in range(100)}, "p0, p1, p2, p3, p4, p5, p6, p7, and 92 more; got"),
        (lambda p: {"W": p["b"], "b": p["W"]}, r"parameter W: expected \(5,\), float64; got \(3, 4\), float64"),
        (
            lambda p: {"W": p["W"].astype("f4"), "b": p["b"]},
            r"W: expected \(3, 4\), float32; got \(3, 4\), float64",
        ),
    ],
)
def test_other_parameters_are_refused(given, message, file):
    opt, params = begun()
    opt.save(file, params)
    with pytest.raises(StateError, match=message):
        ADAM().load(file, given(params))


@pytest.mark.parametrize("other", [Descent, Momentum, optgen.Adam, lambda: chain(ADAM(), EMA())])
def test_another_rule_is_refused(other, file):
    opt, params = begun()
    opt.save(file, params)
    with pytest.raises(StateError, match=r"run\.safetensors: expected a state of \w+, got one of ADAM"):
        other().load(file, params)


def test_other_flags_are_refused(file):
    opt, params = begun(opt=SGD(momentum=0.5, backend="interpreter"))
    opt.save(file, params)
    with pytest.raises(StateError, match=r"run\.safetensors: expected a state with the flags"):
        SGD(momentum=0.5, nesterov=True).load(file, params)


FOREIGN = {
    "empty": b"",
    "text": b"hello, world\n" * 10,
    "pickle": pickle.dumps(partial(exec, "raise SystemExit('code of a file ran')")),
    "zip": b"PK\x03\x04" + bytes(100),
    "huge": (2**63).to_bytes(8, "little") + b"{}",
    "no JSON": (2).to_bytes(8, "little") + b"[]",
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_file_is_refused(kind, file):
    opt, params = begun()
    file.write_bytes(FOREIGN[kind])
    expect_refusal(opt, params, file, StateError, "expected a whole safetensors file")


def test_a_file_cut_anywhere_is_refused(file):
    opt, params = begun()
    opt.save(file, params)
    whole = file.read_bytes()
    for length in {0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1}:
        file.write_bytes(whole[:length])
        expect_refusal(opt, params, file, StateError, "expected a whole safetensors file")
    file.write_bytes(whole + b"\0")
    expect_refusal(opt, params, file, StateError, "expected a whole safetensors file")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    opt, params = begun()
    file = tmp_path_factory.mktemp("damaged") / "run.safetensors"
    opt.save(file, params)
    return file, file.read_bytes()


@given(st.data())
def test_a_damaged_header_is_refused_or_means_something(saved, data):
    file, whole = saved
    end = 8 + int.from_bytes(whole[:8], "little")
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, end - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(damaged)
    opt, params = begun()
    want = bits(opt, list(params.values()))
    try:
        opt.load(file, params)
    except (StateError, HyperparameterError, ArgumentError):
        assert bits(opt, list(params.values())) == want
