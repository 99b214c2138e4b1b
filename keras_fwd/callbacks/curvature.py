"""`CurvatureCallback`: how curved the loss is, and how noisy its gradient, while a model trains."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import keras
import numpy as np
import tensorflow as tf

from keras_fwd import spectrum
from keras_fwd._checks import check_count
from keras_fwd._models import data as batches
from keras_fwd._models.training_pass import Recorder, TrainingPass
from keras_fwd._spaces import given
from keras_fwd.callbacks._measuring.matrices import MATRICES, ExampleGradients, curvature_matrix
from keras_fwd.callbacks._measuring.schedule import TracedCallback
from keras_fwd.errors import ConfigurationError
from keras_fwd.optimizers._steps.training_checks import check_training
from keras_fwd.typing import Data, Every, Nest, PathLike, Quantity

QUANTITIES = ("top_eigenvalues", "trace", "gradient_noise")


class CurvatureCallback(TracedCallback):
    """Logs the largest eigenvalues and the trace of the loss's curvature, and the gradient noise.

    `L(w)` is the compiled loss of the model on the first examples of `data`, as one batch, with
    `training=False` and with the model's regularization losses; `w` are its trainable weights,
    `n` in number. The values go into the logs of each epoch, where `History`, the progress bar,
    `CSVLogger`, `TensorBoard` and `EarlyStopping` find them. Callbacks that read them must stand
    *after* this one in the list; `History` and the progress bar of `fit` do. The same examples and
    the same random vectors serve every time. The model is not changed, nor is any global random
    state.

    * `"top_eigenvalues"`: the algebraically largest eigenvalues, by Lanczos' method, which sees
      them from below, as `hessian_top_eigenvalue`, then `hessian_top_eigenvalue_2` and so on; and
      as `hessian_top_eigenvalue_error` the largest of their error bounds: so near each value there
      is an eigenvalue.
    * `"trace"`: the sum of all eigenvalues, by Hutchinson's estimator, as `hessian_trace`, and its
      standard error as `hessian_trace_stderr`. Exact, with standard error 0, if n is at most
      `num_probes`.
    * `"gradient_noise"`: the simple noise scale `tr Σ / |g|²`, as `gradient_noise`, in examples:
      the batch size at which noise and signal of a gradient are equal.

    The unit of eigenvalues and trace is that of the loss per squared weight. Plain gradient descent
    is stable up to a learning rate of 2 / `hessian_top_eigenvalue`.

    `Σ` is the covariance of the gradients of single examples and `g` their mean. With `N` examples,
    `m` the mean of their squared norms and `ḡ` the gradient of the batch, `tr Σ` is estimated by
    `N / (N − 1) · (m − |ḡ|²)` and `|g|²` by `|ḡ|² − tr Σ / N`, both without bias (appendix A.1 of
    McCandlish et al. for batches of 1 and N). Where the second is not positive, noise hides the
    gradient and the scale is logged as infinite: use more examples.

    Args:
        data: `(x, y)` or `(x, y, sample_weight)` in a form that `fit` takes: arrays, lists or dicts
            of arrays, a batched `tf.data.Dataset` or a `keras.utils.PyDataset` of such tuples.
            Read once, at construction.
        quantities: Names from the table; default all three. Only these are computed.
        matrix: `"hessian"` (default), exact second derivatives of `L`; `"ggn"`, the Gauss-Newton
            matrix `Jᵀ H J` at the outputs (at the logits, for cross-entropies) plus the curvature
            of L1 and L2 regularizers, but of no other added loss; or `"fisher"`, the type-2 (exact)
            Fisher information without regularizers, for mse and the cross-entropies at the logits,
            where it equals `Jᵀ H J`. The logs are named after it.
        every: `"epoch"` (default), at the end of each epoch; or a whole number n: after every n-th
            batch, counted through the whole training, into the logs of that batch as well. The
            epoch's logs then hold the last value; an epoch without one takes one at its end.
        max_examples: How many examples of `data` are used, the first ones; default 256.
        num_eigenvalues: How many of the largest eigenvalues; default 1.
        num_iterations: Products with the matrix that find them, at most n and at least
            `num_eigenvalues`; default 40.
        num_probes: Random vectors for the trace, at least 2; default 16.
        prefix: Text before every name in the logs, such as `"val_"`; default none.
        seed: Whole number ≥ 0 for the random vectors, and for the order; default 0.
        max_overhead: None (default): all examples, every time. A number such as 0.1 keeps the time
            of the measurements below that share of the time that training takes besides: the
            examples are put into one random order, the first 32 or more of them are used, as many
            as there is time for, and their number is logged as `hessian_examples`. Where there is
            no time for any, values are logged as NaN and the number as 0. The largest eigenvalue
            tends to be the larger, the fewer the examples: compare values of equal numbers. `fit`
            prints at its end what the bound has changed, unless `verbose=0`.
        log_dir: Directory into which the values are also written for TensorBoard, at each
            measurement, by the number of the epoch (from 0, as Keras does) or of batches done;
            default none. Not needed beside `keras.callbacks.TensorBoard`, which writes the
            logs.

    Raises:
        ConfigurationError: At construction for a bad argument, empty data or values that are not
            finite; when training begins for a model without a loss or trainable weights, a loss
            that the matrix is not defined for, or one that is no mean over examples
            (`"gradient_noise"`), or a sum over them (`max_overhead`).
        ImportError: `log_dir` is given and TensorBoard is not installed.
        StructureError: As `linearize`, and for data without targets.
        LeakError: When training begins: TensorFlow would get the derivative wrong.

    Cost: Each time a gradient over the examples, and two for each of `num_iterations` and
        `num_probes`; the noise scale takes a gradient of each example, one after the other. Memory
        for `num_iterations` vectors of n. Traced once.

    References:
        Golub and Van Loan, Matrix Computations (2013), section 10.3; Hutchinson, Communications in
        Statistics 18 (1989); Schraudolph, Neural Computation 14 (2002); McCandlish, Kaplan, Amodei
        et al., An empirical model of large-batch training, arXiv:1812.06162 (2018).

    Example:

    >>> model = keras.Sequential([keras.Input([2]), keras.layers.Dense(1, use_bias=False)])
    >>> model.compile(loss="mse")
    >>> x = np.array([[1.0, 0.0], [0.0, 2.0]])
    >>> callback = CurvatureCallback((x, x[:, :1]), ["top_eigenvalues", "trace"])
    >>> history = model.fit(x, x[:, :1], verbose=0, callbacks=[callback]).history
    >>> round(history["hessian_top_eigenvalue"][0], 4), round(history["hessian_trace"][0], 4)
    (4.0, 5.0)
    """

    def __init__(
        self,
        data: Data,
        quantities: Sequence[Quantity] = QUANTITIES,
        matrix: Literal["hessian", "ggn", "fisher"] = "hessian",
        every: Every = "epoch",
        max_examples: int = 256,
        num_eigenvalues: int = 1,
        num_iterations: int = 40,
        num_probes: int = 16,
        prefix: str = "",
        seed: int = 0,
        max_overhead: float | None = None,
        log_dir: PathLike | None = None,
    ) -> None:
        super().__init__(every, max_overhead, log_dir)
        call = type(self).__name__
        self.quantities: tuple[str, ...] = _checked_quantities(call, quantities)
        _check_words(call, matrix, prefix)
        check_count(call, "num_iterations", num_iterations)
        check_count(call, "num_eigenvalues", num_eigenvalues, most=num_iterations)
        check_count(call, "num_probes", num_probes, least=2)
        self.keep(functools.partial(batches.first_examples, whole=True), data, max_examples, seed)
        self.matrix = matrix
        self.num_eigenvalues = num_eigenvalues
        self.num_iterations = num_iterations
        self.num_probes = num_probes
        self.prefix = prefix
        self.seed = seed
        self.examples_name: str = f"{prefix}{matrix}_examples"

    def prepare(self) -> tuple[Nest, Callable[..., Any]]:
        """The data, and the function that measures what is asked for."""
        call, model = type(self).__name__, cast(Any, self.model)
        if not getattr(model, "compiled", False):
            raise ConfigurationError(
                f"{call}: the model must be compiled. Received: {model.name!r}, which is not."
            )
        x, *rest = self._data
        batch = batches.conform(call, model, x), *map(_as_fit_does, rest)
        if not model.built:
            with Recorder([], []):  # makes the weights, and changes nothing else
                model(batch[0], training=False)
        check_training(self, model, batch)
        if not rest and model.loss is not None:
            raise ConfigurationError(
                f"{call}: `data` must hold the targets of the loss: (x, y) or (x, y, "
                f"sample_weight). Received: inputs alone, {given.describe(x)}."
            )
        examples = None
        if "gradient_noise" in self.quantities:
            examples = ExampleGradients(call, model, batch)
            examples.check()
        if self.max_overhead is not None:
            _check_mean(call, model)
        return batch, lambda part: self._quantities(part, examples)

    def _quantities(self, batch, examples):
        """The logs: a dict of scalars."""
        model_pass = TrainingPass(self.model, training=False)
        model_pass.batch = (*batch, None)[:3]
        # Copies, by which derivatives are taken: the variables themselves are left alone.
        values = [tf.identity(variable.value) for variable in model_pass.variables]
        logs = {}
        if {"top_eigenvalues", "trace"} & set(self.quantities):
            A = curvature_matrix(self.matrix, model_pass, values)
            if "top_eigenvalues" in self.quantities:
                logs |= self._eigenvalues(A)
            if "trace" in self.quantities:
                trace = spectrum.trace(A, self.num_probes, self.seed)
                name = f"{self.matrix}_trace"
                logs |= {name: trace.value, f"{name}_stderr": trace.stderr}
        if examples is not None:
            logs["gradient_noise"] = examples.noise_scale(batch, values)
        return {f"{self.prefix}{name}": value for name, value in logs.items()}

    def _eigenvalues(self, A):
        name = f"{self.matrix}_top_eigenvalue"
        count = self.num_eigenvalues
        values, errors = spectrum.top_eigenvalues(A, count, self.num_iterations, seed=self.seed)
        names = [name, *(f"{name}_{place}" for place in range(2, count + 1))]
        values = dict(zip(names, tf.unstack(values), strict=True))
        return {**values, f"{name}_error": tf.reduce_max(errors)}


def _checked_quantities(call, quantities):
    names = (quantities,) if isinstance(quantities, str) else tuple(quantities)
    if not names or set(names) - set(QUANTITIES):
        raise ConfigurationError(
            f"{call}: `quantities` must be names out of {', '.join(map(repr, QUANTITIES))}, at "
            f"least one. Received: quantities={quantities!r}."
        )
    return names


def _check_words(call, matrix, prefix):
    if matrix not in MATRICES:
        raise ConfigurationError(
            f"{call}: `matrix` must be one of {', '.join(map(repr, MATRICES))}. "
            f"Received: matrix={matrix!r}."
        )
    if not isinstance(prefix, str):
        raise ConfigurationError(
            f"{call}: `prefix` must be a text, which may be empty. Received: prefix={prefix!r}."
        )


def _check_mean(call, model):
    losses = [keras.losses.get(loss) for loss in tf.nest.flatten(model.loss)]
    if any(getattr(loss, "reduction", None) == "sum" for loss in losses):
        raise ConfigurationError(
            f"{call}: `max_overhead` must be None for a loss that is the sum over the examples, "
            'which grows with their number. Received: a loss with reduction="sum". Use '
            '"sum_over_batch_size".'
        )


def _as_fit_does(arrays):
    """Targets or sample weights as tensors, floating-point ones in the float type of Keras."""

    def convert(array):
        floating = np.issubdtype(array.dtype, np.floating)
        return tf.convert_to_tensor(array, keras.config.floatx() if floating else None)

    return tf.nest.map_structure(convert, arrays)
