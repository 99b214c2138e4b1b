"""Fuel consumption of cars by Gauss-Newton, and what drives it.

What it shows: a plain `keras.Sequential` trained by `keras_fwd.GaussNewton` in stock `fit`, next
to Adam on the same net with ten times the epochs; the norm of ∂output/∂input in the progress bar;
and the sensitivity report, as a table here and as a page to keep. One picture:
build/quickstart/training.png.

    make demo        (or: python examples/01_quickstart.py)
"""

# %% Real data: 392 cars, from a wheel, through TensorFlow Datasets
import logging
import time
from pathlib import Path

import datasets
import keras
import matplotlib.pyplot as plt
import numpy as np

import keras_fwd

OUT = Path("build/quickstart")
EPOCHS = 30

OUT.mkdir(parents=True, exist_ok=True)
# Five models in one script: TensorFlow would remark on each new one that is traced.
logging.getLogger("tensorflow").setLevel(logging.ERROR)
train, test = datasets.load("autompg", split=["train[:80%]", "train[80%:]"], as_supervised=True)
# The whole training set is one batch: that is where Gauss-Newton is at its best.
x_train, y_train = next(train.batch(len(train)).as_numpy_iterator())
x_test, y_test = next(test.batch(len(test)).as_numpy_iterator())
names = datasets.Autompg.FEATURE_NAMES
print(f"{len(x_train)} cars to train on, {len(x_test)} to test; inputs: {', '.join(names)}\n")


# %% A plain Keras net that takes raw units: the first layer standardizes
def build():
    keras.utils.set_random_seed(0)
    standardize = keras.layers.Normalization()
    standardize.adapt(x_train)
    # Without weight decay, Gauss-Newton would fit the 314 cars to the last digit, noise and all.
    decay = keras.regularizers.L2(0.3)
    layers = [
        keras.Input((len(names),)),
        standardize,
        keras.layers.Dense(16, "tanh", kernel_regularizer=decay),
        keras.layers.Dense(16, "tanh", kernel_regularizer=decay),
        keras.layers.Dense(1, kernel_regularizer=decay, name="mpg"),
        # Back to miles per gallon, so that the net itself works with numbers near 1.
        keras.layers.Rescaling(float(y_train.std()), float(y_train.mean())),
    ]
    return keras.Sequential(layers)


def train_with(optimizer, epochs, **arguments):
    model = build()
    model.compile(optimizer=optimizer, loss="mse")
    start = time.perf_counter()
    fitted = model.fit(x_train, y_train, batch_size=len(x_train), epochs=epochs, **arguments)
    return model, time.perf_counter() - start, fitted.history["loss"]


# %% Gauss-Newton, in stock compile and fit
watch = keras_fwd.JacobianNormCallback((x_test, y_test))
model, seconds, losses = train_with(keras_fwd.GaussNewton(), EPOCHS, callbacks=[watch], verbose=1)

# %% Adam on the same net, with ten times the epochs
rates = (1e-3, 3e-3, 1e-2)
adams = [train_with(keras.optimizers.Adam(r), 10 * EPOCHS, verbose=0) for r in rates]


def rmse(model, x, y):
    return float(np.sqrt(np.mean((model(x).numpy()[:, 0] - y) ** 2)))


def loss(model):
    return float(model.evaluate(x_train, y_train, batch_size=len(x_train), verbose=0))


print("\nwhat each optimizer reached:")
print(f"  {'optimizer':<16}{'epochs':>8}{'seconds':>9}{'training loss':>15}{'test error, mpg':>17}")
rows = [("GaussNewton()", EPOCHS, model, seconds, losses)]
rows += [(f"Adam({r:g})", 10 * EPOCHS, *adam) for r, adam in zip(rates, adams, strict=True)]
for name, epochs, net, took, _ in rows:
    reached = f"{loss(net):>15.3f}{rmse(net, x_test, y_test):>17.3f}"
    print(f"  {name:<16}{epochs:>8}{took:>9.1f}{reached}")

# %% Which inputs drive fuel consumption?
# Numbers of cylinders and countries are codes: for them, what switching from one to another does.
report = keras_fwd.sensitivity_report(
    model, x_train, names, output_names=["mpg"], discrete=["cylinders", "origin"]
)
print()
print(report)

# %% Keep it
model.save(OUT / "model.keras")
report.to_html(OUT / "report.html")
print("model: build/quickstart/model.keras\nreport: build/quickstart/report.html")

# %% The picture: how the loss falls, and the strength of each input
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
for name, epochs, _, _, losses in rows:
    left.loglog(np.arange(1, epochs + 1), losses, label=name)
left.set(xlabel="epochs", ylabel="training loss, mpg²", title="Gauss-Newton and Adam")
left.legend(frameon=False)
strength = report.measures["standardized_rms"]
order = report.ranking()[7::-1]
value, low, high = (part[order, 0] for part in (strength.value, strength.low, strength.high))
labels = [report.feature_names[i] for i in order]
right.barh(labels, value, xerr=[value - low, high - value], color="C0")
right.set(xlabel="strength, standard deviations of mpg", title="What drives fuel consumption")
figure.savefig(OUT / "training.png", dpi=120)

# %% What this example claims
assert loss(model) < min(loss(net) for net, _, _ in adams), "Gauss-Newton should be ahead of Adam"
assert rmse(keras.models.load_model(OUT / "model.keras"), x_test, y_test) < 3.0
