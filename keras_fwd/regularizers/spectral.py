"""The largest singular value of each example's Jacobian, and the penalties on it."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from keras_fwd._checks import check_count, check_number
from keras_fwd._derivatives import example_jacobians
from keras_fwd._models.serializable import serializable
from keras_fwd._rules.transposes import refused
from keras_fwd._spaces import nest
from keras_fwd.regularizers.base import SensitivityRegularizer
from keras_fwd.regularizers.batch import Batch
from keras_fwd.regularizers.examples import dots, root, scale_examples, squared_norms
from keras_fwd.typing import Strength, Tensor

SMALL = 1e-6  # beside slopes of the order of 1


class SpectralRegularizer(SensitivityRegularizer):
    """Base of penalties Σ φ(σ) on `σ = max ‖J v‖` over unit v, by power iteration with J and Jᵀ.

    The iteration starts from one direction in input space that is carried from step to step, the
    mean of those that the examples of the last batch ended with. Training does not differentiate
    through it: once v has converged, the derivative of φ at a fixed v is that of φ(σ), since v
    maximizes it (the envelope theorem). So that this holds for layers that mix examples too, what
    goes back through Jᵀ is the derivative of Σ φ(σ); for others its length does not matter. Second
    derivatives of the penalty raise `LeakError`.

    Args:
        strength: As in `SensitivityRegularizer`.
        num_iterations: Products with JᵀJ in each step.
        name: As in `SensitivityRegularizer`.
    """

    def __init__(self, strength: Strength, num_iterations: int, name: str) -> None:
        super().__init__(strength, name)
        check_count(type(self).__name__, "num_iterations", num_iterations)
        self.num_iterations = num_iterations

    def memory(self, sizes: Sequence[int | None]) -> dict[str, Any]:
        """One direction in input space."""
        return {} if None in sizes else {"direction": (sum(sizes),)}

    def of_norms(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """`(φ(σ), φ'(σ))` of each example, `[batch]`."""
        raise NotImplementedError

    def penalty(self, batch: Batch) -> Tensor:
        """The mean over the examples."""
        J = batch.jacobian

        def step(i, *leaves):
            v = nest.fill(batch.inside, leaves)
            image = J(v)
            sigma = root(squared_norms(image))
            # Above 0, so that an example whose φ is flat keeps its direction.
            slope = tf.maximum(self.of_norms(sigma)[1], SMALL)
            weights = tf.math.divide_no_nan(slope, sigma)
            return i + 1, *nest.live(_unit(J.T(scale_examples(weights, image)), v))

        _, *leaves = tf.while_loop(
            lambda i, *leaves: i < self.num_iterations,
            step,
            (tf.constant(0), *nest.live(_unit(self._start(batch)))),
            maximum_iterations=self.num_iterations,
        )
        v = nest.fill(batch.inside, [tf.stop_gradient(leaf) for leaf in leaves])
        self._keep(batch, v)
        # Σ φ'(σ) u·(J v) with u = J v / σ has the derivative of Σ φ(σ). As Σ (Jᵀ φ' u)·v it needs
        # Jᵀ alone, which is cheaper to differentiate, and which XLA compiles for loops as well.
        image = J(v)
        sigma = root(squared_norms(image))
        value, slope = self.of_norms(sigma)
        u = scale_examples(tf.math.divide_no_nan(slope, sigma), image)
        u = nest.map_live(tf.stop_gradient, u)
        same = tf.reduce_mean(dots(J.T(u), v))
        return self._first_order(tf.stop_gradient(tf.reduce_mean(value) - same) + same)

    def _first_order(self, value):
        """The value, whose second derivative raises: that at fixed v is not the one of φ(σ)."""
        message = (
            f"{type(self).__name__}: the penalty has a first derivative only, since its power "
            "iteration is not differentiated. Received: a second derivative of it."
        )

        @tf.custom_gradient
        def guarded(value):
            def gradient(dy):
                return dy * (1 + tf.cast(refused(message, [value]), dy.dtype))

            return tf.identity(value), gradient

        return guarded(value)

    def _start(self, batch):
        carried = batch.memory.get("direction")
        if carried is None:
            return batch.random(batch.inside, batch.seed(0))
        width = example_jacobians.example_size(batch.inside)
        rows = tf.broadcast_to(carried.value[:width], [batch.size, width])
        return example_jacobians.split(rows, batch.inside)

    def _keep(self, batch, v):
        carried = batch.memory.get("direction")
        if carried is None:
            return
        # JᵀJ has no negative eigenvalue: all v have a dot product of at least 0 with the start, and
        # do not cancel in the mean.
        mean = tf.reduce_mean(example_jacobians.join(v, carried.value.dtype), axis=0)
        length = tf.norm(mean)
        mean = tf.pad(mean, [[0, carried.shape[0] - tf.shape(mean)[0]]])
        good = tf.math.is_finite(length) & (length > 0)
        carried.assign(tf.where(good, mean / tf.where(good, length, 1), carried.value))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "num_iterations": self.num_iterations}


def _unit(vector, like=None):
    """Each example's part with length 1; zeros where it has none."""
    length = root(squared_norms(vector))
    unit = scale_examples(tf.math.divide_no_nan(tf.ones_like(length), length), vector)
    if like is None:
        return unit
    return nest.map_live(lambda u, v: tf.ensure_shape(u, v.shape), unit, like)


