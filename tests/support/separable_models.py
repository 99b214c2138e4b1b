"""Models that keep examples apart, and models that mix them, by what they are made of."""

import keras
import tensorflow as tf

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
