"""`GaussNewton` step by step, against closed forms and a reference in NumPy."""

import copy
import json
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.flat_options import gauss_newton

import keras_fwd
from keras_fwd._linear_algebra import conjugate_gradients, least_squares
from keras_fwd.optimizers import CG
from keras_fwd.optimizers._least_squares import batch_jacobian
from keras_fwd.optimizers._least_squares import options as solver_options
from keras_fwd.optimizers._steps import damping as control

layers = keras.layers
SOLVERS = ["dense", "dual", "cg"]
EXACT = {"tolerance": 1e-15, "max_iterations": 500}


pytestmark = pytest.mark.usefixtures("float64")


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def compiled(*stack, loss="mse", inputs=3, optimizer=None, weights=None, **compile_arguments):
    """A compiled Sequential model; the optimizer's arguments as a dict."""
    fn = keras.Sequential([keras.Input((inputs,)), *stack])
    fn.compile(optimizer=gauss_newton(**(optimizer or {})), loss=loss, **compile_arguments)
    if weights is not None:
        fn.set_weights(weights)
    return fn


def step(fn, x, y, **arguments):
    return fn.train_on_batch(x, y, return_dict=True, **arguments)


def flat(fn):
    """All trainable weights as one vector, float64."""
    return np.concatenate([np.ravel(v.numpy()) for v in fn.trainable_variables])


def with_ones(x):
    return np.column_stack([x, np.ones(len(x))])


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


# --- configuration -------------------------------------------------------------------------------

CONFIG = {
    "name": "mine",
    "learning_rate": 0.5,
    "damping": 0.25,
    "solver": "dense",
    "micro_batch": 16,
    "max_trials": 3,
    "geodesic": False,
}


def test_config_holds_every_argument():
    made = keras_fwd.GaussNewton(**CONFIG)
    assert made.get_config() == CONFIG
    assert keras_fwd.GaussNewton.from_config(CONFIG).get_config() == CONFIG
    assert keras_fwd.GaussNewton(**copy.deepcopy(pickle.loads(pickle.dumps(CONFIG))))


CG_CONFIG = {
    "max_iterations": 7,
    "tolerance": 0.125,
    "preconditioner": "kfac",
    "curvature_batch": 16,
    "progress_tolerance": 5e-4,
    "warm_start": True,
    "backtracking": True,
}


def test_options_of_conjugate_gradients_are_saved_with_the_optimizer():
    solver = CG(**CG_CONFIG)
    assert solver.get_config() == CG_CONFIG and CG.from_config(CG_CONFIG) == solver
    made = keras_fwd.GaussNewton(solver=solver)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(made))
    assert again.solver == solver and again.get_config() == made.get_config()
    json.dumps(made.get_config())


OLD = {
    "max_solver_iterations": 7,
    "solver_tolerance": 0.125,
    "preconditioner": "kfac",
    "curvature_batch": None,
    "progress_tolerance": 5e-4,
    "warm_start": True,
    "backtracking": True,
}
OLD_DEFAULTS = {
    "max_solver_iterations": 50,
    "solver_tolerance": 1e-3,
    "preconditioner": None,
    "curvature_batch": None,
    "progress_tolerance": None,
    "warm_start": False,
    "backtracking": False,
}


