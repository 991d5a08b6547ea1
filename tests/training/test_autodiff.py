"""Tracked arrays: gradients are right or refused by name; outside `gradient` a param is its array."""

from __future__ import annotations

import contextvars
import copy
import gc
import math
import pickle
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from searching import search

from optgen.errors import TrackError
from optgen.training.autodiff import gradient
from optgen.training.params import Gradients, Param, Params, param
from optgen.training.tracked import Tracked

# ---- gradients against central differences -------------------------------------------------------------------------

OPERATORS = """
+W | -W | abs(W - 1) | W + x | x + W | W - 2 | 2 - W | W * x | x / W | W**2 | W**3.5 | 2**W | W**W | W**0 | W % 0.3
W @ V | V @ W.T | x @ V | V @ V | T @ np.ones((4, 2)) | np.ones((2, 2)) @ W | np.float64(2) * W | s * V | W + s | W * B
W + C | C / B | s - T | W // 0.3 * W | (W > 1) * W | sum(W) | max(V) | sum(row @ row for row in W)
"""

ELEMENTWISE = """
np.exp(W) | np.expm1(W) | np.exp2(W) | np.log(W) | np.log1p(W) | np.log2(W) | np.log10(W) | np.sqrt(W) | np.square(W)
np.sin(W) | np.cos(W) | np.tan(W) | np.arcsin(W / 4) | np.arccos(W / 4) | np.arctan(W) | np.sinh(W) | np.cosh(W)
np.tanh(W) | np.arcsinh(W) | np.arccosh(W + 2) | np.arctanh(W / 4) | np.reciprocal(W) | np.sinc(W) | np.abs(W - 1)
np.fabs(W - 1) | np.positive(W) | np.maximum(W, 1) | np.maximum(B, W) | np.minimum(W, C) | np.fmax(W, x) | np.fmin(W, s)
np.logaddexp(W, C) | np.logaddexp2(W, x) | np.hypot(W, V) | np.arctan2(V, W) | np.power(W, B) | np.mod(2, W)
np.clip(W, 0.6, 1.1) | np.clip(W, None, 1.1) | np.clip(W, a_min=0.6, a_max=None) | W.clip(0.6, None)
np.where(m, W, x) | np.where(m, W, 0) | np.where(m, B, C) | np.where(m, s, V) | np.where(W > 1, np.log(W), W**2)
np.select([W > 1, W > 0.7], [W, W**2], 0.0) | np.nan_to_num(W) | np.floor(W) * W | np.sign(W - 1) * W | np.argmax(W) * s
np.abs(W * (1 + 2j)) | np.exp(1j * W).real | ((W + 1j) ** 2).imag | np.real(np.conj(W + 1j) * 1j) | np.angle(W + 2j)
"""

REDUCTIONS = """
np.sum(W) | np.sum(W, 0) | np.sum(W, axis=-1, keepdims=True) | np.sum(T, axis=(-1, 0)) | W.sum() | W.sum(1)
np.mean(W) | np.mean(T, axis=(0, 2), keepdims=True) | W.mean(axis=0) | np.var(W) | np.var(T, axis=(0, 1), ddof=1)
W.var(1) | np.std(W) | np.std(W, axis=1, ddof=1) | W.std() | np.prod(W) | np.prod(T, axis=(0, 1)) | W.prod(axis=-1)
np.max(W) | np.max(T, axis=(0, -1), keepdims=True) | W.max(0) | np.min(W, 1) | W.min() | np.amax(W, 1) | np.amin(T, -1)
np.add.reduce(W) | np.add.reduce(W, axis=None) | np.add.reduce(W, axis=1, keepdims=True) | np.multiply.reduce(W)
np.maximum.reduce(W, axis=1) | np.minimum.reduce(W) | np.cumsum(W) | np.cumsum(T, axis=-2) | W.cumsum(1) | W.trace()
np.linalg.norm(W) | np.linalg.norm(W, axis=1, keepdims=True) | np.linalg.norm(V, 3) | np.linalg.norm(V, np.inf)
np.linalg.norm(V, 1) | np.linalg.norm(T, axis=(-2, 0), keepdims=True) | np.linalg.norm(W, "nuc")
"""

