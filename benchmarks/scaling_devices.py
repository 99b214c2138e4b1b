"""Steps of training under `MirroredStrategy` on virtual CPU devices, for `scaling.py`."""

import time

import keras
import scaling_cases as cases
import tensorflow as tf

import keras_fwd

STEPS = 32  # in which KFAC renews every inverse once
QUICK_STEPS = 4
QUICK = "Adam", "GaussNewton, dense"  # graphs of two replicas take seconds to trace


class Stopwatch(keras.callbacks.Callback):
    """Stops after the last step: before `fit` returns, TensorFlow can wait for seconds.

    Seen with `MirroredStrategy` and Adam too, from 0.6 s on, each wait twice the one before.
    """

    def on_train_begin(self, logs=None):
        self.start = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.seconds = time.perf_counter() - self.start


def optimizers():
    """Name: the group whose net it trains, and the optimizer."""
    cg = keras_fwd.optimizers.CG(max_iterations=cases.CG_ITERATIONS, tolerance=0.0)
    return {
        "Adam": ("net", keras.optimizers.Adam),
        f"GaussNewton, cg, {cases.CG_ITERATIONS} iterations": (
            "net",
            lambda: keras_fwd.GaussNewton(solver=cg, max_trials=1),
        ),
        "KFAC": ("net", lambda: keras_fwd.KFAC(1e-3)),
        "GaussNewton, dense": (
            "few weights",
            lambda: keras_fwd.GaussNewton(solver="dense", max_trials=1),
        ),
        "GaussNewton, dual": (
            "few residuals",
            lambda: keras_fwd.GaussNewton(solver="dual", max_trials=1),
        ),
    }


def milliseconds(count, quick):
    """Of a step in `fit`, by optimizer, on so many devices."""
    steps = QUICK_STEPS if quick else STEPS
    cpus = tf.config.list_physical_devices("CPU")
    virtual = [tf.config.LogicalDeviceConfiguration() for _ in range(count)]
    tf.config.set_logical_device_configuration(cpus[0], virtual)
    strategy = tf.distribute.MirroredStrategy([f"/cpu:{i}" for i in range(count)])
    found = {}
    for name, (group, make) in optimizers().items():
        if quick and name not in QUICK:
            continue
        sizes = cases.GROUPS[group][1]
        with strategy.scope():
            model = cases.net(sizes)
            model.compile(make(), "mse")
        data = tf.data.Dataset.from_tensors(cases.batch(sizes)).repeat()
        options = {"epochs": 1, "steps_per_epoch": steps, "verbose": 0, "shuffle": False}
        model.fit(data, **{**options, "steps_per_epoch": 2})
        model.optimizer.iterations.assign(2**20)
        watch = Stopwatch()
        model.fit(data, callbacks=[watch], **options)
        found[name] = 1e3 * watch.seconds / steps
    return found
