"""What `test_replicas.py` runs in a process of its own: TensorFlow must not have started there."""

import contextlib
import functools
import sys
import tempfile

import keras
import numpy as np
import tensorflow as tf

import keras_fwd
from keras_fwd import KFAC, GaussNewton
from support.flat_options import gauss_newton
from support.page_functions import documented

L = keras.layers
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(32, 4))
Y = np.sin(X @ RANDOM.normal(size=(4, 2)))
ALONE = contextlib.nullcontext()
# With TensorFlow's optimizer of graphs, which takes a third of the time: of each solver, of K-FAC,
# and of all that is specific to several processes.
OPTIMIZED = {"dense", "dual", "iterative", "fixed", "workers"}


@functools.cache  # two of them on the same devices disturb each other
def two():
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def plain():
    return [L.Dense(6, "tanh"), L.LayerNormalization(), L.Dense(2)]


def ridged():
    return [L.Dense(6, "tanh", kernel_regularizer="l2"), L.LayerNormalization(), L.Dense(2)]


def compiled(scope, optimizer, layers=plain, loss="mse", **arguments):
    with scope:
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input([4]), *layers()])
        model.compile(optimizer(), loss, **arguments)
    return model


def fit(model, x=X, y=Y, epochs=3):
    return model.fit(x, y, batch_size=16, epochs=epochs, verbose=0, shuffle=False).history


def copies(model):
    """Both copies of each variable of the model and its optimizer."""
    strategy = model.distribute_strategy
    values = [v.value for v in [*model.variables, *model.optimizer.variables]]
    return [[c.numpy() for c in strategy.experimental_local_results(v)] for v in values]


def assert_replicas_agree(model):
    for first, second in copies(model):
        np.testing.assert_array_equal(first, second)


def assert_same_weights(left, right, rtol=1e-10):
    for a, b in zip(left.get_weights(), right.get_weights(), strict=True):
        size = np.abs(a).max()  # a small entry has the rounding of those beside it
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * size / 10)


def assert_as_one(layers=plain, epochs=3, kind=KFAC, loss="mse", y=Y, rtol=1e-5, **options):
    """Two replicas against one with the whole batch; returns the logs."""
    one, both = (
        compiled(scope, lambda: kind(**options), layers, loss) for scope in (ALONE, two().scope())
    )
    histories = fit(one, y=y, epochs=epochs), fit(both, y=y, epochs=epochs)
    assert_same_weights(one, both)
    assert_replicas_agree(both)
    for name, values in histories[0].items():
        np.testing.assert_allclose(values, histories[1][name], rtol=rtol, err_msg=name)
    return histories[1]


# -- cases


def preconditioned():
    return gauss_newton(solver="cg", preconditioner="kfac")


def refused():
    cases = [
        (preconditioned, {}, "`preconditioner` is for one device"),
        (lambda: GaussNewton(micro_batch=8), {}, "a share of the batch each already"),
        (KFAC, {"run_eagerly": True}, "compiled code only"),
        (KFAC, {"jit_compile": True}, "XLA"),
    ]
    for optimizer, arguments, message in cases:
        model = compiled(two().scope(), optimizer, **arguments)
        assert_raises(message, lambda model=model: model.fit(X, Y, verbose=0))
    outside = KFAC()
    model = compiled(two().scope(), lambda: outside)
    assert_raises("inside `strategy.scope", lambda: model.fit(X, Y, verbose=0))
    with model.distribute_strategy.scope():
        assert_raises("`fit`, or `strategy.run", lambda: model.train_step((X, Y)))


def assert_raises(message, call):
    try:
        call()
    except keras_fwd.ConfigurationError as error:
        assert message in str(error) and "Received: " in str(error), error
    else:
        raise AssertionError(f"no error with {message!r}")


def dense():
    """By a trust region, whose norms of columns, radius and damping are those of the whole batch.

    Then by Nielsen's rule, of a cross-entropy, and of a loss without a root in closed form.
    """
    assert_as_one(ridged, kind=gauss_newton, solver="dense")
    assert_as_one(ridged, kind=gauss_newton, solver="dense", damping=0.1)
    labels = np.arange(32) % 2
    sparse = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    assert_as_one(kind=gauss_newton, loss=sparse, y=labels)
    assert_as_one(kind=gauss_newton, loss="log_cosh")