SHAPES = """
W[0] | W[-1, 1] | W[:, 1] | W[..., 0] | W[None] | W[::-1, ::2] | W[[0, 1, 1]] | W[[0, 1, 1], [2, 2, 2]] | W[m] | W[[]]
V[[True, False, True]] | W[m.tolist()] | W[np.arange(2), [0, 2]] | W[W > 1] | T[0, :, [1, 2]] | W[()] | V[[0, 2]][1]
list(W) | W.T | T.transpose(2, 0, 1) | T.transpose((2, 0, 1)) | T.transpose() | np.transpose(T, (0, -1, -2))
W.reshape(3, 2) | W.reshape((3, 2)) | W.reshape(-1) | np.reshape(W, (3, 2), order="F") | W.ravel() | np.ravel(W, "F")
W.flatten() | W.flatten("F") | B.squeeze() | np.squeeze(B, 0) | np.expand_dims(W, (0, 2)) | np.swapaxes(T, 0, -1)
np.moveaxis(T, 0, 2) | np.rollaxis(T, 2) | np.atleast_2d(V) | np.broadcast_to(V, (2, 3)) | np.broadcast_to(s, (2, 2))
np.flip(W, 0) | np.fliplr(W) | np.roll(W, (1, 2), axis=(0, 1)) | np.rot90(W) | np.tile(W, 2) | np.tile(V, (2, 2))
np.repeat(T, 3, axis=-1) | np.repeat(V, [1, 2, 0]) | np.take(W, [0, 2], axis=1) | W.take([0, 5, 5]) | W.diagonal()
np.take_along_axis(W, np.array([[1], [0]]), axis=1) | np.pad(W, ((1, 0), (0, 2)), "constant") | np.diff(W, axis=0)
np.concatenate([W, x]) | np.concatenate((W, W), axis=-1) | np.stack([W, x], axis=1) | np.stack([s, s * 2])
np.vstack([W, V]) | np.hstack([W, C]) | np.column_stack([V, x[0]]) | np.append(W, V) | np.split(W, 3, axis=1)
np.array_split(V, 2) | np.triu(S) | np.tril(S, -1) | np.diag(V) | np.diag(S, 1) | np.sort(V) | W.copy() | np.copy(W)
W.astype(float) | W.astype(int) * W | np.full_like(x, 2) * W | np.full_like(W, s) | W.shape[0] * W | W.ndim * W.size * s
"""

ALGEBRA = """
np.dot(W, V) | V.dot(V) | np.dot(T, np.ones((2, 4, 3))) | np.matmul(V, S) | np.inner(W, S) | np.outer(V, V)
np.tensordot(W, S, axes=1) | np.tensordot(T, W, axes=([0, 1], [0, 1])) | np.kron(W, S) | np.cross(V, x[0])
np.einsum("ij,j->i", W, V) | np.einsum("ij->", W) | np.einsum("ij,jk,k->i", W, S, V, optimize=True) | np.trace(S)
np.einsum("...j,j->...", T, np.ones(4)) | np.einsum("i,ij,j", C[:, 0], W, V) | np.linalg.det(S) | np.linalg.inv(S)
np.linalg.slogdet(S)[1] | np.linalg.slogdet(S).logabsdet | np.linalg.solve(S, V) | np.linalg.solve(S, W.T)
np.linalg.pinv(W) | np.linalg.cholesky(S) | np.linalg.cholesky(S @ S.T) | np.linalg.eigh(S)[0]
np.linalg.eigh(S).eigenvectors[:, 0] ** 2 | np.linalg.svd(W, full_matrices=False)[1]
"""

PLAIN = "W == W | np.argmax(W) | np.cbrt(W) | np.median(W) | np.add.outer(W, V) | np.linalg.qr(W) | W.tolist()"

# Equal sides: a gradient with two axes confused has the right shape.
CUBES = """
np.transpose(Q, (0, -1, -2)) | Q.transpose(-1, 0, 1) | Q.transpose(1, -1, 0) | np.tile(Q, 2) | np.repeat(Q, 2, axis=-1)
np.linalg.norm(Q, axis=(-2, -1)) | np.linalg.norm(Q, axis=(1, -3), keepdims=True) | np.linalg.norm(Q, np.inf, -2)
np.sum(Q, axis=(-1, 0)) | np.std(Q, axis=(-2, 2)) | np.max(Q, axis=(1, -1)) | np.cumsum(Q, -1) | np.roll(Q, 1, -2)
np.moveaxis(Q, (-1, 0), (1, -1)) | np.diagonal(Q, 1, -1, 0) | Q.T.ravel("F") | Q.T.reshape(2, 4, order="F") | Q @ Q
np.dot(Q, Q) | np.tensordot(Q, Q, axes=((-1, 0), (0, 1))) | np.einsum("ijk,kjl", Q, Q) | np.diff(Q, n=1, axis=-2)
np.linalg.inv(Q) | np.concatenate([Q, Q * 2], axis=-2) | np.stack([Q, Q * Q], axis=-1)
Q[:, [True, False]] | Q[..., ::-1] | Q[[True, False]] | np.swapaxes(Q, -1, 0) | np.var(Q, axis=-2, keepdims=True)
"""


