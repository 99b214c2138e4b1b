"""What is put in place while derivatives are taken, and that nothing of it is left behind."""

import gc
import threading
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.cases import MODES, central_difference, random, relative_error

from keras_fwd import LeakError, hessian, jvp, linearize, vjp
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


# --- functions, to third order --------------------------------------------------------------------


def normalize(x):
    mean, variance = tf.nn.moments(x, [-1], keepdims=True)
    return tf.tanh((x - mean) / tf.sqrt(variance + 1e-3)) * x


def normalize_v1(x):
    mean, variance = tf.compat.v1.nn.moments(x, [0], keep_dims=True)
    return (x - mean) / tf.sqrt(variance + 1e-3) * x


nested = tf.function(normalize)
compiled = tf.function(normalize, jit_compile=True)
FUNCTIONS = {
    "moments": normalize,
    "moments by their older name": normalize_v1,
    "in a nested function": lambda x: nested(x) * x,
    "in a compiled function": lambda x: compiled(x) * x,
    "in a loop": lambda x: tf.while_loop(
        lambda i, x: i < 2, lambda i, x: (i + 1, normalize(x)), (0, x)
    )[1],
    "hypot": lambda x: keras.ops.hypot(x, tf.reverse(x, [-1])) * x,
    "hypot, broadcast": lambda x: keras.ops.hypot(x, x[:1]) * x,
    "hypot on the diagonal": lambda x: keras.ops.hypot(x, 1.0 * x) * x**3,
    "silu": tf.nn.silu,
    "recompute_grad": tf.recompute_grad(normalize),
    "recompute_grad, inside": lambda x: tf.recompute_grad(normalize)(x) * x,
}


needs_hypot = pytest.mark.skipif(
    not hasattr(keras.ops, "hypot"), reason="the oldest versions of Keras have no hypot"
)


def marks(name, mode):
    slow = mode == "eager" or " a " in name
    return [pytest.mark.slow] * slow + [needs_hypot] * ("hypot" in name)


@pytest.mark.parametrize(
    ("name", "mode"),
    [pytest.param(n, m, marks=marks(n, m)) for m in ("eager", "graph") for n in FUNCTIONS],
)
def test_functions_are_exact_to_third_order(name, mode):
    fn, run = FUNCTIONS[name], MODES[mode]
    x, u = random([3, 4]), random([3, 4], 1)

    def first(x):
        return jvp(fn, x, u)[1]

    def second(x):
        return jvp(first, x, u)[1]

    def energy(x):
        return tf.reduce_sum(second(x) ** 2)

    def slope(x):  # the tape is the user's own, outside of the context
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = energy(x)
        return tf.reduce_sum(tape.gradient(value, x) * u)

    assert relative_error(run(first)(x), central_difference(run(fn), x, u)) < 1e-7
    assert relative_error(run(second)(x), central_difference(run(first), x, u)) < 1e-6
    assert relative_error(run(slope)(x), central_difference(run(energy), x, u)) < 1e-5


@needs_hypot
def test_second_derivative_of_hypot_on_an_axis():
    # d²/dy² √(x² + y²) = 1/x at y = 0, where TensorFlow's own composition gives 0.
    H = hessian(lambda p: keras.ops.hypot(p[0], p[1]), tf.constant([2.0, 0.0], tf.float64))
    np.testing.assert_allclose(H.to_dense(), [[0, 0], [0, 0.5]], atol=1e-12)


@pytest.mark.slow
def test_a_function_that_was_differentiated_before_is_traced_anew():
    # TensorFlow keeps the backward function of the first use, in which the mean is constant.
    normalized = tf.function(normalize)
    x, u = random([3, 4]), random([3, 4], 1)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = normalized(x)
    tape.gradient(y, x)

    def first(x):
        return jvp(normalized, x, u)[1]

    assert relative_error(jvp(first, x, u)[1], central_difference(first, x, u)) < 1e-6


def test_recurrent_layers_run_without_cudnn(monkeypatch):
    # As on a machine with a GPU: Keras asks for the kernel, and takes its own loop if it may not.
    asked = []
    kernel = tf.raw_ops.CudnnRNNV3
    monkeypatch.setattr(tf.raw_ops, "CudnnRNNV3", lambda **kwargs: asked.append(1) or kernel())
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind=None: ["a GPU"])
    layer = keras.layers.LSTM(3)
    layer.build([2, 4, 3])
    x, u = random([2, 4, 3], dtype="float32"), random([2, 4, 3], 1, "float32")
    _, pushed = tf.function(lambda x: jvp(layer, x, u), autograph=False)(x)
    assert not asked
    # A long step, for single precision.
    expected = tf.stack(central_difference(layer_loop(layer), x, 1000 * u)) / 1000
    assert relative_error(pushed, expected) < 1e-3


def layer_loop(layer):
    def call(x):
        with sealing.sealed():
            return layer(x)

    return call


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
@pytest.mark.parametrize("derivative", [lambda f, x: jvp(f, x, x), lambda f, x: vjp(f, x, 2 * x)])
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
