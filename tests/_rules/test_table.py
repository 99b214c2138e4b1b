"""The table of rules: every row is in use, has a case of its own, and a wrong one is caught."""

import numpy as np
import pytest
import tensorflow as tf
import test_color
import test_convolution
import test_cropping
import test_elementwise
import test_indexing
import test_pooling
import test_projection
import test_resizing
from support.cases import (
    MODES,
    random,
)
from support.rule_checks import Row, check_op, check_orders, errors

from keras_fwd._graphs import registry
from keras_fwd._rules import table
from keras_fwd._rules.transposes import transposes

CASES = [
    test_color,
    test_convolution,
    test_cropping,
    test_elementwise,
    test_indexing,
    test_pooling,
    test_projection,
    test_resizing,
]


def without_a_case(rules, modules):
    """The ops of a table of rules of which no file has a case."""
    return rules.keys() - {op for module in modules for op in module.OPS}


def test_every_row_of_the_table_has_a_case_that_is_fast_and_named_after_its_op():
    missing = without_a_case(table.REGISTERED | table.SEALED, CASES)
    assert not missing, f"give them a row in OPS of a file in tests/_rules/: {sorted(missing)}"


def test_every_case_is_of_a_row_and_beside_the_others_of_its_module():
    for module in CASES:
        for op in module.OPS:
            rule = (table.REGISTERED | table.SEALED)[op]
            assert rule.__module__.rpartition(".")[2] == module.__name__.removeprefix("test_"), op


def test_a_new_row_has_no_case():
    assert without_a_case({"Brand": None, "Tile": None}, CASES) == {"Brand"}


def test_a_case_that_needs_no_rule_is_found(monkeypatch):
    with pytest.raises(AssertionError, match="needs the rule of Tile"):
        check_op("Tile", Row("a product", lambda x: 2 * x, (2,)), monkeypatch)


def test_registered_gradients_serve_plain_tapes():
    x = random([3])
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            y = tf.nn.softsign(x)
        slope = inner.gradient(y, x)
    exact = -2 * tf.sign(x) / (1 + tf.abs(x)) ** 3
    np.testing.assert_allclose(outer.gradient(slope, x), exact, rtol=1e-12)


def test_no_gradient_of_tensorflows_own_is_replaced():
    # One that it brings some day is kept.
    before = registry.lookup("MatMul")
    registry.register({"MatMul": lambda op, c: (c, c)})
    assert registry.lookup("MatMul") is before and "MatMul" not in registry.added


def test_every_row_of_the_table_is_in_use():
    for op in table.REGISTERED:
        assert op in registry.added or registry.state(op) == "known"
    for op in table.SEALED:
        assert registry.state(op) in ("known", "none"), op


@pytest.mark.parametrize("order", [1, 2])
def test_a_wrong_rule_is_caught(order, monkeypatch):
    def wrong(op, cotangent):
        by_c, by_x = table.REGISTERED["SoftsignGrad"](op, cotangent)
        return (by_c * 2.001 / 2, by_x) if order == 1 else (by_c, by_x * 2.001 / 2)

    monkeypatch.setitem(registry._registry._registry["SoftsignGrad"], "type", wrong)
    x, u = random([5]), random([5], 1)
    found = errors(tf.nn.softsign, x, u, 1e-5, MODES["graph"])
    assert found[order - 1] > 1e-5


def off_by_little(op, cotangent):
    multiples = op.inputs[1]
    push, pull = (lambda t, m: tf.tile(t, m)), (lambda c, _: c[:, :2] + 1.001 * c[:, 2:])
    return transposes(push, pull, multiples)[1](cotangent), None


def off_at_second_order(op, cotangent):
    x, y = op.inputs
    return tf.stop_gradient(y) * cotangent, x * cotangent


@pytest.mark.parametrize(
    ("op", "rule", "fn", "order"),
    [
        ("Tile", off_by_little, lambda x: tf.tile(x, [1, 2]), 1),
        ("Mul", off_at_second_order, lambda x: x * tf.sin(x), 2),
    ],
    ids=["Tile", "Mul"],
)
def test_a_rule_that_is_wrong_by_little_is_caught(op, rule, fn, order, monkeypatch):
    check_orders(fn, [3, 2], "graph", [order])
    monkeypatch.setitem(table.SEALED, op, rule)
    with pytest.raises(AssertionError):
        check_orders(fn, [3, 2], "graph", [order])
