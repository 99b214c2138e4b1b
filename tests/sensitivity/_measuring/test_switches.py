"""Discrete inputs: the exact effect of switching their value."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_fwd.errors import ConfigurationError
from keras_fwd.sensitivity import sensitivity_report


def color_model(dtype, lookup=None):
    """y = size · table[color] + table[color]², from an input of that dtype."""
    color = keras.Input([1], dtype=dtype, name="color")
    size = keras.Input([1], dtype="float64", name="size")
    index = color if lookup is None else lookup(color)
    table = keras.layers.Embedding(4, 1, dtype="float64", embeddings_initializer="normal")
    value = keras.layers.Flatten(dtype="float64")(table(index))
    product = keras.layers.Multiply(dtype="float64")([value, size])
    square = keras.layers.Multiply(dtype="float64")([value, value])
    return keras.Model([color, size], keras.layers.Add(dtype="float64")([product, square])), table


def data(n=60):
    random = np.random.default_rng(0)
    return random.choice([0, 1, 2], size=(n, 1), p=[0.2, 0.5, 0.3]), random.normal(size=(n, 1))


@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_an_embedded_input_is_switched_exactly_whatever_its_dtype(dtype):
    model, table = color_model(dtype)
    color, size = data()
    report = sensitivity_report(model, {"color": color.astype(dtype), "size": size})
    counts = np.bincount(color[:, 0])
    first, *others = np.argsort(-counts)
    names = ("size", *(f"color: {first} → {other}" for other in others))
    assert report.feature_names == names
    assert report.kinds == ("derivative", "switch", "switch")
    values = table.get_weights()[0][:, 0].astype(float)
    for row, other in enumerate(others, start=1):
        d = size[:, 0] * (values[other] - values[first]) + values[other] ** 2 - values[first] ** 2
        np.testing.assert_allclose(report.mean[row, 0], d.mean(), rtol=1e-6)
        np.testing.assert_allclose(report.rms[row, 0], np.sqrt((d**2).mean()), rtol=1e-6)
        share = counts[other] / len(color)
        np.testing.assert_allclose(report.feature_std[row], np.sqrt(share * (1 - share)))
    assert np.isnan(report.elasticity[1:]).all()
    assert any(note.startswith("Exact effects of switching a value") for note in report.notes)


def test_the_total_index_of_a_switch_is_that_of_jansen():
    """For y = x + table[color], the color's total index is its share of the variance."""
    random = np.random.default_rng(1)
    color = keras.Input([1], dtype="int32", name="color")
    size = keras.Input([1], dtype="float64", name="size")
    table = keras.layers.Embedding(3, 1, dtype="float64")
    value = keras.layers.Flatten(dtype="float64")(table(color))
    model = keras.Model([color, size], keras.layers.Add(dtype="float64")([value, size]))
    table.set_weights([np.array([[0.0], [1.0], [3.0]])])
    codes = random.choice([0, 1, 2], size=(4000, 1), p=[0.5, 0.3, 0.2])
    report = sensitivity_report(model, [codes, random.normal(size=(4000, 1))])
    spread = np.array([0.0, 1.0, 3.0])[codes[:, 0]].var()
    wanted = spread / report.output_std[0] ** 2
    np.testing.assert_allclose(report.total_index_bound[1:, 0], wanted, rtol=0.02)
    both = {"all": ["color", "size"]}
    grouped = sensitivity_report(model, [codes, random.normal(size=(4000, 1))], groups=both)
    total = grouped.groups.measures["total_index_bound"].value[0, 0]
    np.testing.assert_allclose(total, 1.0, rtol=0.15)


def test_text_inputs_are_switched():
    lookup = keras.layers.StringLookup(vocabulary=["blue", "green", "red"], num_oov_indices=1)
    model, table = color_model("string", lookup)
    color = tf.constant([["red"], ["blue"], ["red"], ["green"], ["red"], ["blue"]])
    report = sensitivity_report(model, {"color": color, "size": np.zeros((6, 1))})
    assert report.feature_names == ("size", "color: red → blue", "color: red → green")
    values = table.get_weights()[0][:, 0].astype(float)
    np.testing.assert_allclose(report.mean[1, 0], values[1] ** 2 - values[3] ** 2, rtol=1e-6)


def quadratic():
    """y = x₀ + 2 x₁² + x₀ x₂ in float64."""

    def call(x):
        return (x[:, 0] + 2 * x[:, 1] ** 2 + x[:, 0] * x[:, 2])[:, None]

    layer = keras.layers.Lambda(call, dtype="float64")
    return keras.Sequential([keras.Input([3], dtype="float64"), layer])


def test_an_integer_code_in_a_column_of_numbers_is_switched_when_declared():
    random = np.random.default_rng(2)
    x = random.normal(size=(40, 3))
    x[:, 1] = random.choice([1.0, 2.0], size=40, p=[0.7, 0.3])
    report = sensitivity_report(quadratic(), x, ["a", "code", "c"], discrete=["code"])
    assert report.feature_names == ("a", "c", "code: 1 → 2")
    np.testing.assert_allclose(report.mean[2, 0], 2 * (4 - 1), rtol=1e-12)
    np.testing.assert_allclose(report.measures["mean"].stderr[2], 0.0, atol=1e-12)
    only = sensitivity_report(quadratic(), x, ["a", "code", "c"], discrete="code", features="code")
    assert only.feature_names == ("code: 1 → 2",)
    np.testing.assert_allclose(only.mean, report.mean[2:], rtol=1e-12)


def test_a_one_hot_code_is_switched_as_a_whole():
    random = np.random.default_rng(3)
    x = random.normal(size=(30, 3))
    x[:, :2] = np.eye(2)[random.choice(2, size=30, p=[0.8, 0.2])]
    report = sensitivity_report(
        quadratic(), x, ["red", "blue", "c"], one_hot={"color": ["red", "blue"]}
    )
    assert report.feature_names == ("c", "color: red → blue")
    wanted = 2 - (1 + x[:, 2])
    np.testing.assert_allclose(report.mean[1, 0], wanted.mean(), rtol=1e-12)


def test_values_beyond_ten_and_lonely_ones_are_noted():
    model, _ = color_model("int32")
    size = np.random.default_rng(0).normal(size=(30, 1))
    report = sensitivity_report(model, [np.zeros((30, 1), int), size])
    assert any("With one value only" in note for note in report.notes)
    wide = keras.layers.Embedding(30, 1, dtype="float64")
    tokens = keras.Input([1], dtype="int32", name="token")
    model = keras.Model(tokens, keras.layers.Flatten(dtype="float64")(wide(tokens)))
    report = sensitivity_report(model, np.arange(30)[:, None])
    assert len(report.feature_names) == 9
    assert any("10 most frequent values" in note for note in report.notes)


def test_too_many_switches_are_refused():
    tokens = keras.Input([400], dtype="int32")
    table = keras.layers.Embedding(10, 1)(tokens)
    model = keras.Model(tokens, keras.layers.GlobalAveragePooling1D()(table))
    with pytest.raises(ConfigurationError, match="at most 1000 switches"):
        sensitivity_report(model, np.random.default_rng(0).integers(0, 10, (20, 400)))
