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
import subprocess
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import record

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


def ours(seed, seconds):
    """Name, and the `Clock`, of each side in this process."""
    import keras_fwd

    sides = {
        "GaussNewton(damping=1e-3, geodesic=True)": {"damping": 1e-3, "geodesic": True},
        "GaussNewton(geodesic=True)": {"geodesic": True},
        "GaussNewton()": {},
    }
    for name, arguments in sides.items():
        yield name, train(seed, keras_fwd.GaussNewton(**arguments), seconds, GOAL)
    yield "Adam(0.01)", train(seed, keras.optimizers.Adam(0.01), seconds)


def main():
    parser = record.parser(__doc__)
    parser.add_argument("--peer", metavar="PYTHON", help="of the peer's environment")
    parser.add_argument("--epochs", type=int, default=10, help="of the peer")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0, help="without a peer to set them")
    parser.add_argument("--peer-run", type=int, metavar="SEED", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer_run is not None:
        print(json.dumps(peer(options.peer_run, options.epochs)))
        return
    found = record.Record()
    found.peer(options.peer, "tf-levenberg-marquardt")
    title = f"sinc(10 x), 1-20-1 net, batch {BATCH}; GaussNewton stops at {GOAL:g}"
    columns = ("epochs", "d"), ("seconds", ".1f"), ("mean square", ".1e")
    table = found.table(title, ("seed", "d"), "optimizer", *columns)
    for seed in range(options.seeds):
        seconds = options.seconds
        if options.peer:
            theirs = of_peer(options.peer, seed, options.epochs)
            seconds = theirs["seconds"]
            table.add(seed, "tf-levenberg-marquardt", options.epochs, seconds, theirs["mse"])
        best = None
        for name, clock in ours(seed, seconds):
            best = clock.mse if best is None else best
            table.add(seed, name, clock.epochs, clock.spent, clock.mse)
        given = "the peer's time" if options.peer else f"{seconds:.0f} s"
        what = f"seed {seed}: mean square of the first GaussNewton in {given}"
        found.goal(what, best, at_most=GOAL, form=".1e")
    found.finish(options)


if __name__ == "__main__":
    main()
