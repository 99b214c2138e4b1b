"""A worker of two, which `test_killed_worker.py` kills: the loop of `devices.md` itself."""

import os
import pathlib
import sys

import keras
import numpy as np
import tensorflow as tf

import keras_fwd

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from support.page_functions import documented

EPOCHS, BATCHES = 4, 4
KINDS = {
    "GaussNewton": lambda: keras_fwd.GaussNewton(solver="dense"),
    "KFAC": lambda: keras_fwd.KFAC(0.1, factor_every=2, inverse_every=3),
}


def main(kind, folder):
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    keras.config.set_floatx("float64")

    def new_model():
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input([3]), keras.layers.Dense(4, "tanh")])
        model.add(keras.layers.Dense(1))
        model.compile(KINDS[kind](), "mse")
        return model

    model, save = documented("devices.md", "resumed", {"keras": keras, "os": os})(
        strategy, new_model, f"{folder}/net.keras"
    )
    x = np.random.default_rng(0).normal(size=(16 * BATCHES, 3))
    data = tf.data.Dataset.from_tensor_slices((x, np.sin(x[:, :1]))).batch(16, drop_remainder=True)
    done = int(model.optimizer.iterations.numpy()) // BATCHES

    def after_epoch():
        print("epoch", flush=True)
        save()

    print(f"from epoch {done}", flush=True)
    train = documented("devices.md", "train", {"tf": tf})
    train(model, strategy, data, EPOCHS - done, after_epoch)
    np.savez(f"{folder}/end{strategy.cluster_resolver.task_id}.npz", *model.get_weights())
    print("end", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