def table(text: str) -> list[str]:
    return [expression.strip() for line in text.split("\n") if line for expression in line.split("|")]


def world() -> dict[str, object]:
    """The names that the expressions above are written in."""
    rng = np.random.default_rng(7)
    square = rng.random((3, 3))
    params = {
        "W": rng.random((2, 3)) + 0.5,
        "V": rng.random(3) + 0.5,
        "T": rng.random((2, 3, 4)) + 0.5,
        "S": square @ square.T + np.eye(3),
        "Q": rng.random((2, 2, 2)) + np.eye(2),
        "B": rng.random((1, 3)) + 0.4,
        "C": rng.random((2, 1)) + 0.4,
        "s": np.array(1.3),
    }
    x = rng.random((2, 3))
    return {name: param(value) for name, value in params.items()} | {"x": x, "m": x > 0.5, "np": np}


def weighed(result: object) -> object:
    """A number that every element of `result` (an array, or a sequence of arrays) has a different part in."""
    if isinstance(result, (list, tuple)):
        return sum(weighed(part) * (i + 1) for i, part in enumerate(result))
    return np.sum(np.cos(np.arange(np.size(result)) + 1).reshape(np.shape(result)) * result)


def central_difference(f: object, p: Param, h: float = 1e-6) -> np.ndarray:
    slope = np.zeros(p.shape)
    for i in np.ndindex(p.shape):
        was = p.data[i]
        p.data[i] = was + h
        above = f()
        p.data[i] = was - h
        slope[i] = (above - f()) / (2 * h)
        p.data[i] = was
    return slope


@pytest.mark.parametrize("expression", table(OPERATORS + ELEMENTWISE + REDUCTIONS + SHAPES + ALGEBRA + CUBES))
def test_a_gradient_is_the_central_difference(expression: str) -> None:
    names = world()
    code = compile(expression, "expression", "eval")
    used = [names[name] for name in code.co_names if isinstance(names.get(name), Param)]

    def f() -> object:
        return weighed(eval(code, dict(names)))

    grads = gradient(f, used)
    assert used
    assert grads.value == f()
    for p in used:
        np.testing.assert_allclose(grads[p], central_difference(f, p), rtol=1e-5, atol=1e-6)


@search(30, 60)
@given(
    npst.mutually_broadcastable_shapes(num_shapes=2, min_side=0, max_side=3, max_dims=3),
    st.sampled_from([np.add, np.subtract, np.multiply, np.divide, np.maximum, np.power, np.hypot]),
)
def test_broadcasting_is_undone_for_all_shapes(shapes: object, ufunc: np.ufunc) -> None:
    rng = np.random.default_rng(3)
    a, b = (param(rng.random(shape) + 0.5) for shape in shapes.input_shapes)
    grads = gradient(lambda: weighed(ufunc(a, b)), [a, b])
    for p in (a, b):
        np.testing.assert_allclose(grads[p], central_difference(lambda: weighed(ufunc(a, b)), p), rtol=1e-4, atol=1e-6)


def test_linear_regression_has_the_gradient_worked_out_by_hand() -> None:
    rng = np.random.default_rng(0)
    W, b = param(rng.random((2, 5))), param(rng.random(2))
    x, y = rng.random(5), rng.random(2)
    grads = gradient(lambda: np.sum((W @ x + b - y) ** 2), Params([W, b]))
    residual = W.data @ x + b.data - y
    np.testing.assert_allclose(grads[W], 2 * np.outer(residual, x))
    np.testing.assert_allclose(grads[b], 2 * residual)
    assert grads.value == pytest.approx(residual @ residual)


def test_the_page_of_flux_runs_and_the_loss_goes_down() -> None:
    rng = np.random.default_rng(0)
    W, b = param(rng.random((2, 5))), param(rng.random(2))
    x, y = rng.random(5), rng.random(2)

    def loss() -> object:
        return np.sum((W @ x + b - y) ** 2)

    before = loss()
    grads = gradient(loss, Params([W, b]))
    W -= 0.1 * grads[W]
    b -= 0.1 * grads[b]
    assert loss() < before


