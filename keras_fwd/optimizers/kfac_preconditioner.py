"""`KFACPreconditioner`: the natural gradient, handed to any Keras optimizer."""

from collections.abc import Mapping
from typing import Any, Literal, Self

import keras
import tensorflow as tf

from keras_fwd._models.serializable import serializable
from keras_fwd._spaces import nest
from keras_fwd.errors import ConfigurationError
from keras_fwd.optimizers._kronecker.kronecker_optimizer import FactorOptions, KroneckerOptimizer
from keras_fwd.optimizers._kronecker.plane import Decayed, Given, Point
from keras_fwd.optimizers._steps.damping import Steady
from keras_fwd.optimizers._steps.expansion import Expansion
from keras_fwd.optimizers._steps.parts import Outcome, Parts, Pass
from keras_fwd.optimizers._steps.search import Unjudged
from keras_fwd.optimizers._steps.trial import HandedOn
from keras_fwd.optimizers.curvature_optimizer import CurvatureOptimizer
from keras_fwd.typing import Fisher, Inverse, Shared, Variable

_OWN = "name damping fisher inverse shared factor_decay factor_every inverse_every seed"


@serializable
class KFACPreconditioner(KroneckerOptimizer):
    """Hands K-FAC's natural gradient to another optimizer, in stock `compile` and `fit`.

    The inner optimizer gets `(F + λ I)⁻¹ g` in place of the gradient `g`, with the Fisher
    information `F` in Kronecker-factored blocks as in `KFAC`, and does with it what it always does:
    learning rate and schedule, momentum, weight decay, clipping (of what it gets, the natural
    gradient), averages of the weights, accumulation (of natural gradients). The learning rate of
    this optimizer is that of the inner one, so that callbacks such as `ReduceLROnPlateau` and
    `LearningRateScheduler` work; `SwapEMAWeights` does as well.

    Steps are not tried on the batch, and `λ` stays what it is: with `KFAC()` there is nothing to
    tune; this is for training recipes that are tuned already. The natural gradient has the scale of
    a step, not of a gradient, so learning rates of 0.01 to 1 fit SGD.

    The logs get `damping`, and `nonfinite_steps` from the first batch on whose loss, gradient or
    direction was NaN or infinite: such a batch leaves the weights and the whole state of the inner
    optimizer as they were. After 20 of them in a row training stops with
    `keras_fwd.NumericalError`.

    Args:
        inner: A Keras optimizer, its name or its config. Not one that needs the curvature itself,
            nor one with loss scaling, which belongs around this optimizer.
        damping: `λ`, not negative; or `"auto"` (default): the mean eigenvalue of the factors on the
            first batch.
        kl_clip: Bound on `learning_rate² · ⟨gradient, natural gradient⟩`, twice the change of the
            model's predictions in nats by a plain step; a longer natural gradient is shortened.
            Default None, no bound: the inner optimizer gets it as it is. For SGD without a tuned
            schedule, 1e-3 is usual.
        fisher: As in `KFAC`.
        inverse: As in `KFAC`.
        shared: As in `KFAC`.
        factor_decay: As in `KFAC`.
        factor_every: As in `KFAC`.
        inverse_every: As in `KFAC`.
        seed: As in `KFAC`.
        name: Name of the optimizer.
        **kwargs: None; arguments of `keras.optimizers.Optimizer` go to `inner`.

    Raises:
        ConfigurationError: an argument out of range; an `inner` that cannot take gradients from
            here; what `KFAC` refuses.
        LeakError: TensorFlow would get the derivative of a layer wrong.
        NumericalError: 20 batches in a row without a finite loss, gradient and direction.

    Cost: A gradient, two products of each matrix of weights with its inverses, and the inner
        optimizer's own step; now and then a second pullback and the factors, or an inverse, cubic
        in the width of a layer. Memory: twice the factors, and the inner optimizer's own.

    References:
        Martens and Grosse, Optimizing neural networks with Kronecker-factored approximate
        curvature, ICML (2015); Pauloski et al., KAISA: an adaptive second-order optimizer framework
        for deep neural networks, SC (2021), which hands preconditioned gradients on in this way.

    Example:

    >>> import keras, numpy as np
    >>> keras.utils.set_random_seed(0)
    >>> net = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> sgd = keras.optimizers.SGD(0.5, momentum=0.5)
    >>> net.compile(optimizer=KFACPreconditioner(sgd, damping=1e-3), loss="mse")
    >>> x = np.random.default_rng(0).normal(size=(64, 2)).astype("float32")
    >>> history = net.fit(x, x @ [[3.0], [0.1]], batch_size=64, epochs=30, verbose=0)
    >>> net.get_weights()[0].round(2).ravel()
    array([3. , 0.1], dtype=float32)
    """

    def __init__(
        self,
        inner: Any,
        damping: float | Literal["auto"] = "auto",
        *,
        kl_clip: float | None = None,
        fisher: Fisher = "monte-carlo",
        inverse: Inverse = "cholesky",
        shared: Shared = "expand",
        factor_decay: float = 0.8,
        factor_every: int = 8,
        inverse_every: int = 32,
        seed: int = 0,
        name: str = "kfac_preconditioner",
        **kwargs: Any,
    ) -> None:
        if kwargs:
            raise ConfigurationError(
                "KFACPreconditioner: arguments of Keras optimizers go to `inner`, as in "
                "`KFACPreconditioner(keras.optimizers.SGD(0.1, weight_decay=1e-4))`. Received: "
                f"{', '.join(f'{key}={value!r}' for key, value in kwargs.items())}."
            )
        options = FactorOptions(
            fisher, inverse, shared, factor_decay, factor_every, inverse_every, seed
        )
        super().__init__(0.0, damping, options, 0, name)  # the rate is the inner optimizer's
        self._set_kl_clip(kl_clip)
        self.inner: Any = _optimizer(inner)

    @property
    def inner_optimizer(self) -> Any:
        """`inner`, by the name under which the callbacks of Keras look for it."""
        return self.inner

    @property
    def learning_rate(self) -> Any:
        """The inner optimizer's; setting it sets that one's."""
        return self.inner.learning_rate

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        self.inner.learning_rate = value

    @property
    def variables(self) -> list[Variable]:
        """State of both optimizers whose number the first step does not change."""
        return super().variables + self.inner.variables

    def build(self, variables: Any) -> None:
        """Makes the variables of both optimizers."""
        if not self.inner.built:
            self.inner.build(variables)
        super().build(variables)

    def exclude_from_weight_decay(self, var_list: Any = None, var_names: Any = None) -> None:
        """As the inner optimizer's."""
        self.inner.exclude_from_weight_decay(var_list, var_names)

    def finalize_variable_values(self, var_list: Any) -> None:
        """As the inner optimizer's."""
        self.inner.finalize_variable_values(var_list)

    def parts(self, model_pass: Pass, expansion: Expansion) -> Parts[Point]:
        """The natural gradient itself: there is nothing left to solve, and nothing to judge."""
        natural = self._natural(model_pass, expansion, auto=1.0).gradient
        if self.kl_clip is not None:
            rate = tf.cast(self.learning_rate, tf.float32)
            clipped = self._clipped_rate(expansion, natural)
            natural = nest.scale(tf.where(rate > 0, clipped / rate, tf.ones_like(rate)), natural)
        # The rate, like the decay, is the inner optimizer's.
        given = Given(natural, tf.zeros([]))
        direction = Decayed(expansion, [0.0] * len(natural))
        control = Steady(self.damping, self._growth, given)
        trial = HandedOn(model_pass, expansion)
        return Parts(expansion, given, direction, control, trial, Unjudged(expansion))

    def take(self, model_pass: Pass, parts: Parts[Point], outcome: Outcome) -> None:
        """The inner optimizer's step, or nothing at all."""
        del parts

        def take():
            self.inner.apply(outcome.values, model_pass.variables)
            return tf.constant(0)

        tf.cond(outcome.accepted, take, lambda: tf.constant(0))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        config = super().get_config()
        return {
            "inner": keras.saving.serialize_keras_object(self.inner),
            "kl_clip": self.kl_clip,
            **{name: config[name] for name in _OWN.split()},
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: Mapping[str, Any] | None = None
    ) -> Self:
        """Inverse of `get_config`."""
        inner = config["inner"]
        if isinstance(inner, dict):
            inner = keras.saving.deserialize_keras_object(inner, custom_objects=custom_objects)
        return cls(**{**config, "inner": inner})


def _optimizer(inner):
    """The inner optimizer, if it can take gradients from here."""
    rule = "KFACPreconditioner: `inner` must be a Keras optimizer, its name or its config"
    try:
        found = keras.optimizers.get(inner)
    except (ValueError, TypeError):  # an unknown name, or no optimizer
        found = None
    if found is None:
        raise ConfigurationError(f"{rule}. Received: inner={inner!r}.")
    if isinstance(found, CurvatureOptimizer):
        raise ConfigurationError(
            f"{rule} that steps along a gradient, such as SGD or Adam; {type(found).__name__} has "
            f"curvature of its own: pass it to `compile` as it is. Received: inner={inner!r}."
        )
    if isinstance(found, keras.optimizers.LossScaleOptimizer) or found.loss_scale_factor:
        raise ConfigurationError(
            f"{rule}, without loss scaling: put `LossScaleOptimizer` around KFACPreconditioner. "
            f"Received: inner={inner!r}."
        )
    return found
