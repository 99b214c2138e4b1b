"""`JacobianNormCallback`: how strongly a model's outputs react to its inputs, while it trains."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_fwd import nest
from keras_fwd.checks import check_count
from keras_fwd.errors import ConfigurationError
from keras_fwd.sensitivity import batches, norms


class JacobianNormCallback(keras.callbacks.Callback):
    """Logs the norm of ∂outputs/∂inputs per example, averaged over examples of `data`.

    The value goes into the logs of each epoch, where `History`, the progress bar, `CSVLogger`,
    `TensorBoard` and `EarlyStopping` find it. Callbacks that read it must stand *after* this one
    in the list; `History` and the progress bar of `fit` do. The same examples and the same random
    vectors serve every time, so that changes come from the model alone. The model is called with
    `training=False` and is not changed, nor is any global random state.

    Args:
        data: The inputs, in a form that `fit` takes: array, list or dict of arrays, `(x, y)`,
            batched `tf.data.Dataset` or `keras.utils.PyDataset`. Read once, at construction.
            Targets and sample weights are passed over. Integer inputs are held fixed.
        norm: `"frobenius"` (default), the root of the sum of squares; or `"spectral"`, the
            largest singular value, by power iteration.
        frequency: `"epoch"` (default), at the end of each epoch; or a whole number n: after every
            n-th batch, counted through the whole training, into the logs of that batch as well.
            The epoch's logs then hold the last value; an epoch without one takes one at its end.
        max_examples: How many examples of `data` are used, the first ones; default 256. They run
            as one batch.
        num_probes: The Frobenius norm is exact, with one product for each component, if inputs or
            outputs have at most that many components per example. Otherwise it is estimated from
            that many random vectors, at least 2, with a correction of the bias to second order
            (derived in `keras_fwd.sensitivity.norms.frobenius_norms`). The standard error that
            the random vectors leave is then logged as `jacobian_norm_stderr`. Default 8.
        name: Name in the logs, default `"jacobian_norm"`. Its unit is that of the outputs per
            that of the inputs.
        seed: Whole number ≥ 0 for the random vectors; default 0.

    Raises:
        ConfigurationError: At construction for a bad argument, empty data or values that are not
            finite; when training begins for a model without a floating-point input.
        StructureError, LeakError: When training begins, as `linearize`.

    Cost: Each time one forward pass over the examples, and about one more for each component or
        probe (Frobenius), or two for each of at most 100 iterations (spectral). Traced once.

    Example:

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
        data,
        norm="frobenius",
        frequency="epoch",
        max_examples=256,
        num_probes=8,
        name="jacobian_norm",
        seed=0,
    ):
        super().__init__()
        call = type(self).__name__
        _check_words(call, norm, frequency, name)
        self.every: Any = None if frequency == "epoch" else frequency
        check_count(call, "frequency", self.every, none="every epoch")
        check_count(call, "max_examples", max_examples)
        check_count(call, "num_probes", num_probes)
        check_count(call, "seed", seed, least=0)
        self.norm = norm
        self.num_probes = num_probes
        self.name = name
        self.seed = seed
        # Keras may then run the steps ahead of the logs: without a measurement inside an epoch
        # nothing here happens at a batch.
        self.async_safe = self.every is None
        self._data = _first_examples(call, data, max_examples)
        self._measure: Any = None
        self._last = {}
        self._due = self._batch = 0

    def on_train_begin(self, logs=None):
        """Trace the computation, so that a model it cannot work for is refused before training."""
        del logs
        call = type(self).__name__
        x = batches.conform(call, self.model, self._data)
        if not any(nest.is_differentiable(leaf.dtype) for leaf in nest.flatten(x)):
            raise ConfigurationError(
                f"{call}: the model must have a floating-point input to differentiate by. "
                f"Received: {nest.describe(x)}. For a model of token numbers, watch the part "
                "that follows the embedding."
            )
        # A closure over the tensors: no argument could bring a second trace about.
        self._measure = tf.function(lambda: self._norm_of(x), autograph=False)
        self._measure.get_concrete_function()
        self._due, self._batch = self.every, -1

    def on_epoch_begin(self, epoch, logs=None):
        """Forget the epoch before: each epoch's logs speak of that epoch."""
        del epoch, logs
        self._last, self._batch = {}, -1

    def on_train_batch_end(self, batch, logs=None):
        """Measure after every n-th batch, if `frequency` is a number."""
        if self.every is None:
            return
        # With `steps_per_execution` several batches end at once, and Keras counts the last lot of
        # an epoch as a full one.
        batch = min(batch, ((self.params or {}).get("steps") or batch + 1) - 1)
        self._due -= batch - self._batch
        self._batch = batch
        if self._due > 0:
            return
        self._due += self.every * (-self._due // self.every + 1)
        self._last = self._values()
        _write(logs, self._last)

    def on_epoch_end(self, epoch, logs=None):
        """Write the value of this epoch into its logs."""
        del epoch
        _write(logs, self._last or self._values())

    def _values(self):
        value, stderr = (float(number) for number in self._measure())
        values = {self.name: value}
        return values if np.isnan(stderr) else {**values, f"{self.name}_stderr": stderr}

    def _norm_of(self, x):
        """Mean over the examples and its standard error, which is NaN where it is not estimated."""
        jacobians = norms.ExampleJacobians(self.model, x)
        variances = None
        if self.norm == "spectral":
            values = norms.spectral_norms(jacobians, self.seed)
        else:
            values, variances = norms.frobenius_norms(jacobians, self.num_probes, self.seed)
        stderr = tf.constant(np.nan, tf.float64)
        if variances is not None:
            stderr = tf.sqrt(tf.reduce_sum(variances)) / tf.cast(tf.size(values), tf.float64)
        return tf.reduce_mean(values), stderr


def _check_words(call, norm, frequency, name):
    if norm not in ("frobenius", "spectral"):
        raise ConfigurationError(
            f'{call}: `norm` must be "frobenius" or "spectral". Received: norm={norm!r}.'
        )
    if isinstance(frequency, str) and frequency != "epoch":
        raise ConfigurationError(
            f'{call}: `frequency` must be "epoch" or a number of batches. '
            f"Received: frequency={frequency!r}."
        )
    if not isinstance(name, str) or not name:
        raise ConfigurationError(
            f"{call}: `name` must be a text that is not empty. Received: name={name!r}."
        )


def _write(logs, values):
    if logs is not None:
        logs.update(values)


def _first_examples(call, data, count):
    """The first examples of `data` as one batch of arrays."""
    read = list(batches.raw_batches(call, data, count, count))
    x = tf.nest.map_structure(lambda *parts: np.concatenate(parts), *read)
    bad = sum(not np.isfinite(leaf).all() for leaf in nest.flatten(x) if leaf.dtype.kind == "f")
    if bad:
        raise ConfigurationError(
            f"{call}: `data` must be finite: NaN in one example would hide all others. Received: "
            f"NaN or infinity in {bad} of its inputs. Leave those examples out or fill them."
        )
    return x