# ---- what `gradient` gives -----------------------------------------------------------------------------------------


def test_gradients_are_a_mapping_by_identity_in_the_order_of_the_params() -> None:
    a, b, other = param([1.0, 1.0]), param([1.0, 1.0]), param([1.0, 1.0])
    grads = gradient(lambda: np.sum(a * 2 + b * 3), [b, a])
    assert len(grads) == 2
    assert [p is q for p, q in zip(grads, (b, a), strict=True)] == [True, True]
    assert a in grads
    assert other not in grads
    assert [g.tolist() for g in grads.values()] == [[3, 3], [2, 2]]
    assert [(p is q, g.tolist()) for (p, g), q in zip(grads.items(), (b, a), strict=True)] == [
        (True, [3, 3]),
        (True, [2, 2]),
    ]
    assert repr(grads) == "Gradients(value=10.0, [array([3., 3.]), array([2., 2.])])"


def test_an_unused_param_has_a_gradient_of_zeros_and_a_param_not_asked_for_is_constant() -> None:
    a, b, unused = param([1.0, 2.0]), param([3.0, 4.0]), param(np.ones((2, 2), np.float32))
    grads = gradient(lambda: np.sum(a * b), [a, unused])
    assert grads[a].tolist() == [3, 4]
    assert grads[unused].tolist() == [[0, 0], [0, 0]]
    assert b not in grads


@pytest.mark.parametrize("number", [2, 2.5, np.float32(2.5), np.array([[1.5]])])
def test_a_loss_without_params_has_gradients_of_zeros(number: object) -> None:
    a = param([1.0])
    grads = gradient(lambda: number, [a])
    assert (grads.value, grads[a].tolist()) == (float(np.sum(number)), [0])


@pytest.mark.parametrize("f", [lambda p: p, lambda p: p.reshape(1, 1), lambda p: p.sum()])
def test_the_loss_may_be_any_array_of_one_number_even_a_param(f: object) -> None:
    p = param(3.0)
    grads = gradient(lambda: f(p), [p])
    assert (grads.value, type(grads.value)) == (3.0, float)
    assert grads[p] == 1


def test_each_gradient_is_writable_memory_of_its_own() -> None:
    a, b, c = (param(np.ones((2, 3))) for _ in range(3))
    grads = gradient(lambda: np.sum(a + b) + np.sum(np.broadcast_to(np.sum(c), (2,))), [a, b, c])
    arrays = [*grads.values(), a.data, b.data, c.data]
    for i, g in enumerate(grads.values()):
        g += 1
        assert not any(np.shares_memory(g, other) for other in arrays[:i] + arrays[i + 1 :])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_gradient_has_the_shape_dtype_and_layout_of_its_param(dtype: type) -> None:
    p = param(np.asfortranarray(np.ones((3, 2), dtype)))
    g = gradient(lambda: np.sum(np.where(p > 2, p, np.exp(p) * np.ones((3, 2)))), [p])[p]
    assert type(g) is np.ndarray
    assert (g.shape, g.dtype, g.flags.f_contiguous) == ((3, 2), dtype, True)


def test_float32_is_kept_through_a_computation() -> None:
    seen = []
    p, mask = param(np.ones((2, 2), np.float32)), np.array([True, False])

    def f() -> object:
        hidden = np.where(mask, np.tanh(p @ p + 1) / 2, 0.0)
        seen.append(hidden.dtype)
        return hidden.mean()

    gradient(f, [p])
    assert seen == [np.float32]


def test_no_params_no_gradients() -> None:
    assert len(gradient(lambda: 1.0, [])) == 0


def test_a_tie_is_shared_and_a_corner_has_no_slope() -> None:
    p = param([2.0, 2.0, 0.0])
    assert gradient(lambda: np.max(p), [p])[p].tolist() == [0.5, 0.5, 0]
    assert gradient(lambda: np.sum(np.abs(p)), [p])[p].tolist() == [1, 1, 0]


# ---- outside `gradient` --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "expression",
    table(OPERATORS + ELEMENTWISE + REDUCTIONS + SHAPES + ALGEBRA + PLAIN),
)
def test_outside_gradient_a_param_gives_what_its_array_gives(expression: str) -> None:
    names = world()
    plain = {name: value.data if isinstance(value, Param) else value for name, value in names.items()}
    got, expected = eval(expression, dict(names)), eval(expression, dict(plain))
    assert type(got) is type(expected)
    for a, b in zip(got, expected, strict=True) if isinstance(got, (list, tuple)) else [(got, expected)]:
        np.testing.assert_allclose(a, b, rtol=1e-15)


