"""`jacobian`, `hessian` and `fwd_gradients` against dense tapes and closed forms."""

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
    fwd_gradients,
    hessian,
    jacobian,
    linearize,
)

pytestmark = pytest.mark.usefixtures("float64")

modes = pytest.mark.parametrize("mode", ["eager", "graph"])
WAYS = ["forward", "reverse"]
CHUNKS = [None, 2]


def tape_jacobian(fn, sources):
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(sources)
        outputs = fn(sources)
    return tf.nest.map_structure(lambda y: tape.jacobian(y, sources), outputs)


# --- jacobian -------------------------------------------------------------------------------------


@modes
@pytest.mark.parametrize("chunk_size", CHUNKS)
@pytest.mark.parametrize("way", WAYS)
def test_jacobian_by_inputs_equals_tape_jacobian(way, chunk_size, mode):
    fn, _ = CASES[0].function()
    x = CASES[0].inputs()
    actual = MODES[mode](lambda x: jacobian(fn, x, mode=way, chunk_size=chunk_size))(x)
    expected = tape_jacobian(fn, x)
    assert actual.shape == expected.shape == (3, 2, 3, 3)
    assert relative_error(actual, expected) < 1e-13


@modes
@pytest.mark.parametrize("way", WAYS)
def test_jacobian_by_weights_equals_tape_jacobian(way, mode):
    fn, variables = CASES[0].function()
    x = CASES[0].inputs()
    actual = MODES[mode](lambda x: jacobian(fn, x, "weights", way, chunk_size=5))(x)
    with tf.GradientTape() as tape:
        y = fn(x)
    expected = tape.jacobian(y, [v.value for v in variables])
    assert [a.shape for a in actual] == [e.shape for e in expected]
    assert relative_error(actual, expected) < 1e-13


@modes
@pytest.mark.parametrize("way", WAYS)
def test_jacobian_of_nests_has_outputs_outside_and_inputs_inside(way, mode):
    primals = {"a": random([2]), "b": (random([3, 1], 1), tf.constant([1, 0]))}

    def fn(p):
        a, (b, rows) = p["a"], p["b"]
        return [tf.gather(a, rows) ** 2, {"c": tf.reduce_sum(a) * b, "rows": rows}]

    if mode == "graph":  # a tf.function returns no None
        block = tf.function(lambda p: jacobian(fn, p, mode=way)[1]["c"]["b"][0])(primals)
        assert block.shape == (3, 1, 3, 1)
        return
    first, second = jacobian(fn, primals, mode=way)
    a, b = primals["a"].numpy(), primals["b"][0].numpy()
    assert relative_error(first["a"], [[0, 2 * a[1]], [2 * a[0], 0]]) < 1e-14
    assert not np.any(first["b"][0])
    assert first["b"][0].shape == (2, 3, 1)
    assert first["b"][1] is None
    assert relative_error(second["c"]["a"], np.stack([b, b], axis=-1)) < 1e-14
    assert relative_error(second["c"]["b"][0], a.sum() * np.eye(3).reshape(3, 1, 3, 1)) < 1e-14
    assert second["rows"] == {"a": None, "b": (None, None)}


@pytest.mark.parametrize("way", ["forward", "reverse"])
def test_jacobian_keeps_the_dtype_of_each_output(way):
    x = random([2], dtype="float32")
    low, high = jacobian(lambda x: (x**2, tf.cast(x, tf.float64)), x, mode=way)
    assert (low.dtype, high.dtype) == (tf.float32, tf.float64)
    assert relative_error(low, np.diag(2 * x.numpy())) < 1e-6


