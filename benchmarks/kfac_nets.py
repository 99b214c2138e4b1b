"""K-FAC on classifiers of scikit-learn's digits: steps and seconds to Adam's best accuracy.

A small ResNet with BatchNormalization on the 8x8 images, and a transformer of two blocks on the
same pixels as sequences of 64 tokens, 17 shades of gray. Adam is the best of three rates by
accuracy on 360 validation images; KFAC has its defaults. Batches of 128, in the same order.

    python benchmarks/kfac_nets.py [--epochs 60] [--seeds 1] [--nets resnet transformer]
"""

import os
import time

import keras
import numpy as np
import record
import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_fwd

L = keras.layers
BATCH = 128
RATES = 1e-3, 3e-3, 1e-2


def resnet():
    x = keras.Input([8, 8, 1])
    y = L.Conv2D(16, 3, padding="same", use_bias=False)(x)
    for width, stride in ((16, 1), (32, 2)):
        z = L.Activation("relu")(L.BatchNormalization(momentum=0.9)(y))
        z = L.Conv2D(width, 3, stride, "same", use_bias=False)(z)
        z = L.Activation("relu")(L.BatchNormalization(momentum=0.9)(z))
        z = L.Conv2D(width, 3, padding="same")(z)
        y = L.Conv2D(width, 1, stride)(y) if stride > 1 else y
        y = L.Add()([y, z])
    y = L.GlobalAveragePooling2D()(L.Activation("relu")(L.BatchNormalization(momentum=0.9)(y)))
    return keras.Model(x, L.Dense(10)(y))


@keras.saving.register_keras_serializable("keras_fwd_benchmarks")
class Position(L.Layer):
    def build(self, shape):
        self.table = self.add_weight(shape=shape[1:], initializer="random_normal", name="table")

    def call(self, x):
        return x + self.table


def transformer():
    x = keras.Input([64], dtype="int32")
    y = Position()(L.Embedding(17, 32)(x))
    for _ in range(2):
        z = L.LayerNormalization()(y)
        y = L.Add()([y, L.MultiHeadAttention(4, 8)(z, z)])
        z = L.Dense(64, "gelu")(L.LayerNormalization()(y))
        y = L.Add()([y, L.Dense(32)(z)])
    return keras.Model(x, L.Dense(10)(L.GlobalAveragePooling1D()(y)))


NETS = {
    "resnet": (resnet, lambda images: (images / 16).reshape(-1, 8, 8, 1).astype("float32")),
    "transformer": (transformer, lambda images: images.astype("int32")),
}


def data(net):
    images, labels = load_digits(return_X_y=True)
    return train_test_split(
        NETS[net][1](images), labels, test_size=360, random_state=0, stratify=labels
    )


def train(net, seed, optimizer, epochs):
    """Validation accuracy after each epoch, and the seconds that the steps until then took."""
    keras.utils.set_random_seed(seed)
    model = NETS[net][0]()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    x, x_valid, y, y_valid = (tf.constant(part) for part in data(net))

    @tf.function
    def step(rows):
        return model.train_step((tf.gather(x, rows), tf.gather(y, rows)))["loss"]

    @tf.function
    def accuracy():
        right = tf.equal(tf.argmax(model(x_valid, training=False), -1), y_valid)
        return tf.reduce_mean(tf.cast(right, tf.float32))

    order = np.random.default_rng(seed)
    found, seconds, first = [], 0.0, True
    for _ in range(epochs):
        rows = order.permutation(len(x))
        for start in range(0, len(rows) - BATCH + 1, BATCH):
            begun = time.perf_counter()
            step(tf.constant(rows[start : start + BATCH])).numpy()
            seconds += 0.0 if first else time.perf_counter() - begun  # the first is traced
            first = False
        found.append((float(accuracy()), seconds))
    return found


def reached(found, target):
    """Number of the epoch in which an accuracy is reached, or None."""
    return next((i for i, (value, _) in enumerate(found, 1) if value >= target), None)


def row(net, seed, epochs):
    runs = {rate: train(net, seed, keras.optimizers.Adam(rate), epochs) for rate in RATES}
    rate = max(runs, key=lambda rate: max(value for value, _ in runs[rate]))
    target = max(value for value, _ in runs[rate])
    sides = {f"Adam({rate:g})": runs[rate], "KFAC()": train(net, seed, keras_fwd.KFAC(), epochs)}
    steps = len(data(net)[0]) // BATCH
    for label, found in sides.items():
        at = reached(found, target)
        best = max(value for value, _ in found)
        cells = (at * steps, found[at - 1][1]) if at else ("not reached", None)
        yield f"{net}, {seed}", label, best, *cells, 1e3 * found[-1][1] / (epochs * steps - 1)


def main():
    parser = record.parser(__doc__)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--nets", nargs="*", default=list(NETS), choices=list(NETS))
    options = parser.parse_args()
    found = record.Record()
    table = found.table(
        f"Digits, {options.epochs} epochs of batches of {BATCH}: to Adam's best accuracy",
        "net, seed",
        "optimizer",
        ("best, 360 images", ".1%"),
        ("steps to it", "d"),
        ("seconds", ".1f"),
        ("ms a step", ".1f"),
    )
    for net in options.nets:
        for seed in range(options.seeds):
            for cells in row(net, seed, options.epochs):
                table.add(*cells)
    found.finish(options)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
