"""A step of GaussNewton in `fit`: few weights against Adam's step, many weights against SciPy.

With 61 weights and batches of 1000: its time in that of a step of Adam on the same model; goal 2.5.
With 5000 weights, on the dual system of 1000 residuals: its time in that of what it cannot do
without, the forming of the system (the rows of the Jacobian and their products), SciPy's Cholesky
solve of it, and three gradients; goal 1. Epochs of the sides take turns; medians.

    python benchmarks/lm_step.py [--rounds 15] [--steps 20]
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import record
import scipy.linalg
import tensorflow as tf
import timing

import keras_fwd

BATCH = 1000
L = keras.layers


def net(inputs, hidden, optimizer):
    """One hidden layer, one output."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((inputs,)), L.Dense(hidden, "tanh"), L.Dense(1)])
    model.compile(optimizer, "mse", jit_compile=False)
    return model


def data(inputs, steps):
    """As many batches as steps, of a smooth function and noise."""
    generator = np.random.default_rng(0)
    x = generator.uniform(-1, 1, (BATCH * steps, inputs))
    y = np.sinc(3 * x[:, :1]) + 0.1 * generator.normal(size=(len(x), 1))
    return x.astype("float32"), y.astype("float32")


def epoch_of(model, x, y):
    """A function that trains an epoch, traced already."""
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH).cache()

    def epoch():
        model.fit(batches, verbose=0)

    epoch()
    return epoch


def few_weights(options):
    """Milliseconds of a step, by optimizer."""
    x, y = data(1, options.steps)
    optimizers = {"Adam": keras.optimizers.Adam(), "GaussNewton": keras_fwd.GaussNewton()}
    sides = {name: epoch_of(net(1, 20, opt), x, y) for name, opt in optimizers.items()}
    found = timing.medians(sides, options.rounds)
    return {name: 1e3 * seconds / options.steps for name, seconds in found.items()}


def many_weights(options):
    """Milliseconds of a step on the dual system, and of its parts."""
    x, y = data(8, options.steps)
    model = net(8, 500, keras_fwd.GaussNewton(solver="dual"))
    twin = net(8, 500, "adam")
    batch, targets = tf.constant(x[:BATCH]), tf.constant(y[:BATCH])

    @tf.function(autograph=False)
    def gradient():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((twin(batch) - targets) ** 2)
        return tape.gradient(loss, [v.value for v in twin.trainable_variables])

    @tf.function(autograph=False)
    def formed():
        blocks = keras_fwd.jacobian(twin, batch, wrt="weights", per_example=True)
        rows = tf.concat([tf.reshape(block, [BATCH, -1]) for block in blocks], 1)
        return tf.linalg.matmul(rows, rows, transpose_b=True)

    K = formed().numpy() + np.eye(BATCH, dtype="float32")
    right = y[:BATCH, 0]
    sides = {
        "GaussNewton": epoch_of(model, x, y),
        "forming the system": lambda: formed().numpy(),
        "SciPy's Cholesky solve": lambda: scipy.linalg.cho_solve(
            scipy.linalg.cho_factor(K, check_finite=False), right, check_finite=False
        ),
        "gradient": timing.waiting(gradient),
    }
    medians = timing.medians(sides, options.rounds)
    found = {name: 1e3 * seconds for name, seconds in medians.items()}
    found["GaussNewton"] /= options.steps
    return found


def main():
    parser = record.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=20, help="in an epoch")
    options = parser.parse_args()
    few, many = few_weights(options), many_weights(options)
    needed = sum(many.values()) - many["GaussNewton"] + 2 * many["gradient"]
    found = record.Record()
    for title, times, unit, name in (
        ("61 weights, dense", few, few["Adam"], "steps of Adam"),
        ("5001 weights, dual", many, needed, "what it cannot do without"),
    ):
        what = f"A step of GaussNewton in fit, batch {BATCH}, {title}"
        table = found.table(what, "", ("ms", ".2f"), (f"in {name}", ".2f"))
        for side, value in times.items():
            table.add(side, value, value / unit)
    dense = few["GaussNewton"] / few["Adam"]
    found.goal("a step with 61 weights, in steps of Adam", dense, at_most=2.5)
    dual = many["GaussNewton"] / needed
    found.goal("a step with 5001 weights, in what it cannot do without", dual, at_most=1.0)
    found.finish(options)


if __name__ == "__main__":
    main()
