"""Rules of projective transforms of images."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.cases import (
    dot,
    random,
    relative_error,
)
from support.rule_checks import IMAGE, LINEAR, Row, check_op

from keras_fwd import jvp, vjp

TURN = [[0.7, -0.9, 3.3, 0.8, 0.75, -2.1, 0.01, -0.02]] * 2


def turned(version):
    """A graph that was made outside, where no function stands in for the op."""
    op = getattr(tf.raw_ops, f"ImageProjectiveTransformV{version}")
    options = {"fill_value": 0.0} if version == 3 else {}

    def fn(x):
        return op(
            images=x,
            transforms=TURN,
            output_shape=[6, 6],
            interpolation="BILINEAR",
            fill_mode="REFLECT",
            **options,
        )

    return fn


#: The row that needs the rule of an op, by the op.
OPS = {
    "ImageProjectiveTransformV2": Row("turn", turned(2), IMAGE, **LINEAR),
    "ImageProjectiveTransformV3": Row("turn", turned(3), IMAGE, **LINEAR),
}


@pytest.mark.parametrize("op", OPS)
def test_the_rule_of_an_op(op, monkeypatch):
    check_op(op, OPS[op], monkeypatch)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("fill", ["constant", "nearest", "reflect", "wrap"])
def test_transforms_of_images(fill, interpolation):
    # A rotation by a large angle, so that much of it is read from outside of the image.
    def fn(x):
        turn = tf.constant([[0.7, -0.9, 3.3, 0.8, 0.75, -2.1, 0.01, -0.02]] * 2)
        return keras.ops.image.affine_transform(x, turn, interpolation, fill, 0.3)

    x, u, w = (random(IMAGE, i, "float32") for i in range(3))
    (y, pushed), (_, pulled) = jvp(fn, x, u), vjp(fn, x, w)
    assert relative_error(pushed, fn(x + u) - y) < 1e-5  # it is affine
    assert abs(dot(pushed, w) - dot(u, pulled)) < 1e-5 * np.linalg.norm(w) * np.linalg.norm(pushed)
    with tf.GradientTape() as tape:  # of the caller, in which TensorFlow's own gradient holds
        tape.watch(x)
        half = tf.reduce_sum(w * jvp(lambda x: fn(x) ** 2 / 2, x, u)[1])
    expected = vjp(fn, x, w * pushed)[1]
    assert relative_error(tape.gradient(half, x), expected) < 1e-5
