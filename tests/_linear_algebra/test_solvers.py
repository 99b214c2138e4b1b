"""The solvers against numpy.linalg, on systems that are ill-conditioned, singular or broken."""

import numpy as np
import pytest
import tensorflow as tf

from keras_fwd._linear_algebra import conjugate_gradients, least_squares
from keras_fwd._linear_algebra.solution import Status
from keras_fwd._spaces.linear_map import LinearMap, identity

MODES = {
    "eager": lambda function: function,
    "graph": tf.function,
    "xla": lambda function: tf.function(function, jit_compile=True),
}


def dense_map(matrix):
    matrix = tf.constant(matrix)
    rows, columns = (tf.TensorSpec([n], matrix.dtype) for n in matrix.shape)
    return LinearMap(
        lambda x: tf.linalg.matvec(matrix, x),
        lambda y: tf.linalg.matvec(matrix, y, transpose_a=True),
        columns,
        rows,
    )


class System:
    """`(AᵀA + diag(h) + λ I) x = Aᵀ b + r`, in NumPy."""

    def __init__(self, A, b, h=0.0, r=0.0):
        self.A, self.b = np.asarray(A, "float64"), np.asarray(b, "float64")
        n = self.A.shape[1]
        self.h, self.r = np.broadcast_to(h, n).copy(), np.broadcast_to(r, n).copy()

    @property
    def matrix(self):
        return self.A.T @ self.A + np.diag(self.h)

    @property
    def gradient(self):
        return self.A.T @ self.b + self.r

    def solution(self, damping):
        """Of least norm where the matrix is singular."""
        if damping == 0 and not self.r.any() and not self.h.any():
            return np.linalg.pinv(self.A) @ self.b
        return np.linalg.solve(self.matrix + damping * np.eye(len(self.h)), self.gradient)


def direct(method):
    def make(system, dtype):
        parts = (system.A, system.b, system.h, system.r)
        return method(*(tf.constant(part, dtype) for part in parts))

    return make


def normal_equations(system, dtype):
    matrix, gradient = tf.constant(system.matrix, dtype), tf.constant(system.gradient, dtype)
    return least_squares.normal_equations(matrix, gradient)


def conjugate_gradient(system, dtype):
    matrix = dense_map(system.matrix.astype(dtype))
    return conjugate_gradients.ConjugateGradient(
        matrix, tf.constant(system.gradient, dtype), 1e-13, 200
    )


def range_space(system, dtype):
    J = dense_map(system.A.astype(dtype))
    cotangent = tf.constant(system.b, dtype)
    return conjugate_gradients.RangeSpaceConjugateGradient(
        J, identity(J.out_spec), cotangent, 1e-13, 200
    )


SOLVERS = {
    "dense": direct(least_squares.dense_least_squares),
    "dual": direct(least_squares.DualLeastSquares),
    "normal": normal_equations,
    "cg": conjugate_gradient,
    "range_space": range_space,
}


def solve(name, system, damping, dtype="float64", mode="eager"):
    def run(damping):
        return SOLVERS[name](system, dtype).solve(damping)

    return MODES[mode](run)(tf.constant(damping, "float32"))


def random_system(m, n, seed=0, h=False, r=False):
    rng = np.random.default_rng(seed)
    h = rng.uniform(0.1, 1.0, n) if h else 0.0
    return System(rng.normal(size=(m, n)), rng.normal(size=m), h, rng.normal(size=n) if r else 0.0)


REGULAR = {
    "tall": (random_system(9, 4), 0.5),
    "tall, undamped": (random_system(9, 4), 0.0),
    "square": (random_system(5, 5), 0.25),
    "wide": (random_system(4, 9), 0.5),
    "wide, undamped": (random_system(4, 9), 0.0),
    "one row": (random_system(1, 6), 1.0),
    "one weight": (random_system(6, 1), 1.0),
    "with a diagonal": (random_system(6, 5, h=True), 0.5),
    "with a diagonal, undamped": (random_system(6, 5, h=True), 0.0),
    "with a rest": (random_system(6, 5, r=True), 0.5),
    "wide, with both": (random_system(3, 8, h=True, r=True), 0.5),
    "strong damping": (random_system(6, 5, h=True, r=True), 4096.0),
    "nothing but damping": (System(np.zeros((3, 4)), np.zeros(3), r=1.0), 2.0),
}


def pairs():
    """Every solver with every system, but range_space: its systems come from the outputs alone."""
    for case, (system, _) in REGULAR.items():
        for solver in SOLVERS:
            if solver != "range_space" or not (system.h.any() or system.r.any()):
                yield pytest.param(case, solver, id=f"{solver}, {case}")


@pytest.mark.parametrize(("case", "solver"), list(pairs()))
def test_solver_agrees_with_numpy(case, solver):
    system, damping = REGULAR[case]
    solution = solve(solver, system, damping)
    np.testing.assert_allclose(solution.value, system.solution(damping), rtol=1e-9, atol=1e-11)
    assert Status(int(solution.status)) is Status.CONVERGED


@pytest.mark.parametrize("mode", ["graph", pytest.param("xla", marks=pytest.mark.slow)])
@pytest.mark.parametrize("solver", SOLVERS)
def test_solver_gives_the_same_in_graphs(solver, mode):
    system = random_system(7, 4)
    solution = solve(solver, system, 0.5, mode=mode)
    rtol = 1e-7 if mode == "xla" else 1e-9  # XLA iterates for eigenvalues, and stops early
    np.testing.assert_allclose(solution.value, system.solution(0.5), rtol=rtol)
    assert int(solution.status) == Status.CONVERGED


