"""`gauss_newton`: the Gauss-Newton matrix of a function and a Keras loss, as a `LinearMap`."""

from typing import Any

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
    fn: Function, loss: Any, primals: Nest, targets: Nest, wrt: WithRespectTo = "weights"
) -> LinearMap:
    """The Gauss-Newton matrix (GGN) `Jᵀ H J` of a loss, as a `LinearMap`.

    `J` is the Jacobian of the outputs and `H` the Hessian of the loss in them; for a cross-entropy
    of probabilities, both are taken at the logits.

    Args:
        fn: As in `linearize`.
        loss: A Keras loss or its name; for several outputs a nest of them, like the outputs.
        primals: As in `linearize`.
        targets: What the loss compares the outputs with: array-like, or a nest of them.
        wrt: As in `linearize`; default `"weights"`.

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
    losses = tf.nest.map_structure(keras.losses.get, loss)
    seen = {}

    def leaves_of(inputs):
        outputs = fn(inputs, training=False) if functional.is_layer(fn) else fn(inputs)
        seen["outputs"] = outputs
        seen["losses"] = _per_leaf(losses, outputs)
        pairs = zip(nest.flatten(outputs), seen["losses"], strict=True)
        return [model_losses.curvature_leaf(leaf, one) for leaf, one in pairs]

    if isinstance(wrt, str) and wrt == "weights":
        wrt = functional.resolve("gauss_newton", fn, primals, wrt).sources
    leaves, J = double_gradient.linearize(leaves_of, primals, wrt)
    for leaf, one, output in zip(
        leaves, seen["losses"], nest.flatten(seen["outputs"]), strict=True
    ):
        loss_hessian.loss_kind(one, model_losses.is_logits(leaf, output, one))
    targets = nest.flatten(targets)

    def total(points):
        pairs = zip(points, nest.flatten(seen["outputs"]), seen["losses"], strict=True)
        outputs = [model_losses.model_output(leaf, output, one) for leaf, output, one in pairs]
        return tf.add_n(list(map(_value, seen["losses"], targets, outputs)))

    return J.T @ loss_hessian.loss_hessian(total, leaves) @ J


def _value(loss, target, output):
    value = loss(target, output)
    return value if isinstance(loss, keras.losses.Loss) else tf.reduce_mean(value)


def _per_leaf(losses, outputs):
    flat, count = tf.nest.flatten(losses), len(nest.flatten(outputs))
    if len(flat) != count:
        raise StructureError(
            "gauss_newton: `loss` must name one loss for each output. Received: "
            f"{len(flat)} losses for {given.describe(outputs)}."
        )
    return flat
