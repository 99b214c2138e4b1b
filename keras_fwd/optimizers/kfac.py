"""`KFAC`: Kronecker-factored natural gradient for any Keras model."""

from typing import Any, Literal

import tensorflow as tf

from keras_fwd._checks import check_count, check_number
from keras_fwd._curvature import weight_penalties
from keras_fwd._models.serializable import serializable
from keras_fwd._spaces import nest
from keras_fwd.errors import ConfigurationError
from keras_fwd.optimizers._kronecker.kronecker_optimizer import FactorOptions, KroneckerOptimizer
from keras_fwd.optimizers._kronecker.plane import Decayed, Given, OnPart, Plane, Point
from keras_fwd.optimizers._steps import replicas
from keras_fwd.optimizers._steps.damping import Following, Steady
from keras_fwd.optimizers._steps.expansion import Expansion
from keras_fwd.optimizers._steps.parts import Outcome, Parts, Pass
from keras_fwd.optimizers._steps.search import ByReduction, Unjudged
from keras_fwd.optimizers._steps.sub_batch import SubBatch
from keras_fwd.optimizers._steps.trial import WholeBatch
from keras_fwd.typing import Fisher, Inverse, LearningRate, Shared


@serializable
class KFAC(KroneckerOptimizer):
    """Kronecker-factored natural gradient (K-FAC), in stock `compile` and `fit`.

    The curvature of the loss, the Fisher information, is approximated by blocks `L ⊗ R`, one for
    each matrix of weights: `L` is the second moment of what the matrix is multiplied with, `R` that
    of the gradients of the loss by its outputs. Both are averaged over steps, and the direction is
    the gradient multiplied with the damped inverses.

    Nothing is registered: how each weight is used is read from the graph of the training step, in
    Sequential, functional and subclassed models alike. Dense, EinsumDense and so attention,
    convolutions of every kind, embeddings and TimeDistributed have Kronecker blocks, with their
    bias; scales, shifts and lone biases the diagonal from the gradients of each example; all else,
    such as recurrent cells, a diagonal from random signs. `blocks(model)` prints which, and why.

    The logs get `damping`, `reduction_ratio` where steps are judged, and `nonfinite_steps` from the
    first batch on whose loss, gradient or direction was NaN or infinite: such a batch is left out.
    After 20 of them in a row training stops with `keras_fwd.NumericalError`.

    Under `tf.distribute.MirroredStrategy` N replicas take the step that one would take with the
    whole batch, as far as the model does: BatchNormalization keeps to each replica's share, as in
    Keras. The inverses are divided among them.

    Args:
        learning_rate: `"adaptive"` (default): step size and momentum that make the quadratic model
            of the loss smallest, with the exact Gauss-Newton matrix on the batch; the damping
            follows how well the model predicted, and a step that raises the loss is made shorter.
            Or a float, a schedule or a callable, with `momentum`, `kl_clip` and fixed damping.
        damping: `λ`, what is added to the curvature, not negative; or `"auto"` (default): the
            mean eigenvalue of the factors on the first batch, three times that if `"adaptive"`.
        momentum: Share of the last step in the next, at least 0 and below 1, for a learning rate
            that is given. Default 0.9.
        kl_clip: Bound on `learning_rate² · ⟨gradient, direction⟩`, twice the change of the model's
            predictions in nats, for a learning rate that is given; longer steps are shortened. None
            for no bound. Default 1e-3.
        fisher: How the right factors are measured. `"monte-carlo"` (default): one random
            combination of signs for each example, unbiased; `"type-2"`: exactly, by as many
            pullbacks as an example has outputs; `"empirical"`: from the gradients of the targets.
        inverse: `"cholesky"` (default): the damping is split between the two factors; `"eigen"`: it
            is added to their product, exactly; a slower renewal and step.
        shared: A weight used at many positions of an example (convolutions, sequences, layers that
            are called twice): `"expand"` (default) takes each position for an example of its own,
            `"reduce"` sums over them first. Embeddings are always expanded.
        factor_decay: Of the averages at each update, at least 0 and below 1. Default 0.8.
        factor_every: Steps between updates of the factors. Default 8. In the first steps they are
            updated each time; the period doubles until it is reached.
        inverse_every: Steps between renewals of an inverse, in the same way; different weights in
            different steps. Default 32.
        max_trials: How often a step that raises the loss is shortened before it is given up; 0
            takes every step. Default 8 with `"adaptive"`, else 0.
        curvature_batch: The curvature along a step, and what a trial does beyond the slope, are
            those of at most this many examples of the batch; None for all. Default 128.
        seed: Of the random signs, a whole number. Default 0.
        name: Name of the optimizer.
        **kwargs: `weight_decay` (with `"adaptive"`, times the step size), `clipnorm`,
            `global_clipnorm`, `clipvalue` (of the gradient, before it is preconditioned),
            `use_ema`, `ema_momentum`, `ema_overwrite_frequency`, as in any Keras optimizer.

    Raises:
        ConfigurationError: an argument out of range; a loss without curvature; a model without
            trainable weights; another model than the one it has trained;
            several replicas with `run_eagerly` or `jit_compile`, or an optimizer made outside of
            the scope of their strategy.
        LeakError: TensorFlow would get the derivative of a layer wrong.
        NumericalError: 20 batches in a row without a finite loss, gradient and direction.

    Cost: A gradient; two products of each matrix of weights with its inverses; with `"adaptive"`
        two pushforwards and a forward pass for each trial. Now and then a second pullback and the
        factors, or an inverse, cubic in the width of a layer. Memory: eight times the weights at
        the peak of a step (Adam: four), and twice the factors, which are twice the weights of a
        square layer. A factor wider than 8192 is kept as its diagonal.

    References:
        Martens and Grosse, Optimizing neural networks with Kronecker-factored approximate
        curvature, ICML (2015); Grosse and Martens, A Kronecker-factored approximate Fisher matrix
        for convolution layers, ICML (2016); Ba et al., Distributed second-order optimization using
        Kronecker-factored approximations, ICLR (2017); Eschenhagen et al., Kronecker-factored
        approximate curvature for modern neural network architectures, NeurIPS (2023).

    Example:

    >>> import keras, numpy as np
    >>> keras.utils.set_random_seed(0)
    >>> layers = [keras.Input((2,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)]
    >>> net = keras.Sequential(layers)
    >>> net.compile(optimizer=KFAC(), loss="mse")
    >>> x = np.random.default_rng(0).normal(size=(64, 2)).astype("float32")
    >>> history = net.fit(x, np.sin(x[:, :1]), batch_size=64, epochs=50, verbose=0)
    >>> history.history["loss"][-1] < 1e-3
    True
    """

    #: Adapted damping stays above this share of the factors' mean eigenvalue. A batch does not tell
    #: that there is too little: its own loss falls as predicted, that of all data does not.
    least_damping: float = 0.02

    def __init__(
        self,
        learning_rate: LearningRate | Literal["adaptive"] = "adaptive",
        damping: float | Literal["auto"] = "auto",
        *,
        momentum: float = 0.9,
        kl_clip: float | None = 1e-3,
        fisher: Fisher = "monte-carlo",
        inverse: Inverse = "cholesky",
        shared: Shared = "expand",
        factor_decay: float = 0.8,
        factor_every: int = 8,
        inverse_every: int = 32,
        max_trials: int | None = None,
        curvature_batch: int | None = 128,
        seed: int = 0,
        name: str = "kfac",
        **kwargs: Any,
    ) -> None:
        adaptive = isinstance(learning_rate, str) and learning_rate == "adaptive"
        trials = (8 if adaptive else 0) if max_trials is None else max_trials
        options = FactorOptions(
            fisher, inverse, shared, factor_decay, factor_every, inverse_every, seed
        )
        rate = 1.0 if adaptive else learning_rate
        super().__init__(rate, damping, options, trials, name, **kwargs)
        check_number("KFAC", "momentum", momentum)
        if momentum >= 1:
            raise ConfigurationError(
                "KFAC: `momentum` must be at least 0 and below 1, or steps would never end. "
                f"Received: momentum={momentum!r}."
            )
        if curvature_batch is not None:
            check_count("KFAC", "curvature_batch", curvature_batch)
        if adaptive and trials == 0:
            raise ConfigurationError(
                'KFAC: learning_rate="adaptive" judges its steps on the batch; `max_trials` must '
                "be at least 1. Received: max_trials=0."
            )
        self.adaptive = adaptive
        self.momentum: float = float(momentum)
        self._set_kl_clip(kl_clip)
        self.curvature_batch: int | None = None if curvature_batch is None else int(curvature_batch)
        self._last_step = []

    works_on_replicas = True

    def parts(self, model_pass: Pass, expansion: Expansion) -> Parts[Point]:
        """On the plane of direction and last step, or along the one step of a given rate."""
        # Three mean eigenvalues where the damping is adapted, for it is to fall; else it stays.
        natural = self._natural(model_pass, expansion, auto=3.0 if self.adaptive else 1.0)
        last = self._last()
        rate = tf.cast(self.learning_rate, tf.float32)
        if self.adaptive:
            vectors = (natural.gradient, last)
        else:
            clipped = self._clipped_rate(expansion, natural.gradient)
            pushed = nest.scale(self.momentum, last)
            vectors = (nest.add_scaled(pushed, -clipped, natural.gradient),)
        direction = Decayed(expansion, self._decay())
        if self.max_trials == 0:
            system = Given(vectors[0], rate)
            control = Steady(self.damping, self._growth, system)
            trial = WholeBatch(model_pass, expansion)
            return Parts(expansion, system, direction, control, trial, Unjudged(expansion))
        part = SubBatch(model_pass, expansion, self.curvature_batch)
        damping = tf.maximum(self.damping.value, 0.0)
        ridge = self._ridge(model_pass, expansion)
        system = Plane(part, ridge, expansion.gradient, vectors, damping, rate)
        if self.adaptive:
            least = self.least_damping * natural.mean_eigenvalue
            control = Following(self.damping, self._growth, system, least)
        else:
            control = Steady(self.damping, self._growth, system)
        trial = OnPart(model_pass, expansion, part)
        return Parts(expansion, system, direction, control, trial, ByReduction(expansion))

    def take(self, model_pass: Pass, parts: Parts[Point], outcome: Outcome) -> None:
        """New weights, their averages, and what the next step needs to know."""
        moved = nest.add_scaled(outcome.values, -1.0, parts.expansion.values)
        for variable, value in zip(self._last_step, moved, strict=True):
            variable.assign(value)
        super().take(model_pass, parts, outcome)

    def _ridge(self, model_pass, expansion):
        """Curvature of the weights' regularizers, or None without any."""
        if all(variable.regularizer is None for variable in model_pass.variables):
            return None
        return weight_penalties.diagonal(model_pass.variables, expansion.values)

    def _decay(self):
        """Of each weight, in units of the step size."""
        decay = self.weight_decay or 0.0
        return [decay if self._use_weight_decay(v) else 0.0 for v in self._trainable_variables]

    def _last(self):
        if not self._last_step:
            replicas.once(self._make_last)
        return [variable.value for variable in self._last_step]

    def _make_last(self):
        self._last_step = [
            self._variable(f"last_step_{i}", variable.shape, variable.dtype)
            for i, variable in enumerate(self._trainable_variables)
        ]

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        config = super().get_config()
        return {
            **config,
            "learning_rate": "adaptive" if self.adaptive else config["learning_rate"],
            "momentum": self.momentum,
            "kl_clip": self.kl_clip,
            "curvature_batch": self.curvature_batch,
        }
