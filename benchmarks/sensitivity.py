"""Time and memory of a sensitivity report against the derivatives alone and against TensorFlow.

    python benchmarks/sensitivity.py [--examples N] [--memory N …]

30 features, 3 outputs, 10 000 examples, a net with two hidden layers of 128. Each side traces anew
and reads the same data in batches of 500, one after the other in every round:

* report: all measures with confidence intervals, by `sensitivity_report`;
* forward, reverse: only the derivatives, one JVP a feature or one VJP an output;
* batch_jacobian: `tape.batch_jacobian`, eager as in TensorFlow's guide, and in a `tf.function`.

And the peak memory of a process that reports on 10 000 and on 1 000 000 streamed examples.
Goals: a report in at most 1.3 of the time of the cheaper derivatives, 5 times faster than
`tape.batch_jacobian`, in the same memory for any number of examples.
"""

import argparse
import gc
import os
import statistics
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import record
import tensorflow as tf

import keras_fwd

FEATURES, OUTPUTS, EXAMPLES, BATCH = 30, 3, 10_000, 500


def build():
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense
    layers = [keras.Input([FEATURES]), dense(128, "tanh"), dense(128, "tanh"), dense(OUTPUTS)]
    return keras.Sequential(layers)


def batches(x):
    return (x[start : start + BATCH] for start in range(0, len(x), BATCH))


def derivatives(mode):
    def run(model, x):
        spec = tf.TensorSpec([None, FEATURES])

        @tf.function(input_signature=[spec])
        def one(x):
            return keras_fwd.jacobian(model, x, mode=mode, per_example=True)

        return np.concatenate([one(tf.constant(part)).numpy() for part in batches(x)])

    return run


def batch_jacobian(graph):
    def run(model, x):
        def one(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = model(x, training=False)
            return tape.batch_jacobian(y, x)

        if graph:
            one = tf.function(one, input_signature=[tf.TensorSpec([None, FEATURES])])
        return np.concatenate([one(tf.constant(part)).numpy() for part in batches(x)])

    return run


SIDES = {
    "report": lambda model, x: keras_fwd.sensitivity_report(model, x, batch_size=BATCH),
    "forward": derivatives("forward"),
    "reverse": derivatives("reverse"),
    "batch_jacobian": batch_jacobian(graph=False),
    "batch_jacobian in a tf.function": batch_jacobian(graph=True),
}


def compare(found, rounds, examples):
    x = np.random.default_rng(0).normal(size=(examples, FEATURES)).astype("float32")
    model, times = build(), {name: [] for name in SIDES}
    names = list(SIDES)
    for i in range(rounds + 1):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            run = SIDES[name]
            gc.collect()  # nobody pays for the graphs that another side leaves behind
            start = time.perf_counter()
            run(model, x)
            times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values[1:]) for name, values in times.items()}
    net = f"{FEATURES} features, {OUTPUTS} outputs, 128-128 net, {examples} examples"
    columns = ("seconds", ".3f"), ("report over it", ".2f")
    table = found.table(f"A sensitivity report, {net}, each with its own trace", "", *columns)
    for name, seconds in medians.items():
        table.add(name, seconds, medians["report"] / seconds)
    cheaper = medians["report"] / min(medians["forward"], medians["reverse"])
    found.goal("a report, in the cheaper derivatives", cheaper, at_most=1.3)
    faster = medians["batch_jacobian"] / medians["report"]
    found.goal("a report, times faster than tape.batch_jacobian", faster, at_least=5, form=".1f")


def streams(found, counts):
    """Rows for reports on so many streamed examples, each in a process of its own."""
    columns = ("examples", "d"), ("peak, MB", ".0f"), ("seconds", ".1f")
    table = found.table("Peak memory of a process that reports on streamed examples", *columns)
    peaks = []
    for count in counts:
        command = [sys.executable, __file__, "--stream", str(count)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        peak, seconds = map(float, done.stdout.splitlines()[-1].split())
        peaks.append(peak)
        table.add(count, peak, seconds)
    if len(peaks) > 1:
        what = "peak memory with the most examples, in that with the fewest"
        found.goal(what, peaks[-1] / peaks[0], at_most=1.05)


def stream(examples):
    """Print the peak memory of this process, in MB, after a report on so many, and the seconds."""
    import resource

    def make(index):
        return tf.random.stateless_normal([BATCH, FEATURES], tf.stack([index, 0]))

    data = tf.data.Dataset.range(examples // BATCH).map(make)
    start = time.perf_counter()
    keras_fwd.sensitivity_report(build(), data)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(peak, time.perf_counter() - start)


def main():
    parser = record.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--examples", type=int, default=EXAMPLES)
    parser.add_argument("--memory", type=int, nargs="*", default=[10_000, 1_000_000])
    parser.add_argument("--stream", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stream:
        stream(options.stream)
        return
    found = record.Record()
    compare(found, options.rounds, options.examples)
    if options.memory:
        streams(found, options.memory)
    found.finish(options)


if __name__ == "__main__":
    main()
