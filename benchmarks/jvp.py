"""The cost of one JVP: keras_fwd against ForwardAccumulator, a forward pass and `jax.jvp`.

All sides run the same model on the same batch, in float32, compiled (`tf.function` with and
without XLA; `jax.jit`), one call of each in turn; the table shows medians. The peer is a Python
that has jax and keras: `--jax PATH/bin/python`; it runs in a process of its own and is asked for
one call at a time, so that no two sides ever run at once.

    python benchmarks/jvp.py [--models mlp cnn …] [--layers swish …] [--repeats 20] [--xla]
                             [--jax PYTHON]
"""

import math
import pathlib
import statistics
import subprocess
import time

import jvp_cases
import keras
import numpy as np
import record
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
    "ForwardAccumulator (FA)": ("ForwardAccumulator", "forward"),
    "keras_fwd / FA": ("keras_fwd", "ForwardAccumulator"),
    "XLA: keras_fwd": ("keras_fwd, XLA", "forward, XLA"),
    "XLA: FA": ("ForwardAccumulator, XLA", "forward, XLA"),
    "ours, best, ms": ("best", None),
    "jax.jvp, ms": ("jax", None),
    "ours / jax": ("best", "jax"),
}
#: At most this of the time of `jax.jvp`.
BESIDE_JAX = {"mlp": 1.1, "cnn": 1.0, "transformer": 1.0}


def ratio(ms, numerator, denominator):
    """The number for a cell, or None."""
    ms = ms | {"best": min((ms[s] for s in ms if s.startswith("keras_fwd")), default=None)}
    a, b = ms.get(numerator), 1.0 if denominator is None else ms.get(denominator)
    return None if a is None or b is None else a / b


def geometric(ratios):
    return math.exp(statistics.mean(map(math.log, ratios)))


def tabulate(found, kind, names, options, peer):
    """Measure all cases of a kind, a row each; their milliseconds."""
    columns = [(heading, ".2f") for heading in COLUMNS]
    table, results = found.table(f"One JVP of {kind}, in forward passes", "", *columns), {}
    for name in names:
        results[name] = measure(name, options, peer)
        table.add(name, *(ratio(results[name], *pair) for pair in COLUMNS.values()))
    if len(results) > 1:
        cells = []
        for heading, pair in COLUMNS.items():
            found_ratios = [ratio(ms, *pair) for ms in results.values()]
            plain = heading.endswith("ms") or None in found_ratios
            cells.append(None if plain else geometric(found_ratios))
        table.add("geometric mean", *cells)
    return results


def goals(found, models):
    """Of the models: beside ForwardAccumulator, in forward passes, beside JAX."""
    against = {name: ratio(ms, "keras_fwd", "ForwardAccumulator") for name, ms in models.items()}
    against = {name: value for name, value in against.items() if value is not None}
    if against:
        worst = max(against, key=against.get)
        found.goal(f"largest ratio to ForwardAccumulator ({worst})", against[worst], at_most=1.0)
    passes = geometric([ratio(ms, "keras_fwd", "forward") for ms in models.values()])
    found.goal("models, geometric mean in forward passes", passes, at_most=2.0)
    for name, bound in BESIDE_JAX.items():
        if name in models:
            value = ratio(models[name], "best", "jax")
            found.goal(f"{name}, time in that of jax.jvp", value, at_most=bound)


def arguments():
    parser = record.parser(__doc__)
    parser.add_argument("--models", nargs="*", choices=jvp_cases.MODELS)
    parser.add_argument("--layers", nargs="*", choices=jvp_cases.LAYERS)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--xla", action="store_true", help="compile the applications as well")
    parser.add_argument("--jax", metavar="PYTHON", help="a Python that has jax and keras")
    options = parser.parse_args()
    if options.models is None and options.layers is None:
        options.models, options.layers = list(jvp_cases.MODELS), list(jvp_cases.LAYERS)
    return options


def main():
    options, found = arguments(), record.Record()
    found.peer(options.jax, "jax")
    peer = Jax(options.jax) if options.jax else None
    if options.layers:
        tabulate(found, "layers", options.layers, options, peer)
    if options.models:
        goals(found, tabulate(found, "models", options.models, options, peer))
    found.finish(options, width=150)


if __name__ == "__main__":
    main()