@pytest.mark.skipif(not hasattr(np.ndarray, "mT"), reason="before NumPy 2 arrays have no mT")
def test_the_matrix_transpose_is_tracked() -> None:
    W = param(np.arange(6.0).reshape(1, 2, 3))
    assert gradient(lambda: np.sum(W.mT[0, 2]), [W])[W].tolist() == [[[0, 0, 1], [0, 0, 1]]]
    assert W.mT.shape == (1, 3, 2)


@pytest.mark.skipif(np.lib.NumpyVersion(np.__version__) < "2.1.0", reason="before NumPy 2.1 clip has no min and max")
def test_clip_takes_min_and_max() -> None:
    W = param([1.0, 2.0, 3.0])
    assert gradient(lambda: np.sum(np.clip(W, min=1.5)), [W])[W].tolist() == [0, 1, 1]
    assert gradient(lambda: np.sum(W.clip(min=1.5, max=2.5)), [W])[W].tolist() == [0, 1, 0]


def test_another_kind_of_array_may_take_a_function_over() -> None:
    class Other:
        def __array_function__(self, func: object, types: object, args: object, kwargs: object) -> str:
            return "other"

    W, seen = param([1.0]), []
    inside(lambda: seen.append(np.concatenate([W, Other()])), W)
    assert [*seen, np.concatenate([W, Other()])] == ["other", "other"]


def test_a_param_takes_an_array_of_floats_without_a_copy() -> None:
    for dtype in (np.float32, np.float64):
        x = np.ones((2, 3), dtype)
        p = param(x)
        assert p.data is x
        assert np.asarray(p) is x
        assert np.array(p) is not x
        assert param(p) is p
        assert (p.shape, p.ndim, p.size, p.dtype, len(p)) == ((2, 3), 2, 6, dtype, 2)


@pytest.mark.parametrize("x", [3, True, 2.5, [1, 2], [[1.5], [2]], np.arange(3), np.array([True]), np.float32(1)])
def test_a_param_of_anything_else_is_new_float64(x: object) -> None:
    p = param(x)
    assert p.dtype == np.float64
    assert np.array_equal(p, x)
    assert not np.shares_memory(p.data, x)


def test_in_place_changes_go_to_the_array_and_keep_the_param() -> None:
    x = np.ones((2, 3), np.float32)
    W = same = param(x)
    W -= 0.5 * np.ones((2, 3))
    W *= 4
    W[0] = 3
    W[1, 1] = param(7.0)
    W[:, 2][0] = 9
    assert W is same
    assert W.data is x
    assert x.tolist() == [[3, 3, 9], [2, 7, 2]]
    assert np.add(x, 1, out=W) is W
    assert x.tolist() == [[4, 4, 10], [3, 8, 3]]
    assert np.cumsum(np.ones((2, 3)), axis=0, out=W) is W
    assert x.tolist() == [[1, 1, 1], [2, 2, 2]]


def test_a_param_is_written_to_as_one_of_several_outputs() -> None:
    whole, part = param(np.zeros(2)), np.array([1.5, 2.25])
    fraction, written = np.modf(part, out=(None, whole))
    assert written is whole
    assert (whole.data.tolist(), fraction.tolist()) == ([1, 2], [0.5, 0.25])


def test_a_plain_array_takes_a_param_in_place() -> None:
    x = y = np.ones(2)
    x += param([1.0, 2.0])
    assert x is y
    assert x.tolist() == [2, 3]


def test_a_param_is_compared_by_element_and_has_no_hash() -> None:
    W = param([1.0, 2.0])
    assert (W > 1).tolist() == [False, True]
    assert 2.0 in W
    assert 3.0 not in W
    assert (float(param(2.5)), int(param(2.5)), complex(param(2.5)), bool(param(0.0))) == (2.5, 2, 2.5, False)
    with pytest.raises(TypeError, match="unhashable"):
        hash(W)
    with pytest.raises(ValueError, match="truth value"):
        bool(W > 0)


def test_a_param_shows_its_array() -> None:
    assert repr(param([1.0, 2.0])) == "param(array([1., 2.]))"
    assert f"{param(2.0):.3f} {param([1.0])}" == "2.000 [1.]"
    assert repr(Params([param([1.0])])) == "Params([param(array([1.]))])"


