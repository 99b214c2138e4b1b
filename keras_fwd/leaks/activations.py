"""Activations whose derivatives are cheaper, or more of them right, without a rule."""

import tensorflow as tf


def silu(original):
    """`tf.nn.silu` by its formula: TensorFlow's own rule computes the sigmoid again each time."""
    del original

    def sealed(features, beta=1.0):
        features = tf.convert_to_tensor(features, name="features")
        beta = tf.cast(tf.convert_to_tensor(beta, name="beta"), features.dtype)
        return features * tf.sigmoid(beta * features)

    return sealed
