"""A training that can be killed, for `test_resume.py`; also run by itself, in another process."""

import json
import os
import pathlib
import sys

import keras
import numpy as np
import tensorflow as tf

import keras_fwd
from support.flat_options import gauss_newton

BATCHES = 6
OPTIMIZERS = {
    "GaussNewton": lambda: keras_fwd.GaussNewton(damping=0.1),
    "GaussNewton cg kfac": lambda: gauss_newton(solver="cg", preconditioner="kfac"),
    "KFAC": lambda: keras_fwd.KFAC(factor_every=2, inverse_every=3),
    "KFAC rate": lambda: keras_fwd.KFAC(0.01, use_ema=True, weight_decay=1e-4),
    "KFACPreconditioner": lambda: keras_fwd.optimizers.KFACPreconditioner(
        keras.optimizers.Adam(0.01)
    ),
}


def model(kind):
    """A small compiled model, the same each time."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    stack = [layers.Dense(4, "tanh"), layers.BatchNormalization(), layers.Dense(1)]
    fn = keras.Sequential([keras.Input((3,)), *stack])
    fn.compile(optimizer=OPTIMIZERS[kind](), loss="mse")
    return fn


def batches():
    """The data, in an order that is always the same."""
    random = np.random.default_rng(0)
    x = random.normal(size=(10 * BATCHES, 3)).astype("float32")
    return tf.data.Dataset.from_tensor_slices((x, np.sin(x[:, :1] * x[:, 1:2]))).batch(10)


class Kill(keras.callbacks.Callback):
    """Ends the process, without any clean-up, after a batch of an epoch."""

    def __init__(self, epoch, batch):
        super().__init__()
        self.place = epoch, batch
        self.epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.place:
            os._exit(9)


def train(kind, folder, save_freq, *callbacks):
    """Train, or go on with a training that was killed; returns all weights at the end.

    Saved by the epoch, it trains for three epochs. Saved by the batch, for a single one: Keras
    starts the epoch again in which a run ended, so the batches that were seen are left out here.
    """
    data = batches()
    path = pathlib.Path(folder, "training_metadata.json")
    if save_freq != "epoch" and path.exists():
        data = data.skip(json.loads(path.read_text())["batch"] + 1)
    fn = model(kind)
    backup = keras.callbacks.BackupAndRestore(folder, save_freq)
    epochs = 3 if save_freq == "epoch" else 1
    fn.fit(data, epochs=epochs, verbose=0, callbacks=[backup, *callbacks])
    return fn.get_weights()


if __name__ == "__main__":
    name, place, often, *at = sys.argv[1:]
    train(name, place, "epoch" if often == "epoch" else int(often), Kill(*map(int, at)))