@pytest.mark.parametrize("solver", ["auto", "dense", "dual", "cg"])
def test_a_config_of_version_0_1_0_is_read_as_it_was_meant(solver):
    """With `"auto"` the options were for the case that it came to conjugate gradients."""
    config = {"damping": "auto", "solver": solver, "name": "old"}
    plain = keras_fwd.GaussNewton.from_config({**config, **OLD_DEFAULTS})
    assert plain.solver == solver and "cg" not in plain.get_config()
    options = {**CG_CONFIG, "curvature_batch": None}
    made = keras_fwd.GaussNewton.from_config({**config, **OLD})
    if solver == "cg":
        assert made.solver == CG(**options)
    else:
        assert made.solver == solver
    if solver == "auto":
        few, many = tf.Variable(tf.zeros([4])), tf.Variable(tf.zeros([2000]))
        again = keras_fwd.GaussNewton.from_config(made.get_config())
        for optimizer in (made, again):
            assert optimizer._options.cg == CG(**options)
            assert optimizer._trusts_a_region([few]) and not optimizer._trusts_a_region([many])
    part = keras_fwd.GaussNewton.from_config(
        {"solver": "auto", **OLD_DEFAULTS, "curvature_batch": 16}
    )
    assert part.solver == CG(curvature_batch=16)  # which conjugate gradients were chosen for


def test_serialization_keeps_a_schedule():
    schedule = keras.optimizers.schedules.ExponentialDecay(1.0, 10, 0.5)
    made = keras_fwd.GaussNewton(schedule, damping=0.5)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(made))
    assert isinstance(again, keras_fwd.GaussNewton)
    assert float(again.learning_rate) == 1.0
    again.iterations.assign(10)
    assert float(again.learning_rate) == 0.5
    assert again.get_config()["damping"] == 0.5


def test_config_holds_the_initial_damping_and_the_variable_the_present_one():
    fn = compiled(layers.Dense(1), optimizer={"damping": 0.5})
    step(fn, draw(5, 3), draw(5, 1))
    assert fn.optimizer.get_config()["damping"] == 0.5
    assert float(fn.optimizer.damping) == pytest.approx(0.5 / 3)


def test_numbers_of_numpy_are_numbers():
    made = keras_fwd.GaussNewton(damping=np.float32(0.5), max_trials=np.int64(2))
    assert made.get_config()["damping"] == 0.5 and made.get_config()["max_trials"] == 2


