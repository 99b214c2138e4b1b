"""What a model leaves behind when it is gone: nothing, though TensorFlow would keep its graphs."""

import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_fwd

L = keras.layers


class Recorder(L.Layer):
    """Remembers the graphs that it was called in."""

    def __init__(self):
        super().__init__()
        self.graphs = []

    def call(self, x):
        if not tf.executing_eagerly():
            self.graphs.append(weakref.ref(tf.compat.v1.get_default_graph()))
        return x


class Sum(L.Layer):
    """Two products of the same tensor, and a bias that both have."""

    def build(self, shape):
        self.first = self.add_weight(shape=(shape[-1], 3))
        self.second = self.add_weight(shape=(shape[-1], 3))
        self.bias = self.add_weight(shape=(3,))

    def call(self, x):
        return x @ self.first + x @ self.second + self.bias


NETS = {
    "dense": lambda: [L.Dense(4, "tanh"), L.Dense(3)],
    "normalized": lambda: [L.Dense(4), L.BatchNormalization(), L.LayerNormalization()],
    "sum": lambda: [Sum()],
    "recurrent": lambda: [L.Reshape((3, 1)), L.LSTM(3)],
}
OPTIMIZERS = {"GaussNewton": keras_fwd.GaussNewton, "KFAC": keras_fwd.KFAC}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    "net",
    [pytest.param(net, marks=[pytest.mark.slow] if net == "recurrent" else []) for net in NETS],
)
def test_graphs_of_training_are_freed_with_the_model(net, optimizer):
    recorder = Recorder()
    model = keras.Sequential([keras.Input((3,)), recorder, *NETS[net](), L.Dense(1)])
    model.compile(OPTIMIZERS[optimizer](), "mse")
    model.fit(np.ones((4, 3)), np.ones((4, 1)), verbose=0)
    graphs = recorder.graphs
    assert any(graph() for graph in graphs)
    del model, recorder
    keras.utils.clear_session()  # Keras keeps what a model was called with
    gc.collect()
    assert [graph().name for graph in graphs if graph()] == []
