"""What `scaling.py` times: calls on dense nets of which one size at a time grows."""

import keras
import tensorflow as tf
import timing

import keras_fwd

L = keras.layers
SIZES = ("width", "depth", "batch", "features", "outputs")
CG_ITERATIONS = 10


def net(sizes):
    """`depth` hidden tanh layers, the weights the same for the same sizes."""
    keras.utils.set_random_seed(0)
    hidden = [L.Dense(sizes["width"], "tanh") for _ in range(sizes["depth"])]
    return keras.Sequential([keras.Input([sizes["features"]]), *hidden, L.Dense(sizes["outputs"])])


def batch(sizes):
    """Inputs and targets."""
    x = tf.random.stateless_normal([sizes["batch"], sizes["features"]], (0, 1))
    return x, tf.random.stateless_normal([sizes["batch"], sizes["outputs"]], (0, 2))


def compiled(function, *arguments):
    return timing.waiting(tf.function(function, autograph=False), *arguments)


def forward(sizes):
    return compiled(net(sizes), batch(sizes)[0])


def gradient(sizes):
    model, (x, y) = net(sizes), batch(sizes)
    weights = [variable.value for variable in model.trainable_variables]

    def function():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
        return tape.gradient(loss, weights)

    return compiled(function)


def jvp_inputs(sizes):
    model, (x, _) = net(sizes), batch(sizes)
    return compiled(lambda x: keras_fwd.jvp(model, x, tf.ones_like(x)), x)


def jvp_weights(sizes):
    model, (x, _) = net(sizes), batch(sizes)
    along = [tf.ones_like(variable.value) for variable in model.trainable_variables]
    return compiled(lambda x: keras_fwd.jvp(model, x, along, wrt="weights"), x)


def training(optimizer, sizes):
    """A step of training."""
    model, data = net(sizes), batch(sizes)
    model.compile(optimizer, "mse")
    return compiled(lambda: model.train_step(data)["loss"])


def gauss_newton(solver):
    """A step with one trial; conjugate gradients do all of their iterations."""

    def build(sizes):
        chosen = solver
        if solver == "cg":
            chosen = keras_fwd.optimizers.CG(max_iterations=CG_ITERATIONS, tolerance=0.0)
        return training(keras_fwd.GaussNewton(solver=chosen, max_trials=1), sizes)

    return build


def kfac(sizes):
    """As many steps as renew every inverse once."""
    optimizer = keras_fwd.KFAC(1e-3)
    step = training(optimizer, sizes)
    step()
    optimizer.iterations.assign(2**20)  # the periods have grown to what they stay at

    def steps():
        for _ in range(optimizer.inverse_every):
            step()

    return steps


def report(sizes):
    """All measures with intervals, on four batches, with its trace."""
    model = net(sizes)
    x = batch({**sizes, "batch": 4 * sizes["batch"]})[0].numpy()
    return lambda: keras_fwd.sensitivity_report(model, x, batch_size=sizes["batch"])


#: Name of a side: its function, and how many of its unit one call does.
SIDES = {
    "forward pass": (forward, 1),
    "gradient": (gradient, 1),
    "jvp by inputs": (jvp_inputs, 1),
    "jvp by weights": (jvp_weights, 1),
    f"GaussNewton, cg, {CG_ITERATIONS} iterations": (gauss_newton("cg"), 1),
    "KFAC": (kfac, 32),
    "report on 4 batches": (report, 1),
    "GaussNewton, dense": (gauss_newton("dense"), 1),
    "GaussNewton, dual": (gauss_newton("dual"), 1),
}
BASELINES = ["forward pass", "gradient"]


def times(start, count):
    """So many sizes, each twice the one before."""
    return [start * 2**i for i in range(count)]


#: Sides that share a net; its sizes while another one grows; and how those grow.
GROUPS = {
    "net": (
        [name for name in SIDES if name not in ("GaussNewton, dense", "GaussNewton, dual")],
        {"width": 256, "depth": 4, "batch": 256, "features": 64, "outputs": 16},
        {
            "width": times(64, 5),
            "depth": times(1, 5),
            "batch": times(64, 5),
            "features": times(16, 5),
            "outputs": times(4, 5),
        },
    ),
    "few weights": (
        [*BASELINES, "GaussNewton, dense"],
        {"width": 16, "depth": 1, "batch": 512, "features": 8, "outputs": 1},
        {
            "width": times(8, 5),
            "depth": times(1, 4),
            "batch": times(256, 5),
            "features": times(4, 5),
            "outputs": times(1, 4),
        },
    ),
    "few residuals": (
        [*BASELINES, "GaussNewton, dual"],
        {"width": 256, "depth": 1, "batch": 128, "features": 8, "outputs": 1},
        {
            "width": times(128, 5),
            "depth": times(1, 3),
            "batch": times(64, 5),
            "features": times(4, 5),
            "outputs": times(1, 4),
        },
    ),
}
