"""What the public calls accept, and what they say when it does not fit."""

import importlib.util

import keras
import pytest
import tensorflow as tf
from support.cases import (
    random,
)

import keras_fwd
from keras_fwd import (
    ConfigurationError,
    KerasFwdError,
    LeakError,
    StructureError,
    hessian,
    jacobian,
    jvp,
    linearize,
    vjp,
)

pytestmark = pytest.mark.usefixtures("float32")

X = tf.constant([1.0, 2.0])
MODES = {"eager": lambda f: f, "graph": tf.function}
modes = pytest.mark.parametrize("mode", MODES)
CALLS = {
    "linearize": lambda fn, x, **options: linearize(fn, x, **options),
    "jvp": lambda fn, x, **options: jvp(fn, x, x, **options),
    "vjp": lambda fn, x, **options: vjp(fn, x, x, **options),
    "linearize through jacobian": lambda fn, x, **options: jacobian(fn, x, **options),
    "hessian": lambda fn, x, **options: hessian(fn, x, **options),
}
calls = pytest.mark.parametrize("call", CALLS)


def table(rows):
    return [pytest.param(*row[1:], id=row[0]) for row in rows]


def named(call):
    return call.split()[0]


# --- fn -------------------------------------------------------------------------------------------


@calls
def test_fn_must_be_callable(call):
    message = rf"{named(call)}: `fn` must be a function, a layer or a model.*Received: fn=3\."
    with pytest.raises(ConfigurationError, match=message):
        CALLS[call](3, X)


RETURNS = [
    ("none", lambda x: None, r"must return a tensor or a nest of tensors. Received: None\."),
    ("empty", lambda x: [], r"must return a tensor or a nest of tensors. Received: \[\]\."),
    (
        "a_hole",
        lambda x: [x, None],
        r"must return a tensor or a nest of tensors. Received: \[.*None",
    ),
    ("a_string", lambda x: "text", r"at least one floating-point tensor. Received: string\[\]\."),
    ("integers", lambda x: tf.cast(x, tf.int32), r"at least one floating-point.* int32\[2\]\."),
    (
        "an_object",
        lambda x: {"a": object()},
        r"`fn\(primals\)\['a'\]` must be a tensor or an array",
    ),
    (
        "ragged",
        lambda x: tf.RaggedTensor.from_row_lengths(x, [1, 1]),
        r"`fn\(primals\)` must be a dense tensor; convert it first.*Received: RaggedTensor\.",
    ),
    ("complex", lambda x: tf.complex(x, x), r"must return real tensors.*complex64\[2\]\."),
    (
        "a_constant",
        lambda x: tf.ones([3]),
        r"must depend on what it is differentiated by.*outputs float32\[3\].*float32\[2\]",
    ),
    (
        "a_frozen_value",
        lambda x: tf.stop_gradient(x),
        "must depend on what it is differentiated by",
    ),
]


@pytest.mark.slow
@modes
@pytest.mark.parametrize("call", ["linearize", "jvp"])
@pytest.mark.parametrize(("fn", "message"), table(RETURNS))
def test_fn_must_return_floating_point_tensors_that_depend_on_the_primals(fn, message, call, mode):
    with pytest.raises(StructureError, match=f"{call}: (.|\n)*{message}"):
        MODES[mode](lambda x: CALLS[call](fn, x)[0])(X)


@modes
def test_errors_inside_fn_reach_the_caller_unchanged(mode):
    class Mine(Exception):
        pass

    def fn(x):
        raise Mine("of the caller")

    with pytest.raises(Mine, match="of the caller"):
        MODES[mode](lambda x: jvp(fn, x, x))(X)


def test_all_errors_have_one_base_and_a_builtin_one():
    for error, builtin in [
        (StructureError, ValueError),
        (ConfigurationError, ValueError),
        (LeakError, NotImplementedError),
    ]:
        assert issubclass(error, KerasFwdError)
        assert issubclass(error, builtin)


# --- primals --------------------------------------------------------------------------------------

PRIMALS = [
    ("complex", tf.complex(X, X), r"`primals` must be real; split a complex input"),
    ("integers", tf.constant([1, 2]), r"no floating-point tensor.*\[int32\[2\]\].*wrt=\"weights\""),
    ("text", "hello", r"no floating-point tensor, so nothing can carry a tangent"),
    ("none", {"a": None}, r"`primals\['a'\]` must be a tensor or an array. Received: None"),
    ("ragged", [tf.ragged.constant([[1.0], []])], r"`primals\[0\]` must be a dense tensor"),
    ("sparse", tf.sparse.from_dense(X), r"must be a dense tensor.*Received: SparseTensor\."),
    ("an_object", object(), r"`primals` must be a tensor or an array. Received: <object"),
]


@calls
@pytest.mark.parametrize(("primals", "message"), table(PRIMALS))
def test_primals_must_hold_real_tensors(primals, message, call):
    with pytest.raises(StructureError, match=f"{named(call)}: .*{message}"):
        CALLS[call](lambda x: x, primals)


@modes
def test_keras_variables_are_primals(mode):
    x = keras.Variable([1.0, 2.0])
    _, pushed = MODES[mode](lambda: jvp(lambda x: x**2, x, X))()
    assert pushed.numpy().tolist() == [2.0, 8.0]


# --- tangents and cotangents ----------------------------------------------------------------------

