"""`gauss_newton`: the Gauss-Newton matrix of a function and a Keras loss, as a `LinearMap`."""

import dataclasses
from typing import Any, Literal

import keras
import tensorflow as tf

from keras_fwd._curvature import loss_hessian
from keras_fwd._derivatives import double_gradient, functional
from keras_fwd._models import model_losses
from keras_fwd._spaces import given, nest
from keras_fwd._spaces.linear_map import LinearMap
from keras_fwd.errors import StructureError
from keras_fwd.typing import Function, Nest, WithRespectTo


@functional.public
def gauss_newton(
    fn: Function,
    loss: Any,
    primals: Nest,
    targets: Nest,
    wrt: WithRespectTo | Literal["outputs"] = "weights",
) -> LinearMap:
    """The Gauss-Newton matrix (GGN) `Jᵀ H J` of a loss, as a `LinearMap`.

    `J` is the Jacobian of the outputs and `H` the Hessian of the loss in them; for a cross-entropy
    of probabilities, both are taken at the logits.

    Args:
        fn: As in `linearize`.
        loss: A Keras loss or its name; for several outputs a nest of them, like the outputs.
        primals: As in `linearize`.
        targets: What the loss compares the outputs with: array-like, or a nest of them.
        wrt: As in `linearize`; default `"weights"`. Or `"outputs"` for `H` itself, on nests like
            the outputs, at the logits where the loss has them.

    Returns:
        Symmetric `LinearMap`, positive semi-definite where the loss is convex in the outputs.

    Raises:
        ConfigurationError: the loss is not twice differentiable, or `wrt` has no meaning.
        LeakError, StructureError: As `linearize`.

    Cost: One forward pass; each product about one gradient.

    References:
        Schraudolph, Fast curvature matrix-vector products, Neural Computation 14 (2002).

    Example:

    >>> W = tf.Variable([[1.0], [1.0]])
    >>> x, y = tf.constant([[1.0, 0.0], [0.0, 2.0]]), tf.constant([[0.0], [0.0]])
    >>> G = gauss_newton(lambda x: x @ W, "mse", x, y, wrt=[W])
    >>> G.to_dense().numpy()
    array([[1., 0.],
           [0., 4.]], dtype=float32)
    """
    place = at_outputs("gauss_newton", fn, loss, primals, wrt)
    for leaf, one, output in zip(place.leaves, place.losses, place.output_leaves, strict=True):
        # Asked only for what it refuses: losses without curvature.
        loss_hessian.loss_kind(one, model_losses.is_logits(leaf, output, one))
    total = place.total(place.losses, nest.flatten(targets))
    return place.pulled_back(loss_hessian.loss_hessian(total, place.leaves))


@dataclasses.dataclass
class AtOutputs:
    """The outputs of a function, where its loss curves, and how they depend on `wrt`.

    Attributes:
        outputs: What the function returned.
        losses: A Keras loss for each leaf of the outputs.
        leaves: The curvature leaves: outputs, or the logits of a cross-entropy.
        J: Their Jacobian, or None where `wrt` is the outputs themselves.
    """

    outputs: Any
    losses: list
    leaves: list
    J: LinearMap | None

    @property
    def output_leaves(self):
        """The leaves of the outputs."""
        return nest.flatten(self.outputs)

    def total(self, losses, targets):
        """The sum of the losses, as a function of the curvature leaves."""

        def total(points):
            pairs = zip(points, self.output_leaves, losses, strict=True)
            outputs = [model_losses.model_output(leaf, output, one) for leaf, output, one in pairs]
            return tf.add_n(list(map(_value, losses, targets, outputs)))

        return total

    def pulled_back(self, H):
        """`Jᵀ H J` for a symmetric map of the curvature leaves."""
        if self.J is not None:
            return self.J.T @ H @ self.J
        spec = nest.pack(self.outputs, H.in_spec)

        def mv(vector):
            return nest.pack(self.outputs, H._mv(nest.flatten(vector)))

        return LinearMap(mv, mv, spec, spec)


def at_outputs(call, fn, loss, primals, wrt):
    """The outputs of `fn` with their losses, for curvature there.

    Args:
        call: Name of the public call.
        fn: As in `linearize`.
        loss: A Keras loss or its name, or a nest of them, like the outputs.
        primals: As in `linearize`.
        wrt: As in `linearize`, or `"outputs"`.
    """
    losses = tf.nest.map_structure(keras.losses.get, loss)
    seen = {}

    def leaves_of(inputs):
        outputs = fn(inputs, training=False) if functional.is_layer(fn) else fn(inputs)
        seen["outputs"] = outputs
        seen["losses"] = _per_leaf(call, losses, outputs)
        pairs = zip(nest.flatten(outputs), seen["losses"], strict=True)
        return [model_losses.curvature_leaf(leaf, one) for leaf, one in pairs]

    if isinstance(wrt, str) and wrt == "outputs":
        functional.check_callable(call, "fn", fn)
        leaves = leaves_of(nest.pack(primals, given.to_tensors(call, "primals", primals)))
        J = None
    else:
        if isinstance(wrt, str) and wrt == "weights":
            # Resolved here: `leaves_of`, which is what is linearized, is a function without any.
            wrt = functional.resolve(call, fn, primals, wrt).sources
        forward, J = double_gradient.linearization(call, leaves_of, primals, wrt)
        leaves = forward.outputs
    return AtOutputs(seen["outputs"], seen["losses"], leaves, J)


def _value(loss, target, output):
    value = loss(target, output)
    return value if isinstance(loss, keras.losses.Loss) else tf.reduce_mean(value)


def _per_leaf(call, losses, outputs):
    flat, count = tf.nest.flatten(losses), len(nest.flatten(outputs))
    if len(flat) != count:
        raise StructureError(
            f"{call}: `loss` must name one loss for each output. Received: "
            f"{len(flat)} losses for {given.describe(outputs)}."
        )
    return flat
