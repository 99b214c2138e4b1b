"""Laws of all transforms, for nests, shapes and dtypes that hypothesis draws."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, note
from hypothesis import strategies as st

import keras_fwd
from faults import random_spaces as spaces
from faults.laws import (
    graph,
    law,
    limit,
    modes,
    nothing_known,
    points,
    problems,
    seeds,
    wide_problems,
)
from faults.random_spaces import SmoothFunction, check_like, close, flat, sample, vector
from keras_fwd import LeakError, StructureError

pytestmark = pytest.mark.slow

# --- derivatives of first order -------------------------------------------------------------------


def check_products(problem, pushed, pulled, J, roundings):
    """Of a problem's own tangents and cotangents, with the matrix that they should come from."""
    _, u, w = points(problem)
    check_like(pushed, problem.target, tangents=True)
    check_like(pulled, problem.source, tangents=True)
    close(vector(pushed), J @ vector(u), roundings * limit(problem))
    close(vector(pulled), J.T @ vector(w), roundings * limit(problem))


@law
@given(problems, modes)
def test_jvp_and_vjp_are_the_jacobian_and_its_transpose(problem, mode):
    x, u, w = points(problem)
    run = mode(
        lambda x: (keras_fwd.jvp(problem, x, u), keras_fwd.vjp(problem, x, w)),
    )
    (y, pushed), (again, pulled) = run(x)
    for outputs in (y, again):
        check_like(outputs, problem.target)
    close(vector(y), problem.values(x), limit(problem))
    check_products(problem, pushed, pulled, problem.jacobian(x), roundings=4)


@law
@given(problems)
def test_linearize_is_linear_and_has_its_adjoint(problem):
    x, u, w = points(problem)
    outputs, J = keras_fwd.linearize(problem, x)
    check_like(outputs, problem.target)
    v = sample(problem.source, np.random.default_rng(problem.seed + 2), tangents=True)
    mixed = tf.nest.map_structure(lambda a, b: None if a is None else 3 * a - 2 * b, u, v)
    close(vector(J(mixed)), 3 * vector(J(u)) - 2 * vector(J(v)), 20 * limit(problem))
    gap = vector(J(u)) @ vector(w) - vector(u) @ vector(J.T(w))
    assert abs(gap) <= 20 * limit(problem) * (1 + np.linalg.norm(vector(J(u))))
    check_like(J(u), problem.target, tangents=True)
    check_like(J.T(w), problem.source, tangents=True)
    assert J.shape == problem.W.shape


@law
@given(problems, st.sampled_from(["forward", "reverse", "auto"]), st.sampled_from([None, 1, 2]))
def test_jacobian_is_its_columns_and_its_rows(problem, mode, chunk):
    x, _, _ = points(problem)
    blocks = keras_fwd.jacobian(problem, x, mode=mode, chunk_size=chunk)
    dense = np.zeros(problem.W.shape)
    row = 0
    for out, inner in spaces.block_rows(problem.target, blocks):
        column = 0
        tf.nest.assert_same_structure(problem.source, inner)
        for leaf, block in zip(flat(problem.source), tf.nest.flatten(inner), strict=True):
            if not (out.live and leaf.live):
                assert block is None
                continue
            assert block.shape == (*out.shape, *leaf.shape) and block.dtype.name == out.dtype
            values = tf.reshape(tf.cast(block, tf.float64), [out.size, leaf.size])
            dense[row : row + out.size, column : column + leaf.size] = values
            column += leaf.size
        row += out.size if out.live else 0
    close(dense, problem.jacobian(x), 4 * limit(problem))
    if not nothing_known(problem):
        stacked = keras_fwd.linearize(problem, x)[1].to_dense(chunk)
        close(stacked, dense, 4 * limit(problem))


@law
@given(wide_problems)
def test_a_central_difference_agrees_in_double_precision(problem):
    x, u, _ = points(problem)
    _, pushed = keras_fwd.jvp(problem, x, u)
    h = 1e-5

    def moved(step):
        return vector(problem(tf.nest.map_structure(lambda a, b: a + step * b, x, u)))

    plus, minus = moved(h), moved(-h)
    close(vector(pushed), (plus - minus) / (2 * h), 1e-8)


