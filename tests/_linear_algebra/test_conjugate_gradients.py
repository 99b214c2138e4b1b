"""Conjugate gradients: iterates, preconditioners, negative curvature."""

import numpy as np
import pytest
import tensorflow as tf
from test_solvers import MODES, dense_map, random_system

from keras_fwd._linear_algebra import conjugate_gradients
from keras_fwd._linear_algebra.solution import Status
from keras_fwd._spaces import given, nest
from keras_fwd._spaces.linear_map import diagonal, identity


def spd(n=6, seed=0):
    root = np.random.default_rng(seed).normal(size=(n, n))
    return root @ root.T + np.eye(n), np.random.default_rng(seed + 1).normal(size=n)


def test_cg_reports_its_true_residual():
    matrix, b = spd()
    for iterations in range(1, 5):
        solution = conjugate_gradients.cg(dense_map(matrix), tf.constant(b), 1e-12, iterations)
        true = np.linalg.norm(b - matrix @ solution.value.numpy()) / np.linalg.norm(b)
        np.testing.assert_allclose(solution.residual_norm, true, rtol=1e-8)
        assert Status(int(solution.status)) is Status.MAX_ITERATIONS
        assert int(solution.iterations) == iterations


def test_cg_stops_at_its_tolerance():
    matrix, b = spd()
    loose = conjugate_gradients.cg(dense_map(matrix), tf.constant(b), 0.5, 100)
    tight = conjugate_gradients.cg(dense_map(matrix), tf.constant(b), 1e-9, 100)
    assert loose.residual_norm <= 0.5 and tight.residual_norm <= 1e-9
    assert int(loose.iterations) < int(tight.iterations) <= 8


def test_cg_needs_one_iteration_for_each_distinct_eigenvalue():
    entries = tf.constant([1.0, 1.0, 4.0, 4.0, 4.0], tf.float64)
    solution = conjugate_gradients.cg(
        diagonal(entries), tf.constant([1.0, 2, 3, 4, 5], tf.float64), 1e-12
    )
    assert int(solution.iterations) == 2
    np.testing.assert_allclose(solution.value, [1, 2, 0.75, 1, 1.25], rtol=1e-12)


def test_cg_of_zero_is_zero_at_once():
    solution = conjugate_gradients.cg(diagonal(tf.constant([1.0, 2.0])), tf.zeros(2))
    assert int(solution.status) == Status.CONVERGED and int(solution.iterations) == 0
    np.testing.assert_array_equal(solution.value, [0, 0])


def test_cg_works_on_nests_of_mixed_precision():
    entries = {"a": tf.constant([1.0, 2.0]), "b": [tf.constant([[4.0]], tf.float64)]}
    b = {"a": tf.constant([1.0, 1.0]), "b": [tf.constant([[1.0]], tf.float64)]}
    value = conjugate_gradients.cg(diagonal(entries), b, 1e-6).value
    assert given.describe(value) == given.describe(b)
    np.testing.assert_allclose(nest.ravel(value), [1, 0.5, 0.25], rtol=1e-6)


def test_range_space_cg_has_the_iterates_of_cg():
    rng = np.random.default_rng(0)
    J, root, c = rng.normal(size=(5, 9)), rng.normal(size=(5, 5)), rng.normal(size=5)
    H = root @ root.T
    whole = dense_map(J.T @ H @ J + 0.5 * np.eye(9))
    for iterations in range(1, 6):
        limits = 1e-14, iterations
        one = conjugate_gradients.cg(whole, tf.constant(J.T @ c), *limits)
        other = conjugate_gradients.range_space_cg(
            dense_map(J), dense_map(H), tf.constant(c), 0.5, *limits
        )
        np.testing.assert_allclose(other.value, one.value, rtol=1e-8)
        np.testing.assert_allclose(other.residual_norm, one.residual_norm, rtol=1e-6, atol=1e-9)


def indefinite(name, entries, b, damping=0.0):
    entries, b = tf.constant(entries, tf.float64), tf.constant(b, tf.float64)
    if name == "cg":
        damped = diagonal(entries) + damping * identity(nest.spec(entries))
        return conjugate_gradients.cg(damped, b, 1e-10)
    return conjugate_gradients.range_space_cg(
        identity(nest.spec(b)), diagonal(entries), b, damping, 1e-10
    )


@pytest.mark.parametrize("name", ["cg", "range_space"])
def test_negative_curvature_at_once_gives_the_right_hand_side(name):
    solution = indefinite(name, [1.0, -2.0], [1.0, 1.0])
    assert Status(int(solution.status)) is Status.NEGATIVE_CURVATURE
    np.testing.assert_allclose(solution.value, [1, 1])


@pytest.mark.parametrize("name", ["cg", "range_space"])
def test_negative_curvature_later_gives_the_iterate_so_far(name):
    # First direction b: curvature 8 - 1 = 7 > 0, so x1 = 5/7 b; the second one meets -1.
    solution = indefinite(name, [2.0, -1.0], [2.0, 1.0])
    assert Status(int(solution.status)) is Status.NEGATIVE_CURVATURE
    assert int(solution.iterations) == 2
    np.testing.assert_allclose(solution.value, np.array([2.0, 1.0]) * 5 / 7)


