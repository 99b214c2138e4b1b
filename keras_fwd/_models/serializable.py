"""How classes and functions of this package are known to Keras when a file names them."""

from collections.abc import Callable
from typing import Any, TypeVar

import keras

Declared = TypeVar("Declared", bound=Callable[..., Any])


def serializable(declared: Declared) -> Declared:
    """Register a class or function with Keras under `keras_fwd>`; returns it.

    Keras' own decorator hides from type checkers what it decorates; this one does not.
    """
    keras.saving.register_keras_serializable("keras_fwd")(declared)
    return declared