@serializable
class SpectralJacobian(SpectralRegularizer):
    """The largest singular value σ of each example's Jacobian, averaged over the batch.

    Args:
        strength: As in `SensitivityRegularizer`.
        num_iterations: Products with JᵀJ in each step, default 2; the vectors are carried over
            between steps. Fewer than convergence takes measure σ from below.
        name: As in `SensitivityRegularizer`.

    Raises:
        ConfigurationError: a bad argument.

    Cost: Two products an iteration, and one that is differentiated.

    References:
        Yoshida and Miyato (2017), Spectral Norm Regularization for Improving the
        Generalizability of Deep Learning, arXiv:1705.10941 (of weights; here of the Jacobian).

    Example:

    >>> import keras
    >>> diagonal = keras.layers.Lambda(lambda x: x * [3.0, 1.0])
    >>> penalty = SpectralJacobian(1.0, num_iterations=20)
    >>> round(float(penalty(diagonal, tf.ones([4, 2]))), 4)
    3.0
    """

    def __init__(
        self, strength: Strength, num_iterations: int = 2, name: str = "spectral_jacobian"
    ) -> None:
        super().__init__(strength, num_iterations, name)

    def of_norms(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """σ, and 1."""
        return sigma, tf.ones_like(sigma)


@serializable
class Lipschitz(SpectralRegularizer):
    """`max(0, σ − bound)²`, σ the largest singular value of each example's Jacobian; the mean.

    A model that is nowhere steeper than `bound` between two points changes at most by `bound`
    times their distance. The penalty presses on the examples that it sees; it proves nothing.

    Args:
        strength: As in `SensitivityRegularizer`.
        bound: Units of the outputs per unit of the inputs, above 0; default 1.
        num_iterations: As in `SpectralJacobian`.
        name: As in `SensitivityRegularizer`.

    Raises:
        ConfigurationError: a bad argument.

    Cost: As `SpectralJacobian`.

    References:
        Petzka, Fischer and Lukovnikov (2018), On the regularization of Wasserstein GANs,
        arXiv:1709.08894 (one-sided penalty).

    Example:

    >>> import keras
    >>> diagonal = keras.layers.Lambda(lambda x: x * [3.0, 1.0])
    >>> round(float(Lipschitz(1.0, bound=2.0, num_iterations=20)(diagonal, tf.ones([4, 2]))), 4)
    1.0
    """

    def __init__(
        self,
        strength: Strength,
        bound: float = 1.0,
        num_iterations: int = 2,
        name: str = "lipschitz",
    ) -> None:
        super().__init__(strength, num_iterations, name)
        check_number(type(self).__name__, "bound", bound, above=True)
        self.bound: float = float(bound)

    def of_norms(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """max(0, σ − bound)² and 2 max(0, σ − bound)."""
        above = tf.nn.relu(sigma - self.bound)
        return tf.square(above), 2 * above

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "bound": self.bound}
