"""Training: updates go to the params in place or touch nothing; the loop does what Flux's does."""

from __future__ import annotations

import inspect
import itertools
import subprocess
import sys
import time
from collections.abc import Sequence

import numpy as np
import pytest

import optgen
from optgen.errors import ArgumentError, ArrayError, TrackError
from optgen.training.autodiff import gradient
from optgen.training.loop import epochs, stop, throttle, train, update
from optgen.training.params import Param, Params, param


class Descent:
    """The least that is an optimiser; it remembers how it was called."""

    def __init__(self, eta: float = 0.1) -> None:
        self.eta = eta
        self.calls: list[tuple[Sequence[object], Sequence[np.ndarray]]] = []

    def step(self, params: Sequence[Param], grads: Sequence[np.ndarray]) -> None:
        self.calls.append((params, grads))
        for p, g in zip(params, grads, strict=True):
            p -= self.eta * g


def same(got: Sequence[object], expected: Sequence[object]) -> bool:
    return len(got) == len(expected) and all(a is b for a, b in zip(got, expected, strict=True))


# ---- update --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", [param, np.asarray])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_step_is_added_in_place(wrap: object, dtype: type) -> None:
    x = np.ones((2, 3), dtype)
    p = wrap(x)
    assert update(p, -0.5 * np.ones((2, 3))) is p
    assert update(p, np.full((2, 3), 2)) is p
    assert x.tolist() == [[2.5] * 3] * 2
    assert x.dtype == dtype


def test_a_step_of_a_number_fits_a_param_of_one_number() -> None:
    p = param(1.0)
    update(p, 0.5)
    update(p, np.float64(0.25))
    assert p.data == 1.75


def test_a_step_may_be_a_view_of_the_parameter_itself() -> None:
    p = np.array([1.0, 2.0, 3.0])
    update(p, p[::-1])
    assert p.tolist() == [4, 4, 4]


@pytest.mark.parametrize(
    ("p", "step", "said"),
    [
        (np.ones(3), np.ones(2), r"a step of real numbers of shape \(3,\), got float64 of shape \(2,\)"),
        (np.ones((2, 3)), np.ones(3), r"of shape \(2, 3\), got float64 of shape \(3,\)"),
        (np.ones(3), 1.0, r"of shape \(3,\), got float64 of shape \(\)"),
        (np.ones(1), [1j], "got complex128 of shape"),
        (np.ones(1), ["a"], "got <U1 of shape"),
        (np.ones(1, int), [1], "a parameter of floats that can be written to, got int64"),
        (np.broadcast_to(1.0, (2,)), [1, 1], "got a read-only one"),
    ],
)
def test_a_step_that_does_not_fit_is_refused_and_nothing_is_touched(p: np.ndarray, step: object, said: str) -> None:
    before = p.copy()
    with pytest.raises(ArrayError, match=said):
        update(p, step)
    assert p.tolist() == before.tolist()


def test_an_update_inside_gradient_is_refused() -> None:
    W = param([1.0, 2.0])
    with pytest.raises(TrackError, match="expected no `out` inside `gradient`, got one"):
        gradient(lambda: np.sum(update(W, np.ones(2))), [W])
    with pytest.raises(TrackError, match="expected a plain array, got a tracked value"):
        gradient(lambda: np.sum(update(np.ones(2), W * 2)), [W])
    assert W.tolist() == [1, 2]


def test_an_optimiser_updates_one_parameter() -> None:
    for p in (param([1.0, 2.0]), np.array([1.0, 2.0])):
        opt, g = Descent(0.5), np.array([1.0, 1.0])
        assert update(opt, p, g) is p
        assert p.tolist() == [0.5, 1.5]
        ((params, grads),) = opt.calls
        assert same(params, (p,))
        assert same(grads, (g,))


