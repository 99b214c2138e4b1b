"""What `KFAC` and `KFACPreconditioner` share: blocks, factors, and a direction from them."""

import dataclasses
import warnings
from typing import Any, Literal, NamedTuple, Self

import keras
import tensorflow as tf

from keras_fwd._checks import check_count, check_number
from keras_fwd._curvature import fisher, loss_hessian
from keras_fwd._curvature.blocks import blocks
from keras_fwd._curvature.blocks.blocks import SHARED
from keras_fwd._curvature.fisher import KINDS
from keras_fwd._spaces import nest
from keras_fwd.errors import ConfigurationError
from keras_fwd.optimizers._kronecker.block_report import BlockReport
from keras_fwd.optimizers._kronecker.factors import METHODS, Factors
from keras_fwd.optimizers._steps import replicas
from keras_fwd.optimizers._steps.expansion import Expansion, expand
from keras_fwd.optimizers._steps.parts import Pass, Values
from keras_fwd.optimizers.curvature_optimizer import CurvatureOptimizer
from keras_fwd.typing import Fisher, Inverse, LearningRate, Nest, Shared, Variable

# How Kronecker factors are measured, averaged and inverted: what users may choose.


@dataclasses.dataclass(frozen=True)
class FactorOptions:
    """The options of Kronecker factors.

    Args:
        fisher: `"type-2"`, `"monte-carlo"` or `"empirical"`.
        inverse: `"cholesky"` or `"eigen"`.
        shared: `"expand"` or `"reduce"`.
        factor_decay: Of the averages, at each update.
        factor_every: Steps between updates of the factors, once training is under way.
        inverse_every: Steps between renewals of an inverse, likewise.
        seed: Of the random signs.
    """

    fisher: Fisher
    inverse: Inverse
    shared: Shared
    factor_decay: float
    factor_every: int
    inverse_every: int
    seed: int

    def checked(self, call: str) -> Self:
        """The same as plain Python numbers.

        Raises:
            ConfigurationError: An option has no meaning.
        """
        for argument, choices in (("fisher", KINDS), ("inverse", METHODS), ("shared", SHARED)):
            value = getattr(self, argument)
            if value not in choices:
                raise ConfigurationError(
                    f"{call}: `{argument}` must be one of {', '.join(map(repr, choices))}. "
                    f"Received: {argument}={value!r}."
                )
        check_number(call, "factor_decay", self.factor_decay)
        if self.factor_decay >= 1:
            raise ConfigurationError(
                f"{call}: `factor_decay` must be below 1, for the factors to change. "
                f"Received: factor_decay={self.factor_decay!r}."
            )
        check_count(call, "factor_every", self.factor_every)
        check_count(call, "inverse_every", self.inverse_every)
        check_count(call, "seed", self.seed, least=0, most=2**31 - 1)
        numbers: dict[str, Any] = {"factor_decay": float(self.factor_decay)}
        for name in ("factor_every", "inverse_every", "seed"):
            numbers[name] = int(getattr(self, name))
        return dataclasses.replace(self, **numbers)


#: What stands in the damping's variable until the first batch has told it.
UNKNOWN = -1.0


class Natural(NamedTuple):
    """The gradient multiplied with the damped inverse of the Fisher information.

    Attributes:
        gradient: List like the weights.
        mean_eigenvalue: Of the factors, without damping, float32.
    """

    gradient: Values
    mean_eigenvalue: tf.Tensor


