"""What is put in place while derivatives are taken, and that nothing of it is left behind."""

import gc
import threading
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.cases import MODES, central_difference, random, relative_error

from keras_fwd import LeakError, jvp, linearize, vjp
from keras_fwd._graphs import registry
from keras_fwd._rules import sealing, stand_ins, table

modes = pytest.mark.parametrize("mode", ["eager", "graph"])


def snapshot():
    """TensorFlow's and Keras' own functions and gradients, as they are now."""
    gradients = {op: registry.lookup(op) for op in table.SEALED if registry.state(op) != "missing"}
    holders = {(id(h), name): getattr(h, name) for h, name, _ in stand_ins.table()}
    return gradients, holders


def test_nothing_is_left_in_place():
    before = snapshot()
    model = keras.Sequential([keras.Input([4]), keras.layers.LayerNormalization()])
    x = random([2, 4], dtype="float32")
    with pytest.raises(LeakError):
        jvp(lambda x: tf.numpy_function(np.sin, [model(x)], tf.float32) + x, x, x)
    jvp(model, x, x)
    assert snapshot() == before


def test_rules_hold_inside_alone_and_may_be_nested():
    own = tf.nn.moments
    with sealing.sealed():
        with sealing.sealed():
            pass
        assert tf.nn.moments is not own
        with sealing.unsealed(), sealing.sealed():
            mean, variance = tf.nn.moments(tf.constant([1.0, 3.0]), [0])
    assert tf.nn.moments is own
    np.testing.assert_allclose([mean, variance], [2.0, 1.0])


def second_derivative_of_variance():
    x = tf.constant([1.0, 2.0, 4.0], tf.float64)
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            y = tf.nn.moments(x, [0])[1]
        gradient = inner.gradient(y, x)
    return outer.jacobian(gradient, x).numpy()


def test_another_thread_sees_tensorflow_as_it_is():
    exact = 2 / 3 * (np.eye(3) - 1 / 3)
    found = {}

    def other():
        found["other"] = second_derivative_of_variance()

    with sealing.sealed():
        found["this"] = second_derivative_of_variance()
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    np.testing.assert_allclose(found["this"], exact, atol=1e-12)
    assert np.abs(found["other"] - exact).max() > 0.1


def normalize(x):
    mean, variance = tf.nn.moments(x, [-1], keepdims=True)
    return tf.tanh((x - mean) / tf.sqrt(variance + 1e-3)) * x


# --- what no rule can mend is raised --------------------------------------------------------------


def ignoring(constant):
    @tf.custom_gradient
    def function(x):
        return x**3, lambda dy: constant(x, dy)

    return function


IGNORING = {
    "the derivative alone": lambda x, dy: 3 * x**2,
    "a number": lambda x, dy: tf.ones_like(x),
    "the shape alone": lambda x, dy: 2.0 * tf.ones_like(dy),
}


@modes
@pytest.mark.parametrize(
    "derivative",
    [lambda f, x: jvp(f, x, x), lambda f, x: vjp(f, x, 2 * x)],
    ids=["jvp", "vjp"],
)
@pytest.mark.parametrize("name", IGNORING)
def test_a_rule_that_ignores_its_cotangent_is_found_beside_a_skip(name, derivative, mode):
    rule = ignoring(IGNORING[name])
    with pytest.raises(LeakError, match="does not depend on it"):
        MODES[mode](lambda x: derivative(lambda x: rule(x) + x, x))(random([3]))


@modes
def test_a_rule_that_returns_zeros_is_taken_at_its_word(mode):
    rule = ignoring(lambda x, dy: tf.zeros_like(x))
    _, pushed = MODES[mode](lambda x: jvp(lambda x: rule(x) + x, x, x))(random([3]))
    np.testing.assert_allclose(pushed, random([3]))


def exported():
    """A variance that was traced outside: no seal reaches it."""
    concrete = tf.function(normalize).get_concrete_function(tf.TensorSpec([3, 4], tf.float64))
    return lambda x: concrete(x)


@modes
def test_a_first_derivative_of_an_exported_variance_is_exact(mode):
    fn, x, u = exported(), random([3, 4]), random([3, 4], 1)
    _, pushed = MODES[mode](lambda x: jvp(fn, x, u))(x)
    assert relative_error(pushed, central_difference(fn, x, u)) < 1e-7


@modes
@pytest.mark.parametrize(
    "derivative",
    [
        lambda fn, x, u: jvp(fn, x, u)[1],
        lambda fn, x, u: linearize(fn, x)[1](u),
        lambda fn, x, u: linearize(fn, x)[1].T(u),
        lambda fn, x, u: vjp(fn, x, u)[1],
    ],
    ids=["jvp", "linearize", "linearize-T", "vjp"],
)
def test_a_second_one_by_a_tape_of_the_users_own_is_refused(derivative, mode):
    fn, u = exported(), random([3, 4], 1)

    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = tf.reduce_sum(derivative(fn, x, u) ** 2)
        return tape.gradient(value, x)

    for _ in range(2):  # the second call in eager code does not trace again
        with pytest.raises(LeakError, match="holds the mean constant"):
            MODES[mode](gradient)(random([3, 4]))


STATE = tf.Variable(tf.zeros([3], tf.float64))


@tf.function(autograph=False)
def write(x):
    STATE.assign(x**2)
    return 2 * x


WRITTEN = {
    "nested": lambda x: write(x) + STATE,
    "twice nested": lambda x: tf.function(lambda x: write(x))(x) + STATE,
    "in a loop": lambda x: (
        STATE + tf.while_loop(lambda i, x: i < 2, lambda i, x: (i + 1, write(x)), (0, x))[1]
    ),
    "in a branch": lambda x: tf.cond(x[0] > 9, lambda: x, lambda: write(x)) + STATE,
}


@modes
@pytest.mark.parametrize("name", WRITTEN)
def test_a_variable_written_inside_and_read_outside_is_found(name, mode):
    with pytest.raises(LeakError, match="op AssignVariableOp"):
        MODES[mode](lambda x: jvp(WRITTEN[name], x, x))(random([3]))


@modes
def test_a_variable_written_inside_and_not_read_is_no_leak(mode):
    _, pushed = MODES[mode](lambda x: jvp(lambda x: STATE + 0 * x + write(x), x, x))(random([3]))
    np.testing.assert_allclose(pushed, 2 * random([3]))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_graphs_are_forgotten_with_what_was_traced(mode):
    """TensorFlow keeps the graph of each tf.custom_gradient for good; ours may not add to that."""

    def graph_of_one_trace():
        graphs = []

        def fn(x):
            if not tf.executing_eagerly():
                graphs.append(weakref.ref(tf.compat.v1.get_default_graph()))
            return tf.nn.max_pool2d(tf.nn.softsign(tf.image.resize(x, [4, 4])), 2, 2, "SAME")

        x = random([1, 2, 2, 1], dtype="float32")
        MODES[mode](lambda x: jvp(fn, x, x)[1])(x)
        return graphs

    before = set(registry._registry._registry)
    graphs = graph_of_one_trace()
    gc.collect()
    assert graphs and all(graph() is None for graph in graphs)
    assert set(registry._registry._registry) - before == set()
