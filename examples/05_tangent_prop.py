"""Few labels: a digit stays what it is when it moves a little.

What it shows: 100 labelled digits; `Directional` with the built-in tangents of shift, rotation and
scale (tangent propagation, Simard 1992) against plain training, on the other 1600 digits as they
are and moved by a pixel. One picture: build/tangent_prop/accuracy.png.

    python examples/05_tangent_prop.py
"""

# %% 100 digits to learn from
import logging
from pathlib import Path

import attacks
import datasets
import keras
import matplotlib.pyplot as plt
import numpy as np
import rich.console
import rich.table

import keras_fwd
from keras_fwd.regularizers import Directional

OUT = Path("build/tangent_prop")
OUT.mkdir(parents=True, exist_ok=True)
LABELLED, SEEDS = 100, 3
logging.getLogger("tensorflow").setLevel(logging.ERROR)
digits = datasets.load("digits", split="train", as_supervised=True)
x, y = next(digits.batch(len(digits)).as_numpy_iterator())
x = x.astype("float32") / 16
x, x_test, y, y_test = x[:LABELLED], x[LABELLED:], y[:LABELLED], y[LABELLED:]
moved = np.concatenate([np.roll(x_test, shift, axis) for axis in (1, 2) for shift in (-1, 1)])
y_moved = np.tile(y_test, 4)


# %% A dense net, which knows nothing of neighbors
def build():
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(x.shape[1:]),
            layers.Flatten(),
            layers.Dense(64, "tanh"),
            layers.Dense(64, "tanh"),
            layers.Dense(10),
        ]
    )


def accuracies(penalty, seed):
    keras.utils.set_random_seed(seed)
    model = build()
    trained = model if penalty is None else keras_fwd.regularize(model, penalty)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    trained.compile(keras.optimizers.Adam(3e-3), loss)
    trained.fit(x, y, batch_size=25, epochs=150, verbose=0)
    return attacks.accuracy(model, x_test, y_test), attacks.accuracy(model, moved, y_moved)


# %% Plain, and with tangents
TRAININGS = {
    "plain": None,
    "shift": Directional(0.1, "shift"),
    "shift, rotation, scale": Directional(0.1, ["shift", "rotation", "scale"]),
}
table = rich.table.Table(title=f"Accuracy in percent from {LABELLED} labels, mean of three seeds")
for heading in ("tangents", "as they are", "moved by a pixel"):
    table.add_column(heading)
found = {}
for name, penalty in TRAININGS.items():
    found[name] = 100 * np.mean([accuracies(penalty, seed) for seed in range(SEEDS)], axis=0)
    table.add_row(name, *[f"{value:.1f}" for value in found[name]])
rich.console.Console().print(table)

# %% The picture
figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
rows = np.arange(len(TRAININGS))
for i, (label, color) in enumerate([("as they are", "C0"), ("moved by a pixel", "C1")]):
    values = [found[name][i] for name in TRAININGS]
    bars = axes.barh(rows + 0.4 * i, values, 0.38, color=color, label=label)
    axes.bar_label(bars, fmt="%.1f", padding=3)
axes.set_yticks(rows + 0.2, ["no tangents", *list(TRAININGS)[1:]])
axes.set(xlabel="accuracy on 1697 digits, percent", xlim=(0, 100))
axes.set_title(f"Learned from {LABELLED} labels, mean of three seeds")
axes.invert_yaxis()
axes.legend(frameon=False, ncols=2, loc="upper left", bbox_to_anchor=(0, -0.15))
axes.spines[["top", "right"]].set_visible(False)
figure.savefig(OUT / "accuracy.png", dpi=120)
print("picture: build/tangent_prop/accuracy.png")

# %% What the example claims
for name in list(TRAININGS)[1:]:
    as_they_are, by_a_pixel = found[name] - found["plain"]
    assert by_a_pixel > 4, f"the tangents of {name} do not help when digits move"
    assert as_they_are > -1, f"the tangents of {name} cost accuracy on digits as they are"
