"""Every exception that keras_fwd raises on purpose.

```
KerasFwdError
├── StructureError(ValueError)            a nest, shape or dtype does not fit
├── ConfigurationError(ValueError)        an argument or a set-up that cannot work
├── LeakError(NotImplementedError)        a derivative that TensorFlow would get wrong
└── NumericalError(ArithmeticError)       training met values that are not finite
```

A message names the call or argument, the rule, "Received: …" and the way out.
"""

from typing import TYPE_CHECKING

__all__ = [
    "ConfigurationError",
    "KerasFwdError",
    "LeakError",
    "NumericalError",
    "StructureError",
]


class KerasFwdError(Exception):
    """Base class of all errors of keras_fwd."""

    # AutoGraph keeps the type of an exception only if it has this very constructor; any other
    # would reach the caller of a tf.function as a StagingError.
    if not TYPE_CHECKING:
        __init__ = Exception.__init__


class StructureError(KerasFwdError, ValueError):
    """A nest of tensors has the wrong structure, shape or dtype.

    Example:

    >>> import tensorflow as tf, keras_fwd
    >>> keras_fwd.jvp(tf.sin, tf.zeros([2]), tf.zeros([3]))
    Traceback (most recent call last):
        ...
    keras_fwd.errors.StructureError: jvp: ...
    """


class ConfigurationError(KerasFwdError, ValueError):
    """An argument has no meaning, or two choices exclude each other.

    Example:

    >>> import keras_fwd
    >>> keras_fwd.GaussNewton(max_trials=0)
    Traceback (most recent call last):
        ...
    keras_fwd.errors.ConfigurationError: GaussNewton: ...
    """


class LeakError(KerasFwdError, NotImplementedError):
    """A derivative that TensorFlow would get wrong, and that this package has no rule for.

    The message names the call, what is wrong, the op and its scope in the graph, and the way out.
    Raised when the graph is traced, not at some later value.

    Example:

    >>> import numpy as np, tensorflow as tf, keras_fwd
    >>> hidden = lambda x: tf.numpy_function(np.sin, [x], tf.float32)
    >>> keras_fwd.jvp(hidden, tf.zeros([2]), tf.ones([2]))
    Traceback (most recent call last):
        ...
    keras_fwd.errors.LeakError: jvp: TensorFlow does not differentiate this op, ...
    """


class NumericalError(KerasFwdError, ArithmeticError):
    """Training was stopped because its values are not finite, many batches in a row.

    The message names the first bad value.

    Example:

    >>> import keras, numpy as np, keras_fwd
    >>> net = keras.Sequential([keras.Input([1]), keras.layers.Dense(1)])
    >>> net.compile(keras_fwd.GaussNewton(), "mse")
    >>> net.fit(np.ones([4, 1]), np.full([4, 1], np.nan), epochs=30, verbose=0)
    Traceback (most recent call last):
        ...
    keras_fwd.errors.NumericalError: ...
    """