def test_a_param_can_be_copied_and_pickled() -> None:
    W = param([1.0, 2.0])
    for other in (copy.deepcopy(W), pickle.loads(pickle.dumps(W))):
        other += 1
        assert other.tolist() == [2, 3]
    assert W.tolist() == [1, 2]


def test_params_are_ordered_without_duplicates_and_found_by_identity() -> None:
    a, b, twin = param([1.0]), param([2.0]), param([1.0])
    theta = Params([b, a, b])
    assert len(theta) == 2
    assert [p is q for p, q in zip(theta, (b, a), strict=True)] == [True, True]
    assert a in theta
    assert twin not in theta
    assert theta[0] is b
    assert theta[-1] is a
    assert type(theta[:1]) is Params
    assert len(Params(theta)) == 2
    assert len(Params()) == 0


# ---- inside `gradient` ---------------------------------------------------------------------------------------------


def inside(f: object, *params: Param) -> Gradients:
    """Runs `f` inside `gradient`, for what it does there."""

    def loss() -> float:
        f()
        return 0.0

    return gradient(loss, params)


def test_inside_gradient_values_are_tracked_and_what_has_no_derivative_is_plain() -> None:
    W = param([[1.0, 2.0], [3.0, 4.0]])

    def f() -> None:
        assert type(W * 2) is Tracked
        assert repr(W * 2) == f"tracked({W.data * 2!r})"
        assert f"{np.sum(W):.1f} {np.sum(W)}" == "10.0 10.0"
        assert bool(np.sum(W) > 3)
        assert bool(np.sum(W))
        assert 3.0 in W
        for plain in (W > 1, np.argmax(W), W.argmin(), np.floor(W), np.shape(W), W.shape, W.dtype, np.zeros_like(W)):
            assert not isinstance(plain, Tracked)
        assert type((W * 2).data) is np.ndarray
        assert isinstance(np.linalg.eigh(W), type(np.linalg.eigh(W.data)))
        assert isinstance(np.split(W, 2), list)

    inside(f, W)


def test_no_gradient_flows_through_data() -> None:
    W = param([2.0])
    assert gradient(lambda: np.sum(W * W.data * (W * 3).data), [W])[W].tolist() == [12]


def test_a_value_kept_after_gradient_is_plain() -> None:
    W, kept = param([1.0, 2.0]), []

    def loss() -> object:
        kept.append(W * 2)
        return np.sum(kept[0])

    gradient(loss, [W])
    (value,) = kept
    assert float(np.sum(value)) == 6
    assert np.asarray(value).tolist() == [2, 4]
    assert type(value + 1) is np.ndarray
    assert gradient(lambda: np.sum(W * value), [W])[W].tolist() == [2, 4]


