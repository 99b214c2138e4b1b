"""Jacobians and higher derivatives against TensorFlow's own, and in forward passes.

All sides run in a `tf.function`, interleaved in one run; the table shows medians. Goals: the
Jacobian of each example by the weights of a 1-20-1 tanh net, batch 1000, in at most 3 forward
passes, at least 20 times faster than `tape.jacobian`.

    python benchmarks/jacobian.py [--repeats 50] [--jit]
"""

import keras
import numpy as np
import record
import tensorflow as tf
import timing

import keras_fwd

layers = keras.layers


def curve_fit():
    """1-20-1 tanh net, batch 1000: Jacobians of each example."""
    model = keras.Sequential([keras.Input((1,)), layers.Dense(20, "tanh"), layers.Dense(1)])
    variables = [variable.value for variable in model.trainable_variables]

    def tape_by_weights(x):
        with tf.GradientTape() as tape:
            y = model(x)
        return tape.jacobian(y, variables)

    def tape_by_inputs(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = model(x)
        return tape.batch_jacobian(y, x)

    return (1000, 1), {
        "forward": model,
        "tape.jacobian, weights": tape_by_weights,
        "jacobian, weights": lambda x: keras_fwd.jacobian(model, x, "weights", per_example=True),
        "tape.batch_jacobian, inputs": tape_by_inputs,
        "jacobian, inputs": lambda x: keras_fwd.jacobian(model, x, per_example=True),
    }


def pinn(d):
    """Four hidden tanh layers of 64, batch 1024: derivatives along a line, the Laplacian."""
    hidden = [layers.Dense(64, "tanh") for _ in range(4)]
    model = keras.Sequential([keras.Input((d,)), *hidden, layers.Dense(1)])
    variables = [variable.value for variable in model.trainable_variables]

    def along(order):
        return lambda x: keras_fwd.directional_derivatives(model, x, tf.ones_like(x), order)

    def nested_tapes(x):
        total = 0.0
        for i in range(d):
            with tf.GradientTape() as second:
                second.watch(x)
                with tf.GradientTape() as first:
                    first.watch(x)
                    y = model(x)
                slope = first.gradient(y, x)[:, i]
            total += second.gradient(slope, x)[:, i]
        return total

    def step(function):
        def gradient(x):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(function(x) ** 2)
            pulled = tape.gradient(loss, variables)
            return [g for g in pulled if g is not None]

        return gradient

    def laplacian(x):
        return keras_fwd.laplacian(model, x)

    return (1024, d), {
        "forward": model,
        **{f"directional_derivatives, order {k}": along(k) for k in range(1, 5)},
        "laplacian": laplacian,
        "laplacian, nested tapes": nested_tapes,
        "gradient step": step(model),
        "step on the laplacian": step(laplacian),
        "step on the laplacian, nested tapes": step(nested_tapes),
    }


def measure(shape, sides, options):
    """Median milliseconds of each side."""
    x = tf.constant(np.random.default_rng(0).normal(size=shape), tf.float32)
    calls = {
        name: timing.waiting(tf.function(side, autograph=False, jit_compile=options.jit), x)
        for name, side in sides.items()
    }
    found = timing.medians(calls, options.repeats, warm=3, settle=True)
    return {name: 1e3 * seconds for name, seconds in found.items()}


def main():
    parser = record.parser(__doc__)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--dimensions", type=int, nargs="*", default=[1, 2, 3], help="of the PINN")
    parser.add_argument("--jit", action="store_true", help="compile with XLA")
    options = parser.parse_args()
    found = record.Record()
    columns = "case", "side", ("ms", ".2f"), ("forward passes", ".2f")
    table = found.table("Jacobians and higher derivatives, medians", *columns)

    def rows(case, shape, sides):
        ms = measure(shape, sides, options)
        for side, value in ms.items():
            table.add(case, side, value, value / ms["forward"])
        return ms

    ms = rows("1-20-1, batch 1000", *curve_fit())
    ours, theirs = ms["jacobian, weights"], ms["tape.jacobian, weights"]
    what = "Jacobian by the weights of a 1-20-1 net"
    found.goal(f"{what}, in forward passes", ours / ms["forward"], at_most=3.0)
    found.goal(f"{what}, times faster than tape.jacobian", theirs / ours, at_least=20, form=".0f")
    for d in options.dimensions:
        rows(f"PINN, d = {d}", *pinn(d))
    found.finish(options)


if __name__ == "__main__":
    main()
