"""What a model and a batch must be for a curvature optimizer to train on them."""

import keras
import tensorflow as tf

from keras_fwd import nest
from keras_fwd.errors import ConfigurationError


def check_training(optimizer, model, batch):
    """Raise `ConfigurationError` where no step can be taken, when it is traced."""
    if any(leaf.shape.rank and leaf.shape[0] == 0 for leaf in nest.live(batch[0])):
        raise ConfigurationError(
            f"{type(optimizer).__name__}: a batch must hold at least one example. "
            f"Received: {nest.describe(batch[0])}."
        )
    if model.loss is None and type(model).compute_loss is keras.Model.compute_loss:
        raise ConfigurationError(
            f"{type(optimizer).__name__}: the model must be compiled with a `loss`, or override "
            "`compute_loss`: terms of `add_loss` alone have a gradient, but no curvature in the "
            "outputs. Received: loss=None."
        )
    if not model.trainable_variables:
        raise ConfigurationError(
            f"{type(optimizer).__name__}: the model must have trainable weights; set "
            f"`layer.trainable = True` before `compile`. Received: {model.name!r}, all frozen."
        )
    if tf.distribute.get_strategy().num_replicas_in_sync > 1:
        raise ConfigurationError(
            f"{type(optimizer).__name__}: training on several devices is not supported yet. "
            f"Received: {tf.distribute.get_strategy().num_replicas_in_sync} replicas."
        )
