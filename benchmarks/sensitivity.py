"""Time and memory of a sensitivity report against the derivatives alone and against TensorFlow.

    python benchmarks/sensitivity.py [--examples N] [--memory]

30 features, 3 outputs, 10 000 examples, a net with two hidden layers of 128. Each side traces anew
and reads the same data in batches of 500, one after the other in every round:

* report: all measures with confidence intervals, by `sensitivity_report`;
* forward, reverse: only the derivatives, one JVP a feature or one VJP an output;
* batch_jacobian: `tape.batch_jacobian`, eager as in TensorFlow's guide, and in a `tf.function`.

With --memory: the peak of a process that reports on 10 000 and on 1 000 000 streamed examples.
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


def compare(rounds, examples):
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
    cheaper = min(medians["forward"], medians["reverse"])
    print(f"TensorFlow {tf.__version__}, Keras {keras.__version__}, medians of {rounds} rounds")
    for name, seconds in medians.items():
        print(f"  {name:<33}{seconds:7.3f} s   {medians['report'] / seconds:6.2f}")
    print(f"report / cheaper of forward and reverse: {medians['report'] / cheaper:.2f} (goal 1.3)")
    print(f"batch_jacobian / report: {medians['batch_jacobian'] / medians['report']:.1f} (goal 5)")


def stream(examples):
    """The peak memory of this process, in MB, after a report on so many streamed examples."""
    import resource

    def make(index):
        x = tf.random.stateless_normal([BATCH, FEATURES], tf.stack([index, 0]))
        return x

    data = tf.data.Dataset.range(examples // BATCH).map(make)
    start = time.perf_counter()
    keras_fwd.sensitivity_report(build(), data)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{examples:>9} examples: {peak:.0f} MB, {time.perf_counter() - start:.1f} s", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--examples", type=int, default=EXAMPLES)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--stream", type=int)
    options = parser.parse_args()
    if options.stream:
        stream(options.stream)
    elif options.memory:
        for examples in (10_000, 1_000_000):
            subprocess.run([sys.executable, __file__, "--stream", str(examples)], check=True)
    else:
        compare(options.rounds, options.examples)


if __name__ == "__main__":
    main()