BAD_ARGUMENTS = [
    ({"solver": "lu"}, "`solver` must be one of 'auto', 'dense', 'dual', 'cg'.*solver='lu'"),
    ({"damping": -1e-3}, r"`damping` must be a finite number of at least 0.*damping=-0\.001"),
    ({"damping": float("nan")}, "`damping`.*damping=nan"),
    ({"damping": float("inf")}, "`damping`.*damping=inf"),
    ({"damping": "1e-3"}, "`damping`.*damping='1e-3'"),
    ({"damping": None}, "`damping`.*damping=None"),
    ({"max_trials": 0}, "`max_trials` must be a whole number of at least 1.*max_trials=0"),
    ({"max_trials": 1.5}, r"`max_trials`.*max_trials=1\.5"),
    ({"solver": "cg", "max_iterations": 0}, "CG: `max_iterations`.*max_iterations=0"),
    ({"solver": "cg", "tolerance": -1.0}, r"CG: `tolerance`.*tolerance=-1\.0"),
    (
        {"preconditioner": "ilu"},
        "`preconditioner` must be one of 'kfac', 'diagonal', or None.*'ilu'",
    ),
    ({"preconditioner": True}, "`preconditioner` must be one of 'kfac', 'diagonal', or None.*True"),
    ({"curvature_batch": 0}, "`curvature_batch` must be a whole number.*curvature_batch=0"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_ARGUMENTS)
def test_an_argument_out_of_range_is_refused(arguments, message):
    with pytest.raises(keras_fwd.ConfigurationError, match=message):
        gauss_newton(**arguments)


def quartic(y, p):
    return keras.ops.mean((y - p) ** 4, -1)


def test_dual_solver_refuses_a_loss_without_closed_form():
    fn = compiled(layers.Dense(1), loss=quartic, optimizer={"solver": "dual"})
    before = flat(fn)
    with pytest.raises(keras_fwd.ConfigurationError, match='solver="dual" needs mse'):
        step(fn, draw(5, 3), draw(5, 1))
    np.testing.assert_array_equal(flat(fn), before)


# --- one step ------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", SOLVERS)
def test_one_undamped_step_solves_linear_least_squares(solver):
    x, y = draw(12, 3), draw(12, 2, seed=1)
    fn = compiled(layers.Dense(2), optimizer={"damping": 0.0, "solver": solver, **EXACT})
    logs = step(fn, x, y)
    kernel, bias = (v.numpy() for v in fn.trainable_variables)
    expected = np.linalg.lstsq(with_ones(x), y, rcond=None)[0]
    np.testing.assert_allclose(np.vstack([kernel, bias]), expected, atol=1e-10)
    assert logs["reduction_ratio"] == pytest.approx(1.0, abs=1e-6)
    assert logs["damping"] == 0.0


@pytest.mark.parametrize("solver", SOLVERS)
def test_one_undamped_step_fits_fewer_examples_than_weights(solver):
    x, y = draw(3, 6), draw(3, 1, seed=1)
    fn = compiled(layers.Dense(1), inputs=6, optimizer={"damping": 0.0, "solver": solver, **EXACT})
    before = flat(fn)
    step(fn, x, y)
    A = with_ones(x)
    expected = before + np.linalg.pinv(A) @ (y[:, 0] - A @ before)  # the nearest that fits
    np.testing.assert_allclose(flat(fn), expected, atol=1e-9)


@pytest.mark.parametrize("solver", SOLVERS)
def test_an_input_that_is_always_zero_does_no_harm_without_damping(solver):
    x, y = draw(12, 3), draw(12, 1, seed=1)
    x[:, 0] = 0.0
    fn = compiled(layers.Dense(1), optimizer={"damping": 0.0, "solver": solver, **EXACT})
    step(fn, x, y)
    expected = np.linalg.lstsq(with_ones(x[:, 1:]), y, rcond=None)[0][:, 0]
    np.testing.assert_allclose(flat(fn)[1:], expected, atol=1e-9)


def damped_step(weights, J, H, gradient, damping, rate=1.0, ridge=0.0):
    """`w − rate (Jᵀ H J + diag(ridge) + λ I)⁻¹ g`."""
    C = J.T @ H @ J + np.diag(np.broadcast_to(ridge, len(weights)))
    return weights - rate * np.linalg.solve(C + damping * np.eye(len(weights)), gradient)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_damped_step_of_mse_is_that_of_the_formula(solver):
    x, y = draw(7, 3), draw(7, 1, seed=1)
    options = {"learning_rate": 0.5, "damping": 0.25, "solver": solver, **EXACT}
    fn = compiled(layers.Dense(1, activation="tanh"), optimizer=options)
    w, A = flat(fn), with_ones(x)
    p = np.tanh(A @ w)
    J, H = (1 - p**2)[:, None] * A, np.eye(7) * 2 / 7
    expected = damped_step(w, J, H, J.T @ (p - y[:, 0]) * 2 / 7, 0.25, rate=0.5)
    step(fn, x, y)
    np.testing.assert_allclose(flat(fn), expected, rtol=1e-9)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("head", ["softmax", pytest.param("logits", marks=pytest.mark.slow)])
def test_a_damped_step_of_cross_entropy_is_taken_at_the_logits(solver, head):
    x, labels = draw(6, 3), np.array([0, 1, 2, 2, 0, 1])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=head == "logits")
    activation = "softmax" if head == "softmax" else None
    fn = compiled(
        layers.Dense(3, activation=activation),
        loss=loss,
        optimizer={"damping": 0.125, "solver": solver, **EXACT},
    )
    w, A = flat(fn), with_ones(x)
    p = softmax(A @ w.reshape(4, 3))
    J = np.kron(A, np.eye(3))  # logits in (kernel, bias), row by row
    H = np.zeros((18, 18))
    for i, row in enumerate(p):
        H[3 * i : 3 * i + 3, 3 * i : 3 * i + 3] = (np.diag(row) - np.outer(row, row)) / 6
    gradient = J.T @ (p - np.eye(3)[labels]).ravel() / 6
    step(fn, x, labels)
    np.testing.assert_allclose(flat(fn), damped_step(w, J, H, gradient, 0.125), rtol=1e-8)


