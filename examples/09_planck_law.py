"""Planck's law fitted to the sky: the temperature of the cosmic background.

What it shows: `GaussNewton().minimize` on residuals of one's own. Planck's law has a temperature;
the sky adds a chemical potential, if energy was released late, and what is left of the Galaxy.
Three parameters of different units start far away; the steps do not depend on units. The Jacobian
gives their standard errors, and the published values are met. One picture: build/planck/planck.png.

    python examples/09_planck_law.py
"""

# %% Real data: the spectrum that COBE's FIRAS measured
# Fixsen et al., Astrophysical Journal 473 (1996), table 4; NASA LAMBDA, public domain.
# 1/cm, intensity in MJy/sr, its uncertainty and the Galaxy's spectrum in kJy/sr.
import logging
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

import keras_fwd

OUT = Path("build/planck")
OUT.mkdir(parents=True, exist_ok=True)
logging.getLogger("tensorflow").setLevel(logging.ERROR)
TABLE = """
2.27 200.723 14 4      2.72 249.508 19 3      3.18 293.024 25 -1     3.63 327.770 23 -1
4.08 354.081 22 3      4.54 372.079 21 6      4.99 381.493 18 8      5.45 383.478 18 8
5.90 378.901 16 10     6.35 368.833 14 10     6.81 354.063 13 12     7.26 336.278 12 20
7.71 316.076 11 25     8.17 293.924 10 30     8.62 271.432 11 36     9.08 248.239 12 41
9.53 225.940 14 46     9.98 204.327 16 57     10.44 183.262 18 65    10.89 163.830 22 73
11.34 145.750 22 93    11.80 128.835 23 98    12.25 113.568 23 105   12.71 99.451 23 121
13.16 87.036 22 135    13.61 75.876 21 147    14.07 65.766 20 160    14.52 57.008 19 178
14.97 49.223 19 199    15.43 42.267 19 221    15.88 36.352 21 227    16.34 31.062 23 250
16.79 26.580 26 275    17.24 22.644 28 295    17.70 19.255 30 312    18.15 16.391 32 336
18.61 13.811 33 363    19.06 11.716 35 405    19.51 9.921 41 421     19.97 8.364 55 435
20.42 7.087 88 477     20.87 5.801 155 519    21.33 4.523 282 573
"""
number, intensity, error, galaxy = np.array(TABLE.split(), float).reshape(-1, 4).T
error, galaxy = error / 1000, galaxy / 1000  # MJy/sr, as the intensity

# %% The law, and the parameters with their units
PLANCK, LIGHT, BOLTZMANN = 6.62607015e-34, 299792458.0, 1.380649e-23  # J s, m/s, J/K
TO_MJY = 1e20  # from W / (m² Hz sr)
temperature = tf.Variable(5.0, dtype="float64", name="temperature")  # K
potential = tf.Variable(0.1, dtype="float64", name="potential")  # of kT
remainder = tf.Variable(0.0, dtype="float64", name="remainder")  # of the Galaxy's spectrum
parameters = [temperature, potential, remainder]


def law(number, galaxy):
    """Intensity at a wave number, MJy/sr."""
    wave = 100.0 * number  # 1/m
    ratio = PLANCK * LIGHT * wave / (BOLTZMANN * temperature)
    emission = 2 * PLANCK * LIGHT * wave**3 / tf.math.expm1(ratio + potential)
    return TO_MJY * emission + remainder * galaxy


def residuals():
    return (law(number, galaxy) - intensity) / error


# %% The fit
result = keras_fwd.GaussNewton().minimize(residuals, parameters)
print(result)

# %% Standard errors: the inverse of JᵀJ, for the residuals are in units of their errors
_, J = keras_fwd.linearize(lambda _: residuals(), tf.zeros([]), wrt=parameters)
columns = np.asarray(J.to_dense())
deviations = np.sqrt(np.diag(np.linalg.inv(columns.T @ columns)))
scatter = 2 * result.loss / (len(number) - len(parameters))
units = ["K", "kT", "of the Galaxy's spectrum"]
for variable, deviation, unit in zip(parameters, deviations, units, strict=True):
    print(f"{variable.name.split(':')[0]:12} {float(variable):10.6f} ± {deviation:.6f} {unit}")
print(f"chi squared per degree of freedom: {scatter:.2f}")

# %% The picture: the spectrum, and what is left of it in units of the errors
figure, (top, bottom) = plt.subplots(
    2, 1, figsize=(7, 6), sharex=True, layout="constrained", height_ratios=[3, 1]
)
fine = np.linspace(1.5, 22, 300)
top.plot(fine, law(fine, 0 * fine), color="C0", label=f"Planck's law at {float(temperature):.4f} K")
top.errorbar(
    number, intensity, 400 * error, fmt=".", color="C1", label="FIRAS, with 400 times its errors"
)
top.set(ylabel="intensity, MJy/sr", title="The cosmic microwave background")
top.legend(frameon=False)
bottom.axhline(0, color="C0", linewidth=1)
bottom.plot(number, -residuals().numpy(), ".", color="C1")
bottom.set(xlabel="wave number, 1/cm", ylabel="rest / error")
for panel in (top, bottom):
    panel.spines[["top", "right"]].set_visible(False)
figure.savefig(OUT / "planck.png", dpi=120)
print("picture: build/planck/planck.png")

# %% What the example claims
# Fixsen, Astrophysical Journal 707 (2009): 2.7255 K. Fixsen et al. (1996): a potential below 9e-5.
assert result.converged, result.message
assert abs(float(temperature) - 2.7255) < 1e-3, "another temperature than is published"
assert abs(float(potential)) < 9e-5, "a chemical potential that was not found"
assert scatter < 1.5, "the law does not describe the data"