@pytest.mark.parametrize(
    ("deed", "said"),
    [
        ("W.__iadd__(1)", "`np.add`: expected no `out` inside `gradient`, got one"),
        ("np.exp(x, out=W)", "expected no `out` inside `gradient`"),
        ("np.sum(W, axis=0, out=x[0])", "`np.sum`: expected no `out`"),
        ("x.__iadd__(W)", "expected no `out` inside `gradient`"),
        ("W.__setitem__(0, 1)", "expected an array to change in place"),
        ("(W * 2).__setitem__(0, 1)", "expected an array to change in place"),
        ("x.__setitem__(0, W[0])", "expected a plain array, got a tracked value"),
        ("np.asarray(W * 2)", "expected a plain array, got a tracked value"),
        ("np.array([W[0], W[1]])", "expected a plain array, got a tracked value"),
        ("np.sum([W[0], W[1]])", "expected a plain array, got a tracked value"),
        ("x.dot(W.T)", "expected a plain array, got a tracked value"),
        ("x[np.floor(W).astype(int), W]", "expected a plain array, got a tracked value|must be integers"),
        ("float(np.sum(W))", "expected a float, got a tracked value"),
        ("math.exp(W[0, 0])", "expected a float, got a tracked value"),
        ("int(W[0, 0])", "expected an int, got a tracked value"),
        ("W[s]", "expected an index without gradient"),
        ("W.tolist()", "`tolist` of a tracked value has no gradient"),
        ("W.sort()", "`sort` of a tracked value has no gradient"),
        ("np.cbrt(W)", "no gradient of `np.cbrt`"),
        ("np.median(W)", "no gradient of `np.median`"),
        ("np.linalg.qr(W)", "no gradient of `np.linalg.qr`"),
        ("np.fft.fft(W)", "no gradient of `np.fft.fft`"),
        ("np.add.accumulate(W)", "no gradient of `np.add.accumulate`"),
        ("np.copyto(W, x)", "no gradient of `np.copyto`"),
        ("foreign(W)", "no gradient of `triple "),
        ("np.sum(W, where=m)", "no gradient of `sum` with where="),
        ("np.max(W, initial=9.0)", "no gradient of `max` with initial="),
        ("np.add(W, x, dtype=float)", "no gradient of `add` with these arguments"),
        ("np.clip(W, 0.3, s)", "no gradient of `clip` with these arguments"),
        ("np.sort(W)", "no gradient of `sort` with these arguments"),
        ("np.concatenate([W, W], dtype=float)", "no gradient of `np.concatenate` with these arguments"),
        ("np.full_like(W, fill_value=s)", "`np.full_like`: expected tracked values by position, got one by keyword"),
        ("np.where(m, [W[0], W[1]], W)", "`np.where`: expected a tracked value, got a list"),
        ("np.linalg.multi_dot([W, W.T])", "no gradient of `np.linalg.multi_dot`"),
        ("np.kron(W[None], W)", "no gradient of `kron` beyond matrices"),
        ("np.prod(W * m)", "no gradient of `prod` with a zero among the factors"),
        ("np.ravel(W, 'K')", "expected order 'C' or 'F'"),
        ("W.reshape(-1, order='A')", "expected order 'C' or 'F'"),
    ],
)
def test_what_has_no_gradient_is_refused_by_name_and_nothing_is_changed(deed: str, said: str) -> None:
    names = world() | {"math": math, "foreign": np.frompyfunc(triple, 1, 1)}
    W, s, x = names["W"], names["s"], names["x"]
    before = W.data.copy(), x.copy()
    with pytest.raises(TrackError, match=said) as raised:
        inside(lambda: eval(deed, names), W, s)
    assert raised.value.hint
    np.testing.assert_array_equal(W.data, before[0])
    np.testing.assert_array_equal(x, before[1])


def triple(value: float) -> float:
    return 3 * value


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("np.einsum('ii->', S)", "no gradient of `einsum` with these arguments"),
        ("np.diag(W)", r"no gradient of `diag` for these shapes \(expected a gradient of \(2, 3\), got \(2, 2\)\)"),
        ("np.cross(W, V)", "no gradient of `cross` for these shapes"),
        ("np.linalg.svd(W)[1]", "no gradient of `svd` with these arguments"),
    ],
)
def test_a_gradient_that_fails_or_comes_out_in_a_wrong_shape_is_refused(expression: str, said: str) -> None:
    names = world()
    with pytest.raises(TrackError, match=said):
        gradient(lambda: np.sum(eval(expression, names)), [names["W"], names["V"], names["S"]])


def test_numpy_raises_its_own_errors_inside_gradient() -> None:
    W = param(np.ones((2, 3)))
    with pytest.raises(ValueError, match="could not be broadcast"):
        gradient(lambda: np.sum(W + np.ones(2)), [W])
    with pytest.raises(IndexError):
        gradient(lambda: W[5, 5], [W])
    with pytest.raises(AttributeError, match="'Param' object has no attribute 'colour'"):
        gradient(lambda: W.colour, [W])


# ---- what is refused at the door -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (np.array([1j]), "got complex128"),
        (1j, "got complex128"),
        ("text", "got <U4"),
        ([None], "got object"),
        (np.array([1.0], np.float16), "got float16"),
        (np.array([1.0], np.longdouble), "got (float|longdouble)"),
        (np.array([1.0], ">f8" if np.little_endian else "<f8"), "got [<>]f8"),
        (np.array(["2020-01-01"], "M8[D]"), "got datetime64"),
        ([[1, 2], [3]], "got list: "),
        (np.broadcast_to(1.0, (3,)), "got a read-only one"),
    ],
)
def test_param_refuses_what_is_not_an_array_of_real_numbers(x: object, said: str) -> None:
    with pytest.raises(TrackError, match=said):
        param(x)


def test_params_refuses_what_is_not_a_param() -> None:
    with pytest.raises(TrackError, match=r"expected a param at 1, got ndarray\n  hint: make it one: `param\(...\)`"):
        Params([param([1.0]), np.ones(1)])
    with pytest.raises(TrackError, match="expected an iterable of params, got one param"):
        gradient(lambda: 1.0, param([1.0]))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["copy", "pickle"])
