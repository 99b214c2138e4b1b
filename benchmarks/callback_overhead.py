"""What the callbacks that measure a model add to the time of its training.

The CNN of `mnist_cnn.py` on MNIST-5k: 4000 images, 11 thousand weights, Adam, batches of 64. Stock
`fit`, where every second epoch has a callback, `max_overhead=0.1` and else as they come. An epoch
with it is the median of their times until it is called, and the mean of the time in it, because a
callback that is too dear for every epoch leaves some out; over the median of the epochs without it.
Medians over rounds in which the callbacks take turns. Goal: at most 1.15.

    python benchmarks/callback_overhead.py [--rounds 5] [--epochs 40]
"""

import os
import statistics
import time

import keras
import numpy as np
import record
from mnist_cnn import data, net

from keras_fwd.callbacks import CurvatureCallback, JacobianNormCallback, SensitivityCallback

BOUND = 0.1
#: Its goal is for these; the curvature is reported as it comes.
PROMISED = ("JacobianNormCallback", "SensitivityCallback")


def sides(x, y):
    """Name of a side: its callback, and the name of its number of examples in the logs."""
    return {
        "JacobianNormCallback": (
            JacobianNormCallback(x, max_overhead=BOUND),
            "jacobian_norm_examples",
        ),
        "CurvatureCallback": (
            CurvatureCallback((x, y), max_overhead=BOUND),
            "hessian_examples",
        ),
        "SensitivityCallback": (
            SensitivityCallback(x, max_overhead=BOUND),
            "sensitivity_examples",
        ),
    }


class EverySecond(keras.callbacks.Callback):
    """Hands every second epoch to a callback, and times all of them."""

    def __init__(self, callback):
        super().__init__()
        self.callback = callback
        self.without, self.training, self.measuring = [], [], []

    def set_model(self, model):
        super().set_model(model)
        self.callback.set_model(model)

    def on_train_begin(self, logs=None):
        self.callback.on_train_begin(logs)

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.perf_counter()
        if epoch % 2:
            self.callback.on_epoch_begin(epoch, logs)

    def on_epoch_end(self, epoch, logs=None):
        end = time.perf_counter()
        if not epoch % 2:
            self.without.append(end - self.start)
            return
        self.callback.on_epoch_end(epoch, logs)
        self.training.append(end - self.start)
        self.measuring.append(time.perf_counter() - end)

    def ratio(self):
        """An epoch with the callback in those without, after the first of each."""
        training, without = (statistics.median(s[1:]) for s in (self.training, self.without))
        return (training + statistics.mean(self.measuring[1:])) / without


def compare(rounds, epochs, names):
    x, _, y, _ = data()
    model = net(0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss)
    options = {"batch_size": 64, "verbose": 0}
    model.fit(x, y, epochs=2, **options)  # traced
    chosen = {name: side for name, side in sides(x, y).items() if not names or name in names}
    found = {name: [] for name in chosen}
    for _ in range(rounds):
        for name, (callback, count) in chosen.items():
            timed = EverySecond(callback)
            history = model.fit(x, y, epochs=2 * epochs, callbacks=[timed], **options).history
            counts = np.array(history[count])
            used = counts[counts > 0]
            size = np.median(used) if len(used) else 0
            plain = 1e3 * statistics.median(timed.without)
            found[name].append((timed.ratio(), plain, size, len(used) / len(counts)))
    return found


def main():
    parser = record.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=40, help="with a callback")
    parser.add_argument("--only", nargs="*", default=(), help="names of callbacks")
    options = parser.parse_args()
    found = record.Record()
    table = found.table(
        f"An epoch with a callback, max_overhead={BOUND}, in epochs without; medians",
        "callback",
        *[(name, ".2f") for name in ("ratio", "lowest", "highest")],
        *[(name, ".0f") for name in ("ms an epoch without", "examples")],
        ("epochs measured", ".0%"),
    )
    for name, rows in compare(options.rounds, options.epochs, options.only).items():
        ratio, plain, size, share = map(statistics.median, zip(*rows, strict=True))
        ratios = [row[0] for row in rows]
        table.add(name, ratio, min(ratios), max(ratios), plain, size, share)
        if name in PROMISED:
            found.goal(f"an epoch with {name}, in epochs without", ratio, at_most=1.15)
    found.finish(options)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
