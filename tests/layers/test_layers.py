"""Layers that return a derivative of another layer: values, training, shapes, saving."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.cases import MODES, central_difference, random

import keras_fwd
from keras_fwd import ConfigurationError, StructureError, jacobian, jvp, laplacian
from keras_fwd.layers import InputGradientLayer, JacobianLayer, Laplacian, Linearized

L = keras.layers


def net(outputs=2, activation="tanh"):
    layers = [  # without what a derivative does not depend on
        L.Dense(4, activation),
        L.LayerNormalization(center=False),
        L.Dense(outputs, use_bias=False),
    ]
    return keras.Sequential([keras.Input([3]), *layers])


LAYERS = {
    "Linearized": lambda: Linearized(net()),
    "JacobianLayer": lambda: JacobianLayer(net()),
    "Laplacian": lambda: Laplacian(net()),
    "InputGradientLayer": lambda: InputGradientLayer(net(1), scale=-1.0),
}


def inputs_of(name, dtype="float64"):
    x = random([5, 3], 1, dtype)
    return [x, random([5, 3], 2, dtype)] if name == "Linearized" else x


def expected(name, layer, x):
    inner = layer.layer
    if name == "Linearized":
        return list(jvp(inner, *x))
    if name == "JacobianLayer":
        return jacobian(inner, x, per_example=True)
    if name == "Laplacian":
        return laplacian(inner, x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = inner(x)
    return [y, -tape.gradient(y, x)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", LAYERS)
def test_values(name, mode, float64):
    layer, x = LAYERS[name](), inputs_of(name)
    found = MODES[mode](layer)(x)
    tf.nest.map_structure(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12),
        found,
        expected(name, layer, x),
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_weights_train_through_the_derivative(name, float64):
    layer, x = LAYERS[name](), inputs_of(name)
    layer(x)

    def energy():
        return tf.add_n([tf.reduce_sum(y**2) for y in tf.nest.flatten(layer(x))])

    scale = float(energy())
    for variable in layer.trainable_variables[:3]:
        u = random(variable.shape, 3)
        gradient = tf.reduce_sum(tape_gradient(energy, variable) * u)

        def moved(w, variable=variable):
            before = variable.numpy()
            variable.assign(w)
            try:
                return energy()
            finally:
                variable.assign(before)

        difference = central_difference(moved, tf.identity(variable.value), u)
        assert abs(gradient - difference) < 1e-6 * max(scale, abs(difference))


def tape_gradient(energy, variable):
    with tf.GradientTape() as tape:
        value = energy()
    return tape.gradient(value, variable.value)


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_in_a_functional_model_that_is_trained_saved_and_loaded(name, tmp_path):
    shapes = [[3], [3]] if name == "Linearized" else [[3]]
    given = [keras.Input(shape) for shape in shapes]
    outputs = LAYERS[name]()(given if len(given) > 1 else given[0])
    flat = [L.Flatten()(y) for y in tf.nest.flatten(outputs)]
    model = keras.Model(given, L.Concatenate()(flat) if len(flat) > 1 else flat[0])
    data = tf.nest.flatten(inputs_of(name, "float32"))
    assert model.output_shape == (None, *model(data).shape[1:])
    model.compile("adam", loss="mse")
    model.fit(data, np.zeros(model(data).shape), epochs=1, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(data), model(data))
    loaded.fit(data, np.zeros(model(data).shape), epochs=1, verbose=0)
    model.fit(data, np.zeros(model(data).shape), epochs=1, verbose=0)
    for a, b in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", LAYERS)
def test_mixed_precision(name):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        layer, x = LAYERS[name](), inputs_of(name, "float32")
        found = tf.nest.flatten(layer(x))
    finally:
        keras.config.set_dtype_policy("float32")
    assert {y.dtype for y in found} == {tf.bfloat16}


def test_tangents_flow_through_a_model(float64):
    model = net()
    x, dx = keras.Input([3]), keras.Input([3])
    pair = [x, dx]
    for layer in model.layers:
        pair = Linearized(layer)(pair)
    chain = keras.Model([x, dx], pair)
    point = inputs_of("Linearized")
    for a, b in zip(chain(point), jvp(model, *point), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)


def test_masks_reach_the_layer():
    ids = tf.constant([[1, 2, 0], [3, 0, 0]])
    embedded = L.Embedding(4, 2, mask_zero=True)(ids)
    assert embedded._keras_mask is not None
    lstm = L.LSTM(2)
    y, _ = Linearized(lstm)([embedded, tf.ones_like(embedded)])
    np.testing.assert_allclose(y, lstm(embedded), rtol=1e-6)


def test_statistics_are_updated_once():
    norm = L.BatchNormalization(momentum=0.5)
    plain = L.BatchNormalization(momentum=0.5)
    x = inputs_of("JacobianLayer", "float32")
    Linearized(norm)([x, x], training=True)
    plain(x, training=True)
    np.testing.assert_allclose(norm.moving_mean, plain.moving_mean, rtol=1e-6)


def test_forces_by_the_positions_alone():
    energy = L.Lambda(lambda d: tf.reduce_sum(d["r"] ** 2, -1) * tf.cast(d["z"], "float32"))
    d = {"r": tf.constant([[1.0, 2.0]]), "z": tf.constant([3])}
    y, force = InputGradientLayer(energy, scale=-1.0)(d)
    np.testing.assert_allclose(y, [15.0])
    np.testing.assert_allclose(force["r"], [[-6.0, -12.0]])
    np.testing.assert_array_equal(force["z"], [0])


def test_what_does_not_fit_is_refused():
    ids = tf.constant([[1, 2]])
    with pytest.raises(StructureError, match=r"the output of .* instead: split the model there"):
        JacobianLayer(L.Embedding(4, 2))(ids)
    with pytest.raises(ConfigurationError, match="`mode` must be"):
        JacobianLayer(net(), mode="sideways")
    with pytest.raises(ConfigurationError, match="`chunk_size` must be"):
        Laplacian(net(), chunk_size=0)
    with pytest.raises(ConfigurationError, match="`scale` must be a finite number"):
        InputGradientLayer(net(), scale=float("nan"))
    x = tf.ones([2, 3])
    with pytest.raises(StructureError, match="`tangents`"):
        Linearized(net())([x, x[:1]])
    odd = L.Lambda(lambda x: tf.ensure_shape(tf.numpy_function(np.sin, [x], x.dtype), x.shape) + x)
    with pytest.raises(keras_fwd.LeakError, match="PyFunc"):
        Linearized(odd)([x, x])
