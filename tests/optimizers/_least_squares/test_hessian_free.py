"""Warm start, stopping by progress, back-tracking and the diagonal preconditioner of `"cg"`."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.flat_options import gauss_newton

import keras_fwd
from keras_fwd._curvature import loss_hessian
from keras_fwd._linear_algebra import conjugate_gradients
from keras_fwd._linear_algebra.cg_loop import Iterates, Progress
from keras_fwd._linear_algebra.solution import Status
from keras_fwd._models import training_pass
from keras_fwd._spaces import nest
from keras_fwd._spaces.linear_map import LinearMap, diagonal, identity
from keras_fwd.optimizers._least_squares import preconditioners
from keras_fwd.optimizers._least_squares.preconditioners import DiagonalPreconditioner
from keras_fwd.optimizers._steps.expansion import expand

pytestmark = pytest.mark.usefixtures("float64")

L = keras.layers
MODES = {
    "eager": lambda function: function,
    "graph": tf.function,
    "xla": lambda function: tf.function(function, jit_compile=True),
}
in_every_mode = pytest.mark.parametrize(
    "mode", ["eager", "graph", pytest.param("xla", marks=pytest.mark.slow)]
)
ALL = {
    "progress_tolerance": 5e-4,
    "warm_start": True,
    "backtracking": True,
    "preconditioner": "diagonal",
}


# --- the solver ---


def spread(n, condition, seed=0):
    """A symmetric matrix with eigenvalues at even ratios, its map, and a right-hand side."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(n, n)))[0]
    matrix = basis * np.geomspace(1, condition, n) @ basis.T
    constant = tf.constant(matrix)
    spec = tf.TensorSpec([n], tf.float64)
    A = LinearMap(*[lambda x: tf.linalg.matvec(constant, x)] * 2, spec, spec)
    return matrix, A, rng.normal(size=n)


def numpy_cg(A, b, count):
    """The iterates, from zero, and the quadratic at each."""
    x, r = np.zeros_like(b), b.copy()
    p, iterates = r.copy(), [x]
    for _ in range(count):
        alpha = r @ r / (p @ A @ p)
        x, new = x + alpha * p, r - alpha * A @ p
        p, r = new + (new @ new) / (r @ r) * p, new
        iterates.append(x)
    return iterates, [x @ A @ x / 2 - b @ x for x in iterates]


def stop_by_progress(phi, tolerance):
    for i in range(1, len(phi)):
        k = max(10, math.ceil(i / 10))
        if i > k and phi[i] < 0 and (phi[i] - phi[i - k]) / phi[i] < k * tolerance:
            return i
    return None