@pytest.mark.parametrize("solver", SOLVERS)
def test_solver_keeps_float32(solver):
    system = random_system(7, 4)
    value = solve(solver, system, 0.5, dtype="float32").value
    assert value.dtype == tf.float32
    np.testing.assert_allclose(value, system.solution(0.5), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_system_is_solved_again_for_another_damping(solver):
    system = random_system(7, 4)
    made = SOLVERS[solver](system, "float64")
    for damping in (1.0, 0.125, 8.0):
        np.testing.assert_allclose(
            made.solve(damping).value, system.solution(damping), rtol=1e-9, err_msg=str(damping)
        )


# Singular: least squares solutions form a plane; the one of least norm is asked for.
A3 = np.random.default_rng(1).normal(size=(8, 3))
SINGULAR = {
    "a column twice, first": System(A3[:, [0, 0, 1, 2]], A3 @ [1.0, 2.0, 3.0] + 0.1),
    "a column twice, last": System(A3[:, [0, 1, 2, 2]], A3 @ [1.0, 2.0, 3.0] + 0.1),
    "a zero column, first": System(np.c_[np.zeros(8), A3], np.arange(8.0)),
    "a zero column, between": System(np.c_[A3[:, :1], np.zeros(8), A3[:, 1:]], np.arange(8.0)),
    "rank one": System(np.outer(np.arange(1.0, 7.0), [1.0, 2.0, 3.0]), np.arange(6.0)),
    "nothing at all": System(np.zeros((4, 3)), np.ones(4)),
}


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("case", SINGULAR)
@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_undamped_singular_system_has_the_solution_of_least_norm(solver, case, mode):
    system = SINGULAR[case]
    value = solve(solver, system, 0.0, mode=mode).value
    np.testing.assert_allclose(value, system.solution(0.0), rtol=1e-6, atol=1e-7)


def test_singular_system_with_a_rest_in_its_range_is_solved():
    rows = SINGULAR["a zero column, first"].A
    rest = rows.T @ rows @ [0.0, 1.0, -1.0, 2.0]
    for solver in ("dense", "normal", "cg"):
        value = solve(solver, System(rows, np.zeros(8), r=rest), 0.0).value
        np.testing.assert_allclose(value, [0, 1, -1, 2], atol=1e-8, err_msg=solver)


def ill_conditioned(condition, m=12, n=5):
    rng = np.random.default_rng(3)
    U, V = np.linalg.qr(rng.normal(size=(m, n)))[0], np.linalg.qr(rng.normal(size=(n, n)))[0]
    A = U * np.geomspace(1.0, 1.0 / condition, n) @ V.T
    x = rng.normal(size=n)
    return System(A, A @ x), x


def test_dense_solver_does_not_square_the_condition():
    system, x = ill_conditioned(1e9)
    by_qr = solve("dense", system, 0.0).value
    by_normal = solve("normal", system, 0.0).value
    np.testing.assert_allclose(by_qr, x, rtol=1e-5)
    assert np.linalg.norm(by_normal - x) > 1e-2 * np.linalg.norm(x)


@pytest.mark.parametrize("solver", ["normal", "cg", "dual"])
def test_other_solvers_hold_a_condition_of_a_thousand(solver):
    system, x = ill_conditioned(1e3)
    np.testing.assert_allclose(solve(solver, system, 0.0).value, x, rtol=1e-6)


def test_normal_equations_set_negative_eigenvalues_to_zero():
    Q = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    gradient = np.array([1.0, 2.0, 3.0])
    system = least_squares.normal_equations(
        tf.constant(Q * [4.0, -2.0, 1.0] @ Q.T), tf.constant(gradient)
    )
    expected = Q / [4.5, 0.5, 1.5] @ Q.T @ gradient
    np.testing.assert_allclose(system.solve(0.5).value, expected, rtol=1e-12)
    assert gradient @ system.solve(0.5).value.numpy() > 0


# --- values that are not finite -----------------------------------------------------------------


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e200], ids=["nan", "inf", "overflow"])
@pytest.mark.parametrize("mode", ["eager", "graph", pytest.param("xla", marks=pytest.mark.slow)])
def test_values_that_are_not_finite_give_a_status_and_never_raise(solver, value, mode):
    A = np.random.default_rng(0).normal(size=(6, 4))
    A[1, 2] = value
    with np.errstate(all="ignore"):
        solution = solve(solver, System(A, np.ones(6)), 0.5, mode=mode)
    assert Status(int(solution.status)) is Status.NOT_FINITE


@pytest.mark.parametrize("solver", ["dense", "dual", "cg", "range_space"])
def test_a_right_hand_side_with_nan_gives_a_status(solver):
    system = random_system(6, 4)
    system.b[0] = np.nan
    assert Status(int(solve(solver, system, 0.5).status)) is Status.NOT_FINITE


def test_a_zero_column_beside_nan_gives_a_status():
    A = np.random.default_rng(0).normal(size=(6, 3))
    A[:, 0], A[2, 1] = 0.0, np.nan
    for mode in ("eager", "graph"):
        solution = solve("dense", System(A, np.ones(6)), 0.0, mode=mode)
        assert Status(int(solution.status)) is Status.NOT_FINITE


def test_every_status_says_what_to_do():
    for status in Status:
        assert len(status.message.split()) > 4, status