@pytest.mark.parametrize("solver", ["dense", "cg"])
def test_a_damped_step_of_huber_is_that_of_the_formula(solver):
    x, y = draw(8, 3), 3 * draw(8, 1, seed=1)
    options = {"damping": 0.125, "solver": solver, **EXACT}
    fn = compiled(layers.Dense(1), loss=keras.losses.Huber(delta=0.5), optimizer=options)
    w, A = flat(fn), with_ones(x)
    r = A @ w - y[:, 0]
    inside = np.abs(r) < 0.5
    assert 0 < inside.sum() < 8
    gradient = A.T @ np.clip(r, -0.5, 0.5) / 8
    step(fn, x, y)
    np.testing.assert_allclose(
        flat(fn), damped_step(w, A, np.diag(inside / 8.0), gradient, 0.125), rtol=1e-8
    )


# The dual system holds 1 / damping for the bias, which has no regularizer.
@pytest.mark.parametrize(
    ("solver", "damping", "atol"), [("dense", 0.0, 1e-10), ("cg", 0.0, 1e-10), ("dual", 1e-7, 1e-6)]
)
def test_ridge_regression_is_solved_in_one_step(solver, damping, atol):
    x, y = draw(9, 3), draw(9, 1, seed=1)
    head = layers.Dense(1, kernel_regularizer=keras.regularizers.L2(0.3))
    fn = compiled(head, optimizer={"damping": damping, "solver": solver, **EXACT})
    step(fn, x, y)
    A = with_ones(x)
    normal = A.T @ A / 9 + 0.3 * np.diag([1.0, 1.0, 1.0, 0.0])
    expected = np.linalg.solve(normal, A.T @ y[:, 0] / 9)
    np.testing.assert_allclose(flat(fn), expected, atol=atol)


def test_other_added_losses_enter_the_gradient_only():
    x, y = draw(9, 3), draw(9, 1, seed=1)

    class Penalty(layers.Layer):
        def call(self, inputs):
            self.add_loss(tf.reduce_mean(inputs**2))
            return inputs

    expected = None
    for solver in ("dense", "cg"):
        keras.utils.set_random_seed(0)
        options = {"damping": 0.5, "solver": solver, **EXACT}
        fn = compiled(layers.Dense(1), Penalty(), optimizer=options)
        w, A = flat(fn), with_ones(x)
        gradient = A.T @ (A @ w - y[:, 0]) * 2 / 9 + A.T @ (A @ w) * 2 / 9
        expected = damped_step(w, A, np.eye(9) * 2 / 9, gradient, 0.5)
        logs = step(fn, x, y)
        np.testing.assert_allclose(flat(fn), expected, rtol=1e-8)
        total = np.mean((A @ w - y[:, 0]) ** 2) + np.mean((A @ w) ** 2)
        assert logs["loss"] == pytest.approx(total, rel=1e-7)


WEIGHTS9 = np.array([1.0, 0, 2, 0.5, 1, 3, 0, 1, 1])


@pytest.mark.parametrize("solver", SOLVERS)
def test_sample_weights_give_weighted_least_squares(solver):
    x, y = draw(9, 3), draw(9, 1, seed=1)
    fn = compiled(layers.Dense(1), optimizer={"damping": 0.0, "solver": solver, **EXACT})
    step(fn, x, y, sample_weight=WEIGHTS9)
    root = np.sqrt(WEIGHTS9)[:, None]
    expected = np.linalg.lstsq(root * with_ones(x), root * y, rcond=None)[0][:, 0]
    np.testing.assert_allclose(flat(fn), expected, atol=1e-9)


