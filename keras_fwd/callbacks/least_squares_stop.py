"""`LeastSquaresStop`: ends `fit` when another step of `GaussNewton` can gain nothing."""

from typing import Any, Literal

import keras

from keras_fwd._checks import check_count, check_number
from keras_fwd.errors import ConfigurationError
from keras_fwd.optimizers._steps.convergence import FROM_DTYPE, Tolerances
from keras_fwd.optimizers.gauss_newton import GaussNewton
from keras_fwd.typing import Logs


class LeastSquaresStop(keras.callbacks.Callback):
    """Stops `fit` when MINPACK's tests of convergence are met, and says which.

    Each step of `GaussNewton` is tested on its own batch, inside the compiled step. With `L` the
    loss, `g` its gradient, `s` the step, `C` the curvature `Jᵀ H J` and `w` the weights:

    * the loss: actual and predicted reduction are both at most `ftol · |L|`, and the actual one at
      most twice the predicted one;
    * the weights: `|s| ≤ xtol · |w|`;
    * the gradient: `|⟨g, s⟩| ≤ gtol · √⟨s, C s⟩ √(2 |L|)`. For a sum of squares that is the cosine
      between the residual and its change along the step. It has no units. For an undamped step it
      is not below MINPACK's measure, the largest cosine between the residual and a column of `J`.

    Training also stops when no progress is possible: a step was rejected, and the last of its
    trials was shorter than `xtol` or had the largest damping there is (1e16). Where a step was
    tried several times, the tests take the largest of their numbers, so that steps that heavy
    damping made short do not pass for convergence.

    A batch that is not finite does not end training here; 20 in a row raise `NumericalError`.

    Give `fit` the whole data as one batch: then the tests speak of the loss that is minimized, and
    the default `patience` stops at the first step that meets one. With several batches an epoch
    each step speaks of its own batch only, so all steps of an epoch in a row must meet one.

    Attributes:
        status: The `StepStatus` that training was stopped with, or None.
        reason: The same in words; after training without a stop, whether the epochs ran out or
            another callback ended it, and how the last step ended.

    Args:
        ftol: Relative reduction of the loss, not negative. None (default): 8 machine epsilons of
            the loss's dtype, 1e-6 in float32 and 2e-15 in float64. 0 switches a test off, but for
            an exact zero.
        xtol: Length of the step relative to that of the weights. None (default): 8 machine epsilons
            of the weights' dtype.
        gtol: Cosine. None (default): 8 machine epsilons of the loss's dtype.
        patience: For how many steps in a row a test must be met. None (default): for as many as an
            epoch has batches, and at least through the first epoch where Keras does not know that
            number.
        restore_best_weights: Whether the model ends with its weights from the end of the epoch with
            the lowest `loss` in the logs; of epochs that are equal, the last. Default True. With
            one batch an epoch and no random layers these are always the last weights. With
            `EarlyStopping(restore_best_weights=True)` on validation data, say False here.
        verbose: 1 prints one line when training stops; default 0.

    Raises:
        ConfigurationError: a bad argument; when training begins, for a model whose optimizer is not
            `GaussNewton`.

    Cost: One product of gradient and step, and two norms, for each trial; a transfer of eight
        numbers a batch (with `steps_per_execution`, that many batches); a copy of the weights an
        epoch.

    References:
        Moré, The Levenberg-Marquardt algorithm: implementation and theory, Lecture Notes in
        Mathematics 630 (1978); Bates and Watts, Technometrics 23 (1981).

    Example:

    >>> import numpy as np
    >>> net = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> net.compile(optimizer=GaussNewton(), loss="mse")
    >>> x = np.array([[0.0], [1.0], [2.0]], "float32")
    >>> stop = LeastSquaresStop()
    >>> history = net.fit(x, x**2, batch_size=3, epochs=100, verbose=0, callbacks=[stop])
    >>> len(history.epoch) < 20, stop.status.converged
    (True, True)
    """

    def __init__(
        self,
        ftol: float | None = None,
        xtol: float | None = None,
        gtol: float | None = None,
        patience: int | None = None,
        restore_best_weights: bool = True,
        verbose: Literal[0, 1] = 0,
    ) -> None:
        super().__init__()
        given = {"ftol": ftol, "xtol": xtol, "gtol": gtol}
        for name, value in given.items():
            if value is not None:
                check_number("LeastSquaresStop", name, value)
        check_count("LeastSquaresStop", "patience", patience, none="the batches of an epoch")
        self.tolerances: Tolerances = Tolerances(*given.values())
        self.patience = patience
        self.restore_best_weights: bool = bool(restore_best_weights)
        self.verbose = verbose
        self.status: Any = None
        self.reason: Any = None
        self._optimizer: Any = None
        self._start = 0
        self._batches: Any = None
        self._best: Any = None
        self._epoch = 0

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Hand the tolerances to the optimizer."""
        del logs
        optimizer: Any = getattr(self.model, "optimizer", None)
        if not isinstance(optimizer, GaussNewton):
            raise ConfigurationError(
                "LeastSquaresStop: the model must be compiled with keras_fwd.GaussNewton, whose "
                "steps it tests; for other optimizers use keras.callbacks.EarlyStopping. "
                f"Received: optimizer {type(optimizer).__name__}."
            )
        self.status = self.reason = None
        self._best = float("inf"), None
        self._epoch = 0
        self._optimizer = optimizer
        self._batches = (self.params or {}).get("steps")
        self._start = optimizer.status.iterations
        values = [FROM_DTYPE if value is None else float(value) for value in self.tolerances]
        optimizer.tolerances.assign(values)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Stop if the last steps met a test."""
        del batch, logs
        report = self._optimizer.status
        needed = self.patience or self._batches
        # Steps of an earlier `fit` do not count.
        if needed is None or min(report.in_row, report.iterations - self._start) < needed:
            return
        self.status, self.reason = report.code, str(report)
        model: Any = self.model
        model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Keep the weights, if the loss is the lowest so far."""
        self._epoch = epoch + 1
        model: Any = self.model
        if self._batches is None:
            # The first epoch counts them where Keras did not know.
            self._batches = self._optimizer.status.iterations - self._start
        loss = (logs or {}).get("loss")
        # The last of those that are equal.
        if self.restore_best_weights and loss is not None and loss <= self._best[0]:
            self._best = loss, model.get_weights()

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Give the model its best weights, and say why training ended."""
        del logs
        model: Any = self.model
        self._optimizer.tolerances.assign([FROM_DTYPE] * 3)
        if self.reason is None:
            early = self._epoch < (self.params or {}).get("epochs", 0)
            why = "another callback ended training" if early else "the epochs ran out"
            self.reason = f"{why}; last {self._optimizer.status}"
        if self._best[1] is not None:
            model.set_weights(self._best[1])
        self._best = float("inf"), None
        if self.verbose:
            print(f"LeastSquaresStop: {self.reason}")
