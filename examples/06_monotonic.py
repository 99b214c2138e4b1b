"""Consumption must not fall with weight: a net that keeps to what is known.

What it shows: a net for miles per gallon from weight and six other properties of cars.
Trained plainly it says, for some cars, that a heavier one would go further on a gallon. With
`Monotonic` it does not, and predicts new cars as well. One picture:
build/monotonic/monotonic.png.

    python examples/06_monotonic.py
"""

# %% Real data: 392 cars
import logging
from pathlib import Path

import datasets
import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

import keras_fwd
from keras_fwd.regularizers import Monotonic

OUT = Path("build/monotonic")
OUT.mkdir(parents=True, exist_ok=True)
logging.getLogger("tensorflow").setLevel(logging.ERROR)
names = list(datasets.Autompg.FEATURE_NAMES)
WEIGHT = names.index("weight")
cars = datasets.load("autompg", split="train", as_supervised=True)
x, mpg = next(cars.batch(len(cars)).as_numpy_iterator())
mean, deviation = x.mean(axis=0), x.std(axis=0)
x = (x - mean) / deviation
x, x_test, mpg, mpg_test = x[:300], x[300:], mpg[:300, None], mpg[300:, None]


# %% Two trainings of one net
def fit(penalty):
    keras.utils.set_random_seed(1)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input([len(names)]),
            layers.Dense(64, "tanh"),
            layers.Dense(64, "tanh"),
            layers.Dense(1),
            layers.Rescaling(float(mpg.std()), float(mpg.mean())),
        ]
    )
    trained = model if penalty is None else keras_fwd.regularize(model, penalty)
    trained.compile(keras.optimizers.Adam(3e-3), "mse")
    trained.fit(x, mpg, batch_size=50, epochs=400, verbose=0)
    return model


# Miles per gallon must not rise with weight, which is to say: consumption must not fall.
models = {"plain": fit(None), "Monotonic": fit(Monotonic(30.0, WEIGHT, sign=-1))}


# %% Where is the slope wrong, and what does it cost?
def slopes(model):
    """∂mpg/∂weight of each car, miles per gallon per 1000 pounds."""
    everything = tf.constant(np.concatenate([x, x_test]))
    along = tf.one_hot(tf.fill([len(everything)], WEIGHT), len(names))
    _, slope = keras_fwd.jvp(model, everything, along)
    return slope.numpy()[:, 0] / deviation[WEIGHT] * 1000


wrong, errors = {}, {}
for name, model in models.items():
    wrong[name] = float(np.mean(slopes(model) > 0.05))
    errors[name] = float(np.sqrt(np.mean((model.predict(x_test, verbose=0) - mpg_test) ** 2)))
    print(
        f"{name:10} test error {errors[name]:.2f} mpg; consumption falls with weight for "
        f"{100 * wrong[name]:.1f} % of the cars"
    )

# %% The picture: ten cars of the test set, each made lighter and heavier
figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
pounds = np.linspace(1600, 5200, 60)
for panel, (name, model) in zip(axes, models.items(), strict=True):
    for i in range(10):
        line = np.repeat(x_test[i : i + 1], len(pounds), axis=0)
        line[:, WEIGHT] = (pounds - mean[WEIGHT]) / deviation[WEIGHT]
        panel.plot(pounds, model.predict(line, verbose=0)[:, 0], color=f"C{i}", linewidth=1)
        here = x_test[i, WEIGHT] * deviation[WEIGHT] + mean[WEIGHT]
        panel.plot(here, model.predict(x_test[i : i + 1], verbose=0)[0, 0], "o", color=f"C{i}")
    panel.set(title=name, xlabel="weight, pounds")
    panel.spines[["top", "right"]].set_visible(False)
axes[0].set_ylabel("miles per gallon")
figure.suptitle("Ten cars, made lighter and heavier (dots: as they are)")
figure.savefig(OUT / "monotonic.png", dpi=120)
print("picture: build/monotonic/monotonic.png")

# %% What the example claims
assert wrong["plain"] > 0.05, "the plain net keeps to it already"
assert wrong["Monotonic"] < 0.1 * wrong["plain"], "the penalty does not hold the slope"
assert errors["Monotonic"] < 1.1 * errors["plain"], "the penalty costs accuracy"
