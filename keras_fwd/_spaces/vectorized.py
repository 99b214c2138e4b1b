"""Many products at once: a function of one row, mapped over all rows within a memory budget."""

import math

import tensorflow as tf

from keras_fwd._spaces import nest

#: Bytes that the products which run at once may take where no `chunk_size` is given: 1 GiB, on
#: every machine alike, so that results do not depend on it. An upper bound of what one product
#: takes is read from its graph: the sum of all tensors in it.
MEMORY_BUDGET = 2**30
#: The length taken for an axis whose length is unknown when the product is traced.
UNKNOWN_LENGTH = 1024

#: TensorFlow cannot vectorize their derivatives, which pass values through untyped lists.
_CONTROL_FLOW = frozenset("While StatelessWhile If StatelessIf Case StatelessCase".split())
#: Ops that hand on what another one holds.
_NO_MEMORY = frozenset(
    "Placeholder Const ReadVariableOp Identity Reshape ExpandDims Squeeze StopGradient".split()
)


def rowwise(function, row):
    """`function` of each row, as a `RowMap`, and the dtypes of what it returns."""
    mapped = RowMap(function, row)
    return mapped, mapped.dtypes


class RowMap:
    """A function of one row as a function of many.

    Rows are taken all at once, or one after the other where TensorFlow cannot vectorize the
    function: derivatives of a loop (of an RNN, or of `tf.map_fn`) and of a branch (`tf.cond`).

    Args:
        function: From one row to a nest of tensors.
        row: Nest of the `tf.TensorSpec`s of a row.
    """

    def __init__(self, function, row):
        # Traced for one row, to see what it is made of; it is not run.
        traced = tf.function(function, autograph=False).get_concrete_function(row)
        graph = traced.graph.as_graph_def()
        ops = {node.op for body in (graph, *graph.library.function) for node in _nodes(body)}
        self.dtypes = traced.output_dtypes
        self.vectorizes = not ops & _CONTROL_FLOW
        self._row_bytes = _bytes(traced.graph)
        self._function = function
        # In eager code one trace serves all calls.
        self._call = (
            tf.function(self._map, autograph=False) if tf.executing_eagerly() else self._map
        )

    def __call__(self, rows):
        """The function of all rows."""
        return self._call(rows)

    def _map(self, rows):
        if self.vectorizes:
            # Its warnings are of single ops that it runs in a loop, which is slow and not wrong.
            return tf.vectorized_map(self._function, rows, warn=False)
        return tf.map_fn(self._function, rows, fn_output_signature=self.dtypes)

    def in_chunks(self, rows_at, count, chunk_size=None):
        """The function of `count` rows, some at once.

        Args:
            rows_at: Function from a vector of indices to the rows there; indices may lie past the
                end, and what comes of them is cut off.
            count: How many rows there are, a number or a scalar tensor.
            chunk_size: How many are taken at once at most; default as many as `MEMORY_BUDGET`
                allows.
        """
        chunk = chunk_size or max(1, MEMORY_BUDGET // max(1, self._row_bytes))
        if tf.is_tensor(count):
            # A batch may be empty, but a chunk must have a row.
            chunk = tf.minimum(chunk, tf.maximum(count, 1))
        elif chunk >= count:
            return self(rows_at(tf.range(count)))
        else:
            chunk = math.ceil(count / math.ceil(count / chunk))  # equal parts

        def block(start):
            return self(rows_at(start + tf.range(chunk)))

        starts = tf.range(0, count, chunk)
        blocks = tf.map_fn(block, starts, fn_output_signature=self.dtypes)
        return tf.nest.map_structure(lambda leaf: _joined(leaf)[:count], blocks)


def map_basis(mv, spec, chunk_size=None, ravel=nest.ravel):
    """`ravel(mv(e))` for every basis vector of `spec`: `[components in, …]`, vectorized."""
    count, dtype = nest.size(spec), nest.accumulator_dtype(spec)

    def image(basis_vector):
        return ravel(mv(nest.unravel(basis_vector, spec)))

    images = RowMap(image, tf.TensorSpec([count], dtype))
    return images.in_chunks(lambda i: tf.one_hot(i, count, dtype=dtype), count, chunk_size)


def _joined(blocks):
    """`[chunks, chunk, …]` as `[rows, …]`."""
    inner = blocks.shape[2:]
    shape = inner if inner.is_fully_defined() else tf.shape(blocks)[2:]
    return tf.reshape(blocks, tf.concat([[-1], shape], axis=0))


def _nodes(body):
    return body.node_def if hasattr(body, "node_def") else body.node


def _bytes(graph):
    """An upper bound of the memory that one run of a graph takes, besides its inputs."""
    tensors = [t for op in graph.get_operations() if op.type not in _NO_MEMORY for t in op.outputs]
    return sum(
        math.prod(UNKNOWN_LENGTH if n is None else n for n in tensor.shape) * tensor.dtype.size
        for tensor in tensors
        if tensor.shape.rank is not None
    )