def test_class_weights_give_weighted_least_squares():
    x, y = draw(9, 3), np.array([0, 1, 1, 0, 0, 1, 0, 0, 1])
    fn = compiled(layers.Dense(1), optimizer={"damping": 0.0})
    step(fn, x, y, class_weight={0: 1.0, 1: 4.0})
    root = np.sqrt(np.where(y, 4.0, 1.0))
    expected = np.linalg.lstsq(root[:, None] * with_ones(x), root * y, rcond=None)[0]
    np.testing.assert_allclose(flat(fn), expected, atol=1e-9)


@pytest.mark.slow
def test_solvers_agree_with_each_other_over_several_steps():
    x, labels = draw(8, 3), np.arange(8) % 3
    ends = {}
    for solver in SOLVERS:
        keras.utils.set_random_seed(0)
        fn = compiled(
            layers.Dense(3, activation="tanh", kernel_regularizer="l2"),
            layers.Dense(3, activation="softmax", bias_regularizer="l1l2"),
            loss="sparse_categorical_crossentropy",
            optimizer={"solver": solver, "damping": 0.1, **EXACT},
        )
        logs = [step(fn, x, labels, sample_weight=WEIGHTS9[:8]) for _ in range(4)]
        ends[solver] = np.append(flat(fn), [log["damping"] for log in logs])
    np.testing.assert_allclose(ends["dual"], ends["dense"], rtol=1e-5)
    np.testing.assert_allclose(ends["cg"], ends["dense"], rtol=1e-5)


@pytest.mark.slow
def test_cg_follows_negative_curvature_downhill():
    # A loss that is concave in the outputs beyond |r| = 1: Welsch's.
    def welsch(y, p):
        return tf.reduce_mean(1 - tf.exp(-((y - p) ** 2) / 2), axis=-1)

    x = draw(8, 3)
    y = with_ones(x) @ [[1.5], [-1.0], [0.5], [2.0]]
    for solver in ("cg", "dense"):
        fn = compiled(layers.Dense(1), loss=welsch, optimizer={"solver": solver})
        fn.layers[0].set_weights([np.zeros((3, 1)), np.zeros(1)])
        first = step(fn, x, y)["loss"]
        for _ in range(15):
            last = fn.train_on_batch(x, y, return_dict=True)
        fn.reset_metrics()
        assert fn.evaluate(x, y, verbose=0) < 0.2 * first, (solver, last)


# --- accepting and rejecting ---------------------------------------------------------------------


def reference(weights, x, y, steps, damping, rate=1.0, max_trials=8):
    """The algorithm for `tanh(A w)` with mse, in NumPy; yields weights and logs."""
    A, growth, n = with_ones(x), 2.0, len(x)

    def loss_at(w):
        return np.mean((np.tanh(A @ w) - y[:, 0]) ** 2)

    for _ in range(steps):
        p = np.tanh(A @ weights)
        J = (1 - p**2)[:, None] * A
        gradient, C, trials = J.T @ (p - y[:, 0]) * 2 / n, J.T @ J * 2 / n, 0
        for _ in range(max_trials):
            trials += 1
            change = -rate * np.linalg.solve(C + damping * np.eye(len(C)), gradient)
            predicted = -(gradient @ change + change @ C @ change / 2)
            ratio = (loss_at(weights) - loss_at(weights + change)) / predicted
            if ratio > 1e-4:
                weights = weights + change
                damping, growth = damping * max(1 / 3, 1 - (2 * min(ratio, 2) - 1) ** 3), 2.0
                break
            damping, growth = damping * growth, growth * 2
        yield weights, {"damping": damping, "reduction_ratio": ratio, "solver_iterations": trials}


