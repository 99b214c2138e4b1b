"""Activations whose derivative takes fewer passes over memory by a formula of its own."""

import tensorflow as tf


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