def per_example_reference(fn, x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = fn(x)
    return tape.batch_jacobian(y, x)


@modes
@pytest.mark.parametrize("chunk_size", CHUNKS)
@pytest.mark.parametrize("way", WAYS)
def test_per_example_jacobian_equals_batch_jacobian(way, chunk_size, mode):
    fn, _ = CASES[0].function()
    x = CASES[0].inputs()

    def blocks(x):
        return jacobian(fn, x, mode=way, chunk_size=chunk_size, per_example=True)

    expected = per_example_reference(fn, x)
    actual = MODES[mode](blocks)(x)
    assert actual.shape == expected.shape == (3, 2, 3)
    assert relative_error(actual, expected) < 1e-13


@pytest.mark.parametrize("way", WAYS)
def test_per_example_jacobian_of_images(way):
    fn, _ = CASES[1].function()
    x = CASES[1].inputs()
    actual = tf.function(lambda x: jacobian(fn, x, mode=way, per_example=True))(x)
    assert actual.shape == (2, 2, 6, 6, 2)
    assert relative_error(actual, per_example_reference(fn, x)) < 1e-13


@pytest.mark.parametrize("way", WAYS)
def test_per_example_jacobian_of_nests(way):
    primals = {"x": random([4, 2]), "y": random([4], 1), "n": tf.constant([1, 2, 3, 4])}

    def fn(p):
        n = tf.cast(p["n"], tf.float64)
        return p["x"] * p["y"][:, None], n * p["y"] ** 2

    first, second = jacobian(fn, primals, mode=way, per_example=True)
    x, y = primals["x"].numpy(), primals["y"].numpy()
    assert relative_error(first["x"], y[:, None, None] * np.eye(2)) < 1e-14
    assert relative_error(first["y"], x) < 1e-14
    assert second["x"].shape == (4, 2)
    assert relative_error(second["y"], 2 * y * [1, 2, 3, 4]) < 1e-14
    assert first["n"] is None


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("per_example", [False, True])
def test_jacobian_with_an_unknown_batch_size(per_example, way):
    fn, _ = CASES[0].function()

    @tf.function(input_signature=[tf.TensorSpec([None, 3], "float64")])
    def blocks(x):
        return jacobian(fn, x, mode=way, per_example=per_example)

    if not per_example:  # neither side has a static size
        with pytest.raises(StructureError, match="the side that is run through must have a static"):
            blocks(random([5, 3]))
        return
    for batch in (5, 2):
        x = random([batch, 3])
        assert relative_error(blocks(x), per_example_reference(fn, x)) < 1e-13


def test_jacobian_by_weights_with_an_unknown_batch_size_runs_forward():
    fn, variables = CASES[0].function()
    blocks = tf.function(
        lambda x: jacobian(fn, x, "weights"),
        input_signature=[tf.TensorSpec([None, 3], "float64")],
    )
    actual = blocks(random([5, 3]))
    assert [a.shape for a in actual] == [(5, 2, *v.shape) for v in variables]
    assert relative_error(actual, jacobian(fn, random([5, 3]), "weights")) < 1e-13


def test_way_is_auto_unless_it_is_said():
    x = random([2])
    expected = jacobian(lambda x: x**2, x)
    assert relative_error(jacobian(lambda x: x**2, x, mode="auto"), expected) == 0


def test_auto_takes_the_way_with_fewer_products():
    wide, tall = random([2, 6]), random([6, 2])
    for matrix, way in [(wide, "reverse"), (tall, "forward")]:
        x = random([matrix.shape[1]])

        @tf.function
        def blocks(x, matrix=matrix):
            return jacobian(lambda x: tf.sin(tf.linalg.matvec(matrix, x)), x)

        @tf.function
        def chosen(x, matrix=matrix, way=way):
            return jacobian(lambda x: tf.sin(tf.linalg.matvec(matrix, x)), x, mode=way)

        types = [
            sorted(op.type for op in f.get_concrete_function(x).graph.get_operations())
            for f in (blocks, chosen)
        ]
        assert types[0] == types[1]


@modes
def test_jacobian_of_a_recurrent_model(mode):
    model = keras.Sequential([keras.Input([3, 1]), keras.layers.GRU(2)])
    x = random([2, 3, 1])
    actual = MODES[mode](lambda x: jacobian(model, x, per_example=True))(x)
    u = random([2, 3, 1], 1)
    expected = central_difference(model, x, u)
    assert relative_error(tf.einsum("boij,bij->bo", actual, u), expected) < 1e-7


def test_jacobian_refuses_an_unknown_mode():
    with pytest.raises(ConfigurationError, match=r"`mode` must be .* Received: mode='sideways'\."):
        jacobian(tf.sin, random([2]), mode="sideways")


@pytest.mark.parametrize(
    ("fn", "primals"),
    [
        (lambda x: tf.reduce_sum(x), tf.ones([2])),
        (lambda x: x[:2], tf.ones([3, 2])),
        (lambda p: p[0] * tf.reduce_sum(p[1]), [tf.ones([3]), tf.ones([2])]),
    ],
    ids=["scalar_output", "another_batch", "inputs_disagree"],
)
def test_per_example_needs_a_batch_axis(fn, primals):
    with pytest.raises(StructureError, match="axis 0 of every input and output must be the same"):
        jacobian(fn, primals, per_example=True)


# --- hessian --------------------------------------------------------------------------------------


def loss(fn):
    return lambda x: tf.reduce_sum(tf.sin(fn(x)) * tf.range(1.0, 3.0, dtype=tf.float64))


@pytest.mark.parametrize("mode", MODES)
def test_hessian_equals_closed_form(mode):
    x = random([3])
    A = random([3, 3])

    @MODES[mode]
    def matrix(x):
        return hessian(lambda x: tf.reduce_sum(x * tf.linalg.matvec(A, x)) ** 2, x).to_dense()

    S = A.numpy() + A.numpy().T
    s = S @ x.numpy()
    expected = 2 * np.outer(s, s) + (x.numpy() @ s) * S
    assert relative_error(matrix(x), expected) < 1e-13


@modes
def test_hessian_by_inputs_equals_tape_jacobian_of_the_gradient(mode):
    scalar = loss(CASES[0].function()[0])
    x = CASES[0].inputs()

    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = scalar(x)
        return tape.gradient(y, x)

    expected = tf.reshape(tape_jacobian(gradient, x), [9, 9])
    actual = MODES[mode](lambda x: hessian(scalar, x).to_dense())(x)
    assert relative_error(actual, expected) < 1e-13


@modes
def test_hessian_product_by_weights_equals_central_difference(mode):
    model, variables = CASES[0].function()
    values = [v.value for v in variables]
    x, u = CASES[0].inputs(), random_like(variables, 5)
    scalar = loss(model)

    def gradient(x):
        with tf.GradientTape() as tape:
            y = scalar(x)
        return tf.concat([tf.reshape(g, [-1]) for g in tape.gradient(y, values)], axis=0)

    product = MODES[mode](lambda x, u: hessian(scalar, x, variables)(u))(x, u)
    assert relative_error(product, central_difference(gradient, x, u, values)) < 1e-7


def test_hessian_of_a_nest_has_its_structure_and_is_symmetric():
    primals = {"a": random([2]), "n": tf.constant(2), "b": [random([], 1)]}

    def scalar(p):
        return tf.reduce_sum(tf.sin(p["a"]) * p["b"][0] ** 2) * tf.cast(p["n"], tf.float64)

    H = hessian(scalar, primals)
    product = H({"a": random([2], 2), "n": None, "b": [random([], 3)]})
    assert product["n"] is None
    assert product["b"][0].shape == []
    matrix = H.to_dense()
    assert relative_error(matrix, tf.transpose(matrix)) < 1e-15
    assert relative_error(H.T.to_dense(), matrix) == 0


def test_hessian_by_weights_of_a_scalar_model():
    model = keras.Sequential(
        [
            keras.Input([2]),
            keras.layers.Dense(1),
            keras.layers.Lambda(lambda x: tf.reduce_sum(x**2)),
        ]
    )
    x = random([3, 2])
    matrix = hessian(model, x, wrt="weights").to_dense()
    design = np.column_stack([x, np.ones(3)])
    assert relative_error(matrix, 2 * design.T @ design) < 1e-14


def test_hessian_runs_forward_and_gradient_once_for_many_products():
    @tf.function
    def f(x):
        H = hessian(lambda x: tf.reduce_sum(tf.math.atan(x)), x)
        return tf.while_loop(lambda i, u: i < 3, lambda i, u: (i + 1, H(u)), [0, x])[1]

    graph = f.get_concrete_function(tf.TensorSpec([2])).graph
    inside = [n.op for g in graph.as_graph_def().library.function for n in g.node_def]
    assert "Atan" not in inside
    # d/dx of the gradient 1 / (1 + x²) is all that the loop's body holds.
    assert inside.count("Mul") <= 6


@pytest.mark.parametrize("fn", [lambda x: x**2, lambda x: tf.reduce_sum(x, keepdims=True)])
def test_hessian_of_a_vector_is_refused(fn):
    with pytest.raises(StructureError, match="hessian: `fn` must return one scalar; sum or pick"):
        hessian(fn, random([2]))


def test_hessian_of_two_scalars_is_refused():
    with pytest.raises(StructureError, match=r"one scalar.*Received: \(float64\[\], float64\[\]\)"):
        hessian(lambda x: (x, x**2), random([]))


# --- fwd_gradients --------------------------------------------------------------------------------


def test_fwd_gradients_equal_the_linear_map():
    fn, _ = CASES[0].function()
    x, u = CASES[0].inputs(), random([3, 3], 2)

    @tf.function
    def pushed(x, u):
        return fwd_gradients(fn(x), x, u, assert_unused=True)

    assert relative_error(pushed(x, u), linearize(fn, x)[1](u)) < 1e-14


def test_fwd_gradients_sum_over_xs_and_keep_the_structure_of_ys():
    @tf.function
    def pushed(a, b, da, db):
        ys = {"product": a * b, "sines": [tf.sin(a), tf.cos(b)]}
        return fwd_gradients(ys, [a, b], [da, db])

    a, b, da, db = (random([3], seed) for seed in range(4))
    result = pushed(a, b, da, db)
    expected = {"product": da * b + a * db, "sines": [tf.cos(a) * da, -tf.sin(b) * db]}
    tf.nest.assert_same_structure(result, expected)
    assert relative_error(result, expected) < 1e-14


def test_fwd_gradients_without_tangents_use_ones():
    x = random([3])
    assert relative_error(tf.function(lambda x: fwd_gradients(x**2, x))(x), 2 * x) < 1e-15


def test_fwd_gradients_take_numpy_tangents():
    x = random([3])
    pushed = tf.function(lambda x: fwd_gradients(x**2, x, np.ones(3)))(x)
    assert relative_error(pushed, 2 * x) < 1e-15


def test_fwd_gradients_by_variables():
    a = tf.Variable(random([2]))
    b = keras.Variable(random([2], 1))
    x = random([2], 2)
    pushed = tf.function(lambda x: fwd_gradients(x * a * b, [a, b]))(x)
    assert relative_error(pushed, x * (a + b.value)) < 1e-15


def test_fwd_gradients_of_unconnected_ys_are_zeros():
    @tf.function
    def pushed(x):
        return (
            fwd_gradients(tf.ones([2]), x),
            fwd_gradients([x**2, tf.ones([2])], x),
            fwd_gradients(x**2, [x, tf.ones([4])]),
        )

    x = random([3])
    alone, (connected, beside), (pushed_x) = pushed(x)
    assert alone.numpy().tolist() == beside.numpy().tolist() == [0, 0]
    assert relative_error([connected, pushed_x], [2 * x, 2 * x]) < 1e-15


def test_fwd_gradients_of_fwd_gradients():
    @tf.function
    def second(x):
        return fwd_gradients(fwd_gradients(tf.sin(x) * x, x), x)

    x = random([3])
    assert relative_error(second(x), 2 * np.cos(x) - x * np.sin(x)) < 1e-14


def test_fwd_gradients_in_a_batch_of_unknown_size():
    @tf.function(input_signature=[tf.TensorSpec([None], tf.float64)] * 2)
    def pushed(x, u):
        return fwd_gradients(tf.sin(x), x, u)

    x, u = random([5]), random([5], 1)
    assert relative_error(pushed(x, u), np.cos(x) * u) < 1e-15


def test_fwd_gradients_in_eager_code_are_refused():
    with pytest.raises(
        ConfigurationError, match=r"fwd_gradients: symbolic tensors exist only.*jvp"
    ):
        fwd_gradients(tf.ones([2]), tf.ones([2]))


def test_fwd_gradients_name_a_tangent_that_does_not_fit():
    with pytest.raises(StructureError, match=r"`grad_xs\[1\]` must have.*float64\[3\].*\[2\]"):
        tf.function(lambda a, b: fwd_gradients(a, [a, b], [a, a]))(random([2]), random([3]))


def test_fwd_gradients_by_integers_are_refused():
    with pytest.raises(StructureError, match="`xs` must be floating-point"):
        tf.function(lambda n: fwd_gradients(n, n))(tf.constant([1, 2]))


def cubed(rule):
    """x³ with a backward rule in which `rule(dy)` stands for the cotangent."""

    @tf.custom_gradient
    def function(x):
        return x**3, lambda dy: rule(dy) * 3 * x**2

    return function


NOT_LINEAR = [
    pytest.param(lambda dy: tf.clip_by_value(dy, -1.0, 1.0), "clip_by_value", id="clip_by_value"),
    pytest.param(lambda dy: tf.clip_by_norm(dy, 1.0), "clip_by_norm", id="clip_by_norm"),
    pytest.param(lambda dy: dy / tf.norm(dy), "dependent", id="normalized"),
    pytest.param(lambda dy: dy * tf.abs(dy), "dependent", id="times_its_absolute_value"),
    pytest.param(lambda dy: dy**2, "op Pow", id="square"),
    pytest.param(tf.stop_gradient, "op StopGradient", id="stop_gradient"),
]


@pytest.mark.parametrize(("rule", "name"), NOT_LINEAR)
def test_assert_unused_names_a_rule_that_is_not_linear_in_its_cotangent(rule, name):
    @tf.function
    def pushed(x):
        return fwd_gradients(cubed(rule)(x) + x, x, assert_unused=True)

    with pytest.raises(LeakError, match=f"Received: .*{name}"):
        pushed(random([3], dtype="float32"))


def test_without_assert_unused_a_clipping_rule_is_right_at_the_zero_dummy():
    @tf.function
    def pushed(x):
        return fwd_gradients(cubed(lambda dy: tf.clip_by_value(dy, -1.0, 1.0))(x), x)

    x = random([3], dtype="float32")
    assert relative_error(pushed(x), 3 * x**2) < 1e-5


layers = keras.layers
ACTIVATIONS = "softmax gelu swish elu selu relu relu6 tanh sigmoid softplus mish".split()
CLEAN = [
    ("dense", lambda: layers.Dense(3), [2, 4]),
    ("conv", lambda: layers.Conv2D(2, 3, padding="same"), [1, 4, 4, 2]),
    ("depthwise", lambda: layers.DepthwiseConv2D(2), [1, 4, 4, 2]),
    ("transposed_conv", lambda: layers.Conv2DTranspose(2, 3), [1, 3, 3, 1]),
    ("lstm", lambda: layers.LSTM(2), [1, 3, 2]),
    ("gru", lambda: layers.GRU(2, return_sequences=True), [1, 3, 2]),
    ("layer_normalization", lambda: layers.LayerNormalization(), [2, 4]),
    ("group_normalization", lambda: layers.GroupNormalization(2), [2, 4]),
    ("batch_normalization", lambda: layers.BatchNormalization(), [3, 4]),
    ("dropout", lambda: layers.Dropout(0.5), [2, 4]),
    ("gaussian_noise", lambda: layers.GaussianNoise(0.5), [2, 4]),
    ("max_pooling", lambda: layers.MaxPooling2D(2), [1, 4, 4, 1]),
    ("average_pooling", lambda: layers.AveragePooling2D(2), [1, 4, 4, 1]),
    ("global_max_pooling", lambda: layers.GlobalMaxPooling2D(), [1, 4, 4, 1]),
    ("global_average_pooling", lambda: layers.GlobalAveragePooling2D(), [1, 4, 4, 1]),
    ("prelu", lambda: layers.PReLU(), [2, 4]),
    *((name, lambda name=name: layers.Activation(name), [2, 4]) for name in ACTIVATIONS),
]
TRAINING = {"batch_normalization", "dropout", "gaussian_noise"}  # differ in training


def no_false_alarm(fn, x, variables=None):
    @MODES["graph"]
    def pushed(x):
        y = fn(x)
        return fwd_gradients(y, [x] if variables is None else variables, assert_unused=True)

    assert np.isfinite(pushed(x)).all()


@pytest.mark.parametrize(
    ("build", "shape", "training"),
    [
        pytest.param(build, shape, training, id=f"{name}-training" if training else name)
        for name, build, shape in CLEAN
        for training in ([False, True] if name in TRAINING else [False])
    ],
)
def test_assert_unused_has_no_false_alarm(build, shape, training):
    layer, x = build(), random(shape)
    no_false_alarm(lambda x: layer(x, training=training), x)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_assert_unused_has_no_false_alarm_by_weights(case):
    fn, variables = case.function()
    no_false_alarm(fn, case.inputs(), variables)


def test_assert_unused_has_no_false_alarm_at_an_embedding():
    layer = layers.Embedding(4, 2)
    tokens = tf.constant([[1, 3]])
    layer(tokens)
    no_false_alarm(layer, tokens, layer.trainable_variables)
