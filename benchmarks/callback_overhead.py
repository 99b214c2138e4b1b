"""What the callbacks that measure a model add to the time of its training.

The CNN of `mnist_cnn.py` on MNIST-5k: 4000 images, 11 thousand weights, Adam, batches of 64. Stock
`fit`, by turns without a callback and with one of them, `max_overhead=0.1` and else as they come;
blocks of epochs, because a callback that is too dear for every epoch leaves some out, timed from
the end of the first to the end of the last. Each block is divided by the mean of the two without a
callback around it; medians over the rounds. Goal: at most 1.15.

    python benchmarks/callback_overhead.py [--rounds 5] [--epochs 40]
"""

import argparse
import os
import statistics
import time

import keras
import numpy as np
import rich.console
import rich.table
from mnist_cnn import data, net

from keras_fwd.callbacks import CurvatureCallback, JacobianNormCallback, SensitivityCallback

BOUND = 0.1


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


class Ends(keras.callbacks.Callback):
    """When each epoch ended."""

    def __init__(self):
        super().__init__()
        self.times = []

    def on_epoch_begin(self, epoch, logs=None):
        if not epoch:
            self.times.append(time.perf_counter())

    def on_epoch_end(self, epoch, logs=None):
        self.times.append(time.perf_counter())


def block(model, x, y, epochs, callbacks):
    """Seconds of an epoch, the first left out, and the history."""
    ends = Ends()
    options = {"batch_size": 64, "verbose": 0, "shuffle": False}
    history = model.fit(x, y, epochs=epochs, callbacks=[*callbacks, ends], **options).history
    return (ends.times[-1] - ends.times[1]) / (epochs - 1), history


def compare(rounds, epochs, names):
    x, _, y, _ = data()
    model = net(0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss)
    chosen = {name: side for name, side in sides(x, y).items() if not names or name in names}
    plain = block(model, x, y, epochs, [])[0]  # traced
    plain = block(model, x, y, epochs, [])[0]
    found = {name: [] for name in chosen}
    for _ in range(rounds):
        for name, (callback, count) in chosen.items():
            seconds, history = block(model, x, y, epochs, [callback])
            before, plain = plain, block(model, x, y, epochs, [])[0]
            counts = np.array(history[count])
            used = counts[counts > 0]
            size = np.median(used) if len(used) else 0
            found[name].append(
                (
                    2 * seconds / (before + plain),
                    1e3 * (before + plain) / 2,
                    size,
                    len(used) / len(counts),
                )
            )
    return found


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--only", nargs="*", default=(), help="names of callbacks")
    options = parser.parse_args()
    table = rich.table.Table(title=f"Epochs with a callback, max_overhead={BOUND}")
    headings = ("ratio", "lowest", "highest", "ms an epoch without", "examples", "epochs measured")
    for heading in ("callback", *headings):
        table.add_column(heading)
    for name, rows in compare(options.rounds, options.epochs, options.only).items():
        ratio, plain, size, share = map(statistics.median, zip(*rows, strict=True))
        ratios = [row[0] for row in rows]
        cells = [f"{r:.2f}" for r in (ratio, min(ratios), max(ratios))]
        table.add_row(name, *cells, f"{plain:.0f}", f"{size:.0f}", f"{share:.0%}")
    rich.console.Console(width=100).print(table)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
