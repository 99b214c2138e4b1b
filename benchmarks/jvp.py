"""The cost of one JVP: keras_fwd against ForwardAccumulator, a forward pass and `jax.jvp`.

All sides run the same model on the same batch, in float32, compiled (`tf.function` with and
without XLA; `jax.jit`), one call of each in turn; the table shows medians. The peer is a Python
that has jax and keras: `--jax PATH/bin/python`; it runs in a process of its own and is asked for
one call at a time, so that no two sides ever run at once.

    python benchmarks/jvp.py [--models mlp cnn …] [--layers swish …] [--repeats 20] [--xla]
                             [--jax PYTHON] [--json PATH]
"""

import argparse
import json
import math
import pathlib
import platform
import statistics
import subprocess
import time

import jvp_cases
import keras
import numpy as np
import rich.console
import rich.table
import tensorflow as tf

import keras_fwd

HERE = pathlib.Path(__file__).parent


def accumulator(model):
    def function(x, u):
        with tf.autodiff.ForwardAccumulator(x, u) as record:
            y = model(x, training=False)
        return y, tf.convert_to_tensor(record.jvp(y))  # it gives None where it knows no more

    return function


def sides(model, xla):
    """The functions of `(x, u)` to time."""
    functions = {
        "forward": lambda x, u: model(x, training=False),
        "keras_fwd": lambda x, u: keras_fwd.jvp(model, x, u),
        "ForwardAccumulator": accumulator(model),
    }
    compiled = {name: tf.function(f, autograph=False) for name, f in functions.items()}
    if xla:
        for name, f in functions.items():
            compiled[f"{name}, XLA"] = tf.function(f, autograph=False, jit_compile=True)
    return compiled


class Jax:
    """The peer's process."""

    def __init__(self, python):
        command = [python, str(HERE / "jvp_jax.py")]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, line=""):
        """Seconds; the name of an error raises."""
        print(line, file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())


def measure(name, options, peer):
    """Median milliseconds of each side; None where it fails."""
    keras.utils.set_random_seed(0)
    model, shape = jvp_cases.CASES[name]()
    x, u = np.random.default_rng(0).normal(size=(2, *shape)).astype("float32")
    x, u = tf.constant(x), tf.constant(u)
    calls = {
        side: lambda f=function: timed(f, x, u)
        for side, function in sides(model, options.xla or name not in LARGE).items()
    }
    if peer:
        calls["jax"] = peer.ask
        calls["jax, build"] = lambda: peer.ask(name)
    times = {}
    for side in reversed(calls):  # trace, compile and warm up
        try:
            times[side] = [min(calls[side]() for _ in range(1 if "build" in side else 3))]
        except Exception as error:  # a side that cannot do it is shown as such
            print(f"{name}, {side}: {type(error).__name__}: {str(error)[:200]}")
    rounds = rounds_for(sum(ts[0] for side, ts in times.items() if "build" not in side), options)
    times = {side: [] for side in times if "build" not in side}
    for _ in range(rounds):
        for side in times:
            times[side].append(calls[side]())
    return {side: statistics.median(ts) * 1e3 for side, ts in times.items()}


LARGE = jvp_cases.APPLICATIONS


def rounds_for(seconds, options):
    """Short calls are noisy, and repeated more often."""
    return max(options.repeats, min(10 * options.repeats, int(2 / seconds)))


def timed(function, x, u):
    """Seconds until outputs and tangents are there: both are what a JVP returns."""
    start = time.perf_counter()
    function(x, u)
    tf.test.experimental.sync_devices()
    return time.perf_counter() - start


COLUMNS = {  # heading -> numerator and denominator
    "forward, ms": ("forward", None),
    "keras_fwd": ("keras_fwd", "forward"),
    "FA": ("ForwardAccumulator", "forward"),
    "keras_fwd / FA": ("keras_fwd", "ForwardAccumulator"),
    "XLA: keras_fwd": ("keras_fwd, XLA", "forward, XLA"),
    "XLA: FA": ("ForwardAccumulator, XLA", "forward, XLA"),
    "ours, ms": ("best", None),
    "jax.jvp, ms": ("jax", None),
    "ours / jax": ("best", "jax"),
}


def ratio(ms, numerator, denominator):
    """The number for a cell, or None."""
    ms = ms | {"best": min((ms[s] for s in ms if s.startswith("keras_fwd")), default=None)}
    a, b = ms.get(numerator), 1.0 if denominator is None else ms.get(denominator)
    return None if a is None or b is None else a / b


def table(title, caption, results):
    made = rich.table.Table(title=title, caption=caption)
    for column in ("", *COLUMNS):
        made.add_column(column, justify="right" if column else "left")
    for name, ms in results.items():
        cells = [ratio(ms, *pair) for pair in COLUMNS.values()]
        made.add_row(name, *["-" if cell is None else f"{cell:.2f}" for cell in cells])
    means = [[ratio(ms, *pair) for ms in results.values()] for pair in COLUMNS.values()]
    cells = [
        "" if heading.endswith("ms") or None in column else f"{geometric(column):.2f}"
        for heading, column in zip(COLUMNS, means, strict=True)
    ]
    made.add_row("geometric mean", *cells)
    return made


def geometric(ratios):
    return math.exp(statistics.mean(map(math.log, ratios)))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="*", choices=jvp_cases.MODELS)
    parser.add_argument("--layers", nargs="*", choices=jvp_cases.LAYERS)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--xla", action="store_true", help="compile the applications as well")
    parser.add_argument("--jax", metavar="PYTHON", help="a Python that has jax and keras")
    parser.add_argument("--json", help="write the milliseconds here as well")
    options = parser.parse_args()
    if options.models is None and options.layers is None:
        options.models, options.layers = list(jvp_cases.MODELS), list(jvp_cases.LAYERS)
    return options


def main():
    options = arguments()
    peer = Jax(options.jax) if options.jax else None
    device = [d.name for d in tf.config.list_logical_devices()][-1]
    versions = f"TensorFlow {tf.__version__}, Keras {keras.__version__}, keras_fwd "
    versions += f"{keras_fwd.__version__}, {platform.machine()}, {device}"
    console, milliseconds = rich.console.Console(width=150), {}
    for kind, names in (("layers", options.layers), ("models", options.models)):
        results = {}
        for name in names or ():
            results[name] = milliseconds[name] = measure(name, options, peer)
            print(name, {side: round(ms, 2) for side, ms in results[name].items()}, flush=True)
        if results:
            console.print(table(f"One JVP of {kind}, in forward passes", versions, results))
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"versions": versions, "milliseconds": milliseconds}, file, indent=1)


if __name__ == "__main__":
    main()
