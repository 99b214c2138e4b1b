"""The mathematics of Kronecker factors, against dense matrices."""

import numpy as np
import pytest
import tensorflow as tf

from keras_fwd._curvature.blocks import kronecker


def factor(groups, size, rank, seed):
    rows = np.random.default_rng(seed).normal(size=(groups, rank, size))
    return rows.transpose(0, 2, 1) @ rows


def dense(left, right):
    left = np.diag(left) if left.ndim == 1 else left
    right = np.diag(right) if right.ndim == 1 else right
    return np.kron(left, right)


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("diagonal", [False, True])
def test_second_moment(groups, diagonal):
    rows = np.random.default_rng(0).normal(size=(7, groups, 4))
    expected = np.einsum("rgi,rgj->gij", rows, rows)
    if diagonal:
        expected = np.einsum("gii->gi", expected)
    found = kronecker.second_moment(tf.constant(rows), diagonal)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("rank", [2, 9])
def test_inverse_times_damped_factor_is_the_identity(rank):
    F, damping = factor(3, 5, rank, 0), np.array([1e-3, 1.0, 30.0])
    inverse = kronecker.damped_inverse(tf.constant(F), tf.constant(damping)).numpy()
    product = inverse @ (F + damping[:, None, None] * np.eye(5))
    np.testing.assert_allclose(product, np.broadcast_to(np.eye(5), (3, 5, 5)), atol=1e-10)


@pytest.mark.parametrize("left_diagonal", [False, True])
@pytest.mark.parametrize("right_diagonal", [False, True])
def test_eigen_form_is_the_inverse_of_the_damped_product(left_diagonal, right_diagonal):
    left, right = factor(2, 4, 2, 1), factor(2, 3, 5, 2)
    left = np.einsum("gii->gi", left) if left_diagonal else left
    right = np.einsum("gii->gi", right) if right_diagonal else right
    x = np.random.default_rng(3).normal(size=(2, 4, 3))
    eigens = [kronecker.eigen(tf.constant(f)) for f in (left, right)]
    found = kronecker.solve_eigen(eigens[0], tf.constant(x), eigens[1], 0.1).numpy()
    for group in range(2):
        matrix = dense(left[group], right[group]) + 0.1 * np.eye(12)
        expected = np.linalg.solve(matrix, x[group].ravel()).reshape(4, 3)
        np.testing.assert_allclose(found[group], expected, rtol=1e-10, atol=1e-12)


def test_split_damping_keeps_the_product_and_balances():
    left, right = factor(1, 4, 6, 0), factor(1, 3, 6, 1)
    first, second = kronecker.split_damping(tf.constant(left), tf.constant(right), 0.25)
    np.testing.assert_allclose(first * second, [0.25], rtol=1e-12)
    ratio = (np.trace(left[0]) / 4) / (np.trace(right[0]) / 3)
    np.testing.assert_allclose(first / second, [ratio], rtol=1e-12)
    zero = tf.zeros_like(tf.constant(left))
    for pair in ((zero, tf.constant(right)), (tf.constant(right), zero)):
        np.testing.assert_allclose(kronecker.split_damping(*pair, 0.25), [[0.5], [0.5]])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rank", [0, 1])
def test_singular_factors_have_finite_inverses(rank, dtype):
    F = tf.constant(factor(1, 50, rank, 0), dtype)
    inverse = kronecker.damped_inverse(F, tf.zeros([1], dtype))
    assert np.isfinite(inverse).all()
    x = kronecker.solve_eigen(
        kronecker.eigen(F), tf.ones([1, 50, 50], dtype), kronecker.eigen(F), 0
    )
    assert np.isfinite(x).all()


def test_a_sandwich_is_the_dense_product():
    left, right = factor(2, 3, 4, 0), factor(2, 2, 4, 1)
    x = np.random.default_rng(2).normal(size=(2, 3, 2))
    found = kronecker.sandwich(*map(tf.constant, (left, x, right)))
    for group in range(2):
        expected = np.kron(left[group], right[group]) @ x[group].ravel()
        np.testing.assert_allclose(found[group], expected.reshape(3, 2), rtol=1e-12)
