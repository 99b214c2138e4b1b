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

from keras_fwd.errors import ConfigurationError

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
    if not inner.takes_loss_scale:
        raise ConfigurationError(
            f"{type(inner).__name__}: a curvature optimizer takes no loss scaling, which Keras "
            f"adds to models of dtype policy mixed_float16. Received: {type(optimizer).__name__}. "
            "Call `model.compile(…, auto_scale_loss=False)`, or use the policy mixed_bfloat16."
        )
    return inner
