"""Rules of `crop_and_resize`, by its images and by its boxes, to third order."""

import pytest
import tensorflow as tf
from support.cases import (
    random,
)
from support.rule_checks import IMAGE, LINEAR, Row, check_op, check_row, of_table, rows

PICTURES = random((2, 4, 5, 3), 3, "float32")

TABLE = [
    Row(
        "crop_and_resize",
        lambda x: tf.image.crop_and_resize(x, [[0.1, 0.0, 0.7, 1.2]] * 2, [0, 1], [4, 4]),
        IMAGE,
        **LINEAR,
    ),
    Row(
        "crop_and_resize, nearest",
        lambda x: tf.image.crop_and_resize(
            x, [[0.1, 0.0, 0.7, 1.0]] * 2, [0, 1], [4, 4], method="nearest"
        ),
        IMAGE,
        **LINEAR,
    ),
    Row(
        "crop_and_resize by boxes",
        lambda boxes: tf.image.crop_and_resize(PICTURES, boxes, [1, 0, 1], [4, 1]),
        (3, 4),
        single=True,
        positive=True,
    ),
    Row(
        "crop_and_resize by both",
        lambda x: tf.image.crop_and_resize(
            x[..., :2], 1.5 * tf.reshape(x[..., 0], [-1, 4])[:3] - 0.2, [1, 0, 1], [3, 4]
        ),
        (2, 4, 5, 3),
        single=True,
        positive=True,
    ),
]

FAST = ()


#: The row that needs the rule of an op, by the op.
OPS = of_table(
    TABLE,
    CropAndResizeGradBoxes="crop_and_resize by boxes",
    CropAndResizeGradImage="crop_and_resize",
)


@pytest.mark.parametrize("op", OPS)
def test_the_rule_of_an_op(op, monkeypatch):
    check_op(op, OPS[op], monkeypatch)


@rows(TABLE, FAST, OPS)
def test_rules_are_exact(row, mode):
    check_row(row, mode)
