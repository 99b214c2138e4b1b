"""What a model and a batch must be for a curvature optimizer to train on them."""

import keras
import tensorflow as tf

from keras_fwd._spaces import given, nest
from keras_fwd.errors import ConfigurationError

#: Strategies whose replicas each keep a copy of the variables and step together.
STRATEGIES = tf.distribute.MirroredStrategy, tf.distribute.MultiWorkerMirroredStrategy


def check_training(optimizer, model, batch):
    """Raise `ConfigurationError` where no step can be taken, when it is traced."""
    if any(leaf.shape.rank and leaf.shape[0] == 0 for leaf in nest.live(batch[0])):
        raise ConfigurationError(
            f"{type(optimizer).__name__}: a batch must hold at least one example. "
            f"Received: {given.describe(batch[0])}."
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


def check_updates(optimizer, variables, updated):
    """Raise `ConfigurationError` where the forward pass assigns a weight that the step is to move.

    `SpectralNormalization` does. What it assigned would take the place of the step.

    Args:
        optimizer: For the message.
        variables: Trainable variables.
        updated: Those that the forward pass assigned.
    """
    assigned = [v for v in updated if any(v is variable for variable in variables)]
    if assigned:
        raise ConfigurationError(
            f"{type(optimizer).__name__}: a layer must not assign trainable weights of its own in "
            "training, as `SpectralNormalization` does: the step would be lost. Received: "
            f"{assigned[0].path!r}, assigned in the forward pass. Freeze that layer, or train with "
            "an optimizer of Keras."
        )


def check_replicas(optimizer, model):
    """Raise `ConfigurationError` where several replicas would not take the step of one."""
    strategy = tf.distribute.get_strategy()
    if strategy.num_replicas_in_sync == 1:
        return
    call, received = type(optimizer).__name__, f"Received: {type(strategy).__name__}"
    if not optimizer.works_on_replicas:
        raise ConfigurationError(
            f"{call}: trains on one device only; replicas would each go a way of their own. "
            f"{received} with {strategy.num_replicas_in_sync} replicas. Use `KFAC`, or leave the "
            "strategy out."
        )
    if not isinstance(strategy, STRATEGIES):
        raise ConfigurationError(
            f"{call}: several replicas need `tf.distribute.MirroredStrategy` or "
            f"`tf.distribute.MultiWorkerMirroredStrategy`. {received}."
        )
    if tf.distribute.in_cross_replica_context():
        raise ConfigurationError(
            f"{call}: with a strategy the step must run in its replicas; call `fit`, or "
            f"`strategy.run(model.train_step, args=(batch,))`. {received}, outside of `run`."
        )
    if tf.executing_eagerly():
        raise ConfigurationError(
            f"{call}: several replicas train in compiled code only; leave "
            "`run_eagerly=True` out, or wrap a loop of your own in a `tf.function`. "
            f"{received}, run eagerly."
        )
    if model.jit_compile is True:
        raise ConfigurationError(
            f"{call}: XLA does not know what replicas send each other; compile the model with "
            f"`jit_compile=False`. {received}, jit_compile=True."
        )
    if not model.built:
        raise ConfigurationError(
            f"{call}: with a strategy the model must be built before its first step; call "
            f"`model.build(shape)` inside `strategy.scope()`. {received}, {model.name!r} not built."
        )
    if not isinstance(optimizer.damping.value, tf.distribute.DistributedValues):
        raise ConfigurationError(
            f"{call}: the optimizer must be made inside `strategy.scope()`, for its state to be "
            f"kept on each device. {received}, and an optimizer made outside."
        )
