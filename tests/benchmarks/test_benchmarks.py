"""What the benchmarks compare with is what it is said to be: the same steps, the shapes of real models, a stream.

Nothing here says how long anything takes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import optgen
from optgen.compiler import catalogue, driver
from optgen.compiler import manifest as product
from optgen.errors import ArgumentError, OptgenError
from optgen.paths import benchmarks
from optgen.runtime.machine import processors

bench, experiments, jobs, measure, numpy_rules, peers, rules, shapes, steps, stream, targets = map(
    benchmarks,
    (
        "bench", "experiments", "jobs", "measure", "numpy_rules", "peers", "rules", "shapes", "steps", "stream",
        "targets",
    ),
)  # fmt: skip

pytestmark = pytest.mark.slow

SHIPPED = [driver.compile_file(path).rules[0] for path in catalogue.shipped()]
SEED = [rule.name for rule in SHIPPED if rule.origin == "Flux"]
SMALL = [(8,), (5, 7), (3, 4), (1,)]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of shapes on which nothing takes long, and no pauses."""
    monkeypatch.setitem(shapes.SHAPES, "small", SMALL)
    monkeypatch.setitem(shapes.TITLES, "small", "Small")
    monkeypatch.setattr(measure, "PAUSE", 0.0)
    monkeypatch.setattr(measure, "LEAST", 1e-5)


# ---- NumPy by hand ----


def test_every_rule_of_the_seed_has_its_rival() -> None:
    assert len(SEED) == 11
    assert set(numpy_rules.RULES) == set(numpy_rules.INIT) == set(SEED)


@pytest.mark.parametrize("rule", SEED)
def test_the_rival_by_hand_takes_the_same_steps(rule: str) -> None:
    rng = np.random.default_rng(0)
    by_hand = rng.standard_normal(40)
    ours, state, opt = by_hand.copy(), numpy_rules.INIT[rule](by_hand), getattr(optgen, rule)()
    for t in range(1, 31):
        g = rng.standard_normal(40) * 10.0 ** rng.integers(-3, 3)
        numpy_rules.RULES[rule](by_hand, g, state, t)
        opt.step([ours], [g])
    np.testing.assert_allclose(by_hand, ours, rtol=1e-11, atol=1e-12)


# ---- Peers ----

#: Takes seconds to compile a step: one rule is enough to see that it does what its fellows do.
SLOW = "torch-compiled"


def distance(peer: Any, rule: str) -> float:
    """How far a peer is from optgen after steps with gradients that have nothing to do with each other."""
    rng = np.random.default_rng(1)
    start = [0.02 * rng.standard_normal(shape, dtype=np.float32) for shape in SMALL]
    here, there = peers.ours(rule, start), peer.make(rule, start)
    for _ in range(12):
        grads = [rng.standard_normal(shape, dtype=np.float32) for shape in SMALL]
        for each in (here, there):
            each.take(grads)
            each.step()
    assert all(not np.array_equal(p, q) for p, q in zip(here.params(), start, strict=True)), rule
    found: float = steps.apart(there.params(), here.params(), start)
    return found


