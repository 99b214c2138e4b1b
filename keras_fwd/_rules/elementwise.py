"""Ops on each element, and along one axis, whose gradients cannot be differentiated again."""

import tensorflow as tf

from keras_fwd._graphs import registry
from keras_fwd._rules.transposes import local


def softsign_gradient(op, cotangent):
    """Rule for `SoftsignGrad`, `c / (1 + |x|)²`."""
    gradients, x = op.inputs
    scale = 1.0 / (1.0 + tf.abs(x))
    return (
        tf.raw_ops.SoftsignGrad(gradients=cotangent, features=x),
        -2.0 * tf.sign(x) * scale**3 * gradients * cotangent,
    )


def fake_quantize(op, cotangent):
    """Rule for the `FakeQuantWithMinMax…` ops: the identity inside of the range, as TensorFlow's.

    Where the limits are inputs, what lies outside moves with them.
    """
    x, *limits = op.inputs
    attrs = {name: op.get_attr(name) for name in ("num_bits", "narrow_range")}
    ones = tf.ones_like(x)
    if not limits:
        inside = tf.raw_ops.FakeQuantWithMinMaxArgsGradient(
            gradients=ones, inputs=x, min=op.get_attr("min"), max=op.get_attr("max"), **attrs
        )
        return cotangent * tf.stop_gradient(inside)
    low, high = limits
    gradient = tf.raw_ops.FakeQuantWithMinMaxVarsGradient
    if low.shape.rank:
        gradient = tf.raw_ops.FakeQuantWithMinMaxVarsPerChannelGradient
    inside = gradient(gradients=ones, inputs=x, min=low, max=high, **attrs)[0]
    # Zero or one: constant almost everywhere, and its op has no gradient.
    inside = tf.stop_gradient(inside)
    above = tf.cast(x > (low + high) / 2, x.dtype)
    outside = cotangent * (1.0 - inside)
    # Limits are for all of x, or one for each channel of the last axis.
    axes = list(range(len(x.shape) - len(low.shape)))
    return (
        cotangent * inside,
        tf.reduce_sum(outside * (1.0 - above), axes),
        tf.reduce_sum(outside * above, axes),
    )


def euclidean_norm(op, cotangent):
    """Rule for `EuclideanNorm`, `x c / ‖x‖`; TensorFlow's divides by `c`, which may be zero."""
    x, axes = op.inputs
    norm = op.outputs[0]
    if not op.get_attr("keep_dims"):
        axes = tf.reshape(axes, [-1])
        axes = tf.where(axes < 0, axes + tf.rank(x), axes)
        shape = tf.tensor_scatter_nd_update(tf.shape(x), axes[:, None], tf.ones_like(axes))
        norm, cotangent = tf.reshape(norm, shape), tf.reshape(cotangent, shape)
    return x * (cotangent / norm), None


def cumulative_logsumexp(op, cotangent):
    """Rule for `CumulativeLogsumexp`; the derivative of TensorFlow's is NaN at a zero cotangent."""
    x, axis = op.inputs
    attrs = {name: op.get_attr(name) for name in ("exclusive", "reverse")}
    return _LogSumExp(axis, **attrs).pull(x, cotangent), None


class _LogSumExp:
    """`y = log Σ exp(x)` over those before, with `p_ij = exp(x_i − y_j)` its derivatives.

    The pushforward `Σ_i t_i p_ij` and the pullback `Σ_j c_j p_ij` have derivatives that are made
    of the two again.
    """

    def __init__(self, axis, exclusive, reverse):
        self.axis = axis
        self.exclusive = exclusive
        self.reverse = reverse

    def push(self, x, tangent):
        """Tangents, to be differentiated to any order."""
        return self._linear(x, tangent, forward=True)

    def pull(self, x, cotangent):
        """Cotangents, to be differentiated to any order."""
        return self._linear(x, cotangent, forward=False)

    def _linear(self, x, vector, forward):
        here = _LogSumExp(tf.identity(self.axis), self.exclusive, self.reverse)

        @tf.custom_gradient
        def function(x, vector):
            def gradient(other):
                x_, vector_, other_ = local([x, vector, other])
                t, c = (vector_, other_) if forward else (other_, vector_)
                by_x = t * here.pull(x_, c) - here.pull(x_, c * here.push(x_, t))
                return by_x, (here.pull if forward else here.push)(x_, other_)

            return here._value(x, vector, forward), gradient

        return function(*local([x, vector]))

    def _value(self, x, vector, forward):
        y = self._sum(x, self.reverse)
        empty = y < x.dtype.min / 2  # nothing comes before: the logarithm of zero

        def half(part):  # the sum over the positive or the negative components, by logarithms
            logs = tf.where(part > 0, tf.math.log(tf.where(part > 0, part, 1.0)), x.dtype.min)
            if forward:
                total = self._sum(x + logs, self.reverse)
                some = ~empty & (total > x.dtype.min / 2)
                return tf.where(some, tf.exp(tf.where(some, total - y, 0.0)), 0.0)
            total = self._sum(tf.where(empty, x.dtype.min, logs - y), not self.reverse)
            some = total > x.dtype.min / 2
            return tf.where(some, tf.exp(tf.where(some, total + x, 0.0)), 0.0)

        return half(vector) - half(-vector)

    def _sum(self, logs, reverse):
        return tf.raw_ops.CumulativeLogsumexp(
            x=tf.maximum(logs, logs.dtype.min),
            axis=self.axis,
            exclusive=self.exclusive,
            reverse=reverse,
        )


