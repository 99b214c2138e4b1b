"""`GaussNewton(curvature_batch=…)`: gradient and judgment of the batch, curvature of a part."""

import keras
import numpy as np
import pytest
from support.flat_options import gauss_newton

pytestmark = pytest.mark.usefixtures("float64")

L = keras.layers
EXACT = {"tolerance": 1e-14, "max_iterations": 300, "damping": 0.125}


def data(count=24):
    random = np.random.default_rng(0)
    x = random.normal(size=(count, 3))
    return x, np.sin(x @ random.normal(size=(3, 1)))


def compiled(*stack, loss="mse", compile_options=None, **options):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input([3]), *stack])
    optimizer = gauss_newton(**{**EXACT, **options})
    model.compile(optimizer, loss, **(compile_options or {}))
    return model


def flat(model):
    return np.concatenate([np.ravel(w) for w in model.get_weights()])


def expected_step(w, x, y, stride, ridge=0.0):
    """Of one tanh unit and mse, by its formula: slope of all rows, curvature of some."""
    A = np.column_stack([x, np.ones(len(x))])
    p = np.tanh(A @ w)
    J = (1 - p**2)[:, None] * A
    kernel = np.array([1.0, 1.0, 1.0, 0.0])
    some = J[::stride]
    C = some.T @ some * 2 / len(some) + np.diag(2 * ridge * kernel)
    g = J.T @ (p - y[:, 0]) * 2 / len(x) + 2 * ridge * kernel * w
    step = -np.linalg.solve(C + EXACT["damping"] * np.eye(4), g)
    before = np.mean((p - y[:, 0]) ** 2) + ridge * np.sum(kernel * w**2)
    after = w + step
    after = np.mean((np.tanh(A @ after) - y[:, 0]) ** 2) + ridge * np.sum(kernel * after**2)
    return step, (before - after) / -(g @ step + step @ C @ step / 2)


@pytest.mark.slow
@pytest.mark.parametrize("preconditioner", [None, "kfac"])
@pytest.mark.parametrize("ridge", [0.0, 0.125])
def test_the_step_and_its_ratio_are_those_of_the_formula(preconditioner, ridge):
    x, y = data()
    regularizer = keras.regularizers.L2(ridge) if ridge else None
    unit = L.Dense(1, "tanh", kernel_regularizer=regularizer)
    model = compiled(unit, curvature_batch=8, preconditioner=preconditioner)
    before = flat(model)
    logs = model.train_on_batch(x, y, return_dict=True)
    step, ratio = expected_step(before, x, y, 3, ridge)
    np.testing.assert_allclose(flat(model) - before, step, rtol=1e-9)
    assert logs["reduction_ratio"] == pytest.approx(ratio, rel=1e-5)
    assert not np.allclose(step, expected_step(before, x, y, 1, ridge)[0], rtol=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize(
    "run",
    [{}, {"run_eagerly": True}, pytest.param({"jit_compile": True}, marks=pytest.mark.slow)],
    ids=str,
)
def test_a_net_takes_the_same_steps_in_every_mode(run):
    x, y = data(32)
    stack = L.Dense(6, "tanh"), L.Dense(1)
    model = compiled(*stack, curvature_batch=8, compile_options=run)
    losses = model.fit(x, y, batch_size=32, epochs=5, shuffle=False, verbose=0).history["loss"]
    assert losses[-1] < 0.3 * losses[0]
    reference = compiled(L.Dense(6, "tanh"), L.Dense(1), curvature_batch=8)
    reference.fit(x, y, batch_size=32, epochs=5, shuffle=False, verbose=0)
    np.testing.assert_allclose(flat(model), flat(reference), rtol=1e-6, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{"loss": keras.losses.MeanSquaredError(reduction="sum")}, {"curvature_batch": 24}],
    ids=["a sum", "no larger than the batch"],
)
def test_all_examples_where_a_part_would_not_do(options):
    x, y = data()
    steps = []
    for most in (options.get("curvature_batch", 8), None):
        arguments = {**options, "curvature_batch": most}
        model = compiled(L.Dense(1, "tanh"), solver="cg", **arguments)
        model.train_on_batch(x, y)
        steps.append(flat(model))
    np.testing.assert_allclose(*steps, rtol=1e-9)


def test_a_step_that_only_fits_the_part_is_not_kept():
    x, y = data()
    x[::3] *= 1e-3  # the part hardly sees the inputs, and calls for steps that are far too long
    model = compiled(L.Dense(1), curvature_batch=8, damping=1e-6)
    first = model.evaluate(x, y, verbose=0)
    losses = model.fit(x, y, batch_size=24, epochs=15, shuffle=False, verbose=0).history["loss"]
    assert np.all(np.diff([first, *losses]) <= 0)
    assert float(model.optimizer.damping.numpy()) > 1e-6
