"""Rules of ops that change colors, to third order."""

import pytest
import tensorflow as tf
from support.rule_checks import COLORS, LINEAR, Row, check_op, check_row, of_table, rows

TABLE = [
    Row("adjust_contrast", lambda x: tf.image.adjust_contrast(x, 0.5), COLORS, **LINEAR),
    Row(
        "adjust_contrast by its factor",
        lambda k: tf.raw_ops.AdjustContrastv2(
            images=tf.reshape(tf.linspace(0.0, 1.0, 48) ** 2, COLORS), contrast_factor=k
        ),
        (),
        **LINEAR,
    ),
    Row(
        "adjust_hue",
        lambda x: tf.image.adjust_hue(x, 0.13),
        COLORS,
        single=True,
        positive=True,
    ),
    Row(
        "adjust_saturation",
        lambda x: tf.image.adjust_saturation(x, 0.6),
        COLORS,
        single=True,
        positive=True,
    ),
    Row(
        "adjust_saturation, full",
        lambda x: tf.image.adjust_saturation(x, 9.0),
        COLORS,
        single=True,
        positive=True,
    ),
    Row("hsv_to_rgb", lambda x: tf.image.hsv_to_rgb(x), COLORS, positive=True),
]

FAST = {"hsv_to_rgb"}


#: The row that needs the rule of an op, by the op.
OPS = of_table(
    TABLE,
    AdjustContrastv2="adjust_contrast",
    AdjustHue="adjust_hue",
    AdjustSaturation="adjust_saturation",
)


@pytest.mark.parametrize("op", OPS)
def test_the_rule_of_an_op(op, monkeypatch):
    check_op(op, OPS[op], monkeypatch)


@rows(TABLE, FAST, OPS)
def test_rules_are_exact(row, mode):
    check_row(row, mode)