@law
@given(seeds, st.integers(1, 3), st.sampled_from(spaces.FLOATS), st.lists(st.integers(0, 4)))
def test_an_unknown_batch_is_any_batch(seed, width, dtype, batches):
    W = tf.constant(np.random.default_rng(seed).normal(size=(width, 2)), dtype)

    def fn(x):
        return {"y": tf.tanh(x @ W), "n": tf.shape(x)[0]}

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None, width], dtype)] * 2)
    def run(x, u):
        outputs, J = keras_fwd.linearize(fn, x)
        return outputs, J(u)["y"], keras_fwd.jvp(fn, x, u)[1]["y"], J.T({"y": u @ W, "n": None})

    for batch in [0, *batches[:2]]:
        x, u = np.random.default_rng(seed).normal(size=(2, batch, width))
        outputs, pushed, again, pulled = run(tf.constant(x, dtype), tf.constant(u, dtype))
        y = np.tanh(x @ np.asarray(W, float))
        expected = (1 - y**2) * (u @ np.asarray(W, float))
        assert outputs["n"] == batch and pulled.shape == (batch, width)
        close(vector(pushed), expected.ravel(), 8 * spaces.ROUNDING[dtype])
        close(vector(again), expected.ravel(), 8 * spaces.ROUNDING[dtype])


@law
@given(seeds, st.sampled_from([("float32", 2e-6), ("float64", 1e-12)]))
def test_complex_numbers_inside_are_exact_and_outside_refused(seed, precision):
    dtype, rounding = precision
    x, u = np.random.default_rng(seed).normal(size=(2, 4)).astype(dtype)

    def fn(x):
        z = tf.exp(tf.complex(tf.zeros_like(x), x))
        return tf.math.real(z * z), tf.math.imag(tf.signal.ifft(tf.signal.fft(z)))

    _, (real, imaginary) = keras_fwd.jvp(fn, x, u)
    close(real, -2 * np.sin(2 * x) * u, 8 * rounding)
    close(imaginary, np.cos(x) * u, 8 * rounding)
    with pytest.raises(StructureError, match="`primals` must be real"):
        keras_fwd.jvp(tf.math.real, tf.complex(x, u), tf.complex(x, u))


@law
@given(problems)
def test_forward_gradients_of_symbolic_tensors(problem):
    x, u, _ = points(problem)
    sources = [value for value in tf.nest.flatten(x) if spaces.is_live(value)]
    tangents = [value for value in tf.nest.flatten(u) if value is not None]

    @graph
    def run(sources, tangents):
        here = iter(sources)
        primals = tf.nest.map_structure(lambda v: next(here) if spaces.is_live(v) else v, x)
        ys = [y for y in tf.nest.flatten(problem(primals)) if spaces.is_live(y)]
        return keras_fwd.fwd_gradients(ys, sources, tangents)

    pushed = run(sources, tangents)
    assert [p.dtype.name for p in pushed] == [leaf.dtype for leaf in spaces.live(problem.target)]
    close(vector(pushed), problem.jacobian(x) @ vector(u), 4 * limit(problem))


@law
@given(problems)
def test_jvp_from_vjp_is_the_same(problem):
    x, u, w = points(problem)
    fn = keras_fwd.jvp_from_vjp(lambda x: problem(x))
    _, pushed = keras_fwd.jvp(fn, x, u)
    _, pulled = keras_fwd.vjp(fn, x, w)
    check_products(problem, pushed, pulled, problem.jacobian(x), roundings=8)


@law
@given(problems)
def test_a_rule_of_ones_own_is_what_comes_out(problem):
    """The rule is twice the derivative, so that it is seen which of them is used."""
    x, u, w = points(problem)
    fn = keras_fwd.custom_jvp(lambda x: problem(x))

    @fn.defjvp
    def rule(x, dx):
        y, dy = keras_fwd.jvp(problem, x, dx)
        return y, tf.nest.map_structure(lambda t: None if t is None else 2 * t, dy)

    _, pushed = keras_fwd.jvp(fn, x, u)
    _, pulled = keras_fwd.vjp(fn, x, w)
    check_products(problem, pushed, pulled, 2 * problem.jacobian(x), roundings=8)