@pytest.mark.parametrize("name", ["cg", "range_space"])
def test_damping_cures_negative_curvature(name):
    solution = indefinite(name, [2.0, -1.0], [2.0, 1.0], damping=3.0)
    assert Status(int(solution.status)) is Status.CONVERGED
    np.testing.assert_allclose(solution.value, [2 / 5, 1 / 2], rtol=1e-9)


# --- a preconditioner ---------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["eager", "graph", pytest.param("xla", marks=pytest.mark.slow)])
@pytest.mark.parametrize("seed", range(4))
def test_a_preconditioner_leaves_the_solution_as_it_is(seed, mode):
    matrix, b = spd(seed=seed)
    M = dense_map(spd(seed=seed + 10)[0])
    function = MODES[mode](
        lambda: conjugate_gradients.cg(dense_map(matrix), tf.constant(b), 1e-12, 100, M)
    )
    solution = function()
    assert Status(int(solution.status)) is Status.CONVERGED
    np.testing.assert_allclose(solution.value, np.linalg.solve(matrix, b), rtol=1e-8)


def test_the_identity_as_preconditioner_gives_the_iterates_of_plain_cg():
    matrix, b = spd()
    A, b = dense_map(matrix), tf.constant(b)
    for iterations in range(1, 6):
        plain = conjugate_gradients.cg(A, b, 1e-14, iterations)
        other = conjugate_gradients.cg(A, b, 1e-14, iterations, identity(A.in_spec))
        np.testing.assert_array_equal(other.value, plain.value)


def test_the_exact_inverse_as_preconditioner_needs_one_iteration():
    matrix, b = spd()
    M = dense_map(np.linalg.inv(matrix))
    solution = conjugate_gradients.cg(dense_map(matrix), tf.constant(b), 1e-10, 100, M)
    assert int(solution.iterations) == 1
    np.testing.assert_allclose(solution.value, np.linalg.solve(matrix, b), rtol=1e-9)


def test_the_diagonal_as_preconditioner_undoes_bad_scaling():
    matrix, b = spd(30)
    scale = np.geomspace(1e-3, 1e3, 30)
    matrix = scale[:, None] * matrix * scale
    A, b = dense_map(matrix), tf.constant(b)
    M = diagonal(tf.constant(1 / np.diagonal(matrix)))
    plain, better = (
        conjugate_gradients.cg(A, b, 1e-8, 1000),
        conjugate_gradients.cg(A, b, 1e-8, 1000, M),
    )
    assert int(better.iterations) < 100 < int(plain.iterations)
    np.testing.assert_allclose(better.value, np.linalg.solve(matrix, b), rtol=1e-5)


def test_with_a_preconditioner_it_is_the_residual_that_is_reported_and_stops():
    matrix, b = spd()
    M = dense_map(1e6 * spd(seed=10)[0])  # its own norm of the residual is another one
    for tolerance in (0.5, 1e-3, 1e-9):
        solution = conjugate_gradients.cg(dense_map(matrix), tf.constant(b), tolerance, 100, M)
        true = np.linalg.norm(b - matrix @ solution.value.numpy()) / np.linalg.norm(b)
        np.testing.assert_allclose(solution.residual_norm, true, rtol=1e-5, atol=1e-13)
        assert true <= tolerance and Status(int(solution.status)) is Status.CONVERGED


def test_negative_curvature_with_a_preconditioner():
    entries, b = tf.constant([1.0, -2.0], tf.float64), tf.constant([1.0, 1.0], tf.float64)
    M = diagonal(tf.constant([1.0, 3.0], tf.float64))
    solution = conjugate_gradients.cg(diagonal(entries), b, 1e-10, 100, M)
    assert Status(int(solution.status)) is Status.NEGATIVE_CURVATURE
    np.testing.assert_allclose(solution.value, [1, 3])  # M b, downhill


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_preconditioner_that_is_not_finite_gives_a_status(value):
    matrix, b = spd()
    M = diagonal(tf.constant([1.0, 2, value, 3, 1, 1], tf.float64))
    solution = conjugate_gradients.cg(dense_map(matrix), tf.constant(b), 1e-10, 100, M)
    assert Status(int(solution.status)) is Status.NOT_FINITE


def test_a_system_makes_its_preconditioner_for_each_damping():
    system = random_system(7, 4)
    made = conjugate_gradients.ConjugateGradient(
        dense_map(system.matrix),
        tf.constant(system.gradient),
        1e-10,
        100,
        lambda damping: dense_map(np.linalg.inv(system.matrix + damping * np.eye(4))),
    )
    for damping in (1.0, 0.125):
        solution = made.solve(damping)
        assert int(solution.iterations) == 1
        np.testing.assert_allclose(solution.value, system.solution(damping), rtol=1e-9)
