"""A training that is killed at any moment and goes on: what `test_killed_training.py` starts.

It runs in processes that a server forks, which has imported TensorFlow before: that takes longer
than the training. Nothing here may start TensorFlow at import, or the forks would hang.
"""

import json
import pathlib
import shutil
import traceback
import zipfile

import keras
import numpy as np
import tensorflow as tf
from support.flat_options import gauss_newton
from support.resume_case import BATCHES, batches

import keras_fwd
from keras_fwd import regularizers

EPOCHS = 3
KINDS = {
    "GaussNewton": lambda: keras_fwd.GaussNewton(),
    "KFAC rate": lambda: keras_fwd.KFAC(
        0.01, factor_every=2, inverse_every=3, use_ema=True, weight_decay=1e-4
    ),
    "GaussNewton cg": lambda: gauss_newton(solver="cg", max_iterations=4),
    "KFAC": lambda: keras_fwd.KFAC(factor_every=2, inverse_every=3),
    "GaussNewton regularized": lambda: keras_fwd.GaussNewton(damping=0.1),
    "KFACPreconditioner": lambda: keras_fwd.optimizers.KFACPreconditioner(
        keras.optimizers.Adam(0.01)
    ),
}


def compiled(kind):
    """A small model, the same each time.

    Without Dropout: Keras saves no state of random seeds, so its masks start anew after a restart.
    """
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4, "tanh"), layers.Dense(1)])
    if kind.endswith("regularized"):
        model = keras_fwd.regularize(model, regularizers.Directional(0.1, np.eye(3)[0]))
    model.compile(KINDS[kind](), "mse")
    return model


class Tell(keras.callbacks.Callback):
    """Says where the training is, before the callbacks that follow save anything."""

    def __init__(self, send):
        super().__init__()
        self.send = send

    def on_train_batch_end(self, batch, logs=None):
        self.send("batch")

    def on_epoch_end(self, epoch, logs=None):
        self.send("epoch")


def backed_up(kind, folder, callbacks):
    """Train with `BackupAndRestore`, or go on from what it saved."""
    mend(kind, folder)
    model = compiled(kind)
    backup = keras.callbacks.BackupAndRestore(
        folder, double_checkpoint=True, delete_checkpoint=False
    )
    model.fit(batches(), epochs=EPOCHS, verbose=0, callbacks=[*callbacks, backup])
    return model


def mend(kind, folder):
    """Make a backup whole whose writing was cut off.

    Keras writes weights over weights, and then, in another file, how many epochs they have seen.
    Killed between the two it would train an epoch again; killed while it wrote the second, it
    would not start. The weights themselves know better: the optimizer's count of steps is saved
    with them.
    """
    latest = pathlib.Path(folder, "latest.weights.h5")
    for path in (latest, latest.with_name("latest.weights.h5.bkp")):
        if not path.exists():
            continue
        model = compiled(kind)
        model.optimizer.build(model.trainable_variables)
        shutil.copy(path, whole := path.with_name("whole.weights.h5"))
        try:
            model.load_weights(whole)
        except Exception:  # whatever HDF5 and Keras say of a file that was cut off
            continue
        whole.replace(latest)
        epoch, batch = divmod(int(model.optimizer.iterations), BATCHES)
        metadata = json.dumps({"epoch": epoch, "batch": batch})
        pathlib.Path(folder, "training_metadata.json").write_text(metadata)
        return
    shutil.rmtree(folder, ignore_errors=True)  # killed while the first was written


def checkpointed(kind, folder, callbacks, save_freq="epoch"):
    """Train with `ModelCheckpoint`, or go on from the newest file that is whole."""
    folder = pathlib.Path(folder)
    folder.mkdir(exist_ok=True)
    # The end of a zip archive is written last.
    whole = [path for path in folder.glob("*.keras") if zipfile.is_zipfile(path)]
    newest = max(whole, key=lambda path: path.stat().st_mtime_ns, default=None)
    model = compiled(kind) if newest is None else keras.saving.load_model(newest)
    name = "{epoch}-{batch}.keras" if save_freq != "epoch" else "{epoch}.keras"
    save = keras.callbacks.ModelCheckpoint(folder / name, save_freq=save_freq)
    options = {"verbose": 0, "callbacks": [*callbacks, save]}
    # In one `fit`, for at the end of each Keras sets weights to their moving averages.
    epoch, batch = divmod(int(model.optimizer.iterations), BATCHES)
    if batch:
        rest = batches().repeat(EPOCHS - epoch).skip(batch)
        model.fit(rest, **options)
    else:
        model.fit(batches(), initial_epoch=epoch, epochs=EPOCHS, **options)
    return model


def checkpointed_by_batch(kind, folder, callbacks):
    return checkpointed(kind, folder, callbacks, save_freq=4)


WAYS = {
    "backup": backed_up,
    "checkpoint": checkpointed,
    "checkpoint by the batch": checkpointed_by_batch,
}


def undisturbed(kind):
    model = compiled(kind)
    model.fit(batches(), epochs=EPOCHS, verbose=0)
    return model.get_weights()


def live(kind, way, folder, pipe):
    """What a process of its own does; it sends where it is, and its weights at the end."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    try:
        pipe.send("start")
        if way is None:
            pipe.send(undisturbed(kind))
        else:
            pipe.send(WAYS[way](kind, folder, [Tell(pipe.send)]).get_weights())
    except Exception:
        pipe.send(RuntimeError(traceback.format_exc()))