def dual():
    assert_as_one(ridged, kind=gauss_newton, solver="dual")
    assert_as_one(kind=gauss_newton, solver="dual", damping=0.1)


def iterative():
    """Few iterations, or so many that the system is solved.

    Between, one replica does not even take the steps of itself with the batch in another order:
    rounding takes the orthogonality of its vectors. The iterations are not compared for that.
    """
    options = {"kind": gauss_newton, "solver": "cg"}
    assert_as_one(ridged, max_iterations=3, **options)
    few = {"max_iterations": 5, "curvature_batch": 8, "damping": 0.1}
    assert_as_one(ridged, **few, **options)


def converged():
    """Of so few weights that the system is solved in as many products."""

    def small():
        return [L.Dense(2, "tanh", kernel_regularizer="l2"), L.Dense(2)]

    limits = {"max_iterations": 60, "tolerance": 1e-12}
    one, both = (
        compiled(scope, lambda: gauss_newton(solver="cg", **limits), small)
        for scope in (ALONE, two().scope())
    )
    fit(one), fit(both)
    assert_same_weights(one, both, rtol=1e-7)
    assert_replicas_agree(both)


def repelled():
    """Steps that are rejected: by both replicas, and as often as by one."""
    far = {"learning_rate": 4.0, "damping": 1e-6}
    cases = [{"solver": "dense"}, {"solver": "dual", **far}]
    for options in cases:
        logs = assert_as_one(kind=gauss_newton, **options)
        assert max(logs["solver_iterations"]) > 1, logs
    few = {"solver": "cg", "max_iterations": 3, **far}
    logs = assert_as_one(kind=gauss_newton, **few)
    assert max(logs["solver_iterations"]) > 3, logs


def fixed():
    assert_as_one(fisher="type-2", learning_rate=0.1, inverse_every=2)


def adaptive():
    assert_as_one(fisher="type-2", factor_every=2, inverse_every=3, curvature_batch=8)


def empirical():
    assert_as_one(fisher="empirical", inverse="eigen")


def embedded():
    def layers():
        return [L.Dense(4, "relu"), L.Embedding(5, 3), L.Flatten(), L.Dense(2)]

    # Rows of integers are made inside the model, so that the data need not be others.
    def lookup():
        return [L.Rescaling(1.0), L.Lambda(lambda x: tf.cast(x > 0, tf.int32)), *layers()[1:]]

    assert_as_one(lookup, fisher="type-2", learning_rate=0.1)


def rejected():
    """Steps far too long are shortened by both replicas alike."""
    options = {"learning_rate": 30.0, "kl_clip": None, "max_trials": 4, "momentum": 0.0}
    assert_as_one(fisher="type-2", damping=1.0, **options)


def monte_carlo():
    model = compiled(two().scope(), KFAC)
    x, y = np.tile(X, [8, 1]), np.tile(Y, [8, 1])  # an epoch takes long to start
    losses = fit(model, x, y, epochs=2)["loss"]
    assert losses[-1] < 0.5 * losses[0], losses
    assert_replicas_agree(model)


def normalized():
    """BatchNormalization keeps statistics as in the step of Keras: each replica its own."""

    def layers():
        return [L.Dense(4), L.BatchNormalization(momentum=0.5), L.Dropout(0.5), L.Dense(2)]

    def still():
        return KFAC(0.0, fisher="type-2")

    ours = compiled(two().scope(), still, layers)
    theirs = compiled(two().scope(), lambda: keras.optimizers.SGD(0.0), layers)
    for model in (ours, theirs):
        fit(model, epochs=2)
    pairs = zip(ours.variables, theirs.variables, strict=True)
    for (mine, other), a, b in zip(pairs, copies(ours), copies(theirs), strict=False):
        assert mine.name == other.name
        np.testing.assert_allclose(a, b, rtol=1e-12)
    moving = copies(ours)[[v.name for v in ours.variables].index("moving_mean")]
    assert np.abs(moving[0] - moving[1]).max() > 0.01


def uneven(optimizers=(lambda: KFAC(fisher="type-2"),)):
    """Shares of the batch of different sizes, or empty."""
    for optimizer in optimizers:
        model = compiled(two().scope(), optimizer)
        for count in (21, 17):
            losses = fit(model, X[:count], Y[:count])["loss"]
            assert losses[-1] < losses[0]
        assert_replicas_agree(model)


