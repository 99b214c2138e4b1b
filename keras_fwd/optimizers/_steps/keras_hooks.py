"""How stock `fit` reaches a curvature optimizer.

Keras shows an optimizer gradients only: never the batch or the model. The seam that Keras documents
for a training algorithm of one's own is to override `train_step` (and `make_train_function`, which
compiles it) on the model. Asking users to subclass would give up "any stock Keras model", so the
two methods of `keras.Model` are wrapped, once, when the first curvature optimizer is made. A model
compiled with any other optimizer goes straight to the method of Keras.
"""

import functools
from typing import Any

import keras
import tensorflow as tf

_installed = []


def install(optimizer_class):
    """Let models that are compiled with an `optimizer_class` train by its `train_step`."""
    if _installed:
        return
    keras_train_step = keras.Model.train_step
    keras_make_train_function = keras.Model.make_train_function

    @functools.wraps(keras_train_step)
    def train_step(self, data):
        optimizer = curvature_optimizer(self, optimizer_class)
        if optimizer is None:
            return keras_train_step(self, data)
        return optimizer.train_step(self, data)

    @functools.wraps(keras_make_train_function)
    def make_train_function(self, force=False):
        result = keras_make_train_function(self, force=force)
        optimizer = curvature_optimizer(self, optimizer_class)
        if optimizer is not None and not hasattr(self.train_function, "keras_fwd_watched"):
            self.train_function = optimizer.watched(self.train_function)
        return result

    keras.Model.train_step = train_step
    keras.Model.make_train_function = make_train_function
    _installed.append(optimizer_class)


def curvature_optimizer(model, optimizer_class):
    """The model's optimizer if it is a curvature optimizer, else None."""
    optimizer = getattr(model, "optimizer", None)
    if isinstance(optimizer, optimizer_class):
        return optimizer
    inner: Any = getattr(optimizer, "inner_optimizer", None)
    if not isinstance(inner, optimizer_class):
        return None
    return inner


# The loss scale of `mixed_float16`: Keras' `LossScaleOptimizer` around a curvature optimizer.


def scaler_of(model):
    """The `keras.optimizers.LossScaleOptimizer` that a model is compiled with, or None."""
    optimizer = getattr(model, "optimizer", None)
    return optimizer if isinstance(optimizer, keras.optimizers.LossScaleOptimizer) else None


def scale_of(scaler):
    """What the loss is multiplied with before gradients run through half precision, or None."""
    return None if scaler is None else tf.identity(scaler.dynamic_scale.value)


def follow_scale(scaler, finite):
    """Half the scale where the gradient overflowed, twice as much after many that did not.

    As `LossScaleOptimizer` does around an optimizer that gets gradients.
    """
    if scaler is None:
        return
    scale, count = scaler.dynamic_scale, tf.identity(scaler.step_counter.value)
    full = tf.equal(count, scaler.dynamic_growth_steps - 1)  # this batch makes the row full
    factor = tf.where(finite, tf.where(full, 2.0, 1.0), 0.5)
    scale.assign(scale.value * tf.cast(factor, scale.value.dtype))
    scaler.step_counter.assign(tf.where(finite & ~full, count + 1, tf.zeros_like(count)))


# Moving averages of the weights, after each step of an optimizer that does not take gradients.
#
# Private interface used here: the method of Keras' `Optimizer` that moves its averages, and
# the list of them. Without it, `use_ema` would be without effect.


def follow_averages(optimizer):
    """As `keras.optimizers.Optimizer` does after its own steps."""
    variables = optimizer._trainable_variables
    optimizer._update_model_variables_moving_average(variables)
    if optimizer.ema_overwrite_frequency:
        due = tf.equal((optimizer.step_number() + 1) % optimizer.ema_overwrite_frequency, 0)

        def overwrite():
            # Not by the method of Keras, which cannot do it in one of several replicas.
            averages = optimizer._model_variables_moving_average
            for variable, average in zip(variables, averages, strict=True):
                variable.assign(average)
            return tf.constant(0)

        tf.cond(due, overwrite, lambda: tf.constant(0))


# A training step that is a graph wherever it is called from: blocks are read from one.


class GraphStep:
    """The step itself in a graph; in eager code it is compiled first.

    Args:
        step: Function `(model, data)`.
    """

    def __init__(self, step):
        self._step = step
        self._compiled = None

    def __call__(self, model, data):
        """As the step."""
        if not tf.executing_eagerly():
            return self._step(model, data)
        if self._compiled is None:
            self._compiled = tf.function(self._step)
        tensors = [
            leaf if leaf is None else tf.convert_to_tensor(leaf) for leaf in tf.nest.flatten(data)
        ]
        return self._compiled(model, tf.nest.pack_sequence_as(data, tensors))