@in_every_mode
@pytest.mark.parametrize(("condition", "tolerance"), [(1e2, 5e-4), (1e3, 5e-3)])
def test_progress_ends_it_where_martens_rule_does(condition, tolerance, mode):
    matrix, A, b = spread(300, condition)
    iterates, phi = numpy_cg(matrix, b, 250)
    expected = stop_by_progress(phi, tolerance)
    assert expected is not None and expected > 10

    def run(b):
        return conjugate_gradients.cg(A, b, 0.0, 250, progress_tolerance=tolerance)

    found = MODES[mode](run)(tf.constant(b))
    assert int(found.iterations) == expected
    assert Status(int(found.status)) is Status.LITTLE_PROGRESS
    np.testing.assert_allclose(found.value, iterates[expected], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("tolerance", [1e-3, 3e-4, 1e-5])
def test_the_span_of_the_rule_grows_with_the_iterations(tolerance):
    phi = -10 + 10 / (1 + np.arange(1000) / 20)  # slower and slower
    rule = Progress(tolerance, len(phi) - 1)
    past, found = rule.start(tf.constant(phi[0])), None
    for i in range(1, len(phi)):
        past, stop = rule.after(tf.constant(i), tf.constant(phi[i - 1] - phi[i]), past)
        if stop:
            found = i
            break
    assert found == stop_by_progress(phi, tolerance)
    assert (found is None) == (tolerance < 1e-4) and (found is None or found > 100)


def test_a_residual_within_its_tolerance_comes_first():
    _, A, b = spread(20, 4.0)
    found = conjugate_gradients.cg(A, tf.constant(b), 1e-2, progress_tolerance=5e-4)
    assert int(found.status) == Status.CONVERGED and int(found.iterations) <= 10


@in_every_mode
@pytest.mark.parametrize("factor", [1.0, -3.0])
def test_from_a_multiple_of_the_solution_nothing_is_left_to_do(factor, mode):
    matrix, A, b = spread(12, 1e3)
    exact = np.linalg.solve(matrix, b)
    found = MODES[mode](lambda b, x0: conjugate_gradients.cg(A, b, 1e-8, x0=x0))(b, factor * exact)
    assert int(found.iterations) == 0 and int(found.status) == Status.CONVERGED
    np.testing.assert_allclose(found.value, exact, rtol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_a_start_leads_to_the_solution_and_is_never_worse_than_zero(seed):
    matrix, A, b = spread(12, 1e2, seed)
    x0 = np.random.default_rng(seed + 10).normal(size=12)
    found = conjugate_gradients.cg(A, tf.constant(b), 1e-12, 200, x0=tf.constant(x0))
    np.testing.assert_allclose(found.value, np.linalg.solve(matrix, b), rtol=1e-8)
    none = conjugate_gradients.cg(A, tf.constant(b), 1e-12, 0, x0=tf.constant(x0)).value.numpy()
    assert none @ matrix @ none / 2 - b @ none <= 0
    assert int(found.status) == Status.CONVERGED
    rest = np.linalg.norm(b - matrix @ none) / np.linalg.norm(b)
    start = conjugate_gradients.cg(A, tf.constant(b), 0.0, 0, x0=tf.constant(x0))
    np.testing.assert_allclose(start.residual_norm, rest)


@pytest.mark.parametrize("x0", [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, -2.0, 3.0]])
def test_of_an_indefinite_matrix_every_start_leads_downhill(x0):
    b, x0 = tf.constant([1.0, 2.0, -1.0], tf.float64), tf.constant(x0, tf.float64)
    found = conjugate_gradients.cg(diagonal(tf.constant([1.0, -3.0, 2.0], tf.float64)), b, x0=x0)
    assert int(found.status) == Status.NEGATIVE_CURVATURE
    assert found.value.numpy() @ b.numpy() > 0


def test_the_kept_iterates_are_those_at_growing_distances():
    for most in (1, 2, 7, 30):
        rule = Iterates(most)
        kept = rule.start(tf.constant([0]))
        for i in range(1, most + 1):
            kept = rule.after(i, tf.constant([i]), kept)
        places = {math.ceil(1.3**j) for j in range(60)}
        assert kept[:, 0].numpy().tolist() == sorted({p for p in places if p < most} | {most})


@in_every_mode
@pytest.mark.parametrize("space", ["weights", "outputs"])
@pytest.mark.parametrize("wanted", [1, 7, 13])
def test_back_tracking_finds_the_best_of_the_kept_iterates(wanted, space, mode):
    matrix, A, b = spread(40, 30.0)
    if space == "outputs":  # the system (A A + 0.1) x = A b
        system, g = matrix @ matrix + 0.1 * np.eye(40), matrix @ b
    else:
        system, g = matrix, b
    iterates, _ = numpy_cg(system, g, 13)
    goal = tf.constant(iterates[wanted])

    def distance(x):
        return tf.reduce_sum((x - goal) ** 2)

    def run(b):
        if space == "outputs":
            H = identity(A.out_spec)
            return conjugate_gradients.range_space_cg(A, H, b, 0.1, 0.0, 13, objective=distance)
        return conjugate_gradients.cg(A, b, 0.0, 13, objective=distance)

    found = MODES[mode](run)(tf.constant(b))
    np.testing.assert_allclose(found.value, iterates[wanted], rtol=1e-5, atol=1e-8)
    assert int(found.iterations) == 13


def test_back_tracking_passes_over_losses_that_are_not_finite():
    matrix, A, b = spread(40, 1e4)
    iterates, _ = numpy_cg(matrix, b, 13)
    limit = 1.001 * np.linalg.norm(iterates[4])

    def loss(x):
        return tf.where(tf.norm(x) > limit, np.nan, -tf.norm(x))

    found = conjugate_gradients.cg(A, tf.constant(b), 0.0, 13, objective=loss)
    np.testing.assert_allclose(found.value, iterates[4], rtol=1e-6)  # of 1, 2, 3, 4, 5, 7, …


# --- the diagonal preconditioner ---


def strange(y, p):
    return tf.reduce_mean(tf.cosh(p - y), -1) ** 2


LOSSES = {"mse": 3, "categorical_crossentropy": 3, "huber": 2, "strange": 2, "unknown": 300}


def estimates(loss, probes, monkeypatch, curvature_batch=None):
    """The exact diagonal of the GGN of a small net, and estimates of it at as many steps."""
    outputs = LOSSES[loss]
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 2))
    y = np.eye(outputs)[rng.integers(0, outputs, 6)]
    activation = "softmax" if loss == "categorical_crossentropy" else None
    net = keras.Sequential([keras.Input([2]), L.Dense(2, "tanh"), L.Dense(outputs, activation)])
    net.compile(keras_fwd.GaussNewton(), strange if loss in ("strange", "unknown") else loss)
    monkeypatch.setattr(preconditioners, "PROBES", 1)

    @tf.function
    def run(step):
        training = training_pass.TrainingPass(net)
        training.batch = (tf.constant(x), tf.constant(y), None)
        expansion = expand(training)
        H = loss_hessian.loss_hessian(training.loss_of_leaves, expansion.leaves)
        J = expansion.jacobian
        ridge = nest.zeros_like(expansion.values)
        near = DiagonalPreconditioner(training, expansion.leaves, H, J, J.T @ H @ J, ridge, step)
        dense = (J.T @ H @ J).to_dense() if outputs < 100 else tf.zeros([])
        return tf.concat([tf.reshape(d, [-1]) for d in near.diagonal], 0), dense

    samples = [run(tf.constant(step)) for step in range(probes)]
    return np.diag(samples[0][1]) if outputs < 100 else None, np.array([s[0] for s in samples])