# --- what does not fit ----------------------------------------------------------------------------


def broken(values, random):
    """A vector that does not lie in its space, in one of several ways, or None if there is none."""
    parts = tf.nest.flatten(values)
    index = int(random.integers(len(parts)))
    ways = ["inside a list", "shape", "dtype", "missing"]
    way = ways[random.integers(len(ways))]
    leaf = parts[index]
    if way == "inside a list":
        return way, [values]
    if leaf is None:
        parts[index] = tf.constant(1.0)
    elif way == "shape":
        parts[index] = tf.zeros([*leaf.shape, 2], leaf.dtype)
    elif way == "dtype":
        parts[index] = tf.cast(leaf, tf.float32 if leaf.dtype == tf.float64 else tf.float64)
    else:
        parts[index] = None
    return way, tf.nest.pack_sequence_as(values, parts)


@law
@given(problems, seeds)
def test_what_does_not_fit_is_refused_with_its_name(problem, seed):
    x, u, w = points(problem)
    random = np.random.default_rng(seed)
    (way, bad), (other, bad_w) = broken(u, random), broken(w, random)
    note(f"{way}, {other}")
    with pytest.raises(StructureError, match="jvp: `tangents"):
        keras_fwd.jvp(problem, x, bad)
    with pytest.raises(StructureError, match="vjp: `cotangents"):
        keras_fwd.vjp(problem, x, bad_w)
    with pytest.raises(StructureError, match="directional_derivatives: `direction"):
        keras_fwd.directional_derivatives(problem, x, bad, 1)
    _, J = keras_fwd.linearize(problem, x)
    for A, vector_ in ((J, bad), (J.T, bad_w)):
        with pytest.raises(StructureError, match="LinearMap: `vector"):
            A(vector_)


@law
@given(problems, seeds)
def test_primals_that_are_no_tensors_are_refused_with_their_name(problem, seed):
    x, u, _ = points(problem)
    parts = tf.nest.flatten(x)
    random = np.random.default_rng(seed)
    odd = [None, object(), tf.ragged.constant([[1.0], []])][random.integers(3)]
    parts[random.integers(len(parts))] = odd
    if isinstance(odd, tf.RaggedTensor) and not isinstance(x, (list, dict, tuple)):
        parts = [None]
    bad = tf.nest.pack_sequence_as(x, parts)
    for call in (
        lambda: keras_fwd.jvp(problem, bad, u),
        lambda: keras_fwd.linearize(problem, bad),
        lambda: keras_fwd.jacobian(problem, bad),
        lambda: keras_fwd.directional_derivatives(problem, bad, u, 1),
    ):
        with pytest.raises(StructureError, match="`primals"):
            call()


# --- the laws themselves --------------------------------------------------------------------------


@tf.custom_gradient
def off(y):
    return y, lambda dy: 1.0005 * dy


def test_a_planted_wrong_rule_breaks_the_laws():
    class Wrong(SmoothFunction):
        def __call__(self, primals):
            return tf.nest.map_structure(off, super().__call__(primals))

    leaf = spaces.Leaf("float64", (2,))
    problem = Wrong([leaf], (leaf,), 0)
    with pytest.raises(AssertionError):
        test_a_central_difference_agrees_in_double_precision.hypothesis.inner_test(problem)
    with pytest.raises(AssertionError):
        test_jvp_and_vjp_are_the_jacobian_and_its_transpose.hypothesis.inner_test(
            problem, lambda f: f
        )


def test_a_planted_leak_is_no_zero():
    x = tf.constant([0.5])
    with pytest.raises(LeakError):
        keras_fwd.jvp(lambda x: tf.numpy_function(np.sin, [x], x.dtype), x, x)