def test_training_follows_the_reference_with_rejections():
    x, y = 2 * draw(10, 3, seed=6), np.tanh(3 * draw(10, 1, seed=5))
    start = draw(4, 1, seed=9) / 2
    fn = compiled(
        layers.Dense(1, activation="tanh"),
        optimizer={"damping": 1e-4},
        weights=[start[:3], start[3]],
    )
    trials = []
    for weights, expected in reference(flat(fn), x, y, steps=10, damping=1e-4):
        logs = step(fn, x, y)
        trials.append(expected["solver_iterations"])
        for key, value in expected.items():
            assert logs[key] == pytest.approx(value, rel=1e-4), (key, len(trials))
        np.testing.assert_allclose(flat(fn), weights, rtol=1e-5)
    assert trials == [1, 3, 1, 5, 1, 1, 1, 1, 1, 1]


def test_a_loss_that_is_quadratic_in_the_weights_is_predicted_exactly():
    x, y = draw(7, 3), draw(7, 2, seed=1)
    fn = compiled(layers.Dense(2))
    for rate, damping in [(1.0, 0.5), (0.5, 0.0), (1.5, 0.1)]:
        fn.set_weights([draw(3, 2, seed=2), draw(2, seed=3)])
        fn.optimizer.learning_rate = rate
        fn.optimizer.damping.assign(damping)
        assert step(fn, x, y)["reduction_ratio"] == pytest.approx(1.0, rel=1e-6)


def test_the_trial_step_sees_the_dropout_mask_of_the_first_pass():
    # With one mask, the loss is quadratic in the weights and the ratio one; with two it is not.
    fn = compiled(layers.Dropout(0.5), layers.Dense(1), optimizer={"damping": 0.1})
    x, y = draw(30, 3), draw(30, 1, seed=1)
    for _ in range(3):
        assert step(fn, x, y)["reduction_ratio"] == pytest.approx(1.0, rel=1e-6)


def everything(fn):
    """Each variable of model and metrics, by value."""
    return {
        v.path + f"#{i}": v.numpy() for i, v in enumerate([*fn.variables, *fn.metrics_variables])
    }


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["dense", "cg", pytest.param("dual", marks=pytest.mark.slow)])
def test_a_rejected_step_leaves_everything_as_it_was(solver):
    fn = compiled(
        layers.Dense(4, activation="tanh"),
        layers.BatchNormalization(),
        layers.Dropout(0.3),
        layers.Dense(1),
        optimizer={"solver": solver, "max_trials": 1, "damping": 0.5},
        metrics=["mae"],
        weighted_metrics=["mse"],
    )
    x, y = draw(10, 3), draw(10, 1, seed=1)
    fn.evaluate(x, y, verbose=0)  # builds the metrics
    fn.reset_metrics()
    train = tf.function(lambda: fn.train_step((x, y)))  # train_on_batch would reset the metrics
    start = everything(fn)
    logs = train()
    before = everything(fn)
    assert logs["reduction_ratio"] > 1e-4
    changed = [key for key in start if (before[key] != start[key]).any()]
    assert len(changed) == len(start), "the step before must have moved everything"
    damping = float(fn.optimizer.damping)
    fn.optimizer.learning_rate = 1e6
    logs = train()
    after = everything(fn)
    assert logs["reduction_ratio"] < 1e-4
    for key in before:
        np.testing.assert_array_equal(after[key], before[key], err_msg=key)
    assert float(fn.optimizer.damping) == pytest.approx(2 * damping)
    train()
    assert float(fn.optimizer.damping) == pytest.approx(8 * damping)  # by 2, then by 4
    assert int(fn.optimizer.iterations) == 3


def test_an_accepted_step_moves_seeds_as_keras_does():
    seeds = {}
    for optimizer in (keras_fwd.GaussNewton(), keras.optimizers.SGD()):
        keras.utils.set_random_seed(0)
        fn = keras.Sequential([keras.Input((3,)), layers.Dropout(0.3, seed=7), layers.Dense(1)])
        fn.compile(optimizer=optimizer, loss="mse")
        for _ in range(3):
            fn.train_on_batch(draw(10, 3), draw(10, 1, seed=1))
        seeds[type(optimizer)] = fn.layers[0].seed_generator.state.numpy()
    np.testing.assert_array_equal(*seeds.values())


