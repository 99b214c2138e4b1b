"""A training step that is a graph wherever it is called from: blocks are read from one."""

import tensorflow as tf


class GraphStep:
    """The step itself in a graph; in eager code it is compiled first.

    Args:
        step: Function `(model, data)`.
    """

    def __init__(self, step):
        self._step = step
        self._compiled = None

    def __call__(self, model, data):
        """As the step."""
        if not tf.executing_eagerly():
            return self._step(model, data)
        if self._compiled is None:
            self._compiled = tf.function(self._step)
        tensors = [
            leaf if leaf is None else tf.convert_to_tensor(leaf) for leaf in tf.nest.flatten(data)
        ]
        return self._compiled(model, tf.nest.pack_sequence_as(data, tensors))
