"""The dense Jacobian of a batch: rows example by example where that is exact, else products."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_fwd
from keras_fwd._models.separable import keeps_examples_apart
from keras_fwd.optimizers._least_squares.batch_jacobian import batch_jacobian

pytestmark = pytest.mark.usefixtures("float64")
L = keras.layers


def over_the_batch(x):
    return x - tf.reduce_mean(x, axis=0, keepdims=True)


class Custom(L.Layer):
    def call(self, x):
        return over_the_batch(x)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = L.Dense(1)

    def call(self, x):
        return over_the_batch(self.dense(x))


def sequential(*layers, shape=(6,)):
    return keras.Sequential([keras.Input(shape), *layers])


def two_inputs():
    a, b = keras.Input((3,)), keras.Input((4,))
    both = L.Concatenate()([L.Dense(3, "tanh")(a), b])
    return keras.Model([a, b], [L.Dense(2)(both), L.Dense(3, "softmax")(both)])


def attention():
    x = keras.Input((4, 3))
    y = L.MultiHeadAttention(2, 2)(x, x)
    return keras.Model(x, L.Dense(1)(L.Flatten()(y)))


def with_bare_operation():
    x = keras.Input((6,))
    y = L.Dense(2, "tanh")(x)
    return keras.Model(x, y - keras.ops.mean(y, axis=0, keepdims=True))


APART = {
    "dense": lambda: sequential(L.Dense(5, "tanh"), L.Dense(2)),
    "softmax": lambda: sequential(L.Dense(4, "gelu"), L.Dense(3, "softmax")),
    "images": lambda: sequential(
        L.Conv2D(2, 3, activation="elu"),
        L.AveragePooling2D(2),
        L.Flatten(),
        L.Dense(2),
        shape=(6, 6, 1),
    ),
    "embedding": lambda: sequential(L.Embedding(5, 3), L.Flatten(), L.Dense(2), shape=(4,)),
    "equations": lambda: sequential(
        L.EinsumDense("abc,cd->abd", output_shape=(None, 2)),
        L.EinsumDense("...x,xy->...y", output_shape=2),
        shape=(4, 3),
    ),
    "joined": lambda: keras.Model(
        x := keras.Input((6,)), L.Softmax()(L.Concatenate(axis=1)([L.Dense(2)(x), L.Dense(1)(x)]))
    ),
    "nested": lambda: sequential(
        sequential(L.Dense(5, "tanh")), L.LayerNormalization(), L.Dense(1)
    ),
    "attention": lambda: attention(),
    "normalized": lambda: sequential(L.Normalization(mean=1.0, variance=2.0), L.Dense(2)),
    "two inputs and outputs": two_inputs,
}
MIXING = {
    "batch norm": lambda: sequential(L.Dense(3), L.BatchNormalization()),
    "dropout": lambda: sequential(L.Dense(3), L.Dropout(0.5)),
    "an activation": lambda: sequential(L.Dense(3, activation=over_the_batch)),
    "a layer of the user's": lambda: sequential(L.Dense(3), Custom()),
    "a subclass": Subclassed,
    "a lambda": lambda: sequential(L.Dense(3), L.Lambda(over_the_batch)),
    "a bare operation": with_bare_operation,
    "concatenated batches": lambda: keras.Model(
        x := keras.Input((6,)), L.Concatenate(axis=0)([L.Dense(1)(x), L.Dense(1)(x)])
    ),
    "softmax over the batch": lambda: sequential(L.Dense(3), L.Softmax(axis=-2)),
    "batches joined from the end": lambda: keras.Model(
        x := keras.Input((6,)), L.Concatenate(axis=-2)([L.Dense(1)(x), L.Dense(1)(x)])
    ),
    "an equation that sums the batch": lambda: sequential(
        L.EinsumDense("ab,c->bc", output_shape=(2,))
    ),
    "attention between examples": lambda: keras.Model(
        x := keras.Input((4, 3)), L.MultiHeadAttention(2, 2, attention_axes=(0, 1))(x, x)
    ),
    "a fixed batch": lambda: keras.Sequential([keras.Input(batch_shape=(8, 6)), L.Dense(1)]),
    "recurrent dropout": lambda: sequential(L.LSTM(2, recurrent_dropout=0.5), shape=(3, 6)),
}


@pytest.mark.parametrize("name", APART)
def test_known_models_keep_examples_apart(name):
    assert keeps_examples_apart(APART[name]())


def test_a_layer_of_the_users_may_say_so_itself():
    class Shift(L.Layer):
        keeps_examples_apart = True

        def call(self, x):
            return x + 1.0

    assert keeps_examples_apart(sequential(L.Dense(3), Shift()))


@pytest.mark.parametrize("name", MIXING)
def test_of_others_it_is_not_known(name):
    assert not keeps_examples_apart(MIXING[name]())


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
        expansion = optimizer.expansion(model_pass)
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
    J = batch_jacobian(model_pass, model.optimizer.expansion(model_pass)).numpy()
    kernel, h = model.trainable_variables[0], 1e-6
    before = kernel.numpy()
    ends = []
    for sign in (1, -1):
        moved = before.copy()
        moved[0, 0] += sign * h
        kernel.assign(moved)
        ends.append(model(x, training=True).numpy().ravel())
    np.testing.assert_allclose(J[:, 0], (ends[0] - ends[1]) / (2 * h), atol=1e-8)
