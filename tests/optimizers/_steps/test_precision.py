"""`GaussNewton` in mixed precision, and in float64 to its last bits."""

import keras
import numpy as np
import pytest
from support.flat_options import gauss_newton

from keras_fwd.optimizers._steps import precision

L = keras.layers
SOLVERS = ["dense", "dual", "cg"]
EXACT = {"tolerance": 1e-6, "max_iterations": 200}
#: Rounding of outputs and products, a few units of the last place.
ROUNDING = {"mixed_float16": 5e-3, "mixed_bfloat16": 4e-2}


@pytest.fixture
def policy(request):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)


MIXED = pytest.mark.parametrize("policy", ROUNDING, indirect=True)


def data(count=64):
    random = np.random.default_rng(0)
    x = random.normal(size=(count, 3)).astype("float16").astype("float32")
    return x, np.sin(x @ random.normal(size=(3, 1))).astype("float32")


def compiled(*stack, loss="mse", compile_options=None, **options):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input([3]), *stack])
    optimizer = gauss_newton(**options)
    model.compile(optimizer=optimizer, loss=loss, **(compile_options or {}))
    return model


def flat(model):
    return np.concatenate([np.ravel(w).astype("float64") for w in model.get_weights()])


def tanh_step(weights, x, y, damping, ridge=0.0, stride=1):
    """The damped step of one tanh unit and mse, in float64; curvature of some rows."""
    A = np.column_stack([x, np.ones(len(x))]).astype("float64")
    p = np.tanh(A @ weights)
    J = (1 - p**2)[:, None] * A
    C = J[::stride].T @ J[::stride] * 2 * stride / len(x) + (damping + 2 * ridge) * np.eye(4)
    return np.linalg.solve(C, -J.T @ (p - y[:, 0]) * 2 / len(x) - 2 * ridge * weights)


@MIXED
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_step_in_mixed_precision_is_the_exact_one_to_rounding(policy, solver):
    x, y = data()
    model = compiled(L.Dense(1, "tanh"), solver=solver, damping=0.25, **EXACT)
    before = flat(model)
    model.train_on_batch(x, y)
    moved, expected = flat(model) - before, tanh_step(before, x, y, 0.25)
    error = np.linalg.norm(moved - expected) / np.linalg.norm(expected)
    assert error < ROUNDING[policy]
    assert error > 1e-6  # the model does compute in half precision


@MIXED
def test_curvature_of_a_part_of_the_batch(policy):
    x, y = data()
    model = compiled(L.Dense(1, "tanh"), curvature_batch=32, damping=0.25, **EXACT)
    before = flat(model)
    model.train_on_batch(x, y)
    moved, expected = flat(model) - before, tanh_step(before, x, y, 0.25, stride=2)
    assert np.linalg.norm(moved - expected) < ROUNDING[policy] * np.linalg.norm(expected)


def small(policy, solver):
    """The error of a step whose gradient float16 alone would round to zero."""
    x, _ = data()
    model = compiled(L.Dense(1), solver=solver, damping=1e-7, **EXACT)
    w = flat(model)
    A = np.column_stack([x, np.ones(len(x))]).astype("float64")
    y = A @ w + 2e-3 * np.sin(A[:, 0])  # each example's gradient is 6e-5 at most, over 64 of them
    model.set_weights([w[:3, None], w[3:]])
    scale = np.full(len(x), 1e-4, "float32")
    model.train_on_batch(x, y[:, None], sample_weight=scale)
    p = (x.astype("float16") @ w[:3, None].astype("float16")).astype("float64")[:, 0] + w[3]
    C = A.T @ A * 2e-4 / len(x) + 1e-7 * np.eye(4)
    expected = np.linalg.solve(C, -A.T @ (p - y) * 2e-4 / len(x))
    return np.linalg.norm(flat(model) - w - expected) / np.linalg.norm(expected)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_float16"], indirect=True)
@pytest.mark.parametrize("solver", ["dense", "cg"])
def test_what_float16_rounds_to_zero_is_not_lost(policy, solver, monkeypatch):
    assert small(policy, solver) < 0.5
    monkeypatch.setattr(precision, "_length", lambda vector: 1.0)
    monkeypatch.setattr("keras_fwd.optimizers._steps.keras_hooks.scale_of", lambda scaler: None)
    assert not small(policy, solver) < 0.9  # a planted rule without lengths and scale


@pytest.mark.slow
@MIXED
@pytest.mark.parametrize("preconditioner", [None, "kfac"])
def test_mixed_precision_trains_and_goes_on_after_saving(policy, preconditioner, tmp_path):
    x, y = data()
    stack = L.Dense(8, "tanh"), L.Dense(1)
    model = compiled(*stack, solver="cg", preconditioner=preconditioner)
    history = model.fit(x, y, batch_size=64, epochs=8, verbose=0).history
    assert history["loss"][-1] < 0.1 * history["loss"][0]
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    for trained in (model, again):
        trained.fit(x, y, batch_size=64, epochs=2, verbose=0)
    np.testing.assert_array_equal(flat(model), flat(again))


@pytest.mark.parametrize("policy", ["mixed_float16"], indirect=True)
@pytest.mark.slow
@pytest.mark.parametrize("run", [{"run_eagerly": True}, {"jit_compile": True}], ids=str)
def test_classifier_in_every_mode(policy, run):
    x, y = data()
    labels = (y[:, 0] > 0).astype("int32")
    for solver in ("cg", "dense"):
        model = compiled(
            L.Dense(8, "tanh"),
            L.Dense(2, "softmax"),
            loss="sparse_categorical_crossentropy",
            compile_options=run,
            solver=solver,
        )
        history = model.fit(x, labels, batch_size=64, epochs=6, verbose=0).history
        assert history["loss"][-1] < 0.3 * history["loss"][0]


@pytest.mark.parametrize("policy", ["mixed_float16"], indirect=True)
def test_a_gradient_that_overflows_halves_the_scale_and_leaves_the_damping(policy):
    x, y = data()
    model = compiled(L.Dense(1, "tanh"), damping=0.5)
    inner = model.optimizer.inner_optimizer
    model.optimizer.build(model.trainable_variables)
    model.optimizer.dynamic_scale.assign(2.0**40)
    before = flat(model)
    model.train_on_batch(x, y)
    np.testing.assert_array_equal(flat(model), before)
    assert float(model.optimizer.dynamic_scale.numpy()) == 2.0**39
    assert float(inner.damping.numpy()) == 0.5
    model.optimizer.dynamic_scale.assign(2.0**10)
    model.train_on_batch(x, y)
    assert np.any(flat(model) != before) and float(inner.damping.numpy()) < 0.5


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_float64_step_has_the_digits_of_float64(solver, float64):
    x, y = data()
    x, y = x + 1e-9 * np.pi, y + 1e-9 * np.e
    options = {"tolerance": 1e-15, "max_iterations": 200, "damping": 0.25}
    l2 = keras.regularizers.L2(0.125)  # Keras rounds it to float32
    unit = L.Dense(1, "tanh", kernel_regularizer=l2, bias_regularizer=l2)
    model = compiled(unit, solver=solver, **options)
    before = flat(model)
    model.train_on_batch(x, y)
    expected = tanh_step(before, x, y, 0.25, ridge=0.125)
    np.testing.assert_allclose(flat(model) - before, expected, rtol=1e-11)
