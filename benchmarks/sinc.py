"""A narrow fit to many digits: GaussNewton beside tf-levenberg-marquardt and Adam.

`sinc(10 x)` at 20,000 points by a 1-20-1 tanh net, batches of 1000. The peer trains for some
epochs; Adam and GaussNewton then get the same time, tracing included. Goal: a mean square of at
most 1e-8 in the time that the peer takes for 10 epochs. The peer lives in an environment of its own
(requirements-lm.txt), and starts from the same weights.

    python benchmarks/sinc.py [--peer PYTHON] [--epochs 10] [--seeds 3] [--seconds 20]
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import rich.console
import rich.table

ROOT = pathlib.Path(__file__).resolve().parents[1]
BATCH = 1000
GOAL = 1e-8


def net(seed):
    keras.utils.set_random_seed(seed)
    L = keras.layers
    return keras.Sequential([keras.Input((1,)), L.Dense(20, "tanh"), L.Dense(1)])


def data():
    x = np.linspace(-1, 1, 20000, dtype="float32")[:, None]
    return x, np.sinc(10 * x)


class Clock(keras.callbacks.Callback):
    """Ends `fit` at a time or at the goal; keeps the loss of the whole data, and when."""

    def __init__(self, seconds, goal):
        super().__init__()
        self.seconds, self.goal = seconds, goal
        self.start = time.perf_counter()
        self.spent, self.mse, self.epochs = 0.0, float("inf"), 0

    def on_epoch_end(self, epoch, logs=None):
        self.spent = time.perf_counter() - self.start
        # Of the batches before their steps: that of the data at the end is lower, if anything.
        self.mse, self.epochs = (logs or {})["loss"], epoch + 1
        if self.spent >= self.seconds or self.mse <= self.goal:
            self.model.stop_training = True


def train(seed, optimizer, seconds, goal=0.0):
    """The `Clock` of a `fit`."""
    model, (x, y) = net(seed), data()
    model.compile(optimizer, "mse")
    clock = Clock(seconds, goal)
    model.fit(x, y, batch_size=BATCH, epochs=10**6, verbose=0, callbacks=[clock])
    return clock


def peer(seed, epochs):
    """In the peer's environment: its mean square after some epochs, and the seconds."""
    import tensorflow as tf
    import tf_levenberg_marquardt as lm

    model, (x, y) = net(seed), data()
    wrapper = lm.model.ModelWrapper(model)
    optimizer = keras.optimizers.SGD(learning_rate=1.0)
    wrapper.compile(optimizer=optimizer, loss=lm.loss.MeanSquaredError())
    batches = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x)).batch(BATCH).cache()
    start = time.perf_counter()
    wrapper.fit(batches.prefetch(tf.data.AUTOTUNE), epochs=epochs, verbose=0)
    seconds = time.perf_counter() - start
    return {"mse": float(np.mean((model.predict(x, verbose=0) - y) ** 2)), "seconds": seconds}


def of_peer(python, seed, epochs):
    command = [python, __file__, "--peer-run", str(seed), "--epochs", str(epochs)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peer", metavar="PYTHON", help="of the peer's environment")
    parser.add_argument("--epochs", type=int, default=10, help="of the peer")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0, help="without a peer to set them")
    parser.add_argument("--peer-run", type=int, metavar="SEED", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer_run is not None:
        print(json.dumps(peer(options.peer_run, options.epochs)))
        return
    sys.path.insert(0, str(ROOT))
    import keras_fwd

    table = rich.table.Table(title=f"sinc(10 x): mean square; GaussNewton stops at {GOAL:g}")
    for heading in ("seed", "optimizer", "epochs", "seconds", "mean square"):
        table.add_column(heading)
    sides = {
        "GaussNewton(damping=1e-3, geodesic=True)": {"damping": 1e-3, "geodesic": True},
        "GaussNewton(geodesic=True)": {"geodesic": True},
        "GaussNewton()": {},
    }
    for seed in range(options.seeds):
        seconds = options.seconds
        if options.peer:
            found = of_peer(options.peer, seed, options.epochs)
            seconds = found["seconds"]
            cells = str(options.epochs), f"{seconds:.1f}", f"{found['mse']:.1e}"
            table.add_row(str(seed), "tf-levenberg-marquardt", *cells)
        for name, arguments in sides.items():
            clock = train(seed, keras_fwd.GaussNewton(**arguments), seconds, GOAL)
            cells = str(clock.epochs), f"{clock.spent:.1f}", f"{clock.mse:.1e}"
            table.add_row(str(seed), name, *cells)
        clock = train(seed, keras.optimizers.Adam(0.01), seconds)
        cells = str(clock.epochs), f"{clock.spent:.1f}", f"{clock.mse:.1e}"
        table.add_row(str(seed), "Adam(0.01)", *cells)
    rich.console.Console().print(table)


if __name__ == "__main__":
    main()
