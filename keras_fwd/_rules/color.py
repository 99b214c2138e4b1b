"""Colors: contrast, hue and saturation, which TensorFlow does not differentiate even once."""

import tensorflow as tf

from keras_fwd._graphs import registry


def adjust_contrast(op, cotangent):
    """Rule for `AdjustContrastv2`, `(x − mean) k + mean`; by `x` it is its own transpose."""
    images, factor = op.inputs
    mean = tf.reduce_mean(images, [-3, -2], keepdims=True)
    by_factor = tf.reduce_sum(tf.cast(cotangent * (images - mean), factor.dtype))
    return tf.raw_ops.AdjustContrastv2(images=cotangent, contrast_factor=factor), by_factor


def adjust_hue(op, cotangent):
    """Rule for `AdjustHue`: a turn in HSV space."""
    images, delta = op.inputs
    hsv = tf.image.rgb_to_hsv(images)
    hue, saturation, value = tf.unstack(hsv, axis=-1)
    turned = tf.math.floormod(hue + tf.cast(delta, hue.dtype), 1.0)
    pulled = _pull_to_hsv(tf.stack([turned, saturation, value], axis=-1), cotangent)
    by_delta = tf.reduce_sum(tf.cast(pulled[..., 0], delta.dtype))
    return _pull_to_rgb(images, hsv, pulled), by_delta


def adjust_saturation(op, cotangent):
    """Rule for `AdjustSaturation`: a factor in HSV space, up to full saturation."""
    images, scale = op.inputs
    hsv = tf.image.rgb_to_hsv(images)
    hue, saturation, value = tf.unstack(hsv, axis=-1)
    factor = tf.cast(scale, saturation.dtype)
    scaled = saturation * factor
    # Where the op clips, neither saturation nor factor moves anything.
    free = tf.cast((scaled > 0) & (scaled < 1), scaled.dtype)
    adjusted = tf.stack([hue, tf.clip_by_value(scaled, 0.0, 1.0), value], axis=-1)
    by_hue, by_saturation, by_value = tf.unstack(_pull_to_hsv(adjusted, cotangent), axis=-1)
    by_saturation = by_saturation * free
    pulled = tf.stack([by_hue, by_saturation * factor, by_value], axis=-1)
    by_scale = tf.reduce_sum(tf.cast(by_saturation * saturation, scale.dtype))
    return _pull_to_rgb(images, hsv, pulled), by_scale


def hsv_to_rgb(original):
    """`tf.image.hsv_to_rgb`. TensorFlow marks the op as not differentiable and drops its input."""

    def sealed(images, name=None):
        @tf.custom_gradient
        def function(hsv):
            return original(hsv, name), lambda c: _pull_to_hsv(tf.identity(hsv), c)

        return function(tf.convert_to_tensor(images))

    return sealed


def _pull_to_hsv(hsv, cotangent):
    """`v ((1 − s) + s d(h))`, where `d` is piecewise linear in the hue, pulled back to HSV."""
    hue, saturation, value = tf.split(hsv, 3, axis=-1)
    sixths = 6.0 * hue
    distance = tf.concat(
        [tf.abs(sixths - 3.0) - 1.0, 2.0 - tf.abs(sixths - 2.0), 2.0 - tf.abs(sixths - 4.0)], -1
    )
    sign = tf.concat([tf.sign(sixths - 3.0), -tf.sign(sixths - 2.0), -tf.sign(sixths - 4.0)], -1)
    slope = 6.0 * sign * tf.cast((distance > 0) & (distance < 1), hue.dtype)
    shade = tf.clip_by_value(distance, 0.0, 1.0)
    by_channel = (
        cotangent * value * saturation * slope,
        cotangent * value * (shade - 1.0),
        cotangent * (1.0 + saturation * (shade - 1.0)),
    )
    return tf.concat([tf.reduce_sum(c, axis=-1, keepdims=True) for c in by_channel], axis=-1)


def _pull_to_rgb(images, hsv, cotangent):
    op = registry.Op([images], [hsv], lambda name: images.dtype)
    return registry.own_gradient("RGBToHSV")(op, cotangent)
