"""Where TensorFlow's derivatives break, and what makes them right.

What it shows: stock layers on handwritten digits, and the second derivative along a direction.
`find_leaks` says which layers break it; with plain tapes it is missing or wrong there; `jvp` of
`jvp` is right, and `seal_leaks` gives a model that plain tapes get right too. One picture:
build/leaks/leaks.png.

    python examples/03_leaks.py
"""

# %% Real data: 64 handwritten digits, and a direction for each: the ink of the next one
import logging
from pathlib import Path

import datasets
import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

import keras_fwd

OUT = Path("build/leaks")
OUT.mkdir(parents=True, exist_ok=True)
logging.getLogger("tensorflow").setLevel(logging.ERROR)
keras.config.set_floatx("float64")
keras.utils.set_random_seed(0)
digits = datasets.load("digits", split="train[:64]", as_supervised=True)
x, _ = next(digits.batch(64).as_numpy_iterator())
x = tf.constant(x / 16.0)
u = tf.roll(x, 1, axis=0)

# %% Four layers, the first without a leak
layers = keras.layers
LAYERS = {
    "Conv2D": layers.Conv2D(4, 3),
    "UpSampling2D": layers.UpSampling2D(interpolation="bilinear"),
    "LayerNormalization": layers.LayerNormalization(axis=[1, 2, 3]),
    "GroupNormalization": layers.GroupNormalization(1),
}


def net(layer):
    head = [layers.Flatten(), layers.Dense(1, "tanh")]
    return keras.Sequential([keras.Input(x.shape[1:]), layer, *head])


# %% A pushforward by plain tapes, from two pullbacks; and by keras_fwd
def plain(fn, x, u):
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            inner.watch(x)
            y = fn(x)
        if y is None:
            return None
        cotangent = tf.ones_like(y)
        outer.watch(cotangent)
        pulled = inner.gradient(y, x, cotangent)
    return None if pulled is None else outer.gradient(pulled, cotangent, u)


def ours(fn, x, u):
    return keras_fwd.jvp(fn, x, u)[1]


def error(model, pushforward):
    """Of the second derivative along `u`, relative; or NaN, where there is none."""
    step = 0.02  # large: bilinear resizing computes in float32
    ahead, here, behind = (model(x + h * u) for h in (step, 0.0, -step))
    expected = (ahead - 2 * here + behind) / step**2
    found = pushforward(lambda x: pushforward(model, x, u), x, u)
    return np.nan if found is None else float(tf.norm(found - expected) / tf.norm(expected))


# %% Which layers leak, and what comes out
found = {}
print(f"{'layer':24}{'find_leaks':>14}{'plain tapes':>14}{'keras_fwd':>12}{'sealed':>12}")
for name, layer in LAYERS.items():
    model = net(layer)
    kind = ", ".join(sorted({row.kind for row in keras_fwd.find_leaks(model)})) or "no leaks"
    sealed = error(keras_fwd.seal_leaks(model), plain)
    found[name] = plainly, own, sealed = error(model, plain), error(model, ours), sealed
    print(f"{name:24}{kind:>14}{plainly:14.0e}{own:12.0e}{sealed:12.0e}")

# %% The picture
figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
rows = np.arange(len(found))
for i, (label, color) in enumerate([("plain tapes", "C1"), ("keras_fwd.jvp", "C0")]):
    axes.barh(rows + 0.4 * i, [v[i] for v in found.values()], 0.38, color=color, label=label)
for row, (plainly, *_) in zip(rows, found.values(), strict=True):
    if np.isnan(plainly):
        axes.text(1.3e-5, row, "there is none", va="center", color="C1")
axes.set_yticks(rows + 0.2, list(found))
axes.set(xscale="log", xlim=(1e-5, 10), xlabel="relative difference from a central difference")
axes.set_title("Second derivatives along a direction")
axes.invert_yaxis()
axes.legend(frameon=False, loc="lower right")
axes.spines[["top", "right"]].set_visible(False)
figure.savefig(OUT / "leaks.png", dpi=120)
print("picture: build/leaks/leaks.png")

# %% What the example claims
for name, (plainly, own, sealed) in found.items():
    assert own < 0.01 and sealed < 0.01, f"{name} is wrong"
    assert name == "Conv2D" or not plainly < 0.05, f"{name} has no leak"
