"""Rules of ops that resize images, each to third order."""

import pytest
import tensorflow as tf
from support.cases import (
    random,
    relative_error,
)
from support.rule_checks import IMAGE, LINEAR, Row, check_op, check_row, of_table, rows

from keras_fwd import jvp


def resize(method, size=9, **options):
    return lambda x: tf.image.resize(x, [size, size + 1], method, **options)


TABLE = [
    Row("nearest", resize("nearest"), IMAGE, **LINEAR),
    Row("nearest, smaller", resize("nearest", 3), IMAGE, **LINEAR),
    Row("bilinear", resize("bilinear"), IMAGE, **LINEAR),
    Row("bilinear, doubled", lambda x: tf.image.resize(x, [12, 12]), IMAGE, xla=True, **LINEAR),
    Row("bilinear, smaller", resize("bilinear", 4), IMAGE, **LINEAR),
    Row(
        "bilinear, aligned",
        lambda x: tf.compat.v1.image.resize_bilinear(x, [4, 8], align_corners=True),
        IMAGE,
        **LINEAR,
    ),
    Row("bicubic", resize("bicubic"), IMAGE, **LINEAR),
    Row("lanczos3", resize("lanczos3"), IMAGE, **LINEAR),
    Row("lanczos5, antialias", resize("lanczos5", 3, antialias=True), IMAGE, **LINEAR),
    Row("gaussian", resize("gaussian"), IMAGE, **LINEAR),
    Row("mitchellcubic", resize("mitchellcubic"), IMAGE, **LINEAR),
    Row("bilinear, antialias", resize("bilinear", 3, antialias=True), IMAGE, **LINEAR),
    Row("bicubic, antialias", resize("bicubic", 3, antialias=True), IMAGE, **LINEAR),
    Row("area", resize("area"), IMAGE, **LINEAR),
    Row("area, smaller", resize("area", 4), IMAGE, **LINEAR),
    Row(
        "area, aligned",
        lambda x: tf.compat.v1.image.resize_area(x, [4, 8], align_corners=True),
        IMAGE,
        **LINEAR,
    ),
]

FAST = {"bilinear", "bicubic"}


#: The row that needs the rule of an op, by the op.
OPS = of_table(
    TABLE,
    ResizeArea="area",
    ResizeBicubicGrad="bicubic",
    ResizeNearestNeighborGrad="nearest",
    ScaleAndTranslateGrad="lanczos3",
    ResizeBilinear="bilinear",
    ScaleAndTranslate="gaussian",
)


@pytest.mark.parametrize("op", OPS)
def test_the_rule_of_an_op(op, monkeypatch):
    check_op(op, OPS[op], monkeypatch)


@rows(TABLE, FAST, OPS)
def test_rules_are_exact(row, mode):
    check_row(row, mode)


@pytest.mark.parametrize("method", ["bilinear", "bicubic", "lanczos3", "area"])
def test_float64_images(method):
    # TensorFlow returns float32, and for some methods has no first gradient of float64 images.
    x, u = random(IMAGE), random(IMAGE, 1)
    y, pushed = jvp(resize(method), x, u)
    assert y.dtype == tf.float32
    assert relative_error(pushed, resize(method)(u)) < 1e-6
