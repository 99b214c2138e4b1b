"""Laws of derivatives of second and higher order, and of linear maps, as in `test_properties`."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

import keras_fwd
from faults import random_spaces as spaces
from faults.laws import WIDE, law, limit, modes, points, problems, seeds
from faults.random_spaces import SmoothFunction, check_like, close, sample, vector

pytestmark = pytest.mark.slow


@law
@given(spaces.spaces(), seeds, modes)
def test_hessian_is_symmetric_and_right(source, seed, mode):
    problem = SmoothFunction(source, spaces.Leaf("float64", (3,)), seed)
    x, u, _ = points(problem)
    v = sample(source, np.random.default_rng(seed + 2), tangents=True)
    c = np.array([1.0, -2.0, 0.5])

    def products(x):
        H = keras_fwd.hessian(lambda x: tf.reduce_sum(c * problem(x)), x)
        return H(u), H(v)

    Hu, Hv = mode(products)(x)
    check_like(Hu, source, tangents=True)
    y = problem.values(x)
    H = problem.W.T @ np.diag(-2 * c * y * (1 - y**2)) @ problem.W
    close(vector(Hu), H @ vector(u), 8 * limit(problem))
    gap = vector(Hu) @ vector(v) - vector(u) @ vector(Hv)
    assert abs(gap) <= 20 * limit(problem) * (1 + np.linalg.norm(vector(Hu)))


@law
@given(spaces.spaces(), st.integers(1, 3), st.integers(1, 2), seeds)
def test_gauss_newton_is_its_formula(source, batch, width, seed):
    problem = SmoothFunction(source, spaces.Leaf("float64", (batch, width)), seed)
    x, u, _ = points(problem)
    targets = np.random.default_rng(seed).normal(size=(batch, width))
    G = keras_fwd.gauss_newton(problem, "mse", x, targets, wrt="inputs")
    J = problem.jacobian(x)
    check_like(G(u), source, tangents=True)
    close(vector(G(u)), 2 / (batch * width) * J.T @ (J @ vector(u)), 8 * limit(problem))


@law
@given(problems, st.integers(0, 3), modes)
def test_directional_derivatives_are_those_of_the_line(problem, order, mode):
    x, u, _ = points(problem)
    found = mode(lambda x: keras_fwd.directional_derivatives(problem, x, u, order))(x)
    assert len(found) == order + 1
    check_like(found[0], problem.target)
    for k, (one, expected) in enumerate(zip(found, problem.along(x, u), strict=False)):
        check_like(one, problem.target, tangents=k > 0)
        close(vector(one), expected, 10 ** (k + 1) * limit(problem))


@law
@given(
    st.lists(st.integers(1, 3), min_size=1, max_size=3),
    st.lists(st.integers(0, 2), max_size=2),
    st.sampled_from(spaces.FLOATS),
    st.sampled_from([None, 1, 2, 5]),
    seeds,
)
def test_laplacian_sums_over_all_components(widths, leading, dtype, chunk, seed):
    random = np.random.default_rng(seed)
    ws = [random.normal(size=d) for d in widths]
    x = {str(i): random.normal(size=(*leading, d)) for i, d in enumerate(widths)}
    primals = {name: tf.constant(value, dtype) for name, value in x.items()} | {"n": 2}

    def fn(x):
        parts = [tf.reduce_sum(x[str(i)] * tf.constant(w, dtype), -1) for i, w in enumerate(ws)]
        return tf.sin(tf.add_n(parts)), x["n"]

    found, none = keras_fwd.laplacian(fn, primals, chunk)
    z = sum(np.asarray(primals[str(i)], float) @ w for i, w in enumerate(ws))
    assert none is None and found.dtype.name == dtype and found.shape == tuple(leading)
    expected = -np.sin(z) * sum(w @ w for w in ws)
    close(np.asarray(found, float).ravel(), np.ravel(expected), 30 * spaces.ROUNDING[dtype])


# --- the algebra of linear maps -------------------------------------------------------------------


@law
@given(*[spaces.spaces(WIDE)] * 3, seeds)
def test_linear_maps_are_matrices(a, b, c, seed):
    f, g, h = SmoothFunction(a, b, seed), SmoothFunction(a, b, seed + 9), SmoothFunction(b, c, seed)
    x, u, w = points(f)
    z = sample(c, np.random.default_rng(seed), tangents=True)
    (y, F_), (_, G) = keras_fwd.linearize(f, x), keras_fwd.linearize(g, x)
    H = keras_fwd.linearize(h, y)[1]
    f, g, h = f.jacobian(x), g.jacobian(x), h.jacobian(y)
    close(vector((H @ F_)(u)), h @ f @ vector(u), 1e-10)
    close(vector((H @ F_).T(z)), vector((F_.T @ H.T)(z)), 1e-12)
    close(vector((F_ + 2.0 * G)(u)), (f + 2 * g) @ vector(u), 1e-10)
    close(vector((F_ - G).T(w)), (f - g).T @ vector(w), 1e-10)
    close(vector((-(F_ * 0.5)).T(w)), -0.5 * f.T @ vector(w), 1e-10)
    assert (H @ F_).shape == (h @ f).shape
    keras_fwd.testing.check_linear_map(H @ F_ + H @ G)
    if 0 not in f.shape:
        close(np.asarray(F_.to_dense()), f, 1e-10)
        close(F_.to_scipy().rmatvec(vector(w)), f.T @ vector(w), 1e-10)
