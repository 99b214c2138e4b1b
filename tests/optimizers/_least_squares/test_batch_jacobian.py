"""The dense Jacobian of a batch: rows example by example where that is exact, else products."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.separable_models import APART, MIXING

import keras_fwd
from keras_fwd.optimizers._least_squares.batch_jacobian import batch_jacobian

pytestmark = pytest.mark.usefixtures("float64")
L = keras.layers


def inputs_of(model, batch):
    generator = np.random.default_rng(0)
    leaves = [
        tf.constant(generator.integers(0, 5, (batch, *x.shape[1:])), tf.float64)
        if any(isinstance(layer, L.Embedding) for layer in model.layers)
        else tf.constant(generator.normal(size=(batch, *x.shape[1:])))
        for x in model.inputs
    ]
    return leaves if len(leaves) > 1 else leaves[0]


def compiled(name, batch=7):
    keras.utils.set_random_seed(1)
    model = APART[name]()
    x = inputs_of(model, batch)
    outputs = model(x)
    several = isinstance(outputs, list)
    losses = ["mse", "categorical_crossentropy"] if several else "mse"
    if name == "softmax":
        losses = "categorical_crossentropy"
    model.compile(keras_fwd.GaussNewton(), losses)
    y = tf.nest.map_structure(lambda out: tf.nn.softmax(tf.cos(out)), outputs)
    return model, (x, y)


@pytest.mark.slow
@pytest.mark.parametrize(
    "dynamic", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["unknown", "known"]
)
@pytest.mark.parametrize("name", APART)
def test_rows_are_those_of_products_with_the_whole_batch(name, dynamic, monkeypatch):
    model, data = compiled(name)
    model.train_on_batch(*data)
    optimizer = model.optimizer
    calls = []

    def both(data):
        model_pass = optimizer._pass_of(model)
        model_pass.batch = (*data, None)
        expansion = optimizer.expand(model_pass)
        monkeypatch.setattr(type(expansion.jacobian), "to_dense", calls.append)
        rows = batch_jacobian(model_pass, expansion)
        monkeypatch.undo()
        return rows, expansion.jacobian.to_dense()

    specs = tf.nest.map_structure(
        lambda x: tf.TensorSpec([None if dynamic else len(x), *x.shape[1:]], x.dtype), data
    )
    rows, products = tf.function(both, input_signature=[specs])(data)
    assert not calls
    np.testing.assert_allclose(rows, products, rtol=1e-12, atol=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["an activation", "a bare operation", "batch norm"])
def test_examples_that_act_on_each_other_are_counted(name):
    keras.utils.set_random_seed(0)
    model = MIXING[name]()
    x = np.random.default_rng(0).normal(size=(8, 6))
    model.compile(keras_fwd.GaussNewton(), "mse")
    model.train_on_batch(x, np.zeros((8, model.output_shape[-1])))
    model_pass = model.optimizer._pass_of(model)
    model_pass.batch = (tf.constant(x), tf.zeros((8, model.output_shape[-1]), tf.float64), None)
    J = batch_jacobian(model_pass, model.optimizer.expand(model_pass)).numpy()
    kernel, h = model.trainable_variables[0], 1e-6
    before = kernel.numpy()
    ends = []
    for sign in (1, -1):
        moved = before.copy()
        moved[0, 0] += sign * h
        kernel.assign(moved)
        ends.append(model(x, training=True).numpy().ravel())
    np.testing.assert_allclose(J[:, 0], (ends[0] - ends[1]) / (2 * h), atol=1e-8)
