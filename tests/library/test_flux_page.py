"""The user's own page, as it is written there, in Python: every part of it, under every rule."""

from __future__ import annotations

import numpy as np
import pytest
from rules import DESCENDING, GROUPED, SUBJECTS, make, rules_of

import optgen
from optgen import Params, epochs, gradient, param, stop, throttle, train, update


@pytest.fixture
def model():
    rng = np.random.default_rng(0)
    W = param(rng.random((2, 5)))
    b = param(rng.random(2))

    def predict(x):
        return W @ x + b

    def loss(x, y):
        return np.sum((predict(x) - y) ** 2)

    x, y = rng.random(5), rng.random(2)
    return W, b, loss, x, y


def test_one_way_to_update_each_parameter(model):
    W, b, loss, x, y = model
    before = loss(x, y)
    theta = Params([W, b])
    grads = gradient(lambda: loss(x, y), theta)
    eta = 0.1
    for p in (W, b):
        update(p, -eta * grads[p])
    assert loss(x, y) < before


def test_the_gradients_are_those_of_the_formula(model):
    W, b, loss, x, y = model
    error = 2 * (W.data @ x + b.data - y)
    grads = gradient(lambda: loss(x, y), Params([W, b]))
    np.testing.assert_allclose(grads[W], np.outer(error, x), rtol=1e-13)
    np.testing.assert_allclose(grads[b], error, rtol=1e-13)


@pytest.mark.parametrize("subject", SUBJECTS)
def test_the_loss_goes_down_under_every_rule(model, subject):
    W, b, loss, x, y = model
    before = loss(x, y)
    opt = make(subject, **DESCENDING.get(subject, {}))
    losses = []
    for _ in range(20):
        grads = gradient(lambda: loss(x, y), Params([W, b]))
        if subject in GROUPED:  # all together, or not at all
            update(opt, [W, b], grads)
        else:
            for p in (W, b):
                update(opt, p, grads[p])
        losses.append(float(loss(x, y)))
    first = next(i for i, each in enumerate(losses) if each != before)  # the step that is the first to move
    assert losses[-1] < losses[first] < before


@pytest.mark.parametrize("subject", [each for each in SUBJECTS if rules_of(each)[0].given_arrays == ("g",)])
def test_train_updates_all_parameters_with_every_rule(model, subject):
    W, b, loss, x, y = model
    before = loss(x, y)
    start = W.data.copy(), b.data.copy()
    train(loss, Params([W, b]), epochs(20, [(x, y)]), make(subject, **DESCENDING.get(subject, {})))
    assert loss(x, y) < before
    assert not np.any(W.data == start[0])
    assert not np.any(b.data == start[1])


@pytest.mark.parametrize("subject", GROUPED)
def test_a_rule_of_all_parameters_together_says_that_they_cannot_be_updated_one_by_one(model, subject):
    W, b, loss, x, y = model
    opt, grads = make(subject), gradient(lambda: loss(x, y), Params([W, b]))
    update(opt, W, grads[W])
    start = b.data.copy()
    with pytest.raises(
        optgen.OptgenError, match="reduces over all parameters: expected the 1 of before, got all but 1"
    ):
        update(opt, b, grads[b])
    assert (b.data == start).all()


def test_updating_one_by_one_all_at_once_and_by_train_is_the_same(model):
    W, b, loss, x, y = model
    start = W.data.copy(), b.data.copy()
    results = []
    for way in ("one by one", "at once", "train"):
        W.data[...], b.data[...] = start
        theta, opt = Params([W, b]), optgen.ADAM(0.01)
        for _ in range(5):
            if way == "train":
                train(loss, theta, [(x, y)], opt)
                continue
            grads = gradient(lambda: loss(x, y), theta)
            if way == "at once":
                update(opt, theta, grads)
            else:
                for p in theta:
                    update(opt, p, grads[p])
        results.append((W.data.tobytes(), b.data.tobytes()))
    assert results[0] == results[1] == results[2]


def test_callbacks_run_after_each_step_and_may_stop_the_training(model):
    W, b, loss, x, y = model
    seen, rarely = [], []

    def enough():
        seen.append(float(loss(x, y)))
        if len(seen) == 3:
            stop()

    throttled = throttle(lambda: rarely.append(len(seen)), 1000)
    train(loss, Params([W, b]), epochs(10, [(x, y)]), optgen.Descent(0.1), cb=[enough, throttled])
    assert len(seen) == 3
    assert rarely == [1]