def test_copies_of_params_and_gradients_find_their_own_params(copied) -> None:
    W, b = param([1.0, 2.0]), param([3.0])
    params = copied(Params([W, b]))
    assert all(p in params for p in params)
    assert W not in params
    grads = copied(gradient(lambda: (W * b).sum(), Params([W, b])))
    assert [grads[p].tolist() for p in grads] == [[3, 3], [3]]
    assert W not in grads
    assert grads.value == 9


def test_an_unknown_param_is_refused_by_the_gradients() -> None:
    W, b = param([[1.0]]), param([1.0])
    grads = gradient(lambda: np.sum(W), [W])
    with pytest.raises(TrackError, match=r"expected one of 1 params, got another param, of shape \(1,\)"):
        grads[b]
    with pytest.raises(TrackError, match="expected one of 1 params, got int"):
        grads[0]


@pytest.mark.parametrize(
    ("f", "said"),
    [
        (lambda W: W * 2, r"got shape \(2, 3\)\n  hint: sum it"),
        (lambda W: W.data, r"got shape \(2, 3\)"),
        (lambda W: None, "got NoneType"),
        (lambda W: (np.sum(W), np.sum(W)), "got tuple"),
        (lambda W: np.sum(W) * 1j, "got complex128"),
        (lambda W: np.sum(W) > 1, "got bool"),
        (lambda W: "3", "got str"),
    ],
)
def test_a_loss_is_one_real_number(f: object, said: str) -> None:
    W = param(np.ones((2, 3)))
    with pytest.raises(TrackError, match="expected the loss to be one real number, " + said):
        gradient(lambda: f(W), [W])


def test_gradient_inside_gradient_is_refused() -> None:
    W = param([1.0])
    with pytest.raises(TrackError, match="expected `gradient` outside of `gradient`, got one inside"):
        gradient(lambda: np.sum(gradient(lambda: np.sum(W), [W])[W]), [W])


def test_values_of_two_runs_do_not_mix() -> None:
    a, b = param([1.0]), param([1.0])

    def mixed() -> object:
        value = a * 2
        return contextvars.Context().run(gradient, lambda: np.sum(value * b), [b]).value

    def returned() -> object:
        value = np.sum(a)
        return contextvars.Context().run(gradient, lambda: value, [b]).value

    with pytest.raises(TrackError, match="expected values of this run of `gradient`, got one of another run"):
        gradient(mixed, [a])
    with pytest.raises(TrackError, match="expected a loss of this run of `gradient`, got one of another run"):
        gradient(returned, [a])


# ---- no trace is left ----------------------------------------------------------------------------------------------


def test_a_failure_inside_leaves_no_trace() -> None:
    W = param([1.0, 2.0])

    def fails() -> object:
        _ = W * 2
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        gradient(fails, [W])
    assert type(W * 2) is np.ndarray
    assert gradient(lambda: np.sum(W), [W])[W].tolist() == [1, 1]


def test_threads_do_not_see_each_other() -> None:
    W = param(np.ones(50))
    barrier = threading.Barrier(4, timeout=20)

    def work(k: int) -> bool:
        barrier.wait()
        for _ in range(50):
            grads = gradient(lambda: np.sum(np.tanh(W * k) ** 2), [W])
            if k == 0 and type(W * 2) is not np.ndarray:
                return False
        return np.allclose(grads[W], 2 * np.tanh(k) * k / np.cosh(k) ** 2)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


def test_a_thread_outside_gradient_sees_plain_arrays_while_another_is_inside() -> None:
    W, seen = param([1.0]), []

    def loss() -> object:
        with ThreadPoolExecutor(1) as pool:
            seen.append(pool.submit(lambda: type(W * 2)).result())
        return np.sum(W * 2)

    assert gradient(loss, [W])[W].tolist() == [2]
    assert seen == [np.ndarray]


def test_nothing_outlives_the_run_without_the_garbage_collector() -> None:
    kept = []

    def run() -> list[weakref.ref[object]]:
        W, passing = param(np.ones(3)), []

        def loss() -> object:
            hidden = W * 2
            passing.append(weakref.ref(hidden.data))
            kept.append(np.tanh(hidden))
            return np.sum(kept[0] ** 2)

        grads = gradient(loss, [W])
        return [weakref.ref(W), weakref.ref(W.data), weakref.ref(grads[W]), *passing]

    gc.disable()
    try:
        assert [ref() for ref in run()] == [None] * 4
    finally:
        gc.enable()
    assert kept[0].shape == (3,)
