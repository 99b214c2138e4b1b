"""How well a classifier of images in [0, 1] holds under noise and under an attack."""

import keras
import numpy as np
import tensorflow as tf


def accuracy(model, x, y):
    """The share of images whose largest logit is at the label."""
    return float(np.mean(np.argmax(model.predict(x, batch_size=500, verbose=0), axis=1) == y))


def noisy(x, deviation, seed=0):
    """Images with normal noise added, and clipped to [0, 1]."""
    noise = np.random.default_rng(seed).normal(size=x.shape).astype(x.dtype)
    return np.clip(x + deviation * noise, 0, 1)


def pgd(model, x, y, epsilon=0.1, steps=10, batch_size=500, seed=0):
    """Projected gradient descent (Madry 2018): within ±epsilon of each pixel, inside [0, 1].

    A random start, and steps of 2.5 epsilon / steps along the sign of the gradient of the loss.

    Args:
        model: Classifier that returns logits.
        x: Images, float32.
        y: Labels.
    """
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")

    @tf.function
    def step(moved, start, labels):
        with tf.GradientTape() as tape:
            tape.watch(moved)
            value = loss(labels, model(moved, training=False))
        moved += 2.5 * epsilon / steps * tf.sign(tape.gradient(value, moved))
        moved = tf.clip_by_value(moved, start - epsilon, start + epsilon)
        return tf.clip_by_value(moved, 0.0, 1.0)

    shift = np.random.default_rng(seed).uniform(-epsilon, epsilon, x.shape).astype(x.dtype)
    found = []
    for begin in range(0, len(x), batch_size):
        start = tf.constant(x[begin : begin + batch_size])
        moved = tf.clip_by_value(start + shift[begin : begin + batch_size], 0.0, 1.0)
        for _ in range(steps):
            moved = step(moved, start, tf.constant(y[begin : begin + batch_size]))
        found.append(moved.numpy())
    return np.concatenate(found)
