"""Rules of users: functions, layers, and the public checks of them."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.cases import MODES, central_difference, random, relative_error

import keras_fwd
from keras_fwd import ConfigurationError, StructureError, custom_jvp, hessian, jvp, linearize
from keras_fwd.testing import check_adjoint, check_jvp, check_linear_map


@custom_jvp
def softplus(x):
    """ln(1 + eˣ)."""
    return tf.math.log1p(tf.exp(x))


@softplus.defjvp
def _(x, dx):
    return softplus(x), dx * tf.sigmoid(x)


@custom_jvp
def exponential(x):
    return tf.exp(x)


@exponential.defjvp
def _(x, dx):
    y = exponential(x)
    return y, dx * y


W = random([4, 4], 7)


@custom_jvp
def mixed(d):
    return {"y": tf.tanh(d["a"] @ W) * d["b"], "n": d["n"] + 1}


@mixed.defjvp
def _(d, t):
    y = tf.tanh(d["a"] @ W)
    dy = (1 - y**2) * (t["a"] @ W) * d["b"] + y * t["b"]
    return {"y": y * d["b"], "n": d["n"] + 1}, {"y": dy, "n": None}


def loop(x):
    return tf.while_loop(lambda i, x: i < 2, lambda i, x: (i + 1, exponential(tf.sin(x))), (0, x))[
        1
    ]


CASES = {
    "a formula": softplus,
    "a rule that calls the function": lambda x: exponential(tf.sin(x)) * x,
    "a nest with integers": lambda x: mixed({"a": x, "b": tf.sin(x), "n": tf.constant([1])})["y"],
    "in a nested function": tf.function(lambda x: exponential(tf.sin(x))),
    "in a loop": loop,
}
ALL = [
    pytest.param(n, m, marks=[pytest.mark.slow] * (n == "in a loop")) for n in CASES for m in MODES
]


@pytest.mark.parametrize(("name", "mode"), [p for p in ALL if p.values != ("in a loop", "xla")])
def test_rules_are_right_to_third_order(name, mode):
    jit = {"eager": None, "graph": False, "xla": True}[mode]
    x = random([3, 4])
    assert check_jvp(CASES[name], x, order=3, jit_compile=jit) < 1e-4
    assert check_adjoint(CASES[name], x) < 1e-12


@pytest.mark.parametrize("mode", MODES)
def test_a_tape_around_a_jvp(mode):
    x, u = random([4]), random([4], 1)

    def energy(x):
        return tf.reduce_sum(jvp(softplus, x, u)[1] ** 2)

    def slope(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = energy(x)
        return tf.reduce_sum(tape.gradient(value, x) * u)

    found = MODES[mode](slope)(x)
    assert relative_error(found, central_difference(energy, x, u)) < 1e-6


def test_hessian_of_a_rule():
    x = random([4])
    H = hessian(lambda x: tf.reduce_sum(softplus(x)), x).to_dense()
    s = tf.sigmoid(x)
    np.testing.assert_allclose(H, tf.linalg.diag(s * (1 - s)), atol=1e-12)


def test_variables_keep_the_derivative_of_the_functions_own_ops():
    v, x = tf.Variable(random([4], 2)), random([4])

    @custom_jvp
    def scaled(x):
        return tf.sin(x * v)

    scaled.defjvp(lambda x, dx: (tf.sin(x * v), dx * v * tf.cos(x * v)))
    _, J = linearize(scaled, x, wrt=[v])
    np.testing.assert_allclose(J([tf.ones_like(x)]), x * tf.cos(x * v), rtol=1e-12)
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(jvp(scaled, x, x)[1])
    exact = x * (tf.cos(x * v) - x * v * tf.sin(x * v))
    np.testing.assert_allclose(tape.gradient(value, v), exact, rtol=1e-10)


def squares(rule):
    function = custom_jvp(lambda x: x**2)
    function.defjvp(rule)
    return function


def closes_over(x):
    y = tf.sin(x)
    function = custom_jvp(lambda z: z * y)
    function.defjvp(lambda z, dz: (z * y, dz * y))
    return function(x)


REFUSED = {
    "no rule": (custom_jvp(lambda x: x), ConfigurationError, "needs a rule before it is called"),
    "shape": (squares(lambda x, dx: (x**2, dx[:2])), StructureError, r"expected float64\[4\]"),
    "outputs": (squares(lambda x, dx: (x[:1], dx)), StructureError, "`outputs of the rule of"),
    "no pair": (squares(lambda x, dx: dx), StructureError, "must return a pair"),
    "none": (squares(lambda x, dx: (x**2, None)), StructureError, "must be a tensor"),
    "not linear": (squares(lambda x, dx: (x**2, dx**2)), StructureError, "linear in the tangents"),
    "closure": (closes_over, StructureError, "closes over the tensor"),
}


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused(name, mode):
    fn, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        MODES[mode](lambda x: jvp(fn, x, x))(random([4]))


@pytest.mark.parametrize("call", [custom_jvp, softplus.defjvp])
def test_a_rule_must_be_callable(call):
    with pytest.raises(ConfigurationError, match=r"Received: .*=3"):
        call(3)


def test_a_rule_of_zeros_is_taken_at_its_word():
    fn = squares(lambda x, dx: (x**2, tf.zeros_like(dx)))
    np.testing.assert_array_equal(jvp(fn, random([4]), random([4]))[1], np.zeros(4))


# --- the checks themselves ------------------------------------------------------------------------


def test_check_jvp_rejects_a_factor_that_is_a_little_off():
    check_jvp(squares(lambda x, dx: (x**2, 2 * x * dx)), random([4]), order=2)
    with pytest.raises(AssertionError, match=r"order 1: .* differs by 5.*e-04"):
        check_jvp(squares(lambda x, dx: (x**2, 2.001 * x * dx)), random([4]))


def test_check_jvp_rejects_it_at_second_order():
    def rule(x, dx):  # right, with a derivative of 2.001 for 2
        return x**2, (2.001 * x - 0.001 * tf.stop_gradient(x)) * dx

    check_jvp(squares(rule), random([4]))
    with pytest.raises(AssertionError, match="order 2"):
        check_jvp(squares(rule), random([4]), order=2)


def test_check_jvp_by_weights_and_in_single_precision():
    layer = keras.layers.Dense(3, "tanh")
    x = random([2, 4], dtype="float32")
    layer(x)
    before = layer.get_weights()
    assert check_jvp(layer, x, wrt="weights") < 1e-2
    np.testing.assert_array_equal(before[0], layer.get_weights()[0])
    assert check_jvp(tf.sin, x, order=2) < 1e-1
    with pytest.raises(ConfigurationError, match="order=4"):
        check_jvp(tf.sin, x, order=4)


def test_check_adjoint_and_linear_map():
    _, J = linearize(tf.sin, random([4]))
    assert check_linear_map(J) < 1e-12
    wrong = keras_fwd.LinearMap(lambda x: 2 * x, lambda y: 2.001 * y, J.in_spec, J.out_spec)
    with pytest.raises(AssertionError, match="must be the transpose"):
        check_adjoint(wrong)
    curved = keras_fwd.LinearMap(lambda x: x**2, lambda y: y**2, J.in_spec, J.out_spec)
    with pytest.raises(AssertionError, match=r"linear|transpose"):
        check_linear_map(curved)


# --- the layer ------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("tests")
def twice(x):
    return 2.0 * x


@keras.saving.register_keras_serializable("tests")
def rule_of_twice(x, dx):
    return 2.0 * x, 2.0 * dx


@keras.saving.register_keras_serializable("tests")
def rule_of_dense(layer, x, dx):
    y = tf.tanh(x @ tf.convert_to_tensor(layer.kernel) + tf.convert_to_tensor(layer.bias))
    return y, (1 - y**2) * (dx @ tf.convert_to_tensor(layer.kernel))


def model_with_rules():
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input([3]),
            keras_fwd.layers.CustomJVP(twice, rule_of_twice),
            keras_fwd.layers.CustomJVP(layers.Dense(4, "tanh"), rule_of_dense, name="ruled"),
            layers.Dense(2),
        ]
    )


def test_the_layer_is_exact_by_inputs_and_weights(float64):
    model, x = model_with_rules(), random([5, 3])
    assert check_jvp(model, x, order=3) < 1e-4
    assert check_jvp(model, x, wrt="weights") < 1e-6
    assert check_adjoint(model, x, "weights") < 1e-10


@pytest.mark.slow
def test_the_layer_trains_saves_and_loads(tmp_path):
    model, x = model_with_rules(), np.random.default_rng(0).normal(size=[16, 3]).astype("float32")
    plain = keras.Sequential(
        [keras.Input([3]), keras.layers.Dense(4, "tanh"), keras.layers.Dense(2)]
    )
    plain.set_weights(model.get_weights())
    y = np.ones([16, 2])
    for net, data in ((model, x), (plain, 2 * x)):
        net.compile(optimizer=keras_fwd.GaussNewton(), loss="mse")
        net.fit(data, y, epochs=2, verbose=0)
    np.testing.assert_allclose(model.get_weights()[0], plain.get_weights()[0], atol=1e-3)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), model(x))


def test_a_layer_without_a_rule_is_refused():
    with pytest.raises(ConfigurationError, match="`rule` must be a function"):
        keras_fwd.layers.CustomJVP(tf.nn.softplus, None)