@pytest.mark.parametrize("kind", [Params, list, tuple])
def test_an_optimiser_updates_all_parameters_in_one_step(kind: type) -> None:
    W, b = param([[1.0, 2.0]]), param([3.0])
    grads = gradient(lambda: np.sum(W) + 2 * np.sum(b), [b, W])
    opt, theta = Descent(1), kind([W, b])
    assert update(opt, theta, grads) is theta
    update(opt, theta, [grads[W], grads[b]])
    assert [W.tolist(), b.tolist()] == [[[-1, 0]], [-1]]
    assert len(opt.calls) == 2
    for params, given in opt.calls:
        assert same(params, (W, b))
        assert same(given, (grads[W], grads[b]))


def test_plain_arrays_are_updated_together_too() -> None:
    a, b = np.ones(2), np.ones(3)
    update(Descent(1), [a, b], (np.ones(2), np.zeros(3)))
    assert (a.tolist(), b.tolist()) == ([0, 0], [1, 1, 1])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((Descent(), param([1.0])), "expected a parameter and a step, got Descent, Param"),
        (([1.0], [1.0]), "expected a parameter and a step, got list, list"),
        ((Descent, param([1.0]), [1.0]), "expected an optimiser, a parameter and a gradient, got type, Param, list"),
        ((param([1.0]), [1.0], [1.0]), "got Param, list, list"),
        ((Descent(), [1.0], [1.0], 3), "got Descent, list, list, int"),
    ],
)
def test_an_update_of_the_wrong_kind_of_thing_is_refused(arguments: tuple[object, ...], said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        update(*arguments)


def test_an_update_passes_on_what_else_a_rule_takes() -> None:
    p, q, h = np.ones(3), np.ones(3), np.full(3, 2.0)
    update(optgen.Sophia(), p, np.ones(3), hessian=[h])
    optgen.Sophia().step([q], [np.ones(3)], hessian=[h])
    assert p.tobytes() == q.tobytes()
    W = param(np.ones(3))
    grads = gradient(lambda: np.sum(W * W), Params([W]))
    update(optgen.PolyakSGD(), Params([W]), grads, loss=grads.value)
    assert (W.data < 1).all()


def test_an_update_without_an_optimiser_takes_no_inputs() -> None:
    p = np.ones(3)
    with pytest.raises(ArgumentError, match="expected an optimiser, a parameter and a gradient, got ndarray, ndarray"):
        update(p, np.ones(3), loss=1.0)
    assert (p == 1).all()


# ---- train ---------------------------------------------------------------------------------------------------------


def regression() -> tuple[Param, Param, list[tuple[np.ndarray, np.ndarray]]]:
    rng = np.random.default_rng(0)
    W, b = param(rng.random((2, 5))), param(rng.random(2))
    return W, b, [(rng.random(5), rng.random(2)) for _ in range(3)]


def test_training_is_the_loop_written_out() -> None:
    (W, b, data), (V, c, _) = regression(), regression()
    train(lambda x, y: np.sum((W @ x + b - y) ** 2), Params([W, b]), data, Descent(0.01))
    for x, y in data:
        grads = gradient(lambda x=x, y=y: np.sum((V @ x + c - y) ** 2), [V, c])
        for p in (V, c):
            update(p, -0.01 * grads[p])
    np.testing.assert_array_equal(W, V)
    np.testing.assert_array_equal(b, c)


def test_training_brings_the_loss_down() -> None:
    W, b, data = regression()

    def loss(x: np.ndarray, y: np.ndarray) -> object:
        return np.sum((W @ x + b - y) ** 2)

    before = sum(loss(*d) for d in data)
    train(loss, [W, b], epochs(50, data), Descent(0.05))
    assert sum(loss(*d) for d in data) < before / 10


@pytest.mark.parametrize("kind", [Params, list, tuple, iter])
def test_each_datum_is_one_step_of_all_params_once(kind: object) -> None:
    W, b, data = regression()
    opt = Descent()
    train(lambda x, y: np.sum(W @ x + b), kind([W, b, W]), data, opt)
    assert len(opt.calls) == len(data)
    for params, grads in opt.calls:
        assert same(params, (W, b))
        assert [g.shape for g in grads] == [(2, 5), (2,)]


def test_a_single_param_may_be_trained() -> None:
    W = param([1.0, 2.0])
    train(lambda x: np.sum(W * x), W, [1.0], Descent(1))
    assert W.tolist() == [0, 1]


def test_a_tuple_or_list_is_spread_and_anything_else_is_the_one_argument() -> None:
    W, seen = param([1.0]), []

    def loss(*d: object) -> object:
        seen.append(d)
        return np.sum(W)

    array = np.ones(2)
    train(loss, W, [(1, 2), [3], (), array, {"x": 1}, "ab"], Descent())
    assert seen[:3] == [(1, 2), (3,), ()]
    assert seen[3][0] is array
    assert seen[4:] == [({"x": 1},), ("ab",)]


def test_callbacks_run_after_each_step_in_order_however_deep() -> None:
    W, said = param([1.0]), []
    callbacks = [lambda: said.append(("a", W.tolist())), [(lambda: said.append("b"),), []]]
    train(lambda x: np.sum(W * x), W, [1.0, 2.0], Descent(1), callbacks)
    assert said == [("a", [0]), "b", ("a", [-2]), "b"]
    train(lambda x: np.sum(W * x), W, [1.0], Descent(1), cb=lambda: said.append("c"))
    assert said[4:] == ["c"]


def test_stop_in_a_callback_ends_the_training_after_the_step() -> None:
    W, said = param([10.0]), []
    opt = Descent(1)
    train(lambda x: np.sum(W), W, itertools.count(), opt, [lambda: W[0] < 8 and stop(), lambda: said.append(1)])
    assert W.tolist() == [7]
    assert len(said) == 2


def test_stop_in_the_loss_ends_the_training_before_the_step() -> None:
    W = param([10.0])
    train(lambda x: np.sum(W) if x < 2 else stop(), W, itertools.count(), Descent(1))
    assert W.tolist() == [8]
    assert type(W * 2) is np.ndarray


def test_stop_outside_of_training_says_so() -> None:
    with pytest.raises(Exception, match="`stop\\(\\)` was called, but not from inside `train`"):
        stop()


def test_training_gives_back_nothing_and_raises_what_its_parts_raise() -> None:
    W = param([1.0])
    assert train(lambda: np.sum(W), W, [()], Descent()) is None
    with pytest.raises(TrackError, match="one real number"):
        train(lambda x: W * np.ones(2), W, [1], Descent())
    with pytest.raises(ZeroDivisionError):
        train(lambda x: np.sum(W), W, [1], Descent(), lambda: 1 / 0)


def test_training_refuses_what_is_no_optimiser_callback_or_param() -> None:
    W = param([1.0])
    with pytest.raises(ArgumentError, match="expected an optimiser, which has a method `step`, got float"):
        train(lambda x: np.sum(W), W, [1], 0.1)
    with pytest.raises(ArgumentError, match="expected a callback, or a list of them, got int"):
        train(lambda x: np.sum(W), W, [1], Descent(), [print, 3])
    with pytest.raises(TrackError, match="expected a param at 0, got ndarray"):
        train(lambda x: np.sum(W), [np.ones(2)], [1], Descent())
    assert W.tolist() == [1]


def test_progress_shows_steps_and_loss_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    W = param([1.0])
    train(lambda x: np.sum(W * x), W, [1.0, 3.0], Descent(0.25), progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "2/2" in err
    assert "loss 2.25" in err
    train(lambda x: np.sum(W * x), W, iter([1.0]), Descent(), progress=True)
    train(lambda x: np.sum(W * x), W, (x for x in [1.0, 1.0]), Descent(), stop, progress=True)
    assert "1/?" in capsys.readouterr().err


def test_no_progress_does_not_load_rich() -> None:
    code = "import sys, optgen.training; sys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_training_gives_a_rule_the_loss_that_it_takes() -> None:
    W, V = param(np.ones(3)), param(np.ones(3))
    train(lambda x: np.sum((W - x) ** 2), [W], [0.5, 0.25], optgen.chain(optgen.ClipNorm(1e3), optgen.PolyakSGD()))
    opt = optgen.PolyakSGD()
    for x in (0.5, 0.25):
        grads = gradient(lambda x=x: np.sum((V - x) ** 2), Params([V]))
        opt.step([V], grads.values(), loss=grads.value)
    np.testing.assert_allclose(W.data, V.data, rtol=1e-15)
    assert (W.data < 1).all()


@pytest.mark.parametrize("name", ["Sophia", "AdaHessian"])
def test_training_refuses_a_rule_that_takes_more_than_the_loss(name: str) -> None:
    W = param(np.ones(3))
    with pytest.raises(ArgumentError, match=f"gradients and the loss, got {name}, which takes hessian") as caught:
        train(lambda x: np.sum(W * x), [W], [1.0], getattr(optgen, name)())
    assert "opt.step(params, grads, hessian=...)" in str(caught.value)
    assert (W.data == 1).all()


# ---- epochs and throttle -------------------------------------------------------------------------------------------


def test_epochs_go_through_the_data_n_times_every_time() -> None:
    e = epochs(3, [1, 2])
    assert (list(e), list(e), len(e)) == ([1, 2] * 3, [1, 2] * 3, 6)
    assert list(epochs(0, [1])) == []
    assert list(epochs(np.int64(2), "ab")) == list("abab")
    assert repr(epochs(2, [1])) == "epochs(2, [1])"


def test_epochs_have_a_length_only_if_the_data_has_one() -> None:
    class Endless:
        def __iter__(self) -> object:
            return itertools.count()

    e = epochs(2, Endless())
    assert list(itertools.islice(e, 3)) == [0, 1, 2]
    with pytest.raises(TypeError, match="no len"):
        len(e)


def test_one_epoch_of_what_can_be_read_once_is_fine_and_two_are_refused() -> None:
    assert list(epochs(1, iter([1, 2]))) == [1, 2]
    with pytest.raises(ArgumentError, match="expected data for 2 epochs, got generator, which can be read once"):
        epochs(2, (x for x in [1]))


@pytest.mark.parametrize("n", [-1, 1.5, "3", None])
def test_epochs_are_counted_in_whole_numbers(n: object) -> None:
    with pytest.raises(ArgumentError, match="expected a whole number of epochs, at least 0, got"):
        epochs(n, [1])


def test_epochs_of_no_data_are_refused() -> None:
    with pytest.raises(ArgumentError, match="expected data to go through, got int"):
        epochs(2, 3)


def test_throttle_runs_at_most_once_in_its_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def show(a: int, b: int = 0) -> int:
        """Shows."""
        return a + b

    throttled = throttle(show, 5)
    got = []
    for now[0] in (100.0, 101.0, 104.9, 105.0, 105.1, 111.0):
        got.append(throttled(1, b=2))
    assert got == [3, None, None, 3, None, 3]
    assert throttled.__doc__ == "Shows."
    assert list(inspect.signature(throttled).parameters) == ["a", "b"]


def test_throttle_of_no_seconds_runs_always_and_of_infinite_seconds_once() -> None:
    always, once = throttle(lambda: 1, 0), throttle(lambda: 1, float("inf"))
    assert [always(), always(), once(), once()] == [1, 1, 1, None]


@pytest.mark.parametrize("seconds", [-1, float("nan"), "5"])
def test_throttle_refuses_what_is_no_time(seconds: object) -> None:
    with pytest.raises(ArgumentError, match="expected a number of seconds, at least 0, got"):
        throttle(print, seconds)