def test_a_batch_without_weight_changes_nothing_and_keeps_the_damping_down():
    x, y = draw(9, 3), draw(9, 1, seed=1)
    fn = compiled(layers.Dense(1), optimizer={"damping": 0.5})
    before = flat(fn)
    logs = step(fn, x, y, sample_weight=np.zeros(9))
    np.testing.assert_array_equal(flat(fn), before)
    assert logs["damping"] <= 0.5 and logs["loss"] == 0.0


def test_a_solved_problem_stays_solved():
    x = draw(9, 3)
    fn = compiled(layers.Dense(1, use_bias=False), optimizer={"damping": 0.5})
    fn.set_weights([np.zeros((3, 1))])
    for _ in range(5):
        logs = step(fn, x, np.zeros((9, 1)))
    np.testing.assert_array_equal(flat(fn), np.zeros(3))
    assert logs["damping"] < 0.5 and logs["reduction_ratio"] == 1.0


# --- the damping rule ----------------------------------------------------------------------------

# ratio, accepted: factor on the damping; growth 4 before
RULE = [
    (1.0, True, 1 / 3),
    (0.9, True, 1 - 0.8**3),
    (0.75, True, 1 - 0.125),
    (0.5, True, 1.0),
    (0.25, True, 1.125),
    (1e-3, True, 1 + 0.998**3),
    (5.0, True, 1 / 3),
    (1e-5, False, 4.0),
    (-3.0, False, 4.0),
    (-np.inf, False, 4.0),
]


@pytest.mark.parametrize(("ratio", "accepted", "factor"), RULE)
def test_damping_follows_the_reduction_ratio(ratio, accepted, factor):
    damping, growth = control.adapt(
        tf.constant(0.5), tf.constant(4.0), tf.constant(ratio), tf.constant(accepted)
    )
    assert float(damping) == pytest.approx(0.5 * factor, rel=1e-6)
    assert float(growth) == (2.0 if accepted else 8.0)


def adapted(damping, ratio, accepted, growth=2.0):
    parts = (damping, growth, ratio, accepted)
    return [float(value) for value in control.adapt(*map(tf.constant, parts))]


def test_damping_stays_within_bounds():
    assert adapted(0.0, 1.0, True)[0] == 0.0  # zero is a choice
    assert adapted(0.0, -1.0, False)[0] == pytest.approx(2e-8)
    assert adapted(1e-16, 1.0, True)[0] == pytest.approx(1e-16)
    assert adapted(1e16, -1.0, False)[0] == pytest.approx(1e16)
    assert adapted(1.0, -1.0, False, growth=1e8) == pytest.approx([1e8, 1e8])


# before, after, predicted decrease: ratio
RATIOS = [
    (3.0, 2.0, 2.0, 0.5),
    (3.0, 1.0, 2.0, 1.0),
    (3.0, 4.0, 2.0, -0.5),
    (3.0, 2.0, -1.0, -np.inf),  # the quadratic model rises: nothing to compare with
    (3.0, np.nan, 2.0, -np.inf),
    (3.0, np.inf, 2.0, -np.inf),
    (3.0, 2.0, np.nan, -np.inf),
    (3.0, 2.0, np.inf, -np.inf),
    (1.0, 1.0, 0.0, 1.0),  # no gradient, no change
    (0.0, 0.0, 0.0, 1.0),
    (1.0, 1.0, 1e-30, 1.0),  # both below the rounding of the loss
    (1.0, 1.0 + 1e-7, 1e-30, -np.inf),  # in float32 below it, and so predicted well
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("before", "after", "predicted", "ratio"), RATIOS)
def test_reduction_ratio_is_actual_over_predicted(before, after, predicted, ratio, dtype):
    parts = (tf.constant(before, dtype), tf.constant(after, dtype))
    found = tf.function(control.reduction_ratio)(*parts, tf.constant(predicted, dtype))
    assert found.dtype == dtype
    if (before, after) == (1.0, 1.0 + 1e-7):  # one unit of float32, much above it in float64
        assert float(found) == 1.0 if dtype == "float32" else float(found) < -1e20
    else:
        assert float(found) == pytest.approx(ratio)


