"""`GaussNewton(solver="cg", preconditioner="kfac")`: the same steps, in fewer iterations."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.flat_options import gauss_newton

import keras_fwd
from keras_fwd._spaces import nest
from keras_fwd.optimizers._least_squares import iterative_system
from keras_fwd.optimizers._least_squares.preconditioners import BatchPreconditioner

pytestmark = pytest.mark.usefixtures("float64")

L = keras.layers
KFAC = "kfac"


def data(*shape, outputs=2):
    random = np.random.default_rng(0)
    x = random.normal(size=shape)
    flat = x.reshape(len(x), -1)
    return x, np.sin(flat @ random.normal(size=(flat.shape[1], outputs)))


def badly_scaled():
    """A deep tanh net with inputs of very different sizes."""
    x, _ = data(256, 16)
    x *= np.geomspace(0.01, 10, 16)
    y = np.tanh(x @ np.random.default_rng(1).normal(size=(16, 4)) / 4)
    layers = [keras.Input([16]), *[L.Dense(32, "tanh") for _ in range(3)], L.Dense(4)]
    return keras.Sequential(layers), x, y


def compiled(make, preconditioner, loss="mse", tolerance=1e-3, iterations=2000, **options):
    """The model and its data, the same weights in each call."""
    keras.utils.set_random_seed(0)
    model, x, y = make()
    optimizer = gauss_newton(
        solver=options.pop("solver", "cg"),
        tolerance=tolerance,
        max_iterations=iterations,
        preconditioner=preconditioner,
        **{"damping": 1e-3, **options},
    )
    model.compile(optimizer, loss)
    return model, x, y


def steps(make, preconditioner, count=1, compile_options=None, **options):
    model, x, y = compiled(make, preconditioner, **options)
    if compile_options:
        model.compile(model.optimizer, "mse", **compile_options)
    return model, [model.train_on_batch(x, y, return_dict=True) for _ in range(count)]


def same_weights(model, other, rtol):
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)


@pytest.mark.slow
def test_a_badly_scaled_net_needs_fewer_iterations():
    _, plain = steps(badly_scaled, None, 4, damping=1e-5)
    _, better = steps(badly_scaled, KFAC, 4, damping=1e-5)
    assert better[0]["solver_iterations"] < 0.5 * plain[0]["solver_iterations"]
    count, fewer = (sum(log["solver_iterations"] for log in each) for each in (plain, better))
    assert fewer < 0.7 * count
    assert better[-1]["loss"] < 1.3 * plain[-1]["loss"]


@pytest.mark.slow
def test_at_convergence_the_steps_are_the_same():
    plain, logs = steps(badly_scaled, None, 2, tolerance=1e-11)
    other, better = steps(badly_scaled, KFAC, 2, tolerance=1e-11)
    same_weights(plain, other, 1e-6)
    for a, b in zip(logs, better, strict=True):
        assert a["damping"] == pytest.approx(b["damping"], rel=1e-4)


def test_one_output_of_a_linear_model_is_solved_in_one_iteration():
    def linear():
        x, y = data(32, 4, outputs=1)
        return keras.Sequential([keras.Input([4]), L.Dense(1)]), x, y

    model, (logs,) = steps(linear, KFAC, damping=0.0, tolerance=1e-9)
    assert logs["solver_iterations"] == 1  # there the factors are the whole curvature
    x, y = data(32, 4, outputs=1)
    expected = np.linalg.lstsq(np.column_stack([x, np.ones(32)]), y, rcond=None)[0]
    np.testing.assert_allclose(np.vstack(model.get_weights()[0]), expected[:-1], rtol=1e-7)


def images():
    x, y = data(16, 6, 6, 2)
    stack = [L.Conv2D(4, 3, activation="tanh"), L.BatchNormalization(), L.Flatten(), L.Dense(2)]
    return keras.Sequential([keras.Input([6, 6, 2]), *stack]), x, y


def words():
    x = np.random.default_rng(0).integers(0, 7, size=(32, 3))
    stack = [L.Embedding(7, 4), L.GRU(3), L.LayerNormalization(), L.Dense(2)]
    return keras.Sequential([keras.Input([3], dtype="int64"), *stack]), x, data(32, 3)[1]


def regularized():
    x, y = data(32, 4)
    stack = [L.Dense(6, "tanh", kernel_regularizer="l2"), L.Dense(2, bias_regularizer="l1l2")]
    return keras.Sequential([keras.Input([4]), *stack]), x, y


def two_outputs():
    x, y = data(32, 4)
    inputs = keras.Input([4])
    hidden = L.Dense(6, "tanh")(inputs)
    outputs = {"a": L.Dense(1)(hidden), "b": L.Dense(2, "softmax")(hidden)}
    return keras.Model(inputs, outputs), x, {"a": y[:, :1], "b": (y[:, 0] > 0).astype("int32")}


MODELS = {
    "images": (images, "mse"),
    "words": (words, "mse"),
    "regularized": (regularized, "mse"),
    "huber": (regularized, "huber"),
    "two outputs": (two_outputs, {"a": "mse", "b": "sparse_categorical_crossentropy"}),
}


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=[pytest.mark.slow] * (c != "regularized")) for c in MODELS]
)
def test_every_kind_of_model_takes_the_same_step(case):
    make, loss = MODELS[case]
    options = {"loss": loss, "tolerance": 1e-11, "damping": 0.1}
    plain, _ = steps(make, None, **options)
    other, logs = steps(make, KFAC, **options)
    same_weights(plain, other, 1e-7)
    assert logs[0]["reduction_ratio"] > 0


@pytest.mark.slow
def test_regularizers_are_in_the_preconditioner(monkeypatch):
    def strong():
        model, x, y = badly_scaled()
        for layer in model.layers:
            layer.kernel.regularizer = keras.regularizers.L2(0.01)
        return model, x, y

    def without(model_pass, expansion, hessian, ridge, step):
        return BatchPreconditioner(model_pass, expansion, hessian, nest.scale(0.0, ridge), step)

    _, (logs,) = steps(strong, KFAC, damping=1e-5)
    monkeypatch.setattr(iterative_system, "BatchPreconditioner", without)
    _, (other,) = steps(strong, KFAC, damping=1e-5)
    assert logs["solver_iterations"] < 0.2 * other["solver_iterations"]


@pytest.mark.slow
def test_a_solver_of_version_0_1_0_that_was_chosen_by_itself_uses_it_where_it_chooses_cg():
    """There the option stood beside `solver="auto"`; files that say so still do."""

    def wide():
        x, y = data(600, 4)
        return keras.Sequential([keras.Input([4]), L.Dense(200, "tanh"), L.Dense(2)]), x, y

    def stepped(make, **old):
        keras.utils.set_random_seed(0)
        model, x, y = make()
        config = {"solver": "auto", "damping": 1e-3, "max_solver_iterations": 5, **old}
        model.compile(keras_fwd.GaussNewton.from_config(config), "mse")
        return model, model.train_on_batch(x, y, return_dict=True)

    many, _ = stepped(wide, preconditioner=KFAC)
    asked, _ = steps(wide, KFAC, iterations=5)
    same_weights(many, asked, 1e-6)
    small, _ = stepped(regularized, preconditioner=KFAC)  # dense, where there is nothing to do
    plain, _ = stepped(regularized)
    same_weights(small, plain, 0.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{"run_eagerly": True}, pytest.param({"jit_compile": True}, marks=pytest.mark.slow)],
    ids=str,
)
def test_graph_eager_and_xla_take_the_same_steps(options):
    reference, _ = steps(badly_scaled, KFAC, 2, tolerance=1e-10)
    other, _ = steps(badly_scaled, KFAC, 2, options, tolerance=1e-10)
    same_weights(other, reference, 1e-5)


@pytest.mark.slow
def test_a_saved_model_goes_on_to_the_same_weights(tmp_path):
    model, x, y = compiled(badly_scaled, KFAC, iterations=20)
    model.fit(x, y, batch_size=256, epochs=3, verbose=0, shuffle=False)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.optimizer.solver.preconditioner == KFAC
    for trained in (model, again):
        trained.fit(x, y, batch_size=256, epochs=3, verbose=0, shuffle=False)
    same_weights(model, again, 0.0)


def test_a_batch_that_is_not_finite_is_left_out():
    model, x, y = compiled(badly_scaled, KFAC, iterations=20)
    before = model.get_weights()
    model.train_on_batch(np.full_like(x, np.nan), y)
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    first = model.train_on_batch(x, y, return_dict=True)
    assert first["reduction_ratio"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("damping", [0.0, 1e-3])
def test_factors_without_full_rank_do_no_harm(damping):
    def constant():
        x, y = data(32, 8)
        model = keras.Sequential([keras.Input([8]), L.Dense(12, "relu"), L.Dense(2)])
        model.layers[0].bias.assign(np.where(np.arange(12) < 6, -100.0, 0.0))  # never seen
        return model, np.ones_like(x), y

    _, logs = steps(constant, KFAC, 3, damping=damping)
    assert logs[-1]["loss"] <= logs[0]["loss"] and np.isfinite(logs[-1]["loss"])


def test_a_loss_without_a_root_is_refused():
    def many():
        x, _ = data(4, 3)
        return keras.Sequential([keras.Input([3]), L.Dense(300)]), x, np.zeros((4, 300))

    def strange(y, p):
        return tf.reduce_mean(tf.cosh(p - y), -1) ** 2

    with pytest.raises(keras_fwd.ConfigurationError, match="preconditioner=None"):
        steps(many, KFAC, loss=strange)
