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


class KerasFwdError(Exception):
    """Base class of all errors of keras_fwd."""

    # AutoGraph keeps the type of an exception only if it has this very constructor; any other
    # would reach the caller of a tf.function as a StagingError.
    if not TYPE_CHECKING:
        __init__ = Exception.__init__


class StructureError(KerasFwdError, ValueError):
    """A nest of tensors has the wrong structure, shape or dtype."""


class ConfigurationError(KerasFwdError, ValueError):
    """An argument has no meaning, or two choices exclude each other."""


class LeakError(KerasFwdError, NotImplementedError):
    """A place in the graph where the double-gradient trick would fail or be wrong."""


class NumericalError(KerasFwdError, ArithmeticError):
    """Training was stopped because its values are not finite."""