def normalization_gradient(op, cotangent):
    """Rule for `LRNGrad`: `c n⁻ᵝ − 2αβ x W(c x n⁻ᵝ⁻¹)` with `n = bias + α W(x²)`.

    `W` sums over the neighboring channels. The outputs, a third input, are a function of `x`.
    """
    c, x, _ = op.inputs
    alpha, beta = op.get_attr("alpha"), op.get_attr("beta")
    radius, channels = op.get_attr("depth_radius"), tf.shape(x)[-1]
    ones = tf.ones([channels, channels], x.dtype)
    band = tf.linalg.band_part(ones, tf.minimum(radius, channels), tf.minimum(radius, channels))

    def window(v):
        return tf.einsum("...i,ij->...j", v, band)

    t, n = cotangent, op.get_attr("bias") + alpha * window(x**2)
    down, tx, cx = n ** (-beta - 1), window(t * x), window(c * x * n ** (-beta - 1))
    by_c = t * n**-beta - 2 * alpha * beta * x * down * tx
    inner = -beta * t * c * down + 2 * alpha * beta * (beta + 1) * tx * c * x * down / n
    by_x = 2 * alpha * x * window(inner) - 2 * alpha * beta * (t * cx + tx * c * down)
    return by_c, by_x, None


# Activations whose derivative takes fewer passes over memory by a formula of its own.


def silu(original):
    """`tf.nn.silu`: TensorFlow computes the sigmoid again for the derivative, and more around."""
    del original

    def sealed(features, beta=1.0):
        features = tf.convert_to_tensor(features, name="features")
        beta = tf.cast(tf.convert_to_tensor(beta, name="beta"), features.dtype)
        if beta.shape.rank == 0:
            return _silu(features, beta)
        return features * tf.sigmoid(beta * features)

    return sealed


@tf.custom_gradient
def _silu(features, beta):
    """x σ(βx); its slope, σ + βx σ(1 − σ), is one op more than the sigmoid."""
    scaled = beta * features
    sigmoid = tf.sigmoid(scaled)

    def gradient(cotangent):
        slope = sigmoid + tf.raw_ops.SigmoidGrad(y=sigmoid, dy=scaled)
        by_beta = cotangent * tf.raw_ops.SigmoidGrad(y=sigmoid, dy=features**2)
        return cotangent * slope, tf.reduce_sum(by_beta)

    return features * sigmoid, gradient


# Functions of complex numbers whose gradients XLA gets wrong.
#
# The backward kernels of TensorFlow conjugate what they read, as the gradient of a function of
# complex numbers must; those of XLA do not. The rules below use ops that both compute alike.


def reciprocal(op, cotangent):
    """Rule for `Reciprocal` and `Inv`: `(1/x)' = −1/x²`."""
    y = tf.math.conj(op.outputs[0])
    return -cotangent * y * y


def sqrt(op, cotangent):
    """Rule for `Sqrt`: `(√x)' = ½/√x`."""
    return cotangent / (2 * tf.math.conj(op.outputs[0]))


def rsqrt(op, cotangent):
    """Rule for `Rsqrt`: `(1/√x)' = −½ (1/√x)³`."""
    y = tf.math.conj(op.outputs[0])
    return cotangent * y * y * y / -2


def where_complex(op_type, rule):
    """The rule for complex numbers, TensorFlow's own for others."""

    def either(op, cotangent):
        if cotangent.dtype.is_complex:
            return rule(op, cotangent)
        return registry.own_gradient(op_type)(op, cotangent)

    return either
