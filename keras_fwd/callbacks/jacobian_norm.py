"""`JacobianNormCallback`: how strongly a model's outputs react to its inputs, while it trains."""

import warnings
from collections.abc import Callable
from typing import Any, Literal

import tensorflow as tf

from keras_fwd._checks import check_count
from keras_fwd._derivatives import example_jacobians
from keras_fwd._models import data as batches
from keras_fwd._spaces import given, nest
from keras_fwd.callbacks._measuring.schedule import TracedCallback, check_name
from keras_fwd.errors import ConfigurationError
from keras_fwd.typing import Data, Every, Nest, PathLike


class JacobianNormCallback(TracedCallback):
    """Logs the norm of ∂outputs/∂inputs per example, averaged over examples of `data`.

    The value goes into the logs of each epoch, where `History`, the progress bar, `CSVLogger`,
    `TensorBoard` and `EarlyStopping` find it. Callbacks that read it must stand *after* this one
    in the list; `History` and the progress bar of `fit` do. The same examples and the same random
    vectors serve every time, so that changes come from the model alone (but see `max_overhead`).
    The model is called with `training=False` and is not changed, nor is any global random state.

    Args:
        data: The inputs, in a form that `fit` takes: array, list or dict of arrays, `(x, y)`,
            batched `tf.data.Dataset` or `keras.utils.PyDataset`. Read once, at construction.
            Targets and sample weights are passed over. Integer inputs are held fixed.
        norm: `"frobenius"` (default), the root of the sum of squares; or `"spectral"`, the
            largest singular value, by power iteration.
        every: `"epoch"` (default), at the end of each epoch; or a whole number n: after every
            n-th batch, counted through the whole training, into the logs of that batch as well.
            The epoch's logs then hold the last value; an epoch without one takes one at its end.
        max_examples: How many examples of `data` are used, the first ones; default 256. They run
            as one batch.
        num_probes: The Frobenius norm is exact, with one product for each component, if inputs or
            outputs have at most that many components per example. Otherwise it is estimated from
            that many random vectors, at least 2, with a correction of the bias to second order
            (derived in `example_jacobians.frobenius_norms`). The standard error that
            the random vectors leave is then logged as `jacobian_norm_stderr`. Default 8.
        name: Name in the logs, default `"jacobian_norm"`. Its unit is that of the outputs per
            that of the inputs.
        seed: Whole number ≥ 0 for the random vectors, and for the order; default 0.
        max_overhead: None (default): all examples, every time. A number such as 0.1 keeps the time
            of the measurements below that share of the time that training takes besides: the
            examples are put into one random order, the first 32 or more of them are used, as many
            as there is time for, and their number is logged as `jacobian_norm_examples`. Where
            there is no time for any, values are logged as NaN and the number as 0. `fit` prints at
            its end what the bound has changed, unless `verbose=0`.
        log_dir: Directory into which the values are also written for TensorBoard, at each
            measurement, by the number of the epoch (from 0, as Keras does) or of batches done;
            default none. Not needed beside `keras.callbacks.TensorBoard`, which writes the
            logs.

    Raises:
        ConfigurationError: At construction for a bad argument, empty data or values that are not
            finite; when training begins for a model without a floating-point input.
        ImportError: `log_dir` is given and TensorBoard is not installed.
        StructureError, LeakError: When training begins, as `linearize`.

    Cost: Each time one forward pass over the examples, and about one more for each component or
        probe (Frobenius), or two for each of at most 100 iterations (spectral). Traced once.

    Example:

    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input([2]), keras.layers.Dense(1)])
    >>> model.compile(loss="mse")
    >>> x = np.array([[1.0, 2.0], [3.0, 4.0]])
    >>> history = model.fit(x, x[:, :1], verbose=0, callbacks=[JacobianNormCallback(x)])
    >>> kernel_norm = np.linalg.norm(model.layers[0].kernel)
    >>> bool(abs(history.history["jacobian_norm"][-1] - kernel_norm) < 1e-5)
    True
    """

    def __init__(
        self,
        data: Data,
        norm: Literal["frobenius", "spectral"] = "frobenius",
        every: Every = "epoch",
        max_examples: int = 256,
        num_probes: int = 8,
        name: str = "jacobian_norm",
        seed: int = 0,
        max_overhead: float | None = None,
        log_dir: PathLike | None = None,
        *,
        frequency: Every | None = None,
    ) -> None:
        call = type(self).__name__
        if frequency is not None:
            every = frequency
            warnings.warn(
                f"{call}: the argument `frequency` is deprecated since 0.2 and will be removed in "
                "0.3; use `every`.",
                DeprecationWarning,
                stacklevel=2,
            )
        super().__init__(every, max_overhead, log_dir)
        _check_words(call, norm, name)
        check_count(call, "num_probes", num_probes)
        self.keep(batches.first_examples, data, max_examples, seed)
        self.norm = norm
        self.num_probes = num_probes
        self.name = name
        self.seed = seed
        self.examples_name: str = f"{name}_examples"

    def prepare(self) -> tuple[Nest, Callable[..., Any]]:
        """The inputs, and the function that measures the norm."""
        call = type(self).__name__
        x = batches.conform(call, self.model, self._data)
        if not any(nest.is_differentiable(leaf.dtype) for leaf in nest.flatten(x)):
            raise ConfigurationError(
                f"{call}: the model must have a floating-point input to differentiate by. "
                f"Received: {given.describe(x)}. For a model of token numbers, watch the part "
                "that follows the embedding."
            )
        return x, self._norm_of

    def _norm_of(self, x):
        """Mean over the examples and, where it is estimated, its standard error."""
        jacobians = example_jacobians.ExampleJacobians(self.model, x)
        if self.norm == "spectral":
            return {
                self.name: tf.reduce_mean(example_jacobians.spectral_norms(jacobians, self.seed))
            }
        values, variances = example_jacobians.frobenius_norms(jacobians, self.num_probes, self.seed)
        logs = {self.name: tf.reduce_mean(values)}
        if variances is not None:
            stderr = tf.sqrt(tf.reduce_sum(variances)) / tf.cast(tf.size(values), tf.float64)
            logs[f"{self.name}_stderr"] = stderr
        return logs


def _check_words(call, norm, name):
    if norm not in ("frobenius", "spectral"):
        raise ConfigurationError(
            f'{call}: `norm` must be "frobenius" or "spectral". Received: norm={norm!r}.'
        )
    check_name(call, "name", name)
