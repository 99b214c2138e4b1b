"""Digits read under noise and under attack, by penalties on derivatives.

What it shows: the same small net trained plainly and with each of five penalties through
`keras_fwd.regularize`; accuracy on clean digits, under rising noise and under a PGD attack. One
picture: build/robust_digits/robustness.png.

    python examples/04_robust_digits.py
"""

# %% Real data: 1797 handwritten digits of 8 by 8 pixels
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
from keras_fwd import regularizers

OUT = Path("build/robust_digits")
OUT.mkdir(parents=True, exist_ok=True)
EPOCHS, SEEDS = 25, 2
EPSILON = 0.1
logging.getLogger("tensorflow").setLevel(logging.ERROR)

train, test = datasets.load("digits", split=["train[:70%]", "train[70%:]"], as_supervised=True)
x, y = next(train.batch(len(train)).as_numpy_iterator())
x_test, y_test = next(test.batch(len(test)).as_numpy_iterator())
x, x_test = (images.astype("float32") / 16 for images in (x, x_test))


# %% One net, and a penalty or none
def build():
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(x.shape[1:]),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )


PENALTIES = {
    "plain": None,
    "JacobianNorm": regularizers.JacobianNorm(0.01),
    "SpectralJacobian": regularizers.SpectralJacobian(0.1),
    "InputGradient": regularizers.InputGradient(0.3),
    "Curvature": regularizers.Curvature(0.3, step=1.0),
    "LocalLinearity": regularizers.LocalLinearity(3.0, epsilon=EPSILON),
}


def fit(penalty, seed):
    keras.utils.set_random_seed(seed)
    model = build()
    trained = model if penalty is None else keras_fwd.regularize(model, penalty)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    trained.compile(keras.optimizers.Adam(2e-3), loss)
    trained.fit(x, y, batch_size=64, epochs=EPOCHS, verbose=0)
    return model


# %% Accuracy of each
DEVIATIONS = np.linspace(0, 0.6, 7)
table = rich.table.Table(title="Accuracy in percent, mean of two seeds")
for heading in ("training", "clean", "noise 0.3", f"PGD {EPSILON}"):
    table.add_column(heading)
curves, attacked = {}, {}
for name, penalty in PENALTIES.items():
    models = [fit(penalty, seed) for seed in range(SEEDS)]
    curves[name] = [
        100 * np.mean([attacks.accuracy(m, attacks.noisy(x_test, d), y_test) for m in models])
        for d in DEVIATIONS
    ]
    moved = [attacks.pgd(model, x_test, y_test, EPSILON) for model in models]
    pairs = zip(models, moved, strict=True)
    attacked[name] = 100 * np.mean([attacks.accuracy(m, images, y_test) for m, images in pairs])
    table.add_row(name, *[f"{v:.1f}" for v in (curves[name][0], curves[name][3], attacked[name])])
rich.console.Console().print(table)

# %% The picture
figure, (left, right) = plt.subplots(
    1, 2, figsize=(10, 4), width_ratios=[3, 2], layout="constrained"
)
for name, values in curves.items():
    style = {"color": "black", "linestyle": "--"} if name == "plain" else {}
    left.plot(DEVIATIONS, values, marker="o", markersize=3, label=name, **style)
left.set(xlabel="standard deviation of the noise", ylabel="accuracy, percent", title="Noise")
left.legend(frameon=False)
colors = ["0.6" if name == "plain" else f"C{i - 1}" for i, name in enumerate(attacked)]
right.barh(list(attacked), list(attacked.values()), color=colors)
right.invert_yaxis()
right.set(xlabel="accuracy, percent", title=f"PGD attack, ±{EPSILON} a pixel")
for axes in (left, right):
    axes.spines[["top", "right"]].set_visible(False)
figure.savefig(OUT / "robustness.png", dpi=120)
print("picture: build/robust_digits/robustness.png")

# %% What the example claims
for name in PENALTIES:
    assert curves[name][0] > curves["plain"][0] - 2, f"{name} costs clean accuracy"
    if name != "plain":
        assert attacked[name] > attacked["plain"] + 5, f"{name} does not help against the attack"
