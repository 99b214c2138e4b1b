"""What drives a model of cars, of tumors, of images, of sequences: four reports.

What it shows: `keras_fwd.sensitivity_report` on a table with discrete columns, on thirty features
in groups, on the pixels of a convolutional net and over the steps of a recurrent one; what training
changed, by `report.compare`; a figure. How to read the pages: docs/guides/sensitivity.md. It writes
cars.html, cars.png, tumors.html, pixels.html and rows.html in build/sensitivity/.

    python examples/10_sensitivity_reports.py
"""

# %% Real data, from wheels
import logging
from pathlib import Path

import datasets
import keras
import numpy as np
from keras import Input, Sequential, layers

from keras_fwd import GaussNewton, sensitivity_report

OUT = Path("build/sensitivity")
OUT.mkdir(parents=True, exist_ok=True)
logging.getLogger("tensorflow").setLevel(logging.ERROR)
keras.utils.set_random_seed(0)


def arrays(name):
    data = datasets.load(name, split="train", as_supervised=True)
    x, y = next(data.batch(len(data)).as_numpy_iterator())
    return x.astype("float32"), y


def standardize(x):
    layer = layers.Normalization()
    layer.adapt(x)
    return layer


# %% Cars: a small net in raw units. Cylinders and origin are codes, so they have no derivative.
x, mpg = arrays("autompg")
names = datasets.Autompg.FEATURE_NAMES
L2 = {"kernel_regularizer": keras.regularizers.L2(0.3)}
hidden = [layers.Dense(16, "tanh", **L2), layers.Dense(16, "tanh", **L2), layers.Dense(1, **L2)]
units = layers.Rescaling(float(mpg.std()), float(mpg.mean()))
net = Sequential([Input((7,)), standardize(x), *hidden, units])
options = {
    "feature_names": names,
    "output_names": ["mpg"],
    "discrete": ["cylinders", "origin"],
    "groups": {"engine": ["cylinders", "displacement", "horsepower"], "year": "model_year"},
    "interactions": 6,
    "by": lambda x: np.where(x[:, names.index("model_year")] < 76, "1970 to 1975", "1976 to 1982"),
}
untrained = sensitivity_report(net, x, **options)
net.compile(GaussNewton(), "mse")
net.fit(x, mpg, batch_size=len(x), epochs=30, verbose=0)
cars = sensitivity_report(net, x, **options)
cars.to_html(OUT / "cars.html", title="What drives the fuel consumption of 392 cars")
cars.plot("beeswarm").savefig(OUT / "cars.png", dpi=110)
training = untrained.compare(cars)
print(cars, training, sep="\n\n")


# %% Tumors: ten properties of cell nuclei, each as mean, as standard error, as worst value
def classify(net, x, y, loss, epochs):
    net.compile(keras.optimizers.Adam(5e-3), loss(from_logits=True))
    net.fit(x, y, batch_size=64, epochs=epochs, verbose=0)


x, benign = arrays("breast_cancer")
names = datasets.BreastCancer.FEATURE_NAMES
net = Sequential([Input((30,)), standardize(x), layers.Dense(16, "tanh"), layers.Dense(1)])
classify(net, x, benign, keras.losses.BinaryCrossentropy, 15)
options = {"feature_names": names, "output_names": ["benign, logit"], "interactions": 10}
options["groups"] = {k: [n for n in names if k in n.split()] for k in ("mean", "error", "worst")}
options["by"] = lambda x, y: np.where(y == 1, "benign", "malignant")
tumors = sensitivity_report(net, (x, benign), **options)
tumors.to_html(OUT / "tumors.html", title="What tells benign from malignant")

# %% Digits as images: maps of the pixels for three of the logits, and for each class
x, label = arrays("digits")
x /= 16
loss, logits = keras.losses.SparseCategoricalCrossentropy, [f"logit of {k}" for k in range(10)]
options = {"output_names": logits, "outputs": [logits[k] for k in (0, 3, 8)], "by": "target"}
conv = {"kernel_size": 3, "padding": "same", "activation": "relu"}
first, second = layers.Conv2D(16, **conv), layers.Conv2D(32, **conv)
body = [first, layers.MaxPooling2D(2), second, layers.Flatten(), layers.Dense(10)]
net = Sequential([Input((8, 8, 1), name="digit"), *body])
classify(net, x, label, loss, 6)
pixels = sensitivity_report(net, (x, label), **options)
pixels.to_html(OUT / "pixels.html", title="Which pixels tell digits apart")

# %% The same digits as sequences, row by row: "Shown as" on the page has a profile over the steps
net = Sequential([Input((8, 8), name="digit"), layers.GRU(24), layers.Dense(10)])
classify(net, x[..., 0], label, loss, 10)
rows = sensitivity_report(net, (x[..., 0], label), **options)
rows.to_html(OUT / "rows.html", title="Which rows a recurrent net remembers")
print(f"\n{tumors!r}\n{pixels!r}\n{rows!r}\npages: build/sensitivity")

# %% What this example claims: each holds from one end of the 95 % intervals to the other
mean = cars.measures["mean"]
weight, year = (cars.feature_names.index(name) for name in ("weight", "model_year"))
assert weight == cars.ranking()[0], "weight drives fuel consumption most"
assert mean.high[weight, 0] < 0 < mean.low[year, 0], "light and late cars go further"
early, late = (part.measures["mean"] for part in cars.slices.values())
assert early.high[year, 0] < late.low[year, 0], "a year brings more among later cars"
assert training.paired and training.changes["standardized_rms"].significant[weight, 0]
assert tumors.measures["mean"].high[names.index("worst texture")] < 0, "against benign"
strength = pixels.pooled["standardized_rms"]
low, high = strength.low.reshape(8, 8), strength.high.reshape(8, 8)
assert low[3:5, 3:5].min() > high[::7, ::7].max(), "corners matter less than the middle"
mean = pixels.measures["mean"].map(lambda part: part.reshape(8, 8, 3)[3:5, 3:5])
assert (mean.high[..., 0] < 0).all(), "ink in its hole speaks against a zero"
assert (mean.low[0, :, 2] > 0).all(), "ink where its strokes cross speaks for an eight"
_, low, high = rows.profiles()["digit"]
assert low[3, 0] > high[-1, 0], "a zero shows in the middle, which the net still remembers"
