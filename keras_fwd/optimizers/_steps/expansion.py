"""The loss of one batch to second order in the weights: what a step is built from and judged by."""

import dataclasses
from typing import Protocol

import tensorflow as tf

from keras_fwd._derivatives import double_gradient
from keras_fwd._spaces import nest
from keras_fwd._spaces.linear_map import LinearMap
from keras_fwd.optimizers._steps import replicas
from keras_fwd.typing import Nest


class ForwardPass(Protocol):
    """What is asked of the forward pass of a batch, once it has run.

    Attributes:
        sources: The weights that it read, tensors.
        targets: Its floating-point outputs, tensors: the loss, and the curvature leaves.
        outputs: All that it returned, a nest.
    """

    sources: list[tf.Tensor]
    targets: list[tf.Tensor]
    outputs: Nest

    def pull(self, cotangents: Nest, strict: bool = True) -> Nest:
        """The pullback to the weights."""
        ...

    def gradients_at(self, tensors: list[tf.Tensor], cotangents: Nest) -> list[tf.Tensor | None]:
        """The pullback to tensors on the way."""
        ...


class Free:
    """The entries of variables that may move on a batch; what is asked of it leaves out the others.

    Args:
        masks: List of boolean tensors like the variables; None if all entries may move.
    """

    def __init__(self, masks: list[tf.Tensor] | None = None) -> None:
        self._masks = masks

    def vector(self, vector: list[tf.Tensor]) -> list[tf.Tensor]:
        """Zeros in the place of the others."""
        if self._masks is None:
            return vector
        pairs = zip(self._masks, vector, strict=True)
        return [tf.where(mask, v, tf.zeros_like(v)) for mask, v in pairs]

    def columns(self, matrix: tf.Tensor) -> tf.Tensor:
        """A matrix `[m, n]` with zeros for columns of the others."""
        if self._masks is None:
            return matrix
        mask = tf.concat([tf.reshape(mask, [-1]) for mask in self._masks], 0)
        return tf.where(mask, matrix, tf.zeros_like(matrix))

    def map(self, J: LinearMap) -> LinearMap:
        """A `LinearMap` from the variables, with zeros for columns of the others."""
        if self._masks is None:
            return J
        return J @ LinearMap(self.vector, self.vector, J.in_spec, J.in_spec)


@dataclasses.dataclass(frozen=True)
class Expansion:
    """The loss of a batch to second order in the weights, at their present values.

    Loss and gradient are those of the whole batch; all else is of this replica's share of it. It
    never changes: what bounds or precision make of it is another one.

    Attributes:
        values: The weights, a list of tensors.
        loss: Scalar.
        gradient: List like the values.
        leaves: The curvature leaves: outputs, or logits.
        whole: `LinearMap` from the weights to `{"loss", "outputs"}`, the outputs being the leaves;
            or None where no Jacobian was asked for.
        finite: Boolean scalar: loss and gradient are.
        overflowed: Boolean scalar: only the gradient is not finite, and it was scaled.
        forward: The forward pass itself, or None where there is no single one.
        free: Which entries may move.
    """

    values: list[tf.Tensor]
    loss: tf.Tensor
    gradient: list[tf.Tensor]
    leaves: list[tf.Tensor]
    whole: LinearMap | None
    finite: tf.Tensor
    overflowed: tf.Tensor
    forward: ForwardPass | None = None
    free: Free = dataclasses.field(default_factory=Free)

    @property
    def jacobian(self) -> LinearMap:
        """`LinearMap` from the weights to the leaves, of an expansion that was asked for it."""
        assert self.whole is not None
        return to_leaves(self.whole)


def expand(model_pass, pushforwards=True, scale=None):
    """The `Expansion` of a batch.

    Args:
        model_pass: A `TrainingPass`.
        pushforwards: Whether the Jacobian is asked for.
        scale: What the loss is multiplied with on its way back, or None; the gradient is that of
            the loss itself.
    """
    values = values_of(model_pass)
    if pushforwards:
        forward, J = _linearization(model_pass, values)
    else:
        forward, J = double_gradient.forward_pass("vjp", model_pass, values), None
    return measured(values, forward.outputs, forward.pull, J, scale, forward)


def values_of(model_pass):
    """The present values of the weights of a pass, a list of tensors."""
    return [tf.identity(variable.value) for variable in model_pass.variables]


def measured(values, result, pull, J, scale, forward=None):
    """The `Expansion` with loss and gradient from what the pass returned, and its pullback."""
    loss, leaves = result["loss"], result["outputs"]
    nothing = [None] * len(leaves)
    start = tf.ones_like(loss) if scale is None else tf.cast(scale, loss.dtype)
    gradient = pull({"loss": start, "outputs": nothing})
    if scale is not None:
        gradient = nest.scale(1 / scale, gradient)
    loss, *gradient = replicas.sums([loss, *gradient])
    finite = tf.math.is_finite(loss) & nest.all_finite(gradient)
    # A gradient that overflows by its scale is no fault of the batch: half the scale mends it.
    overflowed = tf.constant(False) if scale is None else tf.math.is_finite(loss) & ~finite
    return Expansion(values, loss, gradient, leaves, J, finite, overflowed, forward)


def _linearization(model_pass, values):
    """The forward pass, and its Jacobian: by a way of the pass's own, or by calling it."""
    own = getattr(model_pass, "linearization", None)
    if own is not None:
        return own(values)
    return double_gradient.linearization("linearize", model_pass, values)


def to_leaves(J):
    """The part of a training pass's Jacobian that leads to the curvature leaves."""
    return LinearMap(
        lambda tangents: J._mv(tangents)["outputs"],
        lambda cotangents: J._transpose_mv({"loss": None, "outputs": cotangents}),
        J.in_spec,
        J.out_spec["outputs"],
    )