@pytest.mark.parametrize("loss", [loss for loss in LOSSES if loss != "unknown"], ids=str)
def test_the_mean_of_the_estimates_is_the_diagonal(loss, monkeypatch):
    exact, found = estimates(loss, 600, monkeypatch)
    assert (found >= 0).all() and (found.std(0) > 0).any()
    error = found.std(0) / np.sqrt(len(found))
    assert (np.abs(found.mean(0) - exact) <= 4 * error + 1e-12).all()


def test_a_loss_without_a_root_is_estimated_by_products(monkeypatch):
    _, found = estimates("unknown", 3, monkeypatch)
    assert (found >= 0).all() and (found > 0).any()


def test_the_diagonal_undoes_weights_of_different_scales():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 30)) * np.geomspace(1e-2, 10, 30)
    counts = {}
    tight = {"tolerance": 1e-6, "max_iterations": 1000}
    for preconditioner in (None, "diagonal"):
        net = fitted([L.Dense(2)], x, preconditioner=preconditioner, damping=1e-8, **tight)
        logs = net.train_on_batch(x, np.sin(x[:, :2]), return_dict=True)
        counts[preconditioner] = logs["solver_iterations"]
    assert counts["diagonal"] < 0.7 * counts[None]


# --- the optimizer ---


def fitted(stack, x, loss="mse", compile_options=None, **options):
    keras.utils.set_random_seed(0)
    net = keras.Sequential([keras.Input(x.shape[1:]), *stack])
    optimizer = gauss_newton(
        solver=options.pop("solver", "cg"),
        max_iterations=options.pop("max_iterations", 200),
        **{"damping": 1e-3, **options},
    )
    net.compile(optimizer, loss, **(compile_options or {}))
    return net


def problem(count=40):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(count, 4))
    return x, np.sin(x @ rng.normal(size=(4, 2)))


def small():
    return [L.Dense(8, "tanh"), L.Dense(2)]


def flat(net):
    return np.concatenate([w.ravel() for w in net.get_weights()])


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{"preconditioner": "diagonal"}, {"warm_start": True}, ALL],
    ids=["diagonal", "warm", "all"],
)
def test_steps_solved_to_the_end_are_those_of_the_dense_solver(options):
    x, y = problem()
    ends = []
    options = {**options, "tolerance": 1e-12, "progress_tolerance": None}
    for arguments in ({"solver": "dense"}, options):
        net = fitted(small(), x, **{**arguments, "backtracking": False})
        for _ in range(3):
            net.train_on_batch(x, y)
        ends.append(flat(net))
    np.testing.assert_allclose(ends[1], ends[0], rtol=1e-6, atol=1e-8)


@pytest.mark.slow
def test_eager_code_takes_the_same_steps():
    x, y = problem()
    ends = []
    for mode in ({}, {"run_eagerly": True}):
        net = fitted(small(), x, compile_options=mode, max_iterations=12, **ALL)
        for _ in range(2):
            net.train_on_batch(x, y)
        ends.append(flat(net))
    np.testing.assert_allclose(ends[1], ends[0], rtol=1e-6, atol=1e-9)


