"""Jacobians and higher derivatives against TensorFlow's own, and in forward passes.

All sides run in a `tf.function`, interleaved in one run; the table shows medians. Goals: the
Jacobian of each example by the weights of a 1-20-1 tanh net, batch 1000, in at most 3 forward
passes, at least 20 times faster than `tape.jacobian`.

    python benchmarks/jacobian.py [--repeats 50] [--jit]
"""

import argparse
import statistics
import time

import keras
import numpy as np
import rich.console
import rich.table
import tensorflow as tf

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
    functions = {
        name: tf.function(side, autograph=False, jit_compile=options.jit)
        for name, side in sides.items()
    }
    times = {name: [] for name in functions}
    for repeat in range(options.repeats + 3):
        for name, function in functions.items():
            function(x)  # what ran before must not cost this one its caches
            start = time.perf_counter()
            tf.nest.map_structure(lambda y: y.numpy(), function(x))
            if repeat >= 3:  # the first rounds trace and warm up
                times[name].append(time.perf_counter() - start)
    return {name: 1e3 * statistics.median(ts) for name, ts in times.items()}


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--jit", action="store_true", help="compile with XLA")
    options = parser.parse_args()
    cases = {"1-20-1, batch 1000": curve_fit()} | {f"PINN, d = {d}": pinn(d) for d in (1, 2, 3)}
    table = rich.table.Table("case", "side", "ms", "forward passes", title="Medians of one run")
    for case, (shape, sides) in cases.items():
        ms = measure(shape, sides, options)
        for side, value in ms.items():
            table.add_row(case, side, f"{value:.2f}", f"{value / ms['forward']:.2f}")
        table.add_section()
    rich.console.Console(width=110).print(table)


if __name__ == "__main__":
    main()
