"""The Jacobian of each example by the weights, row by row, on batches of one example."""

import tensorflow as tf

from keras_fwd._derivatives import double_gradient, functional
from keras_fwd._spaces import given, nest
from keras_fwd._spaces.vectorized import RowMap
from keras_fwd.errors import StructureError


class WeightRows:
    """Pullbacks of one example's outputs, for all examples at once.

    The gradient of a whole batch by the weights is a sum over its examples. A function that does
    not mix them is the same on each example as a batch of one, where nothing is summed.

    Args:
        fn: Function, layer or model that does not mix examples.
        primals: Nest of tensors with the batch on axis 0.
        wrt: `"weights"` or a list of variables.
        batch: The number of examples, a number or a scalar tensor.

    Raises:
        StructureError: `fn` does not return a batch of one example, or its size is unknown.
    """

    def __init__(self, fn, primals, wrt, batch):
        self._point = functional.resolve("jacobian", fn, primals, wrt)
        self._batch = batch
        self._spec = None  # of the outputs for one example, once they are traced
        self._leaves = nest.flatten(self._point.primals)
        example = [tf.TensorSpec(leaf.shape[1:], leaf.dtype) for leaf in self._leaves]
        self._examples = RowMap(self._rows, example)

    def _rows(self, leaves):
        """`[components out, …weight]` for each variable, of one example."""
        example = nest.pack(self._point.primals, [leaf[None] for leaf in leaves])
        outputs, pull = double_gradient.pullback(
            self._point.function, example, self._point.sources, "jacobian"
        )
        self._spec = nest.spec(outputs)
        _check_batch_of_one(outputs, self._spec)

        def row(basis_vector):
            return nest.live(pull(nest.unravel(basis_vector, self._spec)))

        count, dtype = nest.size(self._spec), nest.accumulator_dtype(self._spec)
        if count == 1:
            return [leaf[None] for leaf in row(tf.ones([1], dtype))]
        return RowMap(row, tf.TensorSpec([count], dtype))(tf.eye(count, dtype=dtype))

    def are_cheaper(self):
        """Than columns: always if taken at once, else if there are fewer of them."""
        if self._examples.vectorizes or not isinstance(self._batch, int):
            return True
        columns = nest.size(nest.spec(self._point.sources))
        return columns is None or self._batch * (nest.size(self._spec) or 0) <= columns

    def blocks(self, chunk_size):
        """The Jacobian: at each leaf of the outputs, `[batch, …out, …weight]` for each weight."""

        def examples_at(indices):
            # Rows past the end are cut off later; here they must only be readable.
            indices = tf.minimum(indices, self._batch - 1)
            return [tf.gather(leaf, indices) for leaf in self._leaves]

        bands = self._examples.in_chunks(examples_at, self._batch, chunk_size)
        specs = nest.live(self._spec)
        sizes = [spec.shape.num_elements() for spec in specs]
        cut = iter(zip(specs, *(tf.split(band, sizes, axis=1) for band in bands), strict=True))

        def block_row(_):
            spec, *cells = next(cut)
            inner = spec.shape.as_list()[1:]
            shaped = [
                tf.cast(tf.reshape(cell, [self._batch, *inner, *cell.shape[2:]]), spec.dtype)
                for cell in cells
            ]
            return nest.pack(self._point.sources, shaped)

        nothing = nest.pack(self._point.sources, [None] * len(bands))
        leaves = [nothing if s is None else block_row(s) for s in nest.flatten(self._spec)]
        return nest.pack(self._spec, leaves)


def _check_batch_of_one(outputs, spec):
    if any(leaf.shape.rank == 0 or leaf.shape[0] != 1 for leaf in nest.live(spec)):
        raise StructureError(
            "jacobian: with per_example=True, `fn` runs on each example as a batch of one and must "
            f"return batches of one. Received: outputs {given.describe(outputs)}."
        )
    if nest.size(spec) is None:
        raise StructureError(
            "jacobian: the outputs of one example must have a static size. Received: "
            f'{given.describe(outputs)}. Give the tf.function fixed shapes, or use mode="forward".'
        )
