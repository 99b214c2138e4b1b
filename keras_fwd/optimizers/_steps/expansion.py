"""The loss of one batch to second order in the weights: what a step is built from and judged by."""

from typing import Any

import tensorflow as tf

from keras_fwd._derivatives import double_gradient
from keras_fwd._spaces import nest
from keras_fwd._spaces.linear_map import LinearMap
from keras_fwd.optimizers._steps import replicas


class Expansion:
    """The loss of a batch to second order in the weights, at their present values.

    Loss and gradient are those of the whole batch; all else is of this replica's share of it.

    Attributes:
        values: The weights, a list of tensors.
        loss: Scalar.
        gradient: List like the values.
        leaves: The curvature leaves: outputs, or logits.
        whole: `LinearMap` from the weights to `{"loss", "outputs"}`, the outputs being the leaves.
        jacobian: `LinearMap` from the weights to the leaves.
        curvature: Set by the optimizer: the `LinearMap` `C` of the quadratic model, undamped;
            in several replicas, their sum is.
        free: Set by optimizers that know bounds: the `Free` entries.
        mean_eigenvalue: Set by optimizers with Kronecker factors: of those factors, float32.
        finite: Boolean scalar: loss and gradient are.
        overflowed: Boolean scalar: only the gradient is not finite, and it was scaled.
        forward: The forward pass itself, a `Forward`.

    Args:
        model_pass: A `TrainingPass`.
        pushforwards: Whether the Jacobian is asked for; without, there is none, nor `whole`.
        scale: What the loss is multiplied with on its way back, or None; the gradient is that of
            the loss itself.
    """

    def __init__(self, model_pass, pushforwards=True, scale=None):
        self.values = [tf.identity(variable.value) for variable in model_pass.variables]
        self.forward: Any = None
        self.whole: Any = None
        self.jacobian: Any = None
        if pushforwards:
            self.forward, J = _linearization(model_pass, self.values)
            self.whole = J
            self.jacobian = to_leaves(J)
        else:
            self.forward = double_gradient.forward_pass("vjp", model_pass, self.values)
        self._measure(self.forward.outputs, self.forward.pull, scale)

    def _measure(self, result, pull, scale):
        """Loss and gradient, from what the pass returned and its pullback."""
        self.loss, self.leaves = result["loss"], result["outputs"]
        nothing = [None] * len(self.leaves)
        start = tf.ones_like(self.loss) if scale is None else tf.cast(scale, self.loss.dtype)
        gradient = pull({"loss": start, "outputs": nothing})
        if scale is not None:
            gradient = nest.scale(1 / scale, gradient)
        self.loss, *self.gradient = replicas.sums([self.loss, *gradient])
        self.finite = tf.math.is_finite(self.loss) & nest.all_finite(self.gradient)
        overflow = tf.math.is_finite(self.loss) & ~self.finite
        self.overflowed = tf.constant(False) if scale is None else overflow
        self.curvature = None
        self.free: Any = None
        self.mean_eigenvalue: Any = None

    def predicted_change(self, step):
        """`⟨g, s⟩ + ½ ⟨s, C s⟩`, this replica's share of it."""
        linear = nest.dot(self.gradient, step) / replicas.count()
        return linear + nest.dot(step, self.curvature._mv(step)) / 2


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