def jagged():
    """The same, of Gauss-Newton."""
    few = {"max_iterations": 4, "damping": 0.1}
    uneven([GaussNewton, lambda: GaussNewton(0.5, 0.1, solver="dual"), lambda: gauss_newton(**few)])


def not_finite(optimizer=KFAC):
    """NaN in the share of the second replica is seen by both, and named."""
    model = compiled(two().scope(), optimizer)
    fit(model, epochs=1)
    before = copies(model)
    bad = X.copy()
    bad[12:16] = np.nan  # of the first batch
    fit(model, bad[:16], Y[:16], epochs=1)
    assert model.optimizer.nonfinite_steps == 1
    for a, b in zip(before[: len(model.variables)], copies(model), strict=False):
        np.testing.assert_array_equal(a, b)
    fit(model, epochs=1)
    assert_replicas_agree(model)
    model.optimizer.patience = 1
    try:
        fit(model, bad[:16], Y[:16], epochs=1)
    except keras_fwd.NumericalError as error:
        assert "NaN in inputs" in str(error), error
    else:
        raise AssertionError("no error")


def nowhere():
    """The same, of Gauss-Newton."""
    not_finite(GaussNewton)
    not_finite(lambda: GaussNewton(solver="dual"))
    not_finite(lambda: gauss_newton(solver="cg", max_iterations=3))


def halved():
    """Half precision, with the loss scaled."""
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("mixed_float16")
    few = {"max_iterations": 4, "damping": 0.1, "solver": "cg"}
    for options in ({}, few):
        model = compiled(two().scope(), lambda: gauss_newton(**options))  # noqa: B023
        losses = fit(model, X.astype("float32"), Y.astype("float32"))["loss"]
        assert losses[-1] < losses[0], losses
        assert_replicas_agree(model)
    keras.config.set_dtype_policy("float64")
    keras.config.set_floatx("float64")


def traced():
    """The step is not traced again, and goes on from a file, also on one device."""
    traces = []

    @keras.saving.register_keras_serializable("tests")
    class Counted(keras.Sequential):
        def train_step(self, data):
            traces.append(1)
            return super().train_step(data)

    strategy = two()
    with strategy.scope():
        keras.utils.set_random_seed(0)
        model = Counted([keras.Input([4]), *plain()])
        model.compile(KFAC(fisher="type-2"), "mse")
    fit(model, epochs=1)
    count = len(traces)
    assert count == 2  # one for each replica
    with tempfile.TemporaryDirectory() as folder:
        model.save(f"{folder}/model.keras")
        with strategy.scope():
            again = keras.models.load_model(f"{folder}/model.keras")
        alone = keras.models.load_model(f"{folder}/model.keras")
    fit(model, epochs=2)
    assert len(traces) == count
    fit(again, epochs=2)
    fit(alone, epochs=2)
    assert_same_weights(model, again)
    assert_same_weights(model, alone)


def averaged():
    """Averages of weights and decay."""
    assert_as_one(
        fisher="type-2",
        learning_rate=0.1,
        weight_decay=1e-3,
        clipnorm=1.0,
        use_ema=True,
        ema_momentum=0.5,
        ema_overwrite_frequency=3,
    )


def workers():
    """Each of two processes, by a loop of its own: `fit` of Keras does not know them."""
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    options = {"fisher": "type-2", "learning_rate": 0.1, "inverse_every": 2, "factor_every": 2}
    few = {"solver": "cg", "max_iterations": 3}
    optimizers = [
        lambda: KFAC(**options),
        lambda: GaussNewton(solver="dense"),
        lambda: GaussNewton(solver="dual"),
        lambda: gauss_newton(**few),
    ]
    train = documented("devices.md", "train", {"tf": tf})
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(16, drop_remainder=True)
    for optimizer in optimizers:
        both = compiled(strategy.scope(), optimizer)
        assert "damping" in train(both, strategy, data, epochs=3)
        one = compiled(ALONE, optimizer)
        fit(one)
        assert_same_weights(one, both, rtol=1e-7)  # a worker gets every other example


if __name__ == "__main__":
    (cpu,) = tf.config.list_physical_devices("CPU")
    if sys.argv[1:] != ["workers"]:
        one = tf.config.LogicalDeviceConfiguration()
        tf.config.set_logical_device_configuration(cpu, [one, one])
    keras.config.set_floatx("float64")
    if not OPTIMIZED & set(sys.argv[1:]):
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    for case in sys.argv[1:]:
        globals()[case]()
