"""An autoencoder by K-FAC, beside Adam.

What it shows: `keras_fwd.KFAC()` in stock `compile` and `fit`, without a number to tune, on a deep
autoencoder of handwritten digits as in the K-FAC literature; three learning rates of Adam on the
same net for as many steps; which weights share a block of curvature. One picture:
build/kfac/autoencoder.png.

    python examples/02_kfac_autoencoder.py
"""

# %% Real data: 1797 handwritten digits of 64 pixels
import logging
import time
from pathlib import Path

import datasets
import keras
import matplotlib.pyplot as plt
import numpy as np

import keras_fwd

OUT = Path("build/kfac")
OUT.mkdir(parents=True, exist_ok=True)
EPOCHS, BATCH, CODE = 60, 599, 6  # three steps an epoch
logging.getLogger("tensorflow").setLevel(logging.ERROR)
digits = datasets.load("digits", split="train", as_supervised=True)
x, _ = next(digits.batch(len(digits)).as_numpy_iterator())
x = x.reshape(len(x), -1).astype("float32") / 16


# %% From 64 pixels to 6 numbers and back
def build():
    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Dense(width, "tanh") for width in (128, 64, 32)]
    back = [keras.layers.Dense(width, "tanh") for width in (32, 64, 128)]
    layers = [keras.Input([64]), *hidden, keras.layers.Dense(CODE), *back, keras.layers.Dense(64)]
    return keras.Sequential(layers)


def train(optimizer):
    model = build()
    model.compile(optimizer, "mse")
    start = time.perf_counter()
    history = model.fit(x, x, batch_size=BATCH, epochs=EPOCHS, verbose=0).history
    return model, history["loss"], time.perf_counter() - start


# %% K-FAC with its defaults, and Adam
optimizers = {"KFAC()": keras_fwd.KFAC()}
optimizers |= {f"Adam({rate:g})": keras.optimizers.Adam(rate) for rate in (1e-3, 3e-3, 1e-2)}
models, losses = {}, {}
for name, optimizer in optimizers.items():
    models[name], losses[name], seconds = train(optimizer)
    print(f"{name:12} loss {losses[name][-1]:.4f} after {EPOCHS * 3} steps, {seconds:.1f} s")
print(models["KFAC()"].optimizer.blocks(models["KFAC()"]))

# %% The picture: the losses, and eight digits with what is left of them after six numbers
best = min(list(losses)[1:], key=lambda name: losses[name][-1])
figure = plt.figure(figsize=(11, 4), layout="constrained")
left, right = figure.subfigures(1, 2, width_ratios=[3, 4])
axes = left.subplots()
for name, values in losses.items():
    axes.semilogy(3 * np.arange(1, EPOCHS + 1), values, label=name)
axes.set(xlabel="steps", ylabel="mean squared error of a pixel", title="Training loss")
axes.legend(frameon=False)
axes.spines[["top", "right"]].set_visible(False)
shown = {"digits": x[:8]}
shown |= {name: models[name].predict(x[:8], verbose=0) for name in ("KFAC()", best)}
panels = right.subplots(3, 8)
for row, (name, images) in zip(panels, shown.items(), strict=True):
    for panel, image in zip(row, images, strict=True):
        panel.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
        panel.set(xticks=[], yticks=[])
    row[0].set_ylabel(name)
figure.savefig(OUT / "autoencoder.png", dpi=120)
print("picture: build/kfac/autoencoder.png")

# %% What the example claims
assert losses["KFAC()"][-1] < 0.8 * losses[best][-1], "K-FAC should be well ahead of Adam"
