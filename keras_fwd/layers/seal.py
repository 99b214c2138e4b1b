"""`seal_leaks`: a model whose derivatives are right outside of this package too."""

import keras

from keras_fwd._graphs import registry
from keras_fwd._leaks.find import check_built, find_leaks
from keras_fwd.errors import ConfigurationError, LeakError
from keras_fwd.layers.sealed import Sealed, SealedModel
from keras_fwd.typing import Nest


def seal_leaks(model: keras.Model, inputs: Nest | None = None) -> keras.Model:
    """A model that is right under tapes of your own too, to any order.

    The transforms, optimizers and regularizers of this package need no sealed model. A
    `tf.GradientTape` inside of another one, or another library, does.

    Args:
        model: A built Keras model. It stays as it is.
        inputs: As in `find_leaks`, for a model that does not say what it takes.

    Returns:
        A model of the same weights (the same objects) and the same outputs to the bit, which is
        saved and loaded like any other: each leaking layer stands in a layer of the same name
        that differentiates it by the rules of this package. A subclassed model is wrapped whole,
        and so is one with a leak outside of its layers.

    Raises:
        LeakError: there is no rule for a leak; names the layer and the op.
        ConfigurationError: not a built model, or it cannot be put together again.

    Cost: Each gradient through a sealed layer runs the layer once more. To seal: some traces.

    Example:

    >>> import keras, keras_fwd
    >>> net = keras.Sequential([keras.Input([3]), keras.layers.LayerNormalization()])
    >>> sealed = keras_fwd.seal_leaks(net)
    >>> bool(find_leaks(net)), bool(find_leaks(sealed))
    (True, False)
    """
    if not isinstance(model, keras.Model):
        raise ConfigurationError(f"seal_leaks: `model` must be a Keras model. Received: {model!r}.")
    check_built("seal_leaks", model)
    rows = _leaking(model, inputs)
    for row in rows:
        if not row.sealed:
            raise LeakError(
                f"seal_leaks: there is no rule for the op {row.op} ({row.kind}) in {row.layer!r}. "
                f"Received: a model with it. {row.advice[0].upper()}{row.advice[1:]}."
            )
    # A subclassed model has no graph of layers from which to put it together again.
    if not isinstance(model, keras.Sequential) and not hasattr(model, "operations"):
        return SealedModel(model, name=model.name) if rows else model

    def replaced(layer):
        # By whole parts of the path: `dense` is no part of `dense_1`.
        leaking = any(f"/{layer.name}/" in f"/{row.layer}/" for row in rows)
        return Sealed(layer, name=layer.name) if leaking else layer

    try:
        sealed = keras.models.clone_model(model, clone_function=replaced)
    except Exception as error:
        names = [layer.name for layer in model.layers]
        raise ConfigurationError(
            f"seal_leaks: the model {model.name!r} cannot be put together again from its layers "
            f"{names}. Received: {type(error).__name__}: {str(error).splitlines()[0]} Wrap the "
            "leaking layer where you build the model: keras_fwd.layers.Sealed(layer)."
        ) from error
    # What leaks even now stands outside of the layers.
    return SealedModel(model, name=model.name) if rows and _leaking(sealed, inputs) else sealed


def _leaking(model, inputs):
    """What plain tapes get wrong in a model, in training or not."""
    rows = [*find_leaks(model, inputs), *find_leaks(model, inputs, training=True)]
    return [row for row in rows if row.kind != "custom rule" and row.op not in registry.added]
