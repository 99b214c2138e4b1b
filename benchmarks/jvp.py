"""The cost of one JVP: keras_fwd against TensorFlow's ForwardAccumulator and a forward pass.

All sides run in a `tf.function`, on the same model and batch, interleaved in one run; the table
shows medians. Goal: not above ForwardAccumulator on the MLP, the CNN and the transformer.

    python benchmarks/jvp.py [--models mlp cnn transformer lstm] [--repeats 20] [--json PATH]
"""

import argparse
import json
import platform
import statistics
import time

import keras
import numpy as np
import rich.console
import rich.table
import tensorflow as tf

import keras_fwd

layers = keras.layers


def mlp():
    """784-1024-1024-1024-10, batch 128."""
    hidden = [layers.Dense(1024, "relu") for _ in range(3)]
    return keras.Sequential([keras.Input((784,)), *hidden, layers.Dense(10)]), (128, 784)


def cnn():
    """Two convolutions with max pooling, batch 64."""
    net = [keras.Input((28, 28, 1))]
    for filters in (32, 64):
        net += [layers.Conv2D(filters, 3, activation="relu"), layers.MaxPooling2D()]
    return keras.Sequential([*net, layers.Flatten(), layers.Dense(10)]), (64, 28, 28, 1)


def transformer():
    """Two blocks of 4 heads at width 128, 64 positions, batch 16."""
    inputs = x = keras.Input((64, 128))
    for _ in range(2):
        x = layers.LayerNormalization()(x + layers.MultiHeadAttention(4, 32)(x, x))
        x = layers.LayerNormalization()(x + layers.Dense(128)(layers.Dense(256, "gelu")(x)))
    return keras.Model(inputs, x), (16, 64, 128)


def lstm():
    """LSTM(128) over 100 steps of 32, batch 32."""
    return keras.Sequential([keras.Input((100, 32)), layers.LSTM(128)]), (32, 100, 32)


MODELS = {function.__name__: function for function in (mlp, cnn, transformer, lstm)}


def sides(model):
    """The functions of `(x, u)` to time."""

    def accumulator(x, u):
        with tf.autodiff.ForwardAccumulator(x, u) as record:
            y = model(x)
        return record.jvp(y)

    def ours(x, u):
        return keras_fwd.jvp(model, x, u)[1]

    return {
        "forward": tf.function(lambda x, u: model(x), autograph=False),
        "forward, XLA": tf.function(lambda x, u: model(x), autograph=False, jit_compile=True),
        "keras_fwd": tf.function(ours, autograph=False),
        "keras_fwd, XLA": tf.function(ours, autograph=False, jit_compile=True),
        "ForwardAccumulator": tf.function(accumulator, autograph=False),
        "ForwardAccumulator, XLA": tf.function(accumulator, autograph=False, jit_compile=True),
    }


def measure(name, repeats):
    """Median milliseconds of each side; None where it fails."""
    keras.utils.set_random_seed(0)
    model, shape = MODELS[name]()
    x, u = np.random.default_rng(0).normal(size=(2, *shape)).astype("float32")
    x, u = tf.constant(x), tf.constant(u)
    functions = sides(model)
    times = {side: [] for side in functions}
    for repeat in range(repeats + 2):
        for side, function in functions.items():
            try:
                start = time.perf_counter()
                function(x, u).numpy()
                seconds = time.perf_counter() - start
            except Exception as error:  # a peer that cannot do it is shown as such
                if not repeat:
                    print(f"{name}, {side}: {type(error).__name__}")
                continue
            if repeat >= 2:  # the first rounds trace and warm up
                times[side].append(seconds)
    return {side: statistics.median(ts) * 1e3 if ts else None for side, ts in times.items()}


def ratio(a, b):
    return "-" if a is None or b is None else f"{a / b:.2f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--json", help="write the milliseconds here as well")
    options = parser.parse_args()
    device = [d.name for d in tf.config.list_logical_devices()][-1]
    versions = f"TensorFlow {tf.__version__}, Keras {keras.__version__}, keras_fwd "
    versions += f"{keras_fwd.__version__}, {platform.machine()}, {device}"
    table = rich.table.Table(title="One JVP, in forward passes", caption=versions)
    columns = ["model", "forward, ms", "keras_fwd", "keras_fwd, XLA", "ForwardAccumulator"]
    for column in [*columns, "keras_fwd / FA", "the same, XLA"]:
        table.add_column(column, justify="left" if column == "model" else "right")
    results = {}
    for name in options.models:
        ms = results[name] = measure(name, options.repeats)
        table.add_row(
            name,
            f"{ms['forward']:.2f}",
            ratio(ms["keras_fwd"], ms["forward"]),
            ratio(ms["keras_fwd, XLA"], ms["forward, XLA"]),
            ratio(ms["ForwardAccumulator"], ms["forward"]),
            ratio(ms["keras_fwd"], ms["ForwardAccumulator"]),
            ratio(ms["keras_fwd, XLA"], ms["ForwardAccumulator, XLA"]),
        )
    rich.console.Console(width=120).print(table)
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"versions": versions, "milliseconds": results}, file, indent=1)


if __name__ == "__main__":
    main()
