"""Energies to forces: a net that learns an energy from forces alone.

What it shows: two particles in a plane, bound by a Morse potential. `InputGradientLayer(net,
scale=-1.0)` turns a net for the energy into a model of energy and forces in the functional API;
trained on the forces with stock `fit`, it conserves energy, because its forces are a gradient. One
picture: build/energy_forces/energy.png.

    python examples/07_energy_forces.py
"""

# %% Data: positions and forces of a Morse bond of length 1
import logging
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np

import keras_fwd
from keras_fwd.layers import InputGradientLayer

OUT = Path("build/energy_forces")
OUT.mkdir(parents=True, exist_ok=True)
logging.getLogger("tensorflow").setLevel(logging.ERROR)
DEPTH, WIDTH, LENGTH = 1.0, 1.5, 1.0


def morse(positions):
    """`(energy, forces)` of pairs of particles, `[n, 1]` and `[n, 2, 2]`."""
    between = positions[:, 1] - positions[:, 0]
    distance = np.linalg.norm(between, axis=1, keepdims=True)
    decay = np.exp(-WIDTH * (distance - LENGTH))
    slope = 2 * DEPTH * WIDTH * (1 - decay) * decay
    pull = slope * between / distance
    return DEPTH * (1 - decay) ** 2, np.stack([pull, -pull], axis=1)


def sample(count, seed):
    generator = np.random.default_rng(seed)
    angle, distance = generator.uniform(0, 2 * np.pi, count), generator.uniform(0.6, 2.0, count)
    half = np.stack([np.cos(angle), np.sin(angle)], axis=1) * distance[:, None] / 2
    center = generator.normal(size=(count, 2))
    return np.stack([center - half, center + half], axis=1).astype("float32")


x, x_test = sample(2000, 1), sample(500, 2)
(_, forces), (energy_test, forces_test) = morse(x), morse(x_test)

# %% A net for the energy, of the distance: no force turns or moves the pair
keras.utils.set_random_seed(0)
ops, layers = keras.ops, keras.layers
positions = keras.Input([2, 2])
between = positions[:, 1] - positions[:, 0]
distance = ops.sqrt(ops.sum(between**2, axis=1, keepdims=True))
hidden = layers.Dense(32, "tanh")(layers.Dense(32, "tanh")(distance))
energy_net = keras.Model(positions, layers.Dense(1, use_bias=False)(hidden), name="energy")

# %% The model that is trained: energy and forces, the loss on the forces alone
energy, force = InputGradientLayer(energy_net, scale=-1.0)(positions)
model = keras.Model(positions, force)
model.compile(keras_fwd.GaussNewton(), "mse")
model.fit(x, forces.astype("float32"), batch_size=500, epochs=15, verbose=0)

# %% Forces on new pairs, and the energy up to a constant
error = float(np.sqrt(np.mean((model.predict(x_test, verbose=0) - forces_test) ** 2)))
size = float(np.sqrt(np.mean(forces_test**2)))
learned = energy_net.predict(x_test, verbose=0)
constant = np.mean(learned - energy_test)
shifted = learned - constant
energy_error = float(np.sqrt(np.mean((shifted - energy_test) ** 2)))
print(f"error of the forces: {error:.1e}, of {size:.2f}")
print(f"error of the energy: {energy_error:.1e}, of {float(np.std(energy_test)):.2f}")

# %% The picture: the pair on a line, from close to far
apart = np.linspace(0.6, 2.0, 60)
line = np.zeros([60, 2, 2], "float32")
line[:, 1, 0] = apart
(true_energy, true_force), found = morse(line), model.predict(line, verbose=0)
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
left.plot(apart, true_energy, label="Morse potential")
left.plot(apart[::3], energy_net.predict(line[::3], verbose=0) - constant, "o", label="the net")
left.set(title="Energy, never shown to the net", ylabel="energy, depths of the well")
right.plot(apart, true_force[:, 1, 0], label="Morse potential")
right.plot(apart[::3], found[::3, 1, 0], "o", label="the net")
right.set(title="Force on the second particle", ylabel="force, depths per length")
for axes in (left, right):
    axes.set_xlabel("distance, lengths of the bond")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
figure.savefig(OUT / "energy.png", dpi=120)
print("picture: build/energy_forces/energy.png")

# %% What the example claims
assert error < 0.02 * size, "the forces are not learned"
assert energy_error < 0.02 * float(np.std(energy_test)), "the energy does not follow"
