"""Functions whose sensitivities are known in closed form, as Keras models in float64."""

import dataclasses
import math

import keras
import numpy as np
import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Known:
    """A function of independent uniform inputs.

    Attributes:
        function: From `[batch, inputs]` to `[batch, 1]`, of TensorFlow.
        low: Lower end of every input.
        high: Upper end.
        dgsm: E[(∂y/∂x)²] of each input.
        variance: Of the function.
        total_index: Total Sobol index of each input.
    """

    function: object
    low: float
    high: float
    dgsm: np.ndarray
    variance: float
    total_index: np.ndarray

    def model(self):
        """The function as a Keras model."""
        count = len(self.dgsm)
        layer = keras.layers.Lambda(self.function, dtype="float64")
        return keras.Sequential([keras.Input([count], dtype="float64"), layer])

    def draw(self, seed, count):
        """Examples of the inputs."""
        shape = (count, len(self.dgsm))
        return np.random.default_rng(seed).uniform(self.low, self.high, shape)

    @property
    def truth(self):
        """The measures, by name."""
        width = self.high - self.low
        spread = width / math.sqrt(12 * self.variance)
        return {
            "dgsm": self.dgsm,
            "rms": np.sqrt(self.dgsm),
            "standardized_rms": np.sqrt(self.dgsm) * spread,
            "total_index_bound": width**2 / np.pi**2 * self.dgsm / self.variance,
        }


def ishigami(a=7.0, b=0.1):
    """sin x₁ + a sin² x₂ + b x₃⁴ sin x₁ on [−π, π]³ (Ishigami and Homma 1990)."""

    def function(x):
        x1, x2, x3 = tf.unstack(x, axis=1)
        return (tf.sin(x1) + a * tf.sin(x2) ** 2 + b * x3**4 * tf.sin(x1))[:, None]

    pi = math.pi
    first = (1 + b * pi**4 / 5) ** 2 / 2
    third = 8 * b**2 * pi**8 / 225
    variance = first + a**2 / 8 + third
    dgsm = [0.5 * (1 + 2 * b * pi**4 / 5 + b**2 * pi**8 / 9), a**2 / 2, 8 * b**2 * pi**6 / 7]
    total = np.array([first + third, a**2 / 8, third]) / variance
    return Known(function, -pi, pi, np.array(dgsm), variance, total)


def g_function(a=(0.0, 1.0, 4.5, 9.0)):
    """Π (|4 xᵢ − 2| + aᵢ) / (1 + aᵢ) on [0, 1]ᵈ (Sobol 1998)."""
    a = np.array(a)

    def function(x):
        return tf.reduce_prod((tf.abs(4 * x - 2) + a) / (1 + a), axis=1, keepdims=True)

    parts = 1 / (3 * (1 + a) ** 2)
    product = np.prod(1 + parts)
    others = product / (1 + parts)
    variance = product - 1
    return Known(
        function, 0.0, 1.0, 16 / (1 + a) ** 2 * others, variance, parts * others / variance
    )
