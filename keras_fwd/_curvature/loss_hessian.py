"""The loss's Hessian in the outputs, and the Gauss-Newton matrix from it."""

import keras
import tensorflow as tf

from keras_fwd import losses
from keras_fwd._derivatives import double_gradient
from keras_fwd._graphs import scan
from keras_fwd._models import model_losses
from keras_fwd._spaces import given, nest
from keras_fwd._spaces.linear_map import LinearMap
from keras_fwd.errors import ConfigurationError, KerasFwdError, StructureError

#: Losses whose Hessian in the outputs (or logits) has a root in closed form.
_DIAGONAL = frozenset(["squares", "sigmoid", "entrywise"])
_KINDS = {
    keras.losses.mean_squared_error: "squares",
    keras.losses.binary_crossentropy: "sigmoid",
    keras.losses.categorical_crossentropy: "softmax",
    keras.losses.sparse_categorical_crossentropy: "softmax",
}
#: Losses that are sums over the entries of the outputs: their Hessian is diagonal.
_ENTRYWISE = frozenset(
    [
        keras.losses.huber,
        keras.losses.log_cosh,
        losses.cauchy,
        keras.losses.poisson,
        keras.losses.mean_squared_logarithmic_error,
        keras.losses.kl_divergence,
        keras.losses.binary_crossentropy,
        keras.losses.binary_focal_crossentropy,
    ]
)
#: Losses that are linear almost everywhere: they have no curvature to build on.
_FLAT = {
    keras.losses.mean_absolute_error,
    keras.losses.mean_absolute_percentage_error,
    keras.losses.hinge,
    keras.losses.categorical_hinge,
}


def loss_kind(loss, at_logits):
    """Which root its Hessian has: that of `"squares"`, `"sigmoid"`, `"softmax"`, or one of its own.

    `"entrywise"`: its own diagonal, without what is negative. A robust loss so gives each residual
    the weight of its second derivative, as in SciPy, and an outlier none. (Weights by the first
    derivative, as of iteratively reweighted least squares, keep outliers in the curvature, where
    Newton's method has none: the steps then converge linearly.)
    `"general"`: none in closed form.

    Args:
        loss: A Keras loss, a function, or None for an unknown one.
        at_logits: Whether the leaf holds logits.

    Raises:
        ConfigurationError: the loss is not twice differentiable.

    References:
        Triggs et al., Bundle adjustment: a modern synthesis (2000), section 4.3.
    """
    function = model_losses.loss_function(loss)
    if function in _FLAT:
        raise ConfigurationError(
            "Gauss-Newton needs a `loss` that is twice differentiable with curvature in the "
            f'outputs; use "mse", "huber" or "log_cosh". Received: loss={function.__name__!r}, '
            "which is linear almost everywhere."
        )
    kind = _KINDS.get(function, "general")
    if kind != "squares" and (not at_logits or getattr(loss, "axis", -1) != -1):
        kind = "general"
    return "entrywise" if kind == "general" and function in _ENTRYWISE else kind


def loss_gradient(loss_of_leaves, leaves, call="gauss_newton"):
    """The gradient of a scalar function of a list of tensors."""
    value, pull = double_gradient.pullback(loss_of_leaves, leaves, call=call)
    return pull(tf.ones_like(value))


def loss_hessian(loss_of_leaves, leaves, call="gauss_newton"):
    """The Hessian of a scalar function of a list of tensors, as a symmetric `LinearMap`.

    Products inside a loop do not run the loss again.

    Raises:
        ConfigurationError: the loss is not twice differentiable.
    """

    def gradient(points):
        value, pull = double_gradient.pullback(loss_of_leaves, points, call=call)
        if value.shape.rank != 0:
            raise StructureError(
                f"{call}: `loss` must return a scalar; use a reduction. "
                f"Received: {given.describe(value)}."
            )
        gradients = pull(tf.ones_like(value))
        if not tf.executing_eagerly():  # eager calls are traced once, so they come here too
            scan.check_curved(call, points, gradients)
        return gradients

    try:
        _, pull = double_gradient.pullback(gradient, leaves, call=call)
    except KerasFwdError as error:
        raise ConfigurationError(
            f"{call}: `loss` must be twice differentiable in the outputs, with curvature; use "
            f'"mse", "huber", a cross-entropy or another smooth loss. Received: {error}'
        ) from error
    spec = nest.spec(leaves)
    return LinearMap(pull, pull, spec, spec)


def hessian_root(kind, leaf, hessian, columns):
    """`S A` for the root `SᵀS = H` of one leaf's Hessian.

    Args:
        kind: A kind with a closed form.
        leaf: The outputs or logits, `[batch, …, d]`.
        hessian: Function: a vector like the leaf to `H` times it.
        columns: `A`, `[batch, …, d, n]`.

    Returns:
        `S A`, like the columns. Sample weights, masks and reductions are in it, for they are in
        the Hessian's own products.
    """
    if kind in _DIAGONAL:
        # One product with ones is the whole diagonal.
        root = tf.sqrt(tf.maximum(hessian(tf.ones_like(leaf)), 0.0))
        return tf.cast(root, columns.dtype)[..., None] * columns
    # H = c (diag(p) − p pᵀ) = SᵀS with S = √c (diag(√p) − √p pᵀ). One probe e at the likeliest
    # class gives c, for ⟨e, H e⟩ = c p (1 − p).
    p, c = _softmax_and_scale(leaf, hessian)
    p, c = tf.cast(p, columns.dtype), tf.cast(c, columns.dtype)
    mean = tf.einsum("...k,...kn->...n", p, columns)
    root = tf.sqrt(c)[..., None, None] * tf.sqrt(p)[..., None]
    return root * (columns - mean[..., None, :])


def hessian_root_transpose(kind, leaf, hessian):
    """The function `v -> Sᵀ v` on vectors like the leaf, for the root `S` of `hessian_root`."""
    if kind in _DIAGONAL:
        root = tf.sqrt(tf.maximum(hessian(tf.ones_like(leaf)), 0.0))
        return lambda v: root * v
    p, c = _softmax_and_scale(leaf, hessian)

    def product(v):
        w = tf.sqrt(c)[..., None] * tf.sqrt(p) * v
        return w - p * tf.reduce_sum(w, axis=-1, keepdims=True)

    return product


def _softmax_and_scale(leaf, hessian):
    """`p` and `c` of `H = c (diag(p) − p pᵀ)`."""
    p = tf.nn.softmax(leaf)
    probe = tf.one_hot(tf.argmax(p, axis=-1), tf.shape(p)[-1], dtype=p.dtype)
    variance = tf.reduce_sum(probe * p * (1 - p), axis=-1)
    measured = tf.reduce_sum(probe * hessian(probe), axis=-1)
    return p, tf.maximum(tf.math.divide_no_nan(measured, variance), 0.0)