NEST = {"a": X, "b": [tf.ones([2, 1]), tf.constant([1, 2])]}
TANGENTS = [
    (
        "structure",
        X,
        r"expected \{'a': float32\[2\], 'b': \[float32\[2, 1\], None\]\}. Received: f",
    ),
    ("missing_key", {"a": X}, r"must have the structure of the space it lies in"),
    ("tuple_for_list", {"a": X, "b": (tf.ones([2, 1]), None)}, "must have the structure"),
    (
        "shape",
        {"a": X, "b": [tf.ones([1, 2]), None]},
        r"`tangents\['b'\]\[0\]` .*expected float32\[2, 1\]. Received: float32\[1, 2\]\.",
    ),
    (
        "dtype",
        {"a": tf.cast(X, tf.float64), "b": [tf.ones([2, 1]), None]},
        r"`tangents\['a'\]` .*expected float32\[2\]. Received: float64\[2\]\.",
    ),
    (
        "none",
        {"a": None, "b": [tf.ones([2, 1]), None]},
        r"`tangents\['a'\]` must be a tensor; pass zeros .*Expected float32\[2\]. Received: None",
    ),
    (
        "integer_leaf",
        {"a": X, "b": [tf.ones([2, 1]), tf.constant([1, 2])]},
        r"`tangents\['b'\]\[1\]` belongs to an integer.*pass None there. Received: int32\[2\]\.",
    ),
    ("text", {"a": "text", "b": [tf.ones([2, 1]), None]}, r"`tangents\['a'\]`.*string\[\]"),
    (
        "object",
        {"a": object(), "b": [tf.ones([2, 1]), None]},
        r"`tangents\['a'\]` must be a tensor",
    ),
]


@modes
@pytest.mark.parametrize(("tangents", "message"), table(TANGENTS))
def test_a_tangent_that_does_not_fit_is_named(tangents, message, mode):
    def pushed():
        return jvp(lambda p: p["a"] * 2, NEST, tangents)

    with pytest.raises(StructureError, match=f"jvp: .*{message}"):
        MODES[mode](pushed)()


@modes
def test_a_cotangent_that_does_not_fit_is_named(mode):
    def pulled():
        return vjp(lambda p: {"y": p["a"] * 2}, NEST, {"y": tf.ones([3])})

    message = r"vjp: `cotangents\['y'\]` .*expected float32\[2\]. Received: float32\[3\]\."
    with pytest.raises(StructureError, match=message):
        MODES[mode](pulled)()


def test_tangents_of_weights_are_a_list_in_the_order_of_the_variables():
    layer = keras.layers.Dense(2)
    layer.build([None, 3])
    message = (
        r"jvp: `tangents` .*expected \[float32\[3, 2\], float32\[2\]\]. Received: float32\[2\]"
    )
    with pytest.raises(StructureError, match=message):
        jvp(layer, tf.ones([1, 3]), tf.ones([2]), wrt="weights")


def test_python_numbers_are_tangents_of_scalars():
    assert float(jvp(lambda x: x**2, tf.constant(3.0), 2)[1]) == 12.0


# --- wrt ------------------------------------------------------------------------------------------

INTEGER = tf.Variable(1)
WRT = [
    ("unknown", "params", '`wrt` must be "inputs", "weights" or a list.*Received: wrt=.params.'),
    ("weights_of_a_function", "weights", 'wrt="weights" needs a layer or a model as `fn`'),
    ("empty", [], r"`wrt` must name at least one floating-point variable.*Received: wrt=\[\]\."),
    ("none", None, r"`wrt` must name at least one floating-point variable.*wrt=\[None\]\."),
    ("a_number", [3.0], r".*at least one floating-point variable.*Received: wrt=\[3.0\]\."),
    ("an_integer_variable", [INTEGER], r".*at least one floating-point variable.*int32"),
]


@calls
@pytest.mark.parametrize(("wrt", "message"), table(WRT))
def test_wrt_must_name_variables(wrt, message, call):
    with pytest.raises(ConfigurationError, match=f"{named(call)}: {message}"):
        CALLS[call](lambda x: x, X, wrt=wrt)


def test_an_unbuilt_model_has_no_weights_yet():
    model = keras.Sequential([keras.layers.Dense(2)], name="two")
    message = r"jvp: wrt=\"weights\" needs a built model; call `two\(inputs\)` once before\."
    with pytest.raises(ConfigurationError, match=message):
        jvp(model, tf.ones([1, 2]), [], wrt="weights")


def test_a_layer_without_weights_has_nothing_to_differentiate_by():
    with pytest.raises(ConfigurationError, match="at least one floating-point variable"):
        jvp(keras.layers.ReLU(), X, [], wrt="weights")


def test_variables_that_fn_does_not_read_are_refused():
    message = r"`fn` must depend on what it is differentiated by.*float32\[2\].*\[float32\[3\]\]"
    with pytest.raises(StructureError, match=message):
        jvp(tf.sin, X, [tf.ones([3])], wrt=[tf.Variable(tf.ones([3]))])


def test_frozen_weights_are_left_out():
    model = keras.Sequential([keras.Input([2]), keras.layers.Dense(2), keras.layers.Dense(1)])
    model.layers[0].trainable = False
    _, J = linearize(model, random([1, 2], dtype="float32"), wrt="weights")
    assert [leaf.shape.as_list() for leaf in J.in_spec] == [[2, 1], [1]]


def test_any_object_with_trainable_variables_and_call_is_a_layer():
    class Linear(tf.Module):
        def __init__(self):
            self.slope = tf.Variable(3.0)

        def call(self, x):
            return self.slope * x

        def __call__(self, x, training=None):
            assert training is False
            return self.call(x)

    _, pushed = jvp(Linear(), X, [tf.constant(1.0)], wrt="weights")
    assert pushed.numpy().tolist() == [1.0, 2.0]


# --- the backend ----------------------------------------------------------------------------------


def test_another_backend_is_refused_with_the_way_to_set_it(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    spec = importlib.util.spec_from_file_location("keras_fwd_again", keras_fwd.__file__)
    with pytest.raises(
        ImportError, match=r'needs the TensorFlow backend.* Received: backend "torch"'
    ):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