# --- what holds over many steps ------------------------------------------------------------------


def test_a_learning_rate_schedule_scales_each_step():
    x, y = draw(9, 3), draw(9, 1, seed=1)
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0, 1], [0.5, 0.25, 0.125])
    options = {"learning_rate": schedule, "damping": 0.0}
    fn = compiled(layers.Dense(1), optimizer=options)
    solution = np.linalg.lstsq(with_ones(x), y, rcond=None)[0][:, 0]
    error = flat(fn) - solution
    for rate in (0.5, 0.25, 0.125, 0.125):
        step(fn, x, y)
        error = (1 - rate) * error
        np.testing.assert_allclose(flat(fn) - solution, error, atol=1e-9)


@pytest.mark.parametrize("solver", ["dense", "cg"])
def test_later_steps_never_trace_again(solver):
    calls = []

    class Counting(layers.Layer):
        def call(self, inputs):
            calls.append(1)
            return inputs

    fn = compiled(Counting(), layers.Dense(1), optimizer={"solver": solver})
    step(fn, draw(9, 3), draw(9, 1, seed=1))
    traced = len(calls)
    for seed in range(4):
        step(fn, draw(9, 3, seed=seed), draw(9, 1, seed=1))
    assert len(calls) == traced > 0


AUTO = [
    ("few weights", 1, 9, "mse", None, "dense_least_squares"),
    ("few weights, any loss", 1, 9, quartic, None, "normal_equations"),
    ("many weights, few residuals", 4, 2, "mse", None, "DualLeastSquares"),
    ("many of both", 4, 9, "mse", None, "RangeSpaceConjugateGradient"),
    ("many of both, a regularizer", 4, 9, "mse", "l2", "ConjugateGradient"),
    ("many weights, any loss", 4, 2, quartic, None, "RangeSpaceConjugateGradient"),
]


@pytest.mark.parametrize(
    ("units", "batch", "loss", "regularizer", "expected"),
    [pytest.param(*case, id=name) for name, *case in AUTO],
)
def test_auto_takes_the_solver_that_fits(monkeypatch, units, batch, loss, regularizer, expected):
    used = []
    for name in {case[-1] for case in AUTO}:
        module = conjugate_gradients if hasattr(conjugate_gradients, name) else least_squares
        method = getattr(module, name)
        monkeypatch.setattr(
            module,
            name,
            lambda *parts, name=name, method=method, **options: (
                used.append(name) or method(*parts, **options)
            ),
        )
    monkeypatch.setattr(solver_options, "DENSE_WEIGHTS", 10)
    monkeypatch.setattr(solver_options, "DUAL_RESIDUALS", 12)
    fn = compiled(layers.Dense(units, kernel_regularizer=regularizer), loss=loss)
    step(fn, draw(batch, 3), draw(batch, units, seed=1))
    assert set(used) == {expected}


@pytest.mark.slow
def test_weights_in_chunks_give_the_same_step(monkeypatch):
    ends = []
    for chunk in (128, 3):
        monkeypatch.setattr(batch_jacobian, "CHUNK", chunk)
        monkeypatch.setattr(batch_jacobian, "keeps_examples_apart", lambda model: False)
        keras.utils.set_random_seed(0)
        fn = compiled(layers.Dense(2, activation="tanh"), layers.Dense(1))
        step(fn, draw(20, 3), draw(20, 1, seed=1))
        ends.append(flat(fn))
    np.testing.assert_allclose(ends[1], ends[0], rtol=1e-12)