@pytest.mark.slow
def test_compiled_by_xla_the_steps_are_the_same():
    x, y = problem()
    ends = []
    options = {**ALL, "preconditioner": None}  # XLA's random numbers are its own
    for jit_compile in (False, True):
        mode = {"jit_compile": jit_compile}
        net = fitted(small(), x, compile_options=mode, max_iterations=12, **options)
        for _ in range(2):
            net.train_on_batch(x, y)
        ends.append(flat(net))
    np.testing.assert_allclose(ends[1], ends[0], rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_the_diagonal_compiles_with_xla():
    x, y = problem()
    net = fitted(small(), x, compile_options={"jit_compile": True}, **ALL)
    losses = [net.train_on_batch(x, y, return_dict=True)["loss"] for _ in range(3)]
    assert losses[2] < losses[0]


def test_later_steps_are_not_traced_again():
    x, y = problem()
    calls = []

    class Counting(L.Layer):
        def call(self, inputs):
            calls.append(1)
            return inputs

    net = fitted([Counting(), *small()], x, **ALL)
    net.train_on_batch(x, y)
    traced = len(calls)
    for _ in range(3):
        net.train_on_batch(x, y)
    assert len(calls) == traced > 0


@pytest.mark.slow
def test_a_saved_run_goes_on_to_the_same_weights(tmp_path):
    x, y = problem()
    net = fitted(small(), x, max_iterations=8, **ALL)
    for _ in range(2):
        net.train_on_batch(x, y)
    assert any(np.any(variable.numpy()) for variable in net.optimizer._last_step)
    net.save(tmp_path / "net.keras")
    again = keras.models.load_model(tmp_path / "net.keras")
    config = again.optimizer.solver.get_config()
    assert {name: config[name] for name in ALL} == ALL
    for each in (net, again):
        for _ in range(2):
            each.train_on_batch(x, y)
    np.testing.assert_array_equal(flat(again), flat(net))


def test_the_last_step_is_what_the_next_starts_from():
    x, y = problem()
    net = fitted(small(), x, warm_start=True)
    before = flat(net)
    net.train_on_batch(x, y)
    last = np.concatenate([v.numpy().ravel() for v in net.optimizer._last_step])
    np.testing.assert_allclose(last, before - flat(net), rtol=1e-12)
    net.train_on_batch(np.full_like(x, np.nan), y)
    np.testing.assert_array_equal(
        np.concatenate([v.numpy().ravel() for v in net.optimizer._last_step]), last
    )


def test_back_tracking_never_ends_a_first_step_higher():
    x, y = problem()
    losses = []
    for backtracking in (False, True):
        net = fitted(small(), x, backtracking=backtracking, damping=1e-8, max_trials=1)
        rng = np.random.default_rng(0)
        net.set_weights([w + rng.normal(size=w.shape) for w in net.get_weights()])
        net.train_on_batch(x, y)
        losses.append(net.evaluate(x, y, verbose=0))
    assert losses[1] < losses[0]


def double_well(y, p):
    return tf.reduce_mean((p**2 - 1) ** 2 + 0.1 * (p - y) ** 2, -1)


@pytest.mark.slow
@pytest.mark.parametrize("preconditioner", [None, pytest.param("diagonal", marks=pytest.mark.slow)])
def test_a_loss_that_is_not_convex_falls(preconditioner):
    x, y = problem()
    net = fitted(small(), x, double_well, **{**ALL, "preconditioner": preconditioner})
    losses = [net.evaluate(x, y, verbose=0)]
    for _ in range(8):
        net.train_on_batch(x, y)
        losses.append(net.evaluate(x, y, verbose=0))
    assert (np.diff(losses) <= 0).all() and losses[-1] < 0.7 * losses[0]


@pytest.mark.slow
def test_curvature_of_a_part_and_regularizers_go_with_all_options():
    x, y = problem()
    stack = [L.Dense(8, "tanh", kernel_regularizer="l2"), L.Dropout(0.2), L.Dense(2)]
    net = fitted(stack, x, curvature_batch=10, **ALL)
    before = net.evaluate(x, y, verbose=0)
    for _ in range(4):
        net.train_on_batch(x, y)
    assert net.evaluate(x, y, verbose=0) < before


@pytest.mark.slow
def test_half_precision_goes_with_all_options():
    keras.config.set_floatx("float32")
    x, y = problem()
    layers = [L.Dense(8, "tanh", dtype="mixed_float16"), L.Dense(2, dtype="mixed_float16")]
    net = fitted(layers, x.astype("float32"), **{**ALL, "damping": 1e-2})
    before = net.evaluate(x, y, verbose=0)
    for _ in range(4):
        net.train_on_batch(x.astype("float32"), y.astype("float32"))
    assert net.evaluate(x, y, verbose=0) < before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"warm_start": 0.9}, "`warm_start` must be True or False"),
        ({"backtracking": "yes"}, "`backtracking` must be True or False"),
        ({"progress_tolerance": -1}, "`progress_tolerance` must be a finite number"),
        ({"preconditioner": "jacobi"}, "'kfac', 'diagonal', or None"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(keras_fwd.ConfigurationError, match=message):
        gauss_newton(**options)
