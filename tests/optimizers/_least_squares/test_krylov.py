"""The Krylov space of conjugate gradients over several replicas, here of one, against NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from keras_fwd._linear_algebra.conjugate_gradients import cg
from keras_fwd._linear_algebra.solution import Status
from keras_fwd._spaces.linear_map import LinearMap
from keras_fwd.optimizers._least_squares.replicated_cg import KrylovSystem

pytestmark = pytest.mark.usefixtures("float64")

N = 8


def symmetric(eigenvalues):
    random = np.random.default_rng(0)
    Q, _ = np.linalg.qr(random.normal(size=(N, N)))
    return Q * eigenvalues @ Q.T, random.normal(size=N)


def system(A, b, damping=0.0, tolerance=1e-3, most=N):
    def product(v):
        return tf.linalg.matvec(tf.constant(A), v)

    spec = tf.TensorSpec([N], tf.float64)
    C = LinearMap(product, product, spec, spec)
    return C, KrylovSystem(C, tf.constant(b), tf.constant(damping), tolerance, most)


@pytest.mark.parametrize("damping", [0.0, 1e-3, 1.0, 1e6])
def test_it_solves_with_every_damping_to_rounding(damping):
    A, b = symmetric(np.logspace(-6, 0, N))
    _, space = system(A, b, tolerance=0.0)
    solution = space.solve(tf.constant(damping, tf.float64))
    expected = np.linalg.solve(A + damping * np.eye(N), b)
    np.testing.assert_allclose(solution.value, expected, rtol=1e-8)


@pytest.mark.parametrize("most", [1, 3, N])
@pytest.mark.parametrize("damping", [0.1, 1.0])
def test_iterates_and_their_number_are_those_of_conjugate_gradients(most, damping):
    A, b = symmetric(np.linspace(0.1, 1, N))
    C, space = system(A, b, damping=0.1, tolerance=1e-2, most=most)
    found = space.solve(tf.constant(damping, tf.float64))
    damped = LinearMap(
        lambda v: C(v) + damping * v, lambda v: C(v) + damping * v, C.in_spec, C.in_spec
    )
    expected = cg(damped, tf.constant(b), 1e-2, most)
    np.testing.assert_allclose(found.value, expected.value, rtol=1e-10)
    assert found.status.numpy() == expected.status.numpy()
    assert found.iterations.numpy() == expected.iterations.numpy()
    assert float(found.residual_norm) == pytest.approx(float(expected.residual_norm), rel=1e-8)


def test_an_invariant_space_ends_it():
    A, b = symmetric(np.repeat([1.0, 2.0], N // 2))
    _, space = system(A, b, tolerance=1e-14)
    solution = space.solve(tf.constant(0.0, tf.float64))
    assert solution.iterations.numpy() == 2 and solution.status.numpy() == Status.CONVERGED
    np.testing.assert_allclose(solution.value, np.linalg.solve(A, b), rtol=1e-12)


def test_negative_curvature_ends_it_with_a_direction_of_descent():
    A, b = symmetric(np.linspace(-1.0, -0.1, N))
    _, space = system(A, b)
    solution = space.solve(tf.constant(0.0, tf.float64))
    assert solution.status.numpy() == Status.NEGATIVE_CURVATURE
    np.testing.assert_allclose(solution.value, b, rtol=1e-12)


@pytest.mark.parametrize(
    ("value", "status"), [(0.0, Status.CONVERGED), (np.nan, Status.NOT_FINITE)]
)
def test_a_gradient_without_a_direction_is_reported(value, status):
    A, _ = symmetric(np.ones(N))
    _, space = system(A, np.full(N, value))
    solution = space.solve(tf.constant(1.0, tf.float64))
    assert solution.status.numpy() == status and solution.iterations.numpy() == 0
    assert value or not np.any(solution.value)


def test_a_curvature_that_is_not_finite_is_reported():
    _, b = symmetric(np.ones(N))
    _, space = system(np.full([N, N], np.inf), b)
    assert space.solve(tf.constant(1.0, tf.float64)).status.numpy() == Status.NOT_FINITE
