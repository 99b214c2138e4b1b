"""Tensors that a function reads without being given them."""

import contextlib

import tensorflow as tf

from keras_fwd._graphs import graph as graphs
from keras_fwd.errors import StructureError


@contextlib.contextmanager
def forbidden(name, arguments):
    """Raise `StructureError` if what is traced inside reads a tensor of the graph by closure.

    A rule in the place of a function knows of nothing but its arguments: whatever else it reads
    would count as constant. Constants themselves are allowed.

    Args:
        name: Of the call and the function, for the message.
        arguments: The tensors that it is given.
    """
    if tf.executing_eagerly():
        yield
        return
    graph = tf.compat.v1.get_default_graph()
    before = {op.name for op in graph.get_operations()}
    yield
    given = {id(argument) for argument in arguments}
    outer = {inner: tensor for tensor, inner in graphs.captures(graph)}
    for op in graph.get_operations():
        if op.name in before:
            continue
        captured = outer.get(op.name)
        read = [] if captured is None or not graphs.is_symbolic(captured) else [captured]
        read += [t for t in op.inputs if t.op.name in before and id(t) not in given]
        for tensor in read:
            if tensor.dtype.is_floating and tf.get_static_value(tensor) is None:
                raise StructureError(
                    f"{name} must take what it is computed from as its argument. "
                    f"Received: a function that closes over the tensor {tensor.name}, of shape "
                    f"{tensor.shape}, whose derivative would be lost. Pass it in the argument."
                )
