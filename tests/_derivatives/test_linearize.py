"""`linearize`, `jvp` and `vjp`: exact in eager code, in graphs and under XLA; one forward pass."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.cases import (
    CASES,
    MODES,
    central_difference,
    dot,
    flat,
    float64,  # noqa: F401 - a fixture
    random,
    random_like,
    relative_error,
)

from keras_fwd import jvp, linearize, vjp

pytestmark = pytest.mark.usefixtures("float64")


def grid():
    for case in CASES:
        for wrt in ("inputs", "weights"):
            for mode in MODES:
                if case.xla or mode != "xla":
                    slow = case.slow and mode == "xla"
                    marks = [pytest.mark.slow] if slow else []
                    yield pytest.param(case, wrt, mode, marks=marks, id=f"{case.id}-{wrt}-{mode}")


def sources(x, variables, wrt):
    """What is differentiated by, and a random tangent for it."""
    if wrt == "inputs":
        return "inputs", None, random(x.shape, seed=2)
    return variables, [v.value for v in variables], random_like(variables, seed=2)


# --- exact ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("case", "wrt", "mode"), list(grid()))
def test_pushforward_equals_central_difference_and_pullback_is_its_transpose(case, wrt, mode):
    fn, variables = case.function()
    x = case.inputs()
    wrt, values, u = sources(x, variables, wrt)

    @MODES[mode]
    def products(x, u, w):
        y, J = linearize(fn, x, wrt)
        return y, J(u), J.T(w)

    w = random(fn(x).shape, seed=3)
    y, pushed, pulled = products(x, u, w)
    assert relative_error(y, fn(x)) < 1e-14
    assert relative_error(pushed, central_difference(fn, x, u, values)) < 1e-7
    gap = abs(dot(pushed, w) - dot(u, pulled))
    assert gap < 1e-12 * (np.linalg.norm(flat(pushed)) * np.linalg.norm(flat(w)))


@pytest.mark.parametrize("wrt", ["inputs", "weights"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_dense_matrix_equals_tape_jacobian(case, wrt):
    fn, variables = case.function()
    wrt, values, _ = sources(case.inputs(), variables, wrt)

    @MODES["graph"]
    def both(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = fn(x)
        blocks = tf.nest.flatten(
            tape.jacobian(y, x if values is None else values, experimental_use_pfor=False)
        )
        expected = [tf.reshape(b, [tf.size(y), -1]) for b in blocks]
        return linearize(fn, x, wrt)[1].to_dense(chunk_size=8), tf.concat(expected, axis=1)

    actual, expected = both(case.inputs())
    assert relative_error(actual, expected) < 1e-12


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wrt", ["inputs", "weights"])
def test_jvp_and_vjp_equal_the_linear_map(mode, wrt):
    fn, variables = CASES[0].function()
    x = CASES[0].inputs()
    w = random([3, 2], seed=3)
    wrt, _, u = sources(x, variables, wrt)

    @MODES[mode]
    def one_shot(x, u, w):
        return jvp(fn, x, u, wrt), vjp(fn, x, w, wrt)

    y, J = linearize(fn, x, wrt)
    (y_jvp, pushed), (y_vjp, pulled) = one_shot(x, u, w)
    assert relative_error([y_jvp, y_vjp], [y, y]) < 1e-14
    assert relative_error(pushed, J(u)) < 1e-14
    assert relative_error(pulled, J.T(w)) < 1e-14


def test_a_rule_off_by_one_part_in_two_thousand_fails_the_central_difference():
    @tf.custom_gradient
    def square(x):
        return x * x, lambda dy: 2.001 * x * dy

    x, u = random([3]), random([3], seed=2)
    _, pushed = jvp(square, x, u)
    error = relative_error(pushed, central_difference(square, x, u))
    assert 4e-4 < error < 6e-4


def test_the_adjoint_gap_alone_does_not_see_a_wrong_rule():
    @tf.custom_gradient
    def square(x):
        return x * x, lambda dy: 2.001 * x * dy

    x, u, w = (random([3], seed) for seed in range(3))
    _, J = linearize(square, x)
    assert dot(J(u), w) == pytest.approx(dot(u, J.T(w)), rel=1e-14)


# --- nests ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_nests_in_and_out_keep_their_structure(mode):
    primals = {"a": random([2]), "b": (random([2], 1), [random([1], 2)])}
    tangents = tf.nest.map_structure(lambda x: x * x + 1, primals)
    cotangents = [random([2], 3), {"c": random([], 4)}]

    def fn(p):
        return [p["a"] * p["b"][0], {"c": tf.reduce_sum(p["a"] * p["b"][1][0])}]

    @MODES[mode]
    def products(primals, tangents, cotangents):
        _, J = linearize(fn, primals)
        return J(tangents), J.T(cotangents)

    (a, b, [c]), (da, db, [dc]) = ((p["a"], *p["b"]) for p in (primals, tangents))
    w, v = cotangents[0], cotangents[1]["c"]
    pushed, pulled = products(primals, tangents, cotangents)
    tf.nest.assert_same_structure(pushed, cotangents)
    tf.nest.assert_same_structure(pulled, primals)
    expected = [da * b + a * db, {"c": tf.reduce_sum(da * c + a * dc)}]
    assert relative_error(pushed, expected) < 1e-14
    expected = {"a": b * w + c * v, "b": (a * w, [tf.reshape(tf.reduce_sum(a) * v, [1])])}
    assert relative_error(pulled, expected) < 1e-14


@pytest.mark.parametrize("mode", MODES)
def test_functional_model_with_several_inputs_and_outputs(mode):
    left, right = keras.Input([2], name="left"), keras.Input([3], name="right")
    hidden = keras.layers.Dense(3, "tanh")(keras.layers.Concatenate()([left, right]))
    outputs = {"sum": keras.layers.Dense(1)(hidden), "gate": hidden * right}
    model = keras.Model({"left": left, "right": right}, outputs)
    x = {"left": random([2, 2]), "right": random([2, 3], 1)}
    u = {"left": random([2, 2], 2), "right": random([2, 3], 3)}
    _, pushed = MODES[mode](lambda x, u: jvp(model, x, u))(x, u)

    def at(t):
        return model(tf.nest.map_structure(lambda a, b: a + t * b, x, u))

    h = 1e-5
    expected = tf.nest.map_structure(lambda a, b: (a - b) / (2 * h), at(h), at(-h))
    assert pushed.keys() == {"sum", "gate"}
    assert relative_error(pushed, expected) < 1e-7


@pytest.mark.parametrize("make", [tf.Variable, keras.Variable])
def test_wrt_takes_a_nest_of_variables(make):
    a, b = make(random([2])), make(random([2], 1))
    u = {"a": random([2], 2), "b": [random([2], 3)]}
    _, J = linearize(lambda x: x * a * b, random([2], 4), wrt={"a": a, "b": [b]})
    x, a, b = (v.numpy() for v in (random([2], 4), a, b))
    assert relative_error(J(u), x * (u["a"] * b + a * u["b"][0])) < 1e-14
    pulled = J.T(tf.ones([2], "float64"))
    assert relative_error(pulled["a"], x * b) < 1e-14
    assert relative_error(pulled["b"], x * a) < 1e-14


@pytest.mark.parametrize("mode", MODES)
def test_embedding_has_a_dense_cotangent(mode):
    layer = keras.layers.Embedding(5, 3)
    tokens = tf.constant([[1, 1], [4, 0]])
    layer(tokens)
    u, w = random([5, 3], 1), random([2, 2, 3], 2)

    @MODES[mode]
    def products(u, w):
        _, J = linearize(layer, tokens, wrt="weights")
        return J([u]), J.T(w)

    pushed, [pulled] = products(u, w)
    assert not isinstance(pulled, tf.IndexedSlices)
    assert relative_error(pushed, tf.gather(u, tokens)) < 1e-15
    expected = tf.tensor_scatter_nd_add(tf.zeros_like(u), tokens[..., None], w)
    assert relative_error(pulled, expected) < 1e-15


@pytest.mark.parametrize("mode", MODES)
def test_gather_inside_fn(mode):
    x, u, w = random([4, 2]), random([4, 2], 1), random([3, 2], 2)
    rows = tf.constant([3, 0, 3])

    @MODES[mode]
    def products(x, u, w):
        _, J = linearize(lambda x: tf.gather(x, rows) ** 2, x)
        return J(u), J.T(w)

    pushed, pulled = products(x, u, w)
    assert relative_error(pushed, 2 * tf.gather(x * u, rows)) < 1e-15
    assert dot(pushed, w) == pytest.approx(dot(u, pulled), rel=1e-13)


@pytest.mark.parametrize("mode", MODES)
def test_integer_leaves_take_no_tangent(mode):
    primals = {"x": random([4]), "rows": tf.constant([2, 0])}

    @MODES[mode]
    def products(primals):
        u = {"x": tf.ones([4], "float64"), "rows": None}
        outputs, J = linearize(lambda p: (tf.gather(p["x"], p["rows"]) ** 2, p["rows"]), primals)
        return outputs, J(u)[0], J.T((tf.ones([2], "float64"), None))["x"]

    outputs, pushed, pulled = products(primals)
    assert outputs[1].numpy().tolist() == [2, 0]
    x = primals["x"].numpy()
    assert relative_error(pushed, 2 * x[[2, 0]]) < 1e-15
    assert relative_error(pulled, [2 * x[0], 0, 2 * x[2], 0]) < 1e-15


def test_integer_leaves_are_none_in_tangents_and_pulled_back_cotangents():
    primals = [random([2]), tf.constant(3)]
    outputs, J = linearize(lambda p: {"y": p[0] ** 2, "n": p[1] + 1}, primals)
    assert J([random([2]), None])["n"] is None
    assert J.T({"y": random([2]), "n": None})[1] is None
    assert int(outputs["n"]) == 4


def test_leaves_that_outputs_do_not_depend_on_get_zeros():
    primals = {"used": random([2]), "unused": random([3])}
    _, J = linearize(lambda p: {"y": p["used"] ** 2, "constant": tf.ones([2])}, primals)
    pushed = J({"used": random([2]), "unused": random([3])})
    assert pushed["constant"].numpy().tolist() == [0, 0]
    pulled = J.T({"y": random([2]), "constant": tf.ones([2])})
    assert pulled["unused"].numpy().tolist() == [0, 0, 0]


def test_batch_size_may_be_unknown_while_tracing():
    fn, _ = CASES[0].function()
    x, u, w = (random(s, i) for i, s in enumerate([(5, 3), (5, 3), (5, 2)]))
    spec = tf.TensorSpec([None, 3], "float64")

    @tf.function(input_signature=[spec, spec, tf.TensorSpec([None, 2], "float64")])
    def products(x, u, w):
        _, J = linearize(fn, x)
        return J(u), J.T(w)

    pushed, pulled = products(x, u, w)
    assert relative_error(pushed, central_difference(fn, x, u)) < 1e-7
    assert dot(pushed, w) == pytest.approx(dot(u, pulled), rel=1e-12)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [("float16", 2e-3), ("bfloat16", 2e-2), ("float32", 1e-6), ("float64", 1e-15)],
)
def test_dtypes_are_kept(dtype, tolerance, mode):
    x, u = random([3], dtype=dtype), random([3], 1, dtype)
    y, pushed = MODES[mode](lambda x, u: jvp(lambda x: tf.sin(x) * x, x, u))(x, u)
    assert y.dtype == pushed.dtype == tf.as_dtype(dtype)
    x, u = (np.asarray(t, "float64") for t in (x, u))
    assert relative_error(pushed, (np.cos(x) * x + np.sin(x)) * u) < tolerance


def test_numpy_arrays_are_inputs_and_tangents():
    x, u = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    y, pushed = jvp(lambda x: x**2, x, u)
    assert y.dtype == tf.float64
    assert pushed.numpy().tolist() == [6.0, 16.0]


# --- one forward pass -----------------------------------------------------------------------------


def forward(x):
    return tf.reduce_sum(tf.math.atan(x) * tf.constant([[1.0, 2.0]], x.dtype), axis=1)


def op_types(graph):
    """The op types of a graph, and of each function that it holds by name."""
    bodies = graph.as_graph_def().library.function
    inside = {f.signature.name: [n.op for n in f.node_def] for f in bodies}
    return [op.type for op in graph.get_operations()], inside


def test_forward_pass_is_in_the_graph_once_however_often_the_map_is_used():
    @tf.function
    def f(x):
        y, J = linearize(forward, x)
        return y, J(x), J(2 * x), J.T(y), J.T(2 * y), (J.T @ J)(x)

    top, inside = op_types(f.get_concrete_function(tf.TensorSpec([4, 2])).graph)
    assert top.count("Atan") == 1
    assert not any("Atan" in ops for ops in inside.values())


def test_forward_pass_stays_outside_of_a_while_loop():
    @tf.function
    def power(x):
        _, J = linearize(forward, x)
        gram = J.T @ J
        return tf.while_loop(lambda i, u: i < 3, lambda i, u: (i + 1, gram(u)), [0, x])[1]

    x = random([4, 2], dtype="float32")
    top, inside = op_types(power.get_concrete_function(x).graph)
    assert top.count("Atan") == 1
    assert not any("Atan" in ops for ops in inside.values())
    matrix = linearize(forward, x)[1].to_dense().numpy()
    expected = np.linalg.matrix_power(matrix.T @ matrix, 3) @ x.numpy().ravel()
    assert relative_error(power(x), expected) < 1e-5


def counted(calls):
    def fn(x):
        calls.append(x)
        return forward(x)

    return fn


@pytest.mark.parametrize("call", [jvp, vjp])
def test_fn_is_called_once_in_a_graph(call):
    calls = []
    fn = counted(calls)
    x = random([4, 2])
    tangent = x if call is jvp else random([4])
    tf.function(lambda x, t: call(fn, x, t))(x, tangent)
    assert len(calls) == 1


def test_fn_is_called_once_for_many_products_in_eager_code_after_one_trace():
    calls = []
    fn = counted(calls)
    x = random([4, 2])
    _, J = linearize(fn, x)
    for _ in range(3):
        J(x)
        J.T(random([4]))
    assert len(calls) == 2
    linearize(fn, x)
    assert len(calls) == 3


def test_no_retrace_on_a_second_call_with_the_same_shapes():
    fn, _ = CASES[0].function()
    f = tf.function(lambda x, u: jvp(fn, x, u))
    f(random([2, 3]), random([2, 3], 1))
    f(random([2, 3], 2), random([2, 3], 3))
    assert f.experimental_get_tracing_count() == 1


# --- nested and beside other derivatives ----------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_jvp_of_jvp_is_the_second_derivative(mode):
    def first(x):
        return jvp(lambda x: tf.sin(x) * x, x, tf.ones_like(x))[1]

    x = random([3])
    _, second = MODES[mode](lambda x: jvp(first, x, tf.ones_like(x)))(x)
    assert relative_error(second, 2 * np.cos(x) - x * np.sin(x)) < 1e-14


@pytest.mark.parametrize("mode", MODES)
def test_perturbations_of_nested_calls_are_not_confused(mode):
    # d/dx [x · d/dy (x y)] = d/dx x² = 2x; confusing the perturbations gives x or 3x.
    def outer(x):
        return x * jvp(lambda y: x * y, tf.ones_like(x), tf.ones_like(x))[1]

    x = random([1])
    _, derivative = MODES[mode](lambda x: jvp(outer, x, tf.ones_like(x)))(x)
    assert relative_error(derivative, 2 * x) < 1e-15


@pytest.mark.parametrize("mode", MODES)
def test_perturbations_at_the_same_tensor_are_not_confused(mode):
    # x · d/dy (x y) at y = x: the inner call moves y only, though both are one tensor.
    def outer(x):
        return x * jvp(lambda y: x * y, x, tf.ones_like(x))[1]

    x = random([1])
    _, derivative = MODES[mode](lambda x: jvp(outer, x, tf.ones_like(x)))(x)
    assert relative_error(derivative, 2 * x) < 1e-15


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_gradient_of_a_squared_pushforward_equals_central_difference(mode):
    fn, variables = CASES[0].function()
    x, u = CASES[0].inputs(), random([3, 3], 2)
    values = [v.value for v in variables]

    def penalty(x):
        return tf.reduce_sum(jvp(fn, x, u)[1] ** 2)

    @MODES[mode]
    def gradient(x):
        with tf.GradientTape() as tape:
            value = penalty(x)
        return tape.gradient(value, values)

    direction = random_like(values, seed=5)
    expected = central_difference(penalty, x, direction, values)
    assert dot(gradient(x), direction) == pytest.approx(float(expected), rel=1e-7)


def test_tapes_of_the_caller_see_the_outputs():
    x = random([3])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y, _ = jvp(tf.sin, x, x)
    assert relative_error(tape.gradient(y, x), np.cos(x)) < 1e-15


# --- how fn may be written ------------------------------------------------------------------------


def branches(x):
    if tf.reduce_sum(x) > 0:
        return x**2
    return -x


def loops(x):
    y = x
    for _ in tf.range(2):
        y = y * x
    return y


@pytest.mark.parametrize("mode", [lambda f: f, tf.function], ids=["eager", "autograph"])
@pytest.mark.parametrize(
    ("fn", "derivative"),
    [(branches, lambda x: 2 * x), (loops, lambda x: 3 * x**2)],
    ids=["branches", "loops"],
)
def test_control_flow_on_tensors_inside_fn(fn, derivative, mode):
    x = tf.constant([1.0, 2.0], tf.float64)
    _, pushed = mode(lambda x: jvp(fn, x, tf.ones_like(x)))(x)
    assert relative_error(pushed, derivative(x)) < 1e-15
    pushed, pulled = mode(lambda x: [m(x) for m in both_ways(fn, x)])(x)
    assert relative_error([pushed, pulled], [derivative(x) * x] * 2) < 1e-15


def both_ways(fn, x):
    _, J = linearize(fn, x)
    return J, J.T


def test_layers_run_in_inference_mode_unless_wrapped():
    layer = keras.layers.Dropout(0.5)
    x = tf.ones([200], tf.float64)
    assert jvp(layer, x, x)[1].numpy().tolist() == [1.0] * 200
    _, pushed = jvp(lambda x: layer(x, training=True), x, x)
    assert set(pushed.numpy().tolist()) == {0.0, 2.0}


def test_outputs_and_tangents_see_the_same_random_numbers():
    layer = keras.layers.Dropout(0.5)
    x = tf.ones([200], tf.float64)
    y, pushed = jvp(lambda x: layer(x, training=True), x, x)
    assert (y.numpy() == pushed.numpy()).all()