@pytest.mark.filterwarnings("default")  # of what peers import, and do with what they import
@pytest.mark.parametrize("key", peers.PEERS)
def test_a_peer_takes_the_same_steps(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    peer = peers.PEERS[key]
    # With another ninja than the command's, DeepSpeed would compile anew each time.
    monkeypatch.setenv("PATH", jobs.environment(1)["PATH"])
    if why := peer.absent():
        pytest.skip(why)
    having = ["Adam"] if key == SLOW else [*filter(peer.has, rules.names())]
    assert having
    distances = {rule: distance(peer, rule) for rule in having}
    assert {rule: apart for rule, apart in distances.items() if apart > steps.TOLERANCE} == {}


@pytest.mark.filterwarnings("default")
def test_most_rules_have_a_peer_if_all_are_there() -> None:
    present = [peer for peer in peers.PEERS.values() if not peer.absent()]
    if len(present) < len(peers.PEERS):
        pytest.skip("peers are missing")
    assert {name for name in rules.names() if not any(peer.has(name) for peer in present)} == {"OAdam", "RADAM"}


def test_an_absent_peer_says_what_to_install() -> None:
    peer = peers.Peer("Thing", "nothing", {"no_such_module": "the-thing"})
    assert peer.absent() == "the-thing is not installed: pip install the-thing"


@pytest.mark.parametrize("text", ["import no_such_module", "raise OSError('no library')"])
def test_a_broken_peer_says_how(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_peer.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    why = peers.Peer("Broken", "nothing", {"broken_peer": "broken-peer"}).absent()
    assert why.startswith("broken-peer cannot be imported: ")
    assert "no_such_module" in why or why.endswith("OSError: no library")


def test_peers_are_chosen_by_name_or_family() -> None:
    assert peers.choose("all") == list(peers.PEERS)
    assert peers.choose("none") == peers.choose("") == []
    assert peers.choose("numpy, torch,numpy") == ["numpy", *(key for key in peers.PEERS if key.startswith("torch"))]
    with pytest.raises(ArgumentError, match="did you mean 'optax'"):
        peers.choose("optx")


# ---- Rules and shapes ----


def test_the_list_of_shapes_is_that_of_resnet_50() -> None:
    resnet50 = shapes.SHAPES["resnet50"]
    assert (len(resnet50), sum(map(math.prod, resnet50))) == (161, 25_557_032)


def test_the_other_list_of_shapes_is_that_of_gpt_2_small() -> None:
    gpt2 = shapes.SHAPES["gpt2"]
    assert (len(gpt2), sum(map(math.prod, gpt2))) == (148, 124_439_808)


def test_a_list_of_shapes_is_found_however_it_is_spelt() -> None:
    for name in ("1x25M", "1 × 25 M", "1X25m"):
        assert shapes.find(name) == "1x25M"
    assert shapes.find("ResNet-50") == "resnet50"
    assert shapes.find("GPT-2 small") == "gpt2"
    assert set(shapes.SHAPES) == set(shapes.TITLES)
    with pytest.raises(ArgumentError, match="did you mean 'resnet50'"):
        shapes.find("resnet5")
    with pytest.raises(ArgumentError, match="there are 100x64, "):
        shapes.find("nothing of the kind")


def test_a_rule_is_found_where_one_only_has_the_name() -> None:
    assert rules.find("lion") == "Lion"
    assert rules.find("ADAM") == "ADAM"
    with pytest.raises(ArgumentError, match="did you mean 'ADAM' or 'Adam'"):
        rules.find("adam")
    with pytest.raises(ArgumentError, match="did you mean 'Lion'"):
        rules.find("lionn")
    with pytest.raises(ArgumentError, match="a part of chains"):
        rules.find("EMA")
    assert "clip+AdamW" in rules.names()


@pytest.mark.parametrize(("rule", "arrays"), [("Descent", 3), ("Adam", 7), ("clip+AdamW", 8)])
def test_the_least_traffic_is_each_array_once_a_pass(rule: str, arrays: int) -> None:
    assert rules.least_bytes(rules.make(rule), [(10,), (2, 5)]) == 4 * 20 * arrays


def test_traffic_is_that_of_each_shape() -> None:
    adafactor = rules.make("Adafactor")
    one, other = (rules.least_bytes(adafactor, [shape]) for shape in ((12,), (3, 4)))
    assert one != other
    assert rules.least_bytes(adafactor, [(12,), (3, 4)]) == one + other


def test_operations_are_counted() -> None:
    assert rules.flops(rules.make("Descent")) == 2  # p - eta*g
    assert rules.flops(rules.make("Adam")) > 10


# ---- The stream and the clock ----


@pytest.mark.parametrize("elements", [1, 1001, (1 << 18) + 1, 3 << 18])
def test_the_stream_goes_over_every_element_once(elements: int) -> None:
    limit = stream.Stream(elements)
    limit.run()
    assert np.array_equal(limit.array, np.full(elements, np.float32(1.0000001)))


def test_everyone_has_a_turn_in_every_round(small: None) -> None:
    said: list[str] = []
    names = ("a", "b", "c")
    times = measure.interleaved({name: lambda name=name: said.append(name) for name in names}, rounds=5)
    assert {name: len(each) for name, each in times.items()} == dict.fromkeys(names, 5)
    turns = [name for i, name in enumerate(said) if i == 0 or said[i - 1] != name]
    assert "".join(turns).startswith("abc")  # the calls that warm up
    assert "abcbcacab" in "".join(turns)  # and each round begins with another one


def test_what_comes_before_a_call_comes_before_every_call(small: None) -> None:
    said: list[str] = []
    measure.interleaved({"a": lambda: said.append("step")}, rounds=2, before=lambda name: said.append(name))
    assert said == ["a", "step", "a", "step"] * 2


def test_turns_are_timed_by_any_clock(small: None) -> None:
    said: list[str] = []
    times = measure.interleaved(
        {"a": lambda: said.append("step")}, rounds=2, before=said.append, clock=lambda: len(said)
    )
    assert times == {"a": [1, 1]}


def test_ratios_are_taken_within_a_round() -> None:
    assert measure.ratio([2.0, 40.0, 3.0], [1.0, 10.0, 1.0]) == 3.0
    found = measure.summary([2.0, 40.0, 3.0], [1.0, 10.0, 1.0])
    assert (found["seconds"], found["ratio"]) == (3.0, 3.0)
    assert measure.summary([2.0], [1.0])["quartiles"] == [2.0, 2.0]


# ---- A job ----

FIELDS = {"rule", "shape", "tensors", "elements", "bytes", "sweeps", "flops", "rounds", "peers", "contestants", "notes"}


def job(*keys: str, rule: str = "Adam") -> dict[str, Any]:
    result: dict[str, Any] = json.loads(json.dumps(steps.run(jobs.Job("steps", rule, "small", list(keys), 3), 1)))
    return result


def test_a_job_has_the_figures_of_all(small: None) -> None:
    result = job("numpy")
    assert set(result) == FIELDS
    assert set(result["contestants"]) == {"optgen", "stream", "numpy"}
    for figures in result["contestants"].values():
        assert set(figures) == {"seconds", "quartiles", "ratio"}
        assert figures["seconds"] > 0
    assert result["contestants"]["optgen"]["ratio"] == 1
    assert (result["tensors"], result["elements"], result["notes"]) == (4, 56, {})


class Sham(peers.Peer):
    """A peer that has every rule, and makes what `shams` has for it."""

    def has(self, rule: str) -> bool:
        return True

    def make(self, rule: str, params: Any) -> Any:
        return self.needs["maker"](rule, params)  # type: ignore[operator]

    def absent(self) -> str:
        return ""


def sham(monkeypatch: pytest.MonkeyPatch, maker: Callable[..., Any]) -> None:
    monkeypatch.setitem(peers.PEERS, "sham", Sham("Sham", "", {"maker": maker}))  # type: ignore[dict-item]


def test_who_takes_other_steps_is_not_timed(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    sham(monkeypatch, lambda rule, params: peers.ours("Adamax", params))
    result = job("sham")
    assert "sham" not in result["contestants"]
    assert result["notes"]["sham"].startswith("takes other steps: after 8 it is ")


def test_who_goes_to_nothing_is_not_timed(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def make(rule: str, params: Any) -> Any:
        lost = [np.full_like(p, np.nan) for p in params]
        return peers.Contestant(lambda: None, lambda grads: None, lambda: lost)

    sham(monkeypatch, make)
    assert "sham" not in job("sham")["contestants"]


def test_who_fails_is_named_with_the_reason(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def make(rule: str, params: Any) -> Any:
        raise RuntimeError("no compiler\nand more of it")

    sham(monkeypatch, make)
    assert job("sham", "numpy")["notes"] == {"sham": "failed: RuntimeError: no compiler"}


def test_who_is_absent_is_named_with_the_reason(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(peers.PEERS, "gone", peers.Peer("Gone", "", {"no_such_module": "gone"}))
    result = job("gone", "numpy")
    assert result["notes"] == {"gone": "gone is not installed: pip install gone"}
    pages = [*bench.report([result | {"kind": "steps", "threads": 1}])]
    assert any("Gone" in row for page in pages if not isinstance(page, str) for row in page.rows)


def test_peers_that_do_not_fit_together_take_turns(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "_free_memory", lambda: 4 * 56 * steps.ARRAYS * 6)
    assert [*steps._groups(["a", "b", "c"], 56)] == [["a"], ["b"], ["c"]]
    assert [*steps._groups([], 56)] == [[]]
    sham(monkeypatch, lambda rule, params: peers.ours(rule, params))
    assert set(job("numpy", "sham")["contestants"]) == {"optgen", "stream", "numpy", "sham"}
    monkeypatch.setattr(steps, "_free_memory", lambda: 1 << 40)
    assert [*steps._groups(["a", "b", "c"], 56)] == [["a", "b", "c"]]


def test_where_there_is_no_compiler_there_is_no_stream(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from optgen.errors import CompilerNotFound

    def missing(elements: int) -> None:
        raise CompilerNotFound("no C compiler")

    monkeypatch.setattr(steps, "Stream", missing)
    result = job()
    assert set(result["contestants"]) == {"optgen"}
    assert result["notes"] == {"stream": "no C compiler"}
    assert [*bench.report([result | {"kind": "steps", "threads": 1}])]


def test_how_far_apart_two_paths_are() -> None:
    start, end = [np.zeros(3, np.float32)], [np.ones(3, np.float32)]
    assert steps.apart(end, end, start) == 0
    assert steps.apart([np.full(3, 1.5, np.float32)], end, start) == pytest.approx(0.5, rel=1e-5)
    assert steps.apart(end, start, start) > 0


# ---- Processes ----


def test_a_process_measures_on_its_number_of_threads() -> None:
    (found,) = bench.measured([jobs.Job("steps", "Descent", "100x64", [], 1)], 1)
    assert (found["kind"], found["threads"], found["rule"]) == ("steps", 1, "Descent")


def test_a_process_that_fails_is_quoted() -> None:
    with pytest.raises(OptgenError, match=r"ended with status 1:\n[^$]*KeyError: 'no such shape'"):
        list(bench.measured([jobs.Job("steps", "Descent", "no such shape", [], 1)], 1))


def test_more_threads_than_processors_are_refused() -> None:
    with pytest.raises(ArgumentError, match="take at most"):
        bench.thread_counts(f"1,{processors() + 1}")


def test_libraries_are_told_the_number_of_threads() -> None:
    variables = jobs.environment(3)
    for name in ("OPTGEN", "OMP", "MKL", "OPENBLAS", "NUMBA"):
        assert variables[f"{name}_NUM_THREADS"] == "3"


def test_numbers_of_threads_are_read() -> None:
    assert bench.thread_counts(" 1,1") == [1]
    assert bench.thread_counts(None) == [1, 2][: processors()]
    for text in ("", "1,", "0", "two"):
        with pytest.raises(ArgumentError, match="--threads"):
            bench.thread_counts(text)


def test_nothing_that_is_built_depends_on_the_benchmarks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel has them inside the package, where a build has not."""
    monkeypatch.setattr(product, "PACKAGE", tmp_path)
    monkeypatch.setattr(product, "BENCHMARKS", tmp_path / "benchmarks")
    (tmp_path / "benchmarks").mkdir()
    before = product.hash_sources()
    (tmp_path / "benchmarks" / "bench.py").write_text("")
    assert product.hash_sources() == before
    (tmp_path / "ir.py").write_text("")
    assert product.hash_sources() != before


# ---- Experiments, targets, the picture ----


@pytest.fixture
def tiny(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiments, "FEW", 2)
    monkeypatch.setattr(experiments, "MANY", 20)
    monkeypatch.setattr(experiments, "SIDE", 16)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("OPTGEN_NUM_THREADS", "1")


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("kind", ["threads", "tensors", "product"])
def test_an_experiment_leads_to_verdicts(kind: str, tiny: None) -> None:
    found = experiments.run(jobs.Job(kind, "Adam", "small", [], 2))
    verdicts = targets.judged([json.loads(json.dumps(found | {"kind": kind, "threads": 2}))])
    assert verdicts
    assert all(math.isfinite(verdict.measured) for verdict in verdicts)


def result(rule: str, shape: str, notes: dict[str, str] | None = None, **ratios: float) -> dict[str, Any]:
    figures = {key.replace("_", "-"): {"seconds": 1.0, "ratio": ratio} for key, ratio in ratios.items()}
    contestants = {"optgen": {"seconds": 1.0, "ratio": 1.0}, **figures}
    return {"kind": "steps", "rule": rule, "shape": shape, "contestants": contestants, "notes": notes or {}}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (result("Lion", "1x25M", stream=0.96), [("of the memory limit", 0.96, 0.95, True)]),
        (result("Lion", "1x25M", stream=0.94), [("of the memory limit", 0.94, 0.95, False)]),
        (result("Lion", "resnet50", stream=1.0, optax=1.6), [("the best peer, optax", 1.6, 1.5, True)]),
        (
            result("SGD", "resnet50", stream=1.0, torch_fused=1.1, optax=1.2, torch_foreach=3.0),
            [("the best peer, torch fused", 1.1, 1.0, True), ("torch foreach", 3.0, 4.0, False)],
        ),
        (result("OAdam", "resnet50", stream=1.0), []),
        (result("Adam", "1x1M", torch_fused=1.6), [("torch fused", 1.6, 1.5, True)]),
        (result("Adam", "512x4096", torch_fused=9.0, numba=2.5), [("the best peer, Numba", 2.5, 3.0, False)]),
        (result("Adam", "100x64", torch_fused=16.0), [("the best peer, torch fused", 16.0, 15.0, True)]),
        (result("clip+AdamW", "25x1M", torch_fused=1.5, optax=1.1), [("torch fused", 1.5, 1.4, True)]),
        (result("tail", "25x1M", torch_fused=1.9), [("torch fused", 1.9, 2.0, False)]),
    ],
)
def test_verdicts(found: dict[str, Any], expected: list[tuple[str, float, float, bool]]) -> None:
    said = [(t.what.split(": ")[1], t.measured, t.least, t.ok) for t in targets.judged([found])]
    assert said == expected


def test_a_descent_without_momentum_has_no_state() -> None:
    assert rules.has_state(rules.make("SGD"))
    assert not rules.has_state(rules.make("Descent"))


def test_what_could_not_be_measured_is_not_reached() -> None:
    absent = {"torch-fused": "torch is not installed: pip install torch"}
    (verdict,) = targets.judged([result("Adam", "1x1M", absent)])
    assert not verdict.ok
    assert verdict.json()["measured"] is None
    table, summary = targets.report([verdict])
    assert table.rows[0][1:] == ("not measured", "1.50 ×", "NO", absent["torch-fused"])
    assert summary.endswith("0 of 1 reached")


def test_what_is_missed_at_the_limit_says_so() -> None:
    near, far = (result("SGD", "resnet50", stream=stream, torch_foreach=3.0) for stream in (1.02, 0.8))
    table, _ = targets.report(targets.judged([near, far]))
    assert [row[-1] for row in table.rows] == ["", "optgen is at 1.02 of the memory limit", "", ""]


def test_verdicts_of_the_other_experiments() -> None:
    found = [
        {"kind": "threads", "rule": "Adam", "shape": "1x1M", "ratio": 1.9},
        {"kind": "tensors", "rule": "Adam", "same": 151e-9, "new": 499e-9},
        {
            "kind": "product",
            "rule": "Adam",
            "alone": {"numpy": 1.0},
            "between": {"numpy": 1.1},
            "ratio": {"numpy": 0.9},
        },
    ]
    assert [verdict.ok for verdict in targets.judged(found)] == [True, False, True, False]
    table, _ = targets.report(targets.judged(found))
    assert table.rows[1][1:] == ("151 ns", "at most 150 ns", "NO", "")


def test_the_targets_ask_for_every_rule() -> None:
    product, own, first = targets.batches(rules.names(), ["torch-fused"], 3)
    assert [each.kind for each in product] == ["product"]
    assert [each.kind for each in own] == ["threads", "tensors"]
    large = {each.rule for each in first if each.shape == "1x25M"}
    assert {"Adam", "Lion", "OAdam"} <= large
    assert not large & {"LAMB", "Adafactor", "clip+AdamW"}  # of more than one pass
    assert {each.rule for each in first if each.shape == "resnet50"} == {*rules.names()} - {*rules.CHAINS}
    assert {each.kind for each in first} == {"steps"}
    (only,) = targets.batches(["Lion"], [], 3)
    assert [(each.rule, each.shape, each.peers) for each in only] == [("Lion", "1x25M", []), ("Lion", "resnet50", [])]


@pytest.mark.parametrize(("one", "many", "status"), [(1.0, 2.0, False), (1.1, 1.0, True)])
def test_the_status_says_whether_a_report_of_one_number_costs_too_much(
    one: float, many: float, status: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports = benchmarks("reports")
    assert reports.MANY in reports.CONTESTANTS
    found = [{"name": name, "without": 1.0, "with": ratio, "ratio": ratio}
             for name, ratio in ((next(iter(reports.CONTESTANTS)), one), (reports.MANY, many))]  # fmt: skip
    monkeypatch.setattr(reports, "measure", lambda: iter(found))
    monkeypatch.setattr("sys.argv", ["reports"])
    monkeypatch.setenv("OPTGEN_NUM_THREADS", "1")
    with pytest.raises(SystemExit) as ended:
        reports.main()
    assert ended.value.code is status


def test_the_rules_of_powers_take_the_steps_that_they_are_timed_against() -> None:
    pytest.importorskip("torch")
    powers = benchmarks("powers")
    assert set(powers.STATES) == set(powers.EAGER) >= set(powers.SPECS) | set(powers.ARGUMENTS)
    apart = {rule: powers.agree(rule, SMALL) for rule in powers.EAGER}
    assert {rule: distance for rule, distance in apart.items() if not distance < 1e-3} == {}


def test_the_picture_is_drawn(small: None, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    picture = benchmarks("picture")
    results = [job("numpy", rule=rule) | {"kind": "steps", "threads": n} for rule in ("Adam", "Lion") for n in (1, 2)]
    picture.draw([*results, {"kind": "product"}], tmp_path / "roofline.svg")
    drawn = (tmp_path / "roofline.svg").read_text("utf-8")
    assert drawn.startswith("<?xml")
    with pytest.raises(OptgenError, match="expected to write"):
        picture.draw(results, tmp_path / "roofline.nonsense")


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = benchmarks("picture")
    monkeypatch.setattr(picture, "find_spec", lambda name: None)
    with pytest.raises(OptgenError, match=r"pip install 'optgen\[bench\]'"):
        picture.expect_matplotlib()


def test_times_are_shown_in_a_unit_that_fits() -> None:
    assert [bench.duration(s) for s in (2.5, 0.0123, 4.56e-6)] == ["2.5 s", "12.3 ms", "4.56 µs"]


def test_a_document_says_what_it_was_measured_on() -> None:
    found = bench.document([], [])
    assert set(found) == {"machine", "results", "targets"}
    assert set(found["machine"]) == {"architecture", "isa", "processors", "python", "versions"}
    assert set(found["machine"]["versions"]) == set(bench.PACKAGES)
    assert SimpleNamespace(**found["machine"]).processors == processors()


# ---- Storages ----


def test_the_statistics_of_stochastic_rounding_are_those_of_chance() -> None:
    measured = benchmarks("storages")
    for storage in measured.COMPILED:
        if storage.rounds:
            assert abs(measured.bias(storage, 1 << 20)) < 4, storage.name
    assert all(abs(off) < 4 for off in measured.correlations(1 << 20).values())
