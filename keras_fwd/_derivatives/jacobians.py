"""Dense Jacobians: by rows or by columns, of a whole batch or of each example with itself."""

import tensorflow as tf

from keras_fwd._checks import check_count
from keras_fwd._derivatives import double_gradient, functional
from keras_fwd._derivatives.weight_rows import WeightRows
from keras_fwd._spaces import given, nest
from keras_fwd._spaces.vectorized import map_basis
from keras_fwd.errors import ConfigurationError, StructureError
from keras_fwd.typing import Function, JacobianMode, Nest, WithRespectTo


@functional.public
def jacobian(
    fn: Function,
    primals: Nest,
    wrt: WithRespectTo = "inputs",
    mode: JacobianMode = "auto",
    chunk_size: int | None = None,
    per_example: bool = False,
) -> Nest:
    """The Jacobian of `fn` as dense tensors.

    Args:
        fn: As in `linearize`.
        primals: As in `linearize`.
        wrt: As in `linearize`.
        mode: `"forward"` (one JVP a column), `"reverse"` (one VJP a row), or `"auto"` (default):
            the one that needs fewer products.
        chunk_size: How many products run at once and take memory at once; by default as many as
            fit into 1 GiB (`vectorized.MEMORY_BUDGET`), judged by the sizes of all tensors of one
            product. By weights and with `per_example`, the number of examples instead.
        per_example: If True, axis 0 of every input and output leaf is the batch, and only the
            blocks of an example with itself are computed, `[batch, …out, …in]`. Valid when `fn`
            does not mix examples. With respect to weights the result has the shape that it has
            without, since outputs carry the batch, but `fn` is differentiated one example at a
            time, as a batch of one: much faster (about 2 forward passes for a small net with one
            output) than one product for each row or column.

    Returns:
        The structure of the outputs; at each of its leaves the structure of the inputs (or
        variables), with tensors of shape `output.shape + input.shape`. `None` where either side
        is an integer tensor.

    Raises:
        ConfigurationError: `mode` or `chunk_size` has no meaning.
        StructureError: sizes are unknown when a graph is traced, or leaves without a batch axis.
        LeakError: As `linearize`.

    Cost: The forward pass once, and `min(components in, components out)` products (of one example
        with `per_example`), vectorized; one after the other where `fn` holds a loop or a branch,
        which TensorFlow cannot vectorize.

    Example:

    >>> x = tf.constant([[1.0, 2.0], [3.0, 4.0]])
    >>> jacobian(lambda x: x[:, 0] * x[:, 1], x, per_example=True).numpy()
    array([[2., 1.],
           [4., 3.]], dtype=float32)
    """
    check_options(mode, chunk_size)
    by_weights = not (isinstance(wrt, str) and wrt == "inputs")
    if per_example and by_weights and mode != "forward":
        rows = WeightRows(fn, primals, wrt, _batch_size(primals, [], every=True))
        if mode == "reverse" or rows.are_cheaper():
            return rows.blocks(chunk_size)
    outputs, J = double_gradient.linearize(fn, primals, wrt)
    if per_example and not by_weights:
        return _per_example_by_inputs(J, primals, outputs, mode, chunk_size)
    if _forward_is_cheaper(mode, J.out_spec, J.in_spec):
        matrix = tf.transpose(map_basis(J.mv, J.in_spec, chunk_size))
    else:
        matrix = map_basis(J.T.mv, J.out_spec, chunk_size)
    return _blocks(matrix, _known(J.out_spec, outputs), _known(J.in_spec, primals), [])


def check_options(mode, chunk_size):
    """Raise `ConfigurationError` for options of `jacobian` that have no meaning."""
    if mode not in ("auto", "forward", "reverse"):
        raise ConfigurationError(
            f'jacobian: `mode` must be "auto", "forward" or "reverse". Received: mode={mode!r}.'
        )
    check_count("jacobian", "chunk_size", chunk_size, none="as many as the memory budget allows")


