"""GaussNewton for 50 epochs against the best Adam of three rates for 2000, on autompg.

A 7-16-16-1 tanh net on the 392 standardized rows, the same initial weights for all. GaussNewton
takes the whole set as one batch. Adam is shown twice: with the whole set as one batch, and with
Keras' default batch of 32, which gives it 26,000 steps.

    python benchmarks/autompg.py [--seeds 1] [--adam-epochs 2000]
"""

import itertools
import time

import keras
import numpy as np
import record
import tensorflow as tf
from mlxtend.data import autompg_data

import keras_fwd

RATES = (1e-3, 3e-3, 1e-2)


def data():
    """Standardized columns and target."""
    x, y = autompg_data()
    x, y = x[:, :7], y[:, None]
    return tuple(((a - a.mean(0)) / a.std(0)).astype("float32") for a in (x, y))


def train(optimizer, epochs, batch_size, seed):
    """Final loss on the whole set, and the seconds it took.

    All epochs are one pass over a repeated data set, executed in one compiled loop: what Keras
    does between epochs would otherwise be most of Adam's time on so small a net.
    """
    x, y = data()
    keras.utils.set_random_seed(seed)
    net = keras.Sequential(
        [
            keras.Input((7,)),
            keras.layers.Dense(16, "tanh"),
            keras.layers.Dense(16, "tanh"),
            keras.layers.Dense(1),
        ]
    )
    batches = tf.data.Dataset.from_tensor_slices((x, y)).cache().shuffle(len(x), seed=seed)
    batches = batches.batch(batch_size).repeat(epochs).prefetch(8)
    steps = epochs * -(-len(x) // batch_size)
    net.compile(optimizer=optimizer, loss="mse", steps_per_execution=steps)
    start = time.perf_counter()
    net.fit(batches, epochs=1, steps_per_epoch=steps, shuffle=False, verbose=0)
    seconds = time.perf_counter() - start
    return float(net.evaluate(x, y, batch_size=len(x), verbose=0)), seconds


def main():
    parser = record.parser(__doc__)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--adam-epochs", type=int, default=2000)
    options = parser.parse_args()
    rows, found = len(data()[0]), record.Record()
    columns = "method", ("epochs", "d"), ("training loss", ".2e"), ("seconds", ".1f")
    table = found.table("autompg, training loss", ("seed", "d"), *columns)
    for seed in range(options.seeds):
        ours, seconds = train(keras_fwd.GaussNewton(), options.epochs, rows, seed)
        table.add(seed, "GaussNewton()", options.epochs, ours, seconds)
        adams = []
        for batch, rate in itertools.product((rows, 32), RATES):
            loss, seconds = train(keras.optimizers.Adam(rate), options.adam_epochs, batch, seed)
            adams.append(loss)
            table.add(seed, f"Adam({rate:g}), batch {batch}", options.adam_epochs, loss, seconds)
        what = f"seed {seed}: loss of GaussNewton, in the best Adam's"
        found.goal(what, ours / min(adams), at_most=1.0, form=".3f")
        assert np.isfinite([ours, *adams]).all()
    found.finish(options)


if __name__ == "__main__":
    main()
