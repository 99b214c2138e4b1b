"""The loss scale of `mixed_float16`: Keras' `LossScaleOptimizer` around a curvature optimizer."""

import keras
import tensorflow as tf


def scaler_of(model):
    """The `keras.optimizers.LossScaleOptimizer` that a model is compiled with, or None."""
    optimizer = getattr(model, "optimizer", None)
    return optimizer if isinstance(optimizer, keras.optimizers.LossScaleOptimizer) else None


def scale_of(scaler):
    """What the loss is multiplied with before gradients run through half precision, or None."""
    return None if scaler is None else tf.identity(scaler.dynamic_scale.value)


def follow(scaler, finite):
    """Half the scale where the gradient overflowed, twice as much after many that did not.

    As `LossScaleOptimizer` does around an optimizer that gets gradients.
    """
    if scaler is None:
        return
    scale, count = scaler.dynamic_scale, tf.identity(scaler.step_counter.value)
    full = tf.equal(count, scaler.dynamic_growth_steps - 1)
    factor = tf.where(finite, tf.where(full, 2.0, 1.0), 0.5)
    scale.assign(scale.value * tf.cast(factor, scale.value.dtype))
    scaler.step_counter.assign(tf.where(finite & ~full, count + 1, tf.zeros_like(count)))
