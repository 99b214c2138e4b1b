"""`directional_derivatives` and `laplacian` against closed forms and central differences."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.cases import (
    CASES,
    MODES,
    central_difference,
    float64,  # noqa: F401 - a fixture
    random,
    random_like,
    relative_error,
)

from keras_fwd import (
    ConfigurationError,
    LeakError,
    StructureError,
    directional_derivatives,
    hessian,
    jacobian,
    jvp,
    laplacian,
)

pytestmark = pytest.mark.usefixtures("float64")

modes = pytest.mark.parametrize("mode", MODES)
layers = keras.layers


def case(name):
    return next(case for case in CASES if case.id == name)


def layer_normalized():
    parts = [layers.Dense(4, "tanh"), layers.LayerNormalization(), layers.Dense(2)]
    return keras.Sequential([keras.Input([3]), *parts])


def built(model, shape):
    for i, variable in enumerate(model.variables):
        variable.assign(random(variable.shape, 50 + i))
    return model, random(shape, 1)


# --- directional_derivatives ----------------------------------------------------------------------


@modes
def test_derivatives_of_a_sine_are_the_closed_form(mode):
    x, u = random([3]), random([3], 1)
    derivatives = MODES[mode](lambda x, u: directional_derivatives(tf.sin, x, u, 4))(x, u)
    assert len(derivatives) == 5
    for k, actual in enumerate(derivatives):
        assert relative_error(actual, u.numpy() ** k * np.sin(x + k * np.pi / 2)) < 1e-14


@modes
def test_derivatives_of_a_nest_are_the_closed_form(mode):
    primals = {"a": random([2]), "n": tf.constant([2, 1]), "b": [random([], 1)]}
    direction = {"a": random([2], 2), "n": None, "b": [random([], 3)]}

    def fn(p):
        n = tf.cast(p["n"], tf.float64)
        return tf.exp(p["a"] * p["b"][0]), {"power": p["b"][0] ** 3, "n": n * p["a"]}

    def third(primals):
        outputs = directional_derivatives(fn, primals, direction, 3)[-1]
        return outputs[0], outputs[1]["power"], outputs[1]["n"]

    exponential, power, linear = MODES[mode](third)(primals)
    a, b, da, db = (
        v.numpy() for v in (primals["a"], primals["b"][0], direction["a"], direction["b"][0])
    )
    p, dp, ddp = a * b, da * b + a * db, 2 * da * db  # the product and its derivatives; p''' = 0
    assert relative_error(exponential, np.exp(p) * (dp**3 + 3 * dp * ddp)) < 1e-13
    assert relative_error(power, 6 * db**3) < 1e-14
    assert not np.any(linear)


def test_integer_outputs_take_no_derivative():
    f, df = directional_derivatives(lambda x: (x**2, tf.constant(7)), 3.0, 1.0, 1)
    assert [int(y) for y in f] == [9, 7]
    assert float(df[0]) == 6
    assert df[1] is None


ORDERS = [("dense", 4), ("conv", 3), ("attention", 2), ("batch_normalization_training", 3)]


@pytest.mark.slow
@modes
@pytest.mark.parametrize(("name", "order"), ORDERS, ids=[name for name, _ in ORDERS])
def test_each_order_is_the_central_difference_of_the_one_before(name, order, mode):
    fn, _ = case(name).function()
    x, u = case(name).inputs(), random(case(name).shape, 7)
    series = MODES["graph"](lambda x: tf.stack(directional_derivatives(fn, x, u, order)))
    actual = MODES[mode](lambda x: tf.stack(directional_derivatives(fn, x, u, order)))(x)
    expected = central_difference(series, x, u)
    for k in range(1, order + 1):
        assert relative_error(actual[k], expected[k - 1]) < 1e-6
    assert relative_error(actual[0], fn(x)) < 1e-14
    assert relative_error(actual[1], jvp(fn, x, u)[1]) < 1e-13


@pytest.mark.slow
def test_fourth_order_through_a_loop():
    fn, _ = case("lstm").function()
    x, u = case("lstm").inputs(), random(case("lstm").shape, 7)
    series = MODES["graph"](lambda x: tf.stack(directional_derivatives(fn, x, u, 4)))
    actual, expected = series(x), central_difference(series, x, u)
    for k in range(1, 5):
        assert relative_error(actual[k], expected[k - 1]) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("mode", [pytest.param("eager", marks=pytest.mark.slow), "graph"])
def test_second_order_through_a_loop(mode):
    fn, _ = case("lstm").function()
    x, u = case("lstm").inputs(), random(case("lstm").shape, 7)
    actual = MODES[mode](lambda x: directional_derivatives(fn, x, u, 2))(x)
    expected = central_difference(lambda x: jvp(fn, x, u)[1], x, u)
    assert relative_error(actual[2], expected) < 1e-7


def test_layer_normalization_is_exact_to_fourth_order():
    model, x = built(layer_normalized(), [2, 3])
    u = random([2, 3], 2)
    series = MODES["graph"](lambda x: tf.stack(directional_derivatives(model, x, u, 4)))
    actual, expected = series(x), central_difference(series, x, u)
    for k in range(1, 5):
        assert relative_error(actual[k], expected[k - 1]) < 1e-6


@modes
def test_linear_and_piecewise_linear_functions_have_no_second_derivative(mode):
    x, u, A = random([3]), random([3], 1), random([3, 3], 2)
    for fn in (lambda x: tf.linalg.matvec(A, x), lambda x: tf.nn.relu(tf.linalg.matvec(A, x))):
        run = MODES[mode](lambda x, fn=fn: directional_derivatives(fn, x, u, 3))
        _, first, *higher = run(x)
        assert relative_error(first, jvp(fn, x, u)[1]) < 1e-14
        assert not np.any(higher)


def test_order_zero_is_the_function():
    (y,) = directional_derivatives(lambda x: [x**2, tf.shape(x)], random([2]), random([2], 1), 0)
    assert relative_error(y[0], random([2]) ** 2) == 0
    assert y[1].numpy() == [2]


def test_orders_above_four_are_exact_too():
    x = random([2])
    *_, sixth = MODES["graph"](lambda x: directional_derivatives(tf.exp, x, 2 * x, 6))(x)
    assert relative_error(sixth, np.exp(x) * (2 * x.numpy()) ** 6) < 1e-13


def test_derivatives_keep_the_dtype_of_each_output():
    x = random([2], dtype="float32")

    def fn(x):
        return x**3, tf.cast(x, tf.float64) ** 3, tf.cast(x, tf.float16) ** 3

    *lower, third = directional_derivatives(fn, x, tf.ones_like(x), 3)
    for derivative in (*lower, third):
        assert [y.dtype for y in derivative] == [tf.float32, tf.float64, tf.float16]
    assert relative_error(third[:2], np.full(4, 6.0)) < 1e-6
    assert relative_error(third[2], np.full(2, 6.0)) < 1e-3


def test_taylor_series_predicts_the_function():
    fn, _ = case("dense").function()
    x, u = case("dense").inputs(), random(case("dense").shape, 7)
    series = directional_derivatives(fn, x, u, 4)
    h = 1e-2
    predicted = sum(h**k / math.factorial(k) * d for k, d in enumerate(series))
    error = relative_error(predicted, fn(x + h * u))
    assert 1e-14 < error < 1e-7


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_own_tape_differentiates_second_derivatives_by_the_weights(mode):
    model, variables = case("dense").function()
    x, u = case("dense").inputs(), random(case("dense").shape, 7)
    w = random_like(variables, 20)

    def penalty(x):
        return tf.reduce_sum(directional_derivatives(model, x, u, 2)[2] ** 2)

    def gradient(x):
        with tf.GradientTape() as tape:
            value = penalty(x)
        return tape.gradient(value, [v.value for v in variables])

    gradients = MODES[mode](gradient)(x)
    slope = sum(tf.reduce_sum(g * d) for g, d in zip(gradients, w, strict=True))
    values = [v.value for v in variables]
    expected = central_difference(MODES["graph"](penalty), x, w, values)
    assert relative_error(slope, expected) < 1e-6


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_own_tape_differentiates_by_point_and_direction(mode):
    x, u = random([3]), random([3], 1)

    def gradients(x, u):
        with tf.GradientTape() as tape:
            tape.watch([x, u])
            value = tf.reduce_sum(directional_derivatives(tf.sin, x, u, 3)[3])
        return tape.gradient(value, [x, u])

    by_point, by_direction = MODES[mode](gradients)(x, u)
    x, u = x.numpy(), u.numpy()
    assert relative_error(by_point, u**3 * np.sin(x)) < 1e-13
    assert relative_error(by_direction, -3 * u**2 * np.cos(x)) < 1e-13


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_functions_that_differentiate_themselves(mode):
    fn, _ = case("dense").function()
    x, u = case("dense").inputs(), random(case("dense").shape, 7)
    expected = directional_derivatives(fn, x, u, 3)

    def run(x):
        inside = directional_derivatives(lambda x: jvp(fn, x, u)[1], x, u, 2)
        outside = jvp(lambda x: directional_derivatives(fn, x, u, 2)[2], x, u)[1]
        return [*inside, outside]

    for actual, wanted in zip(MODES[mode](run)(x), [*expected[1:], expected[3]], strict=True):
        assert relative_error(actual, wanted) < 1e-12


def test_derivatives_with_an_unknown_batch_size():
    fn, _ = case("dense").function()
    spec = tf.TensorSpec([None, 3], "float64")
    run = tf.function(lambda x: directional_derivatives(fn, x, x, 2), input_signature=[spec])
    for batch in (4, 2):
        x = random([batch, 3])
        assert relative_error(run(x), directional_derivatives(fn, x, x, 2)) < 1e-13


def test_branches_of_python_over_tensors_run_in_eager_code():
    def fn(x):
        if tf.reduce_sum(x) > 0:
            return x**3
        return x**2

    assert float(directional_derivatives(fn, 2.0, 1.0, 2)[2]) == 12
    assert float(directional_derivatives(fn, -2.0, 1.0, 2)[2]) == 2


def test_eager_calls_see_what_changed_around_the_function():
    scale = 1.0

    def fn(x):
        return scale * x**2

    assert float(directional_derivatives(fn, 3.0, 1.0, 1)[1]) == 6
    scale = 2.0
    assert float(directional_derivatives(fn, 3.0, 1.0, 1)[1]) == 12


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_a_leak_is_named(mode):
    def fn(x):
        return x**2 + tf.ensure_shape(tf.numpy_function(np.sin, [x], x.dtype), x.shape)

    with pytest.raises(LeakError, match=r"directional_derivatives: .* Received: op PyFunc"):
        MODES[mode](lambda x: directional_derivatives(fn, x, x, 2))(random([2]))
    with pytest.raises(LeakError, match=r"laplacian: .* Received: op PyFunc"):
        MODES[mode](lambda x: laplacian(fn, x))(random([2, 1]))


@pytest.mark.parametrize("order", [-1, 1.0, True, None, "2"])
def test_order_is_a_number_of_times(order):
    with pytest.raises(
        ConfigurationError, match=r"`order` must be a whole number of at least 0.* Received: ord"
    ):
        directional_derivatives(tf.sin, 1.0, 1.0, order)


def test_bad_points_and_directions_are_refused():
    x = random([2])
    with pytest.raises(StructureError, match="directional_derivatives: `direction` must have"):
        directional_derivatives(tf.sin, x, random([3]), 2)
    with pytest.raises(StructureError, match="`primals` holds no floating-point tensor"):
        directional_derivatives(tf.abs, tf.constant(1), None, 2)
    with pytest.raises(StructureError, match="must depend on"):
        directional_derivatives(lambda _: tf.ones([2]), x, x, 2)
    with pytest.raises(ConfigurationError, match="`fn` must be a function"):
        directional_derivatives(None, x, x, 2)


# --- laplacian ------------------------------------------------------------------------------------


@modes
@pytest.mark.parametrize("shape", [[3], [4, 3], [2, 4, 3]], ids=str)
def test_laplacian_is_the_closed_form_for_any_leading_axes(shape, mode):
    x = random(shape)
    k = random([3], 1)

    def waves(x):
        phase = tf.reduce_sum(k * x, axis=-1)
        return {"sine": tf.sin(phase), "both": tf.stack([tf.cos(phase), phase], axis=-1)}

    actual = MODES[mode](lambda x: laplacian(waves, x))(x)
    phase, square = np.sum(k * x, axis=-1), np.sum(k**2)
    assert actual["sine"].shape == tuple(shape[:-1])
    assert relative_error(actual["sine"], -square * np.sin(phase)) < 1e-13
    assert relative_error(actual["both"][..., 0], -square * np.cos(phase)) < 1e-13
    assert not np.any(actual["both"][..., 1])


@modes
def test_laplacian_is_the_trace_of_each_example_s_hessian(mode):
    fn, _ = case("batch_normalization").function()
    x = case("batch_normalization").inputs()[:2]
    actual = MODES[mode](lambda x: laplacian(fn, x))(x)
    for example in range(len(x)):
        for output in range(2):

            def scalar(row, output=output):
                return fn(row[None])[0, output]

            matrix = hessian(scalar, x[example]).to_dense()
            assert relative_error(actual[example, output], np.trace(matrix)) < 1e-11


def test_laplacian_is_the_central_difference():
    model, x = built(layer_normalized(), [4, 3])
    actual = laplacian(model, x)
    slopes = [
        central_difference(lambda x, e=e: jvp(model, x, e)[1], x, e)
        for e in (np.broadcast_to(row, [4, 3]) for row in np.eye(3))
    ]
    assert relative_error(actual, sum(slopes)) < 1e-6


@modes
def test_laplacian_sums_over_all_inputs_of_a_nest(mode):
    primals = {"x": random([4, 1]), "yz": (random([4, 2], 1), tf.constant([1, 2, 3, 4]))}

    def fn(p):
        (yz, n), x = p["yz"], p["x"][:, 0]
        return x**2 * yz[:, 0] ** 3 + tf.cast(n, tf.float64) * yz[:, 1] ** 4

    actual = MODES[mode](lambda p: laplacian(fn, p))(primals)
    x, (y, z) = primals["x"].numpy()[:, 0], primals["yz"][0].numpy().T
    assert relative_error(actual, 2 * y**3 + 6 * x**2 * y + 12 * np.arange(1, 5) * z**2) < 1e-13


@modes
@pytest.mark.parametrize("chunk_size", [2, 5])
def test_laplacian_is_the_same_for_every_chunk_size(chunk_size, mode):
    x = random([3, 5])

    def fn(x):
        return tf.sin(x[:, 0] * x[:, 1]) + tf.exp(x[:, 2]) * x[:, 3] ** 2 * x[:, 4], x[:, 4]

    expected = laplacian(fn, x)
    actual = MODES[mode](lambda x: laplacian(fn, x, chunk_size=chunk_size))(x)
    assert relative_error(actual, expected) < 1e-13


@modes
@pytest.mark.parametrize("chunk_size", [None, 1])
def test_own_tape_trains_on_the_laplacian(chunk_size, mode):
    model, variables = case("dense").function()
    x, w = case("dense").inputs(), random_like(variables, 20)

    def penalty(x):
        return tf.reduce_sum(laplacian(model, x, chunk_size) ** 2)

    def gradient(x):
        with tf.GradientTape() as tape:
            value = penalty(x)
        return tape.gradient(value, [v.value for v in variables])

    gradients = MODES[mode](gradient)(x)
    slope = sum(tf.reduce_sum(g * d) for g, d in zip(gradients, w, strict=True))
    values = [v.value for v in variables]
    expected = central_difference(MODES["graph"](penalty), x, w, values)
    assert relative_error(slope, expected) < 1e-6


def test_laplacian_by_inputs_and_of_laplacians():
    x = random([4, 2])

    def fn(x):  # ΔΔ = (1 + 4)² sin(x + 2 y)
        return tf.sin(x[:, 0] + 2 * x[:, 1])

    actual = tf.function(lambda x: laplacian(lambda x: laplacian(fn, x), x))(x)
    assert relative_error(actual, 25 * fn(x)) < 1e-12
    rows = jacobian(lambda x: laplacian(fn, x), x, per_example=True)
    assert relative_error(rows[:, 1], -10 * np.cos(x[:, 0] + 2 * x[:, 1])) < 1e-12


@pytest.mark.slow
def test_laplacian_of_a_recurrent_model():
    fn, _ = case("lstm").function()
    x = random([2, 2])

    def over_time(x):  # every step sees the same point
        return fn(tf.repeat(x[:, None], 4, axis=1))

    actual = tf.function(lambda x: laplacian(over_time, x))(x)
    slopes = [
        central_difference(lambda x, e=e: jvp(over_time, x, e)[1], x, e)
        for e in (np.broadcast_to(row, [2, 2]) for row in np.eye(2))
    ]
    assert relative_error(actual, sum(slopes)) < 1e-6


def test_laplacian_with_an_unknown_batch_size():
    fn, _ = case("dense").function()
    spec = tf.TensorSpec([None, 3], "float64")
    run = tf.function(lambda x: laplacian(fn, x), input_signature=[spec])
    for batch in (4, 2):
        x = random([batch, 3])
        assert relative_error(run(x), laplacian(fn, x)) < 1e-13


@modes
def test_laplacian_of_a_linear_function_is_zero(mode):
    A = random([3, 2])
    assert not np.any(MODES[mode](lambda x: laplacian(lambda x: x @ A, x))(random([4, 3])))


def test_laplacian_keeps_dtypes_and_integer_outputs():
    value, count = laplacian(lambda x: (x**2, tf.shape(x)), random([3, 1], dtype="float32"))
    assert value.dtype == tf.float32
    assert relative_error(value, np.full([3, 1], 2.0)) == 0
    assert count is None


def test_laplacian_refuses_what_has_no_last_axis():
    with pytest.raises(StructureError, match="laplacian: every floating-point input must have a l"):
        laplacian(tf.sin, 1.0)
    spec = tf.TensorSpec([2, None], "float64")
    with pytest.raises(StructureError, match="last axis of static size"):
        tf.function(lambda x: laplacian(tf.sin, x)).get_concrete_function(spec)
    with pytest.raises(StructureError, match="must depend on"):
        laplacian(lambda _: tf.ones([2]), random([2, 2]))


@pytest.mark.parametrize("chunk_size", [0, -1, 2.0])
def test_laplacian_refuses_a_bad_chunk_size(chunk_size):
    with pytest.raises(
        ConfigurationError, match=r"`chunk_size` must be a whole number of at least 1.* Received"
    ):
        laplacian(tf.sin, random([2, 2]), chunk_size)
