"""`optimizer.status` and `LeastSquaresStop`: the tests of convergence, and hard problems."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_fwd
from keras_fwd.callbacks import LeastSquaresStop
from keras_fwd.optimizers._steps import convergence
from keras_fwd.optimizers.step_report import StepStatus

L = keras.layers
pytestmark = pytest.mark.usefixtures("float64")
EPSILON = 2.0**-52

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(20, 2))
Y = np.tanh(X[:, :1] - X[:, 1:]) + 0.1 * RANDOM.normal(size=(20, 1))


def net(hidden=2, activation=None):
    return keras.Sequential([keras.Input((2,)), L.Dense(hidden, "tanh"), L.Dense(1, activation)])


def line():
    return keras.Sequential([keras.Input((2,)), L.Dense(1)])


def twice_the_same_columns():
    x = keras.Input((2,))
    return keras.Model(x, L.Dense(1)(L.Concatenate()([x, x])))


def a_weight_without_effect():
    x = keras.Input((2,))
    return keras.Model(x, L.Dense(1)(x) + 0.0 * L.Dense(1)(x))


def welsch(y, p):
    """Not convex in the outputs beyond a residual of 1."""
    return tf.reduce_mean(1 - tf.exp(-((y - p) ** 2) / 2), axis=-1)


def wrong_gradient(y, p):
    """Its gradient points uphill: no step lowers it."""
    squares = (y - p) ** 2
    return tf.reduce_mean(2 * tf.stop_gradient(squares) - squares, axis=-1)


def trained(make, x=X, y=Y, loss="mse", epochs=200, optimizer=None, stop=None, **fit):
    """The model, its `LeastSquaresStop`, and how many epochs it trained."""
    model = make()
    compiled = {key: fit.pop(key) for key in ("jit_compile", "run_eagerly") if key in fit}
    if "steps_per_execution" in fit:
        compiled["steps_per_execution"] = fit.pop("steps_per_execution")
    model.compile(optimizer=keras_fwd.GaussNewton(**(optimizer or {})), loss=loss, **compiled)
    stop = stop or LeastSquaresStop()
    options = {"batch_size": len(x), "verbose": 0, "shuffle": False, **fit}
    history = model.fit(x, y, epochs=epochs, callbacks=[stop], **options)
    return model, stop, len(history.epoch)


# --- the tests as functions ----------------------------------------------------------------------

TOLERANCES = convergence.Tolerances(1e-6, 1e-5, 1e-4)
# reduction, predicted, ratio, step, cosine: test
MET = [
    ((1e-7, 1e-7, 1.0, 1.0, 1.0), StepStatus.LOSS_CONVERGED),
    ((1e-7, 1e-7, -1.0, 1.0, 1.0), StepStatus.LOSS_CONVERGED),
    ((1e-7, 1e-8, 10.0, 1.0, 1.0), StepStatus.NO_STEP),
    ((1e-5, 1e-7, 1.0, 1.0, 1.0), StepStatus.NO_STEP),
    ((1e-7, 1e-5, 1e-2, 1.0, 1.0), StepStatus.NO_STEP),
    ((1.0, 1.0, 1.0, 1e-6, 1.0), StepStatus.WEIGHTS_CONVERGED),
    ((1.0, 1.0, 1.0, 1e-4, 1e-3), StepStatus.NO_STEP),
    ((1.0, 1.0, 1.0, 1.0, 1e-5), StepStatus.GRADIENT_CONVERGED),
    ((np.inf, np.inf, -np.inf, np.inf, np.inf), StepStatus.NO_STEP),
]


@pytest.mark.parametrize(("numbers", "expected"), MET)
def test_each_test_is_met_by_its_own_numbers(numbers, expected):
    reduction, predicted, ratio, step, cosine = map(tf.constant, numbers)
    progress = convergence.Progress(reduction, predicted, ratio, step, step, cosine)
    assert int(tf.function(convergence.met)(progress, TOLERANCES)) == expected


def test_the_cosine_is_that_of_the_residual_and_its_change():
    A, b = RANDOM.normal(size=(9, 4)), RANDOM.normal(size=9)
    for damping in (0.0, 0.1, 1e4):
        s = -np.linalg.solve(A.T @ A + damping * np.eye(4), A.T @ b)
        slope, change = b @ A @ s, A @ s
        predicted = -(slope + change @ change / 2)
        found = convergence.cosine(
            tf.constant(slope), tf.constant(predicted), tf.constant(b @ b / 2)
        )
        expected = abs(b @ change) / np.linalg.norm(b) / np.linalg.norm(change)
        assert float(found) == pytest.approx(expected, rel=1e-5)
    columns = np.abs(b @ A) / np.linalg.norm(A, axis=0) / np.linalg.norm(b)
    projected = np.linalg.norm(A @ np.linalg.lstsq(A, b, rcond=None)[0]) / np.linalg.norm(b)
    assert projected >= columns.max()  # what the documentation says of MINPACK's measure


def test_what_is_not_known_is_never_small():
    one, infinite, nan = (tf.constant(v, tf.float64) for v in (1.0, np.inf, np.nan))
    for part, whole in [(infinite, one), (nan, one), (one, infinite), (one, nan), (one, 0 * one)]:
        assert float(convergence.relative(part, whole)) == np.inf
    assert float(convergence.relative(0 * one, 0 * one)) == 0.0
    assert float(convergence.cosine(-one, one, one)) == np.inf  # all of the curvature is rounding


# --- what the optimizer measures -----------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"jit_compile": True}, {"run_eagerly": True}], ids=str)
def test_the_record_of_a_step_is_what_numpy_finds(options):
    model = line()
    model.compile(optimizer=keras_fwd.GaussNewton(damping=0.5), loss="mse", **options)
    assert str(model.optimizer.status) == "step 0: no step has been taken yet"
    A = np.column_stack([X, np.ones(20)])
    w = np.append(*(np.ravel(part) for part in model.get_weights()))
    before = np.mean((A @ w - Y[:, 0]) ** 2)
    gradient, C = A.T @ (A @ w - Y[:, 0]) / 10, A.T @ A / 10
    s = -np.linalg.solve(C + 0.5 * np.eye(3), gradient)
    model.train_on_batch(X, Y)
    status = model.optimizer.status
    reduction = 1 - np.mean((A @ (w + s) - Y[:, 0]) ** 2) / before
    cosine = -gradient @ s / np.sqrt(s @ C @ s * 2 * before)
    assert (status.code, status.iterations, status.in_row) == (StepStatus.ACCEPTED, 1, 0)
    assert status.reduction == pytest.approx(reduction, rel=1e-5)
    assert status.predicted_reduction == pytest.approx(reduction, rel=1e-5)
    assert status.reduction_ratio == pytest.approx(1.0, rel=1e-5)
    assert status.step == pytest.approx(np.linalg.norm(s) / np.linalg.norm(w), rel=1e-5)
    assert status.cosine == pytest.approx(cosine, rel=1e-5)
    assert "lowered the loss" in str(status) and "relative step" in str(status)


def test_a_rejected_step_says_so_and_the_trials_count_by_the_largest():
    model = line()
    model.compile(optimizer=keras_fwd.GaussNewton(1e6, 1e-3, max_trials=1), loss="mse")
    model.train_on_batch(X, Y)
    status = model.optimizer.status
    assert status.code == StepStatus.REJECTED and status.reduction > 1e6 and status.step > 1e4


@pytest.mark.slow
def test_kfac_says_how_its_steps_ended():
    model = net()
    for optimizer in (keras_fwd.KFAC(), keras_fwd.KFAC(1e-3)):
        model.compile(optimizer=optimizer, loss="mse")
        model.train_on_batch(X, Y)
        assert str(optimizer.status) == "step 1: the step lowered the loss and was taken"
        model.train_on_batch(X * np.nan, Y)
        assert optimizer.status.code == StepStatus.BATCH_NOT_FINITE


# --- hard problems: trained on, or stopped with a status that says what happened -----------------

# Which test is met first at the last digits is a matter of rounding.
ANY = tuple(status for status in StepStatus if status.converged)
NIELSEN = {"damping": 1e-3}  # steps that are not bound to a region around the start
# name: arguments of `trained`, possible statuses, bound on the loss relative to that at the start
HARD = {
    "a linear model": ((line,), {}, ANY, 0.1),
    "a net": ((net,), {"optimizer": NIELSEN}, ANY, 0.05),
    "conjugate gradients": ((net,), {"optimizer": {"solver": "cg"}}, ANY, 0.05),
    "columns twice": ((twice_the_same_columns,), {}, ANY, 0.1),
    "a weight without effect": ((a_weight_without_effect,), {}, ANY, 0.1),
    "constant targets": ((net, X, np.full((20, 1), 3.0)), {}, ANY, 1e-20),
    "targets of zero": ((net, X, np.zeros((20, 1))), {}, ANY, 1e-20),
    "more weights than residuals": ((lambda: net(8), X[:4], Y[:4]), {}, ANY, 1e-20),
    "the dual system": (
        (lambda: net(8), X[:4], Y[:4]),
        {"optimizer": {"solver": "dual"}},
        ANY,
        1e-20,
    ),
    "a batch of one": ((net, X[:1], Y[:1]), {}, ANY, 1e-20),
    "residuals of 1e100": ((line, X, 1e100 * Y), {"optimizer": NIELSEN}, ANY, 0.12),
    "not convex": ((net, X, Y, welsch), {}, ANY, 0.05),
    "separable classes": (
        (lambda: net(2, "sigmoid"), X, (X[:, :1] > 0) * 1.0, "binary_crossentropy"),
        {"optimizer": NIELSEN},
        ANY,
        1e-6,
    ),
    "a wrong gradient": (
        (line, X, Y, wrong_gradient),
        {"optimizer": NIELSEN},
        (StepStatus.NO_PROGRESS,),
        1.0,
    ),
}


FAST = {"a linear model", "a weight without effect", "constant targets", "a wrong gradient"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in HARD],
)
def test_hard_problems_end_with_the_status_that_fits(name):
    arguments, options, statuses, bound = HARD[name]
    keras.utils.set_random_seed(0)
    model, stop, epochs = trained(*arguments, **options)
    assert stop.status in statuses and epochs < 200, stop.reason
    assert str(model.optimizer.status) == stop.reason and stop.status.message in stop.reason
    assert all(np.isfinite(w).all() for w in model.get_weights())
    keras.utils.set_random_seed(0)
    make, x, y, loss = (*arguments, *(X, Y, "mse")[len(arguments) - 1 :])
    start = make()
    start.compile(loss=loss)
    model.compile(loss=loss)
    before, after = (fn.evaluate(x, y, verbose=0) for fn in (start, model))
    assert after <= bound * before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("x", "y"),
    [(X, 1e200 * Y), (1e200 * X, Y), (np.where(np.arange(40).reshape(20, 2) == 7, np.nan, X), Y)],
    ids=range(3),
)
def test_data_that_is_not_finite_or_overflows_is_named_and_the_weights_stay(x, y):
    model = line()
    model.compile(optimizer=keras_fwd.GaussNewton(), loss="mse")
    before = model.get_weights()
    with pytest.raises(keras_fwd.NumericalError, match="20 batches in a row"):
        model.fit(x, y, batch_size=20, epochs=30, verbose=0, callbacks=[LeastSquaresStop()])
    assert model.optimizer.status.code == StepStatus.BATCH_NOT_FINITE
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_columns_whose_squares_overflow_are_fitted_all_the_same():
    model = line()
    model.set_weights([np.zeros((2, 1)), np.zeros(1)])
    trained(lambda: model, 1e200 * X, Y)
    A = np.column_stack([X, np.ones(20)])
    kernel, bias = model.get_weights()
    found = np.append(1e200 * kernel, bias)
    np.testing.assert_allclose(found, np.linalg.lstsq(A, Y, rcond=None)[0][:, 0], rtol=1e-9)


@pytest.mark.parametrize("solver", ["cg", "dual"])
def test_a_direction_that_is_not_finite_stops_with_its_status(solver):
    # The loss and its gradient are finite, the squares of the Jacobian are not.
    model = line()
    model.set_weights([np.zeros((2, 1)), np.zeros(1)])
    optimizer = {"solver": solver}
    _, stop, epochs = trained(lambda: model, 1e200 * X, Y, optimizer=optimizer)
    assert stop.status == StepStatus.SOLUTION_NOT_FINITE and epochs == 2
    for w in model.get_weights():
        np.testing.assert_array_equal(w, 0 * w)


# --- the callback --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{"jit_compile": True}, {"run_eagerly": True}, {"steps_per_execution": 3}], ids=str
)
def test_every_way_to_run_a_step_stops_at_the_same_place(options):
    options = {"optimizer": NIELSEN, **options}
    reference, stop, epochs = trained(line, optimizer=NIELSEN)
    keras.utils.set_random_seed(0)
    model, other, found = trained(line, **options)
    assert other.status.converged and stop.status.converged and abs(found - epochs) <= 2
    np.testing.assert_allclose(model.get_weights()[0], reference.get_weights()[0], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tolerance", "status"),
    [
        ({"ftol": 0.1}, StepStatus.LOSS_CONVERGED),
        ({"xtol": 0.1}, StepStatus.WEIGHTS_CONVERGED),
        ({"gtol": 0.5}, StepStatus.GRADIENT_CONVERGED),
    ],
    ids=str,
)
def test_each_tolerance_stops_training_by_its_own_test(tolerance, status, capsys):
    model, stop, epochs = trained(net, stop=LeastSquaresStop(**tolerance, verbose=1))
    assert stop.status == status and 1 < epochs < 30
    assert capsys.readouterr().out == f"LeastSquaresStop: {stop.reason}\n"
    # The numbers of the step are below the tolerance, those of the step before were not.
    ((name, bound),) = tolerance.items()
    measured = {"ftol": "predicted_reduction", "xtol": "step", "gtol": "cosine"}[name]
    assert getattr(model.optimizer.status, measured) <= bound
    model.fit(X, Y, batch_size=20, verbose=0)  # without the callback its tolerances are gone
    assert model.optimizer.status.code == StepStatus.ACCEPTED


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 4])
def test_batches_of_an_epoch_must_meet_a_test_in_a_row(steps):
    # All but the last batch of an epoch are solved exactly from the start.
    exact = line()
    x = np.tile(X[:4], (4, 1))
    y = exact(x).numpy()
    y[12:] += Y[:4]
    options = {"batch_size": 4, "steps_per_execution": steps, "epochs": 4, "optimizer": NIELSEN}
    _, stop, epochs = trained(lambda: exact, x, y, stop=LeastSquaresStop(xtol=1e-3), **options)
    assert stop.status is None and epochs == 4 and "epochs ran out" in stop.reason
    _, stop, epochs = trained(lambda: exact, x, np.tile(y[:4], (4, 1)), **options)
    assert stop.status is not None and epochs <= 3


@pytest.mark.slow
def test_a_generator_of_unknown_length_counts_its_first_epoch():
    dataset = tf.data.Dataset.from_generator(
        lambda: iter([(X[:10], Y[:10]), (X[10:], Y[10:])]),
        output_signature=(tf.TensorSpec((10, 2), "float64"), tf.TensorSpec((10, 1), "float64")),
    )
    model = line()
    model.compile(optimizer=keras_fwd.GaussNewton(), loss="mse")
    stop = LeastSquaresStop(xtol=1e9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras on a dataset of unknown length
        history = model.fit(dataset, epochs=5, verbose=0, callbacks=[stop])
    assert stop.status == StepStatus.WEIGHTS_CONVERGED and len(history.epoch) == 2


def test_the_best_weights_are_kept():
    model = line()

    class Spoil(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 3:
                model.set_weights([w + 9 for w in model.get_weights()])
                model.optimizer.learning_rate = 1e-3

    model.compile(optimizer=keras_fwd.GaussNewton(damping=1.0), loss="mse")
    for restore in (True, False):
        model.optimizer.learning_rate = 0.5
        stop = LeastSquaresStop(ftol=0, xtol=0, gtol=0, restore_best_weights=restore)
        model.fit(X, Y, batch_size=20, epochs=6, verbose=0, callbacks=[Spoil(), stop])
        loss = model.evaluate(X, Y, verbose=0)
        assert (loss < 1.0) == restore


def test_another_callback_that_ends_training_is_not_taken_for_the_last_epoch():
    class End(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

    model, stop = line(), LeastSquaresStop(ftol=0, xtol=0, gtol=0)
    model.compile(optimizer=keras_fwd.GaussNewton(damping=1.0), loss="mse")
    model.fit(X, Y, batch_size=20, epochs=5, verbose=0, callbacks=[End(), stop])
    assert stop.status is None and stop.reason.startswith("another callback ended training; last")


REFUSED = [
    ({"ftol": -1.0}, "`ftol` must be a finite number of at least 0"),
    ({"xtol": float("nan")}, "`xtol` must be a finite number"),
    ({"gtol": "small"}, "`gtol` must be a finite number"),
    ({"patience": 0}, "`patience` must be a whole number of at least 1, or None"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=str)
def test_arguments_that_cannot_work_are_refused(arguments, message):
    with pytest.raises(keras_fwd.ConfigurationError, match=message):
        LeastSquaresStop(**arguments)


@pytest.mark.parametrize("optimizer", ["adam", keras_fwd.KFAC()], ids=["Adam", "KFAC"])
def test_other_optimizers_are_refused(optimizer):
    model = line()
    model.compile(optimizer=optimizer, loss="mse")
    with pytest.raises(keras_fwd.ConfigurationError, match="must be compiled with"):
        model.fit(X, Y, verbose=0, callbacks=[LeastSquaresStop()])


@pytest.mark.slow
def test_every_optimizer_with_curvature_counts_what_is_not_finite():
    optimizers = keras_fwd.optimizers
    for optimizer in (optimizers.GaussNewton(), optimizers.KFAC()):
        assert isinstance(optimizer, optimizers.CurvatureOptimizer)
        model = line()
        model.compile(optimizer, "mse")
        model.fit(X, np.where(np.arange(20) < 10, np.nan, 1.0), batch_size=20, verbose=0)
        assert optimizer.nonfinite_steps == 1
