"""The dense Jacobian of a batch by the weights, by the cheapest route that is exact."""

import tensorflow as tf

from keras_fwd._derivatives.weight_rows import WeightRows
from keras_fwd._models.separable import keeps_examples_apart
from keras_fwd._spaces import nest
from keras_fwd.optimizers._steps.precision import is_half

#: Columns computed at once.
CHUNK = 128


def batch_jacobian(model_pass, expansion):
    """`J`, `[m, n]`, of the curvature leaves by the weights.

    Where the model keeps examples apart, the rows of each example come from that example alone: as
    many pullbacks of one example as it has outputs, all examples at once. Else by products with
    the whole batch, as many as weights, or as outputs if these are fewer.

    Args:
        model_pass: The `TrainingPass` of the batch.
        expansion: Its `Expansion`.
    """
    rows = _rows(model_pass, expansion)
    return expansion.jacobian.to_dense(CHUNK) if rows is None else expansion.free.columns(rows)


def _rows(model_pass, expansion):
    """The Jacobian example by example, or None if that is not known to be right, or not cheap."""
    leaves, values = expansion.leaves, expansion.values
    inputs = nest.live(model_pass.batch[0])
    if is_half(model_pass.outputs) or not keeps_examples_apart(model_pass.model):
        return None
    if any(leaf.shape.rank is None for leaf in [*inputs, *leaves]):
        return None
    outputs = sum(leaf.shape[1:].num_elements() or 0 for leaf in leaves)
    weights = sum(value.shape.num_elements() for value in values)
    if outputs >= weights:
        return None
    batch = next((x.shape[0] for x in inputs if x.shape[0] is not None), tf.shape(inputs[0])[0])
    rows = WeightRows(lambda x: model_pass.leaves_at(values, x), model_pass.batch[0], values, batch)
    if not rows.are_cheaper():
        return None
    bands = [
        tf.concat([tf.reshape(cell, [tf.size(leaf), -1]) for cell in row], axis=1)
        for row, leaf in zip(rows.blocks(None), leaves, strict=True)
    ]
    matrix = tf.concat(bands, axis=0)
    matrix.set_shape([None, weights])  # not known to TensorFlow if the batch is not
    return matrix
