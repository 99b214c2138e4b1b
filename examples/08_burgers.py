"""Burgers' equation, on which a shock forms, solved by a net.

What it shows: `u_t + u u_x = ν u_xx` on [-1, 1], `u = −sin πx` at first, zero at the ends. A net
stands for `u`; what is left of the equation at 800 points is the residual, with derivatives by
`directional_derivatives` and `jvp`, and `GaussNewton().minimize` lowers its squares. The exact
solution says how far off the net is. One picture: build/burgers/burgers.png.

    python examples/08_burgers.py
"""

# %% The equation, and its exact solution (Cole and Hopf) by Gauss-Hermite quadrature
import logging
import time
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

import keras_fwd

OUT = Path("build/burgers")
OUT.mkdir(parents=True, exist_ok=True)
logging.getLogger("tensorflow").setLevel(logging.ERROR)
keras.config.set_floatx("float64")
VISCOSITY = 0.05 / np.pi


def exact(x, t):
    nodes, weights = np.polynomial.hermite.hermgauss(100)
    origin = np.pi * (x[..., None] - np.sqrt(4 * VISCOSITY * t[..., None]) * nodes)
    shares = weights * np.exp(-np.cos(origin) / (2 * np.pi * VISCOSITY))
    return -np.sum(shares * np.sin(origin), axis=-1) / np.sum(shares, axis=-1)


# %% A net that starts right and keeps its ends
keras.utils.set_random_seed(0)
layers = [keras.layers.Dense(10, "tanh") for _ in range(3)]
net = keras.Sequential([keras.Input([2]), *layers, keras.layers.Dense(1)])


def wave(points):
    x, t = points[:, :1], points[:, 1:]
    return -tf.sin(np.pi * x) + t * (1 - x**2) * net(points)


# %% Points `(x, t)`, half of them where the shock will be, and what is left of the equation there
generator = np.random.default_rng(0)
anywhere = generator.uniform([-1, 0], [1, 1], (400, 2))
near = np.stack([generator.normal(0, 0.2, 400).clip(-1, 1), generator.uniform(0, 1, 400)], axis=1)
points = tf.constant(np.concatenate([anywhere, near]))
along_x = tf.constant(np.tile([1.0, 0.0], (len(points), 1)))
along_t = tf.constant(np.tile([0.0, 1.0], (len(points), 1)))


def residuals():
    u, u_x, u_xx = keras_fwd.directional_derivatives(wave, points, along_x, order=2)
    _, u_t = keras_fwd.jvp(wave, points, along_t)
    return u_t + u * u_x - VISCOSITY * u_xx


# %% The solution, and its error on a grid
x, t = np.meshgrid(np.linspace(-1, 1, 201), np.linspace(0, 1, 101))
grid, truth = tf.constant(np.stack([x.ravel(), t.ravel()], axis=1)), exact(x, t)


def error():
    return wave(grid).numpy().reshape(truth.shape) - truth


def tell(step, logs):
    if step % 20 == 0:
        seconds = time.perf_counter() - start
        relative = np.linalg.norm(error()) / np.linalg.norm(truth)
        print(f"step {step}, {seconds:.0f} s: loss {logs['loss']:.1e}, error {relative:.1e}")


start = time.perf_counter()
keras_fwd.GaussNewton().minimize(residuals, net, reduction="mean", max_steps=80, callback=tell)
relative = float(np.linalg.norm(error()) / np.linalg.norm(truth))
print(f"error of the solution, relative: {relative:.1e}; largest: {np.abs(error()).max():.1e}")

# %% The picture
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
image = left.pcolormesh(t, x, truth + error(), cmap="RdBu_r", rasterized=True)
figure.colorbar(image, ax=left, label="u")
left.set(title="the net", xlabel="t", ylabel="x")
for color, row in zip(["C0", "C1", "C2", "C3"], [0, 25, 50, 100], strict=True):
    middle.plot(x[row], truth[row], color=color, label=f"t = {t[row, 0]:.2f}")
    middle.plot(x[row, ::8], (truth + error())[row, ::8], ".", color=color)
middle.set(title="lines: exact, dots: the net", xlabel="x", ylabel="u")
middle.legend(frameon=False)
middle.spines[["top", "right"]].set_visible(False)
logarithm = np.log10(np.abs(error()) + 1e-7)
image = right.pcolormesh(t, x, logarithm, cmap="viridis", vmin=-6, rasterized=True)
figure.colorbar(image, ax=right, label="log₁₀ of the error")
right.set(title="how far off it is", xlabel="t", ylabel="x")
figure.savefig(OUT / "burgers.png", dpi=120)
print("picture: build/burgers/burgers.png")

# %% What the example claims
assert relative < 1e-2, "the net does not solve the equation"