def _per_example_by_inputs(J, primals, outputs, mode, chunk_size):
    batch = _batch_size(primals, outputs)
    out_spec, in_spec = _without_batch(J.out_spec), _without_batch(J.in_spec)
    if _forward_is_cheaper(mode, out_spec, in_spec):
        # One basis vector in all examples at once gives a column of each: they do not mix.
        columns = map_basis(_spread(J.mv, batch), in_spec, chunk_size, _ravel_examples)
        matrix = tf.transpose(columns, [1, 2, 0])  # from [in, batch, out]
    else:
        rows = map_basis(_spread(J.T.mv, batch), out_spec, chunk_size, _ravel_examples)
        matrix = tf.transpose(rows, [1, 0, 2])
    return _blocks(matrix, out_spec, in_spec, [batch])


def _forward_is_cheaper(mode, out_spec, in_spec):
    rows, columns = nest.size(out_spec), nest.size(in_spec)
    if mode == "auto":
        forward = rows is None or (columns is not None and columns <= rows)
    else:
        forward = mode == "forward"
    if (columns if forward else rows) is None:
        raise StructureError(
            "jacobian: the side that is run through must have a static size. Received: in "
            f"{given.describe(in_spec)}, out {given.describe(out_spec)}, mode={mode!r}. Give the "
            "tf.function fixed shapes, or use the other mode."
        )
    return forward


def _batch_size(primals, outputs, every=False):
    leaves = [tf.convert_to_tensor(leaf) for leaf in nest.flatten([primals, outputs])]
    leaves = [leaf for leaf in leaves if every or nest.is_differentiable(leaf.dtype)]
    sizes = {leaf.shape[0] for leaf in leaves if leaf.shape.rank} - {None}
    if any(leaf.shape.rank == 0 for leaf in leaves) or len(sizes) > 1:
        raise StructureError(
            "jacobian: with per_example=True, axis 0 of every input and output must be the same "
            f"batch. Received: inputs {given.describe(primals)}, outputs {given.describe(outputs)}."
        )
    return sizes.pop() if sizes else tf.shape(leaves[0])[0]


def _without_batch(spec):
    return nest.map_live(lambda s: tf.TensorSpec(s.shape[1:], s.dtype), spec)


def _spread(mv, batch):
    """A map on one example's vectors: the same vector for every example of the batch."""

    def repeat(leaf):
        return tf.broadcast_to(leaf, tf.concat([[batch], tf.shape(leaf)], axis=0))

    return lambda vector: mv(nest.map_live(repeat, vector))


def _ravel_examples(vector):
    """`[batch, components]`."""
    leaves = nest.live(vector)
    dtype = nest.accumulator_dtype(leaves)
    return tf.concat(
        [tf.cast(tf.reshape(leaf, [tf.shape(leaf)[0], -1]), dtype) for leaf in leaves], axis=1
    )


def _known(spec, tensors):
    """The spec, or the tensors themselves where a size is only known at run time."""
    return spec if nest.size(spec) is not None else tensors


def _blocks(matrix, out_space, in_space, lead):
    """Cut `[…lead, out, in]` into a nest of blocks, outputs outside and inputs inside."""
    rows, columns = _shapes(out_space), _shapes(in_space)
    bands = iter(tf.split(matrix, _sizes(rows), axis=len(lead)))

    def block_row(row, dtype):
        if row is None:
            return nest.pack(in_space, [None] * len(columns))
        cells = iter(tf.split(next(bands), _sizes(columns), axis=len(lead) + 1))
        leaves = [
            None
            if column is None
            else tf.cast(tf.reshape(next(cells), [*lead, *row, *column]), dtype)
            for column in columns
        ]
        return nest.pack(in_space, leaves)

    dtypes = [None if leaf is None else leaf.dtype for leaf in nest.flatten(out_space)]
    return nest.pack(out_space, [block_row(*pair) for pair in zip(rows, dtypes, strict=True)])


def _shapes(space):
    """The shape of each live leaf as a list of numbers and, where unknown, scalar tensors."""
    return [
        None
        if leaf is None or not nest.is_differentiable(leaf.dtype)
        else [n if n is not None else tf.shape(leaf)[i] for i, n in enumerate(leaf.shape)]
        for leaf in nest.flatten(space)
    ]


def _sizes(shapes):
    return [
        tf.reduce_prod(tf.convert_to_tensor(shape, tf.int32))
        for shape in shapes
        if shape is not None
    ]