class KroneckerOptimizer(CurvatureOptimizer):
    """Base class of optimizers that precondition with Kronecker factors.

    Args:
        learning_rate: As in `keras.optimizers.Optimizer`.
        damping: `"auto"` or a number.
        options: `FactorOptions`; each is an attribute of the optimizer too.
        max_trials: Of a step on its batch.
        name: Name of the optimizer.
        **kwargs: Of `keras.optimizers.Optimizer`.
    """

    fisher: Fisher
    inverse: Inverse
    shared: Shared
    factor_decay: float
    factor_every: int
    inverse_every: int
    seed: int

    def __init__(
        self,
        learning_rate: LearningRate,
        damping: float | Literal["auto"],
        options: FactorOptions,
        max_trials: int,
        name: str,
        **kwargs: Any,
    ) -> None:
        if kwargs.get("gradient_accumulation_steps"):
            raise ConfigurationError(
                f"{type(self).__name__}: gradient accumulation is not supported; use larger "
                "batches. Received: gradient_accumulation_steps="
                f"{kwargs['gradient_accumulation_steps']!r}."
            )
        auto = isinstance(damping, str) and damping == "auto"
        start = 0.0 if auto else damping
        super().__init__(learning_rate, start, max_trials, name, least_trials=0, **kwargs)
        if auto:
            self.damping.assign(UNKNOWN)
        self._given_damping = damping
        self._factor_options = options.checked(type(self).__name__)
        for option, value in dataclasses.asdict(self._factor_options).items():
            setattr(self, option, value)
        self._factors: Any = None
        self._made = []  # variables that the first step makes
        self._saved = []  # state from a file, for those that are yet to be made
        self._needs_graph = True  # the blocks are read from one

    def blocks(self, model: keras.Model, inputs: Nest | None = None) -> BlockReport:
        """Which weights share a block of curvature, of which form, and why.

        Args:
            model: A built Keras model.
            inputs: A batch; only needed for a model that does not know the shape of its inputs.

        Returns:
            A sequence of rows that prints as a table.

        Raises:
            ConfigurationError: the model is not built, or does not know the shape of its inputs.
        """
        return BlockReport.of(model, inputs, self.shared)

    def expand(self, model_pass: Pass) -> Expansion:
        """The loss of the batch and its gradient: products with the Jacobian are not needed."""
        return expand(model_pass, pushforwards=False, scale=model_pass.loss_scale)

    def _natural(self, model_pass, expansion, auto):
        """The `Natural` gradient; factors and inverses are brought up to date before.

        Args:
            model_pass: The `TrainingPass` of the batch.
            expansion: Its `Expansion`.
            auto: `damping="auto"` in mean eigenvalues of the factors.
        """
        step = self.step_number()
        factors = self._bound(expansion)

        def measure():
            H = None
            if self.fisher != "empirical":
                H = loss_hessian.loss_hessian(model_pass.loss_of_leaves, expansion.leaves)
            cotangents = fisher.Cotangents(
                self.fisher, model_pass, expansion.leaves, H, seed, replicas.count()
            )
            return factors.measured(expansion.forward, cotangents)

        seed = replicas.own_seed(tf.stack([self.seed, step]))
        factors.update(step, self.factor_every, measure, expansion.finite)
        # Set once, from the first sound batch: later means would undo what was adapted since.
        known = self.damping.value >= 0
        (mean,) = replicas.means([factors.mean_eigenvalue()])
        first = auto * mean
        first = tf.where(expansion.finite & tf.math.is_finite(first), first, UNKNOWN)
        self.damping.assign(tf.where(known, self.damping.value, first))
        # Still unknown where no batch was finite yet: nothing can be added to the curvature then.
        damping = tf.maximum(self.damping.value, 0.0)
        factors.renew(step, self.inverse_every, damping)
        return Natural(factors.solve(self._clip_gradients(expansion.gradient), damping), mean)

    def _set_kl_clip(self, kl_clip):
        if kl_clip is not None:
            check_number(type(self).__name__, "kl_clip", kl_clip, above=True)
        self.kl_clip: float | None = None if kl_clip is None else float(kl_clip)

    def _clipped_rate(self, expansion, direction):
        """The learning rate, or less where the predictions would change by more than the bound."""
        rate = tf.cast(self.learning_rate, tf.float32)
        if self.kl_clip is None:
            return rate
        change = tf.cast(nest.dot(expansion.gradient, direction), tf.float32)
        most = tf.sqrt(self.kl_clip / tf.where(change > 0, change, tf.ones_like(change)))
        return tf.where(change > 0, tf.minimum(rate, most), rate)

    def _bound(self, expansion):
        """The factors, for the tensors of the trace that is being made."""
        found = blocks.of_forward_pass(expansion.forward, expansion.leaves, self.shared)
        unknown = self._factors is None
        if unknown:
            if not any(block.kind == "Kronecker" for block in found):
                warnings.warn(
                    f"{type(self).__name__}: no weight of the model is used as a matrix, so none "
                    "has Kronecker factors: all are preconditioned with the diagonal of the "
                    "curvature. `optimizer.blocks(model)` says why.",
                    stacklevel=2,
                )
            replicas.once(lambda: self._make_factors(found))
        return self._factors.bound(found, type(self).__name__)

    def _make_factors(self, found):
        self._factors = Factors(found, self._variable, self.inverse, self.factor_decay)

    def _variable(self, name, shape, dtype):
        """A variable of zeros, or of what was saved for it."""
        variable = self.add_variable(
            shape=shape, dtype=dtype, name=name, initializer=keras.initializers.Zeros()
        )
        self._made.append(variable)
        # State from a file waits for its variable; that of another model has other shapes.
        if self._saved and tuple(self._saved[0].shape) == tuple(variable.shape):
            variable.assign(self._saved.pop(0))
        return variable

    @property
    def variables(self) -> list[Variable]:
        """State whose number the first step does not change, as Keras' loss scaling asks for."""
        made = {id(variable) for variable in self._made}
        return [variable for variable in super().variables if id(variable) not in made]

    def save_own_variables(self, store: Any) -> None:
        """Puts all state into a file, also what was loaded and waits for the first step."""
        for i, value in enumerate([*self._variables, *self._saved]):
            store[str(i)] = value.numpy()

    def load_own_variables(self, store: Any) -> None:
        """Restores what was saved; factors wait for the first step, which makes their variables."""
        values = [store[str(i)] for i in range(len(store.keys()))]
        known = list(self._variables)
        for variable, value in zip(known, values, strict=False):
            variable.assign(value)
        self._saved = [tf.constant(value) for value in values[len(known) :]]

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        names = "weight_decay clipnorm global_clipnorm clipvalue use_ema ema_momentum "
        names += "ema_overwrite_frequency"
        return {
            **super().get_config(),
            "damping": self._given_damping,
            **{name: getattr(self, name) for name in names.split()},
            **dataclasses.asdict(self._factor_options),
        }
