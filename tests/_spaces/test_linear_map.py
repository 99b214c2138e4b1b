"""Laws of `LinearMap` on random maps, against the matrices that they stand for."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from support.cases import MODES, dot, flat, random, relative_error

from keras_fwd import LinearMap, StructureError, linearize
from keras_fwd._spaces import nest
from keras_fwd._spaces.linear_map import diagonal, identity

scipy_linalg = pytest.importorskip("scipy.sparse.linalg")

VECTOR = tf.TensorSpec([4], tf.float64)
PAIR = {"a": tf.TensorSpec([2], tf.float64), "b": [tf.TensorSpec([1, 2], tf.float64)]}
WITH_HOLE = (tf.TensorSpec([3], tf.float64), None, tf.TensorSpec([], tf.float64))


def random_map(out_spec, in_spec, seed=0):
    """`(A, matrix)` with the same random matrix behind both."""
    matrix = random([nest.size(out_spec), nest.size(in_spec)], seed)

    def mv(x):
        return nest.unravel(tf.linalg.matvec(matrix, nest.ravel(x)), out_spec)

    def transpose_mv(y):
        return nest.unravel(tf.linalg.matvec(matrix, nest.ravel(y), transpose_a=True), in_spec)

    return LinearMap(mv, transpose_mv, in_spec, out_spec), matrix.numpy()


def random_vector(spec, seed=0):
    return nest.map_live(lambda leaf: random(leaf.shape, seed + leaf.shape.rank, leaf.dtype), spec)


SPACES = [VECTOR, PAIR, WITH_HOLE]
IDS = ["vector", "pair", "with_hole"]
PAIRS = list(itertools.product(SPACES, SPACES))
in_and_out = pytest.mark.parametrize(
    ("out_spec", "in_spec"), PAIRS, ids=["-".join(pair) for pair in itertools.product(IDS, IDS)]
)


# --- laws -----------------------------------------------------------------------------------------


@in_and_out
def test_maps_are_linear(out_spec, in_spec):
    A, _ = random_map(out_spec, in_spec)
    x, y = random_vector(in_spec, 1), random_vector(in_spec, 2)
    left = A(nest.add_scaled(x, 3.0, y))
    assert relative_error(left, nest.add_scaled(A(x), 3.0, A(y))) < 1e-14


@in_and_out
def test_product_and_transpose_equal_the_matrix(out_spec, in_spec):
    A, matrix = random_map(out_spec, in_spec)
    x, y = random_vector(in_spec, 1), random_vector(out_spec, 2)
    assert relative_error(A(x), matrix @ flat(x)) < 1e-14
    assert relative_error(A @ x, A(x)) == 0
    assert relative_error(A.T(y), matrix.T @ flat(y)) < 1e-14
    assert relative_error(A.T.T(x), A(x)) == 0
    assert dot(A(x), y) == pytest.approx(dot(x, A.T(y)), rel=1e-13)
    assert A.shape == matrix.shape
    assert A.T.shape == matrix.shape[::-1]


@in_and_out
def test_structure_of_the_space_is_kept(out_spec, in_spec):
    A, _ = random_map(out_spec, in_spec)
    product = A(random_vector(in_spec))
    tf.nest.assert_same_structure(product, out_spec)
    assert [leaf is None for leaf in nest.flatten(product)] == [
        leaf is None for leaf in nest.flatten(out_spec)
    ]


@pytest.mark.parametrize("spec", SPACES, ids=IDS)
def test_transpose_of_a_product_is_the_product_of_transposes_in_reverse(spec):
    (A, a), (B, b) = random_map(spec, PAIR), random_map(PAIR, VECTOR, 1)
    assert relative_error((A @ B).to_dense(), a @ b) < 1e-14
    assert relative_error((A @ B).T.to_dense(), (a @ b).T) < 1e-14
    assert relative_error((B.T @ A.T).to_dense(), (A @ B).T.to_dense()) < 1e-14


ALGEBRA = [
    ("sum", lambda A, B: A + B, lambda a, b: a + b),
    ("difference", lambda A, B: A - B, lambda a, b: a - b),
    ("negative", lambda A, B: -A, lambda a, b: -a),
    ("scalar_left", lambda A, B: 2.0 * A, lambda a, b: 2 * a),
    ("scalar_right", lambda A, B: A * 2, lambda a, b: 2 * a),
    ("tensor_scalar", lambda A, B: A * tf.constant(2.0), lambda a, b: 2 * a),
    ("gram", lambda A, B: A.T @ B, lambda a, b: a.T @ b),
    ("damped", lambda A, B: A.T @ A + 0.1 * identity(PAIR), lambda a, b: a.T @ a + 0.1 * np.eye(4)),
]


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize(
    ("expression", "expected"), [pytest.param(*row[1:], id=row[0]) for row in ALGEBRA]
)
def test_algebra_equals_that_of_matrices(expression, expected, mode):
    (A, a), (B, b) = random_map(VECTOR, PAIR), random_map(VECTOR, PAIR, 1)

    def matrices():
        result = expression(A, B)
        return result.to_dense(), result.T.to_dense()

    matrix, transpose = MODES[mode](matrices)()
    assert relative_error(matrix, expected(a, b)) < 1e-14
    assert relative_error(transpose, expected(a, b).T) < 1e-14


def test_difference_with_itself_is_zero():
    A, _ = random_map(VECTOR, PAIR)
    assert not np.any((A - A).to_dense())


@pytest.mark.parametrize("spec", SPACES, ids=IDS)
def test_identity_returns_its_argument(spec):
    x = random_vector(spec)
    assert relative_error(identity(spec)(x), x) == 0
    assert (identity(spec).to_dense().numpy() == np.eye(4)).all()


def test_diagonal_multiplies_each_entry():
    entries = random_vector(PAIR, 1)
    D = diagonal(entries)
    assert relative_error(D.to_dense(), np.diag(flat(entries))) == 0
    assert relative_error(D.T.to_dense(), D.to_dense()) == 0


# --- dense and SciPy forms ------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("chunk_size", [None, 1, 2, 3, 100])
def test_to_dense_is_the_matrix_for_every_chunk_size(chunk_size, mode):
    three, five = tf.TensorSpec([3], tf.float64), tf.TensorSpec([5], tf.float64)
    A, matrix = random_map(three, five)
    dense, transpose = MODES[mode](lambda: (A.to_dense(chunk_size), A.T.to_dense(chunk_size)))()
    assert dense.shape == (3, 5)
    assert relative_error(dense, matrix) < 1e-14
    assert relative_error(transpose, matrix.T) < 1e-14


def test_to_dense_takes_a_map_between_dtypes():
    x = random([3], dtype="float32")
    _, J = linearize(lambda x: tf.cast(x, tf.float64) ** 2, x)
    for chunk_size in (None, 2):
        assert relative_error(J.to_dense(chunk_size), np.diag(2 * x.numpy())) < 1e-6
        assert relative_error(J.T.to_dense(chunk_size), np.diag(2 * x.numpy())) < 1e-6


def test_to_dense_takes_a_function_with_a_loop():
    x = random([3])

    @tf.function
    def matrices(x):
        _, J = linearize(lambda x: tf.map_fn(lambda a: a**2, x), x)
        return J.to_dense(), J.T.to_dense(chunk_size=2)

    for matrix in matrices(x):
        assert relative_error(matrix, np.diag(2 * x.numpy())) < 1e-15


def test_to_dense_needs_one_static_size():
    @tf.function(input_signature=[tf.TensorSpec([None], tf.float64)])
    def matrix(x):
        _, J = linearize(lambda x: x**2, x)
        return J.to_dense()

    with pytest.raises(StructureError, match=r"one side must have a static size.*float64\[None\]"):
        matrix(random([3]))


def test_one_static_size_is_enough():
    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float64)])
    def matrix(x):
        _, J = linearize(lambda x: tf.reduce_sum(x**2, axis=0), x)
        return J.to_dense()

    x = random([3, 2])
    expected = np.zeros((2, 3, 2))
    expected[0, :, 0], expected[1, :, 1] = 2 * x.numpy().T
    assert relative_error(matrix(x), expected.reshape(2, 6)) < 1e-15


@in_and_out
def test_scipy_operator_equals_the_matrix(out_spec, in_spec):
    A, matrix = random_map(out_spec, in_spec)
    operator = A.to_scipy()
    x, y = np.random.default_rng(1).normal(size=(2, 4))
    assert operator.shape == matrix.shape
    assert operator.dtype == np.float64
    assert relative_error(operator.matvec(x), matrix @ x) < 1e-14
    assert relative_error(operator.rmatvec(y), matrix.T @ y) < 1e-14
    assert relative_error(operator @ np.eye(4), matrix) < 1e-14


def test_scipy_lsqr_solves_with_a_jacobian():
    target, x = random([6], 1), random([4], 2)
    matrix = random([6, 4])
    _, J = linearize(lambda x: tf.sin(tf.linalg.matvec(matrix, x)), x)
    solution = scipy_linalg.lsqr(J.to_scipy(), target.numpy(), atol=1e-14, btol=1e-14)[0]
    expected = np.linalg.lstsq(J.to_dense().numpy(), target.numpy(), rcond=None)[0]
    assert relative_error(solution, expected) < 1e-10


# --- errors ---------------------------------------------------------------------------------------


def test_product_with_the_wrong_structure_shows_both():
    A, _ = random_map(VECTOR, PAIR)
    message = (
        r"LinearMap: `vector` must have the structure of the space it lies in: expected "
        r"\{'a': float64\[2\], 'b': \[float64\[1, 2\]\]\}. Received: float64\[4\]."
    )
    with pytest.raises(StructureError, match=message):
        A(random([4]))


def test_product_with_the_wrong_shape_names_the_leaf():
    A, _ = random_map(VECTOR, PAIR)
    message = r"`vector\['b'\]\[0\]` must have.*expected float64\[1, 2\]. Received: float64\[2\]."
    with pytest.raises(StructureError, match=message):
        A({"a": random([2]), "b": [random([2])]})


def test_product_with_the_wrong_dtype_names_the_leaf():
    A, _ = random_map(VECTOR, VECTOR)
    with pytest.raises(StructureError, match=r"expected float64\[4\]. Received: float32\[4\]"):
        A(random([4], dtype="float32"))


@pytest.mark.parametrize(
    ("symbol", "combine"),
    [("@", lambda A, B: A @ B), (r"\+", lambda A, B: A + B), (r"\+", lambda A, B: A - B)],
    ids=["product", "sum", "difference"],
)
def test_maps_that_do_not_meet_are_refused(symbol, combine):
    A, _ = random_map(VECTOR, PAIR)
    B, _ = random_map(WITH_HOLE, VECTOR)
    message = f"LinearMap: the two sides of `{symbol}` must meet in the same space"
    with pytest.raises(StructureError, match=message):
        combine(A, B)


@pytest.mark.parametrize("factor", [[1.0, 2.0], "map"])
def test_star_takes_scalars_only(factor):
    A, _ = random_map(VECTOR, VECTOR)
    with pytest.raises(StructureError, match=r"`\*` takes a scalar; use `@` for products of maps"):
        A * (A if factor == "map" else factor)


@pytest.mark.parametrize(
    "combine",
    [lambda A: A + 1.0, lambda A: A - 1.0, lambda A: 1.0 - A],
    ids=["plus", "minus", "from a number"],
)
def test_numbers_are_not_maps(combine):
    A, _ = random_map(VECTOR, VECTOR)
    with pytest.raises(TypeError, match="unsupported operand"):
        combine(A)


def test_repr_shows_both_spaces():
    A, _ = random_map(VECTOR, PAIR)
    assert repr(A) == "LinearMap({'a': float64[2], 'b': [float64[1, 2]]} -> float64[4])"
