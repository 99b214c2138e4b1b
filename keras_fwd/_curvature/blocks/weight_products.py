"""Products with a matrix of weights, as ops of a graph: what is multiplied, and what comes out."""

import dataclasses
import math
import string
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_fwd._curvature.blocks import patches

_CONVOLUTIONS = ("Conv2D", "Conv3D", "DepthwiseConv2dNative")


@dataclasses.dataclass(frozen=True)
class Arrangement:
    """How a weight becomes the matrices `[groups, n, m]` of a product: reshapes, transposes.

    Attributes:
        steps: `("reshape", shape before, shape after)` or `("transpose", permutation)`.
    """

    steps: tuple = ()

    def then(self, *steps):
        """This, and further steps after it."""
        return Arrangement((*self.steps, *steps))

    def matrix(self, weight):
        """The matrices of a weight, or of its gradient."""
        for kind, *data in self.steps:
            weight = (
                tf.reshape(weight, data[1]) if kind == "reshape" else tf.transpose(weight, data[0])
            )
        return weight

    def weight(self, matrix):
        """The weight, or gradient, of its matrices."""
        for kind, *data in reversed(self.steps):
            if kind == "reshape":
                matrix = tf.reshape(matrix, data[0])
            else:
                matrix = tf.transpose(matrix, [data[0].index(i) for i in range(len(data[0]))])
        return matrix


@dataclasses.dataclass(frozen=True)
class Product:
    """A weight as the matrices of `y = x W`.

    Attributes:
        op: Name of the op.
        arrangement: Of the weight.
        shape: `(groups, n, m)` of its matrices.
        output: The tensor at which the gradient of the outputs is taken: the op's, or a later one
            with the same gradient.
        inputs: Function: to `x`, `[examples, positions, groups, n]`; for a look-up, the indices
            `[examples, positions]`.
        outputs: Function: a tensor like `output` to `[examples, positions, groups, m]`.
        bias_at: The addition that follows, if the bias is aligned with the columns, else None.
        lookup: Whether `x` is one-hot.
    """

    op: str
    arrangement: Arrangement
    shape: tuple
    output: Any
    inputs: Callable
    outputs: Callable
    bias_at: Any = None
    lookup: bool = False


def product(op, place, arrangement, path):
    """The `Product` that an op is for its input at a place, or None."""
    if op.type in ("MatMul", "BatchMatMulV2", "Einsum") and len(op.inputs) == 2:
        labels = _labels(op)
        return labels and _contraction(op, place, labels, arrangement, path)
    if op.type in _CONVOLUTIONS and place == 1:
        return _convolution(op, arrangement, path)
    if op.type == "GatherV2" and place == 0:
        return _lookup(op, arrangement, path)
    return None


def _contraction(op, place, labels, arrangement, path):
    mine, theirs, result = labels[place], labels[1 - place], labels[2]
    weight, x = op.inputs[place], op.inputs[1 - place]
    # Which of weight, inputs and result share a letter says what an axis is.
    positions = [c for c in theirs if c in result and c not in mine]
    groups = [c for c in mine if c in theirs and c in result]
    rows = [c for c in mine if c in theirs and c not in result]
    columns = [c for c in mine if c in result and c not in theirs]
    explained = {*positions, *groups, *rows, *columns}
    if not positions or explained != {*mine, *theirs, *result} or weight.shape.rank is None:
        return None
    if not weight.shape.is_fully_defined():
        return None
    sizes = dict(zip(mine, weight.shape.as_list(), strict=True))
    shape = tuple(math.prod(sizes[c] for c in part) for part in (groups, rows, columns))
    order = [*groups, *rows, *columns]
    permutation = tuple(mine.index(c) for c in order)
    arrangement = arrangement.then(
        ("transpose", permutation), ("reshape", tuple(sizes[c] for c in order), shape)
    )
    # Keras flattens `[examples, …, n]` to rows before a product: the examples are known before
    # that.
    before = _unflattened(x, shape[1]) if theirs == [*positions, *rows] else None
    output = path.behind(op)

    def view(tensor, own, last, size):
        """`[examples, positions, groups, size]`."""
        tensor = tf.transpose(tensor, [own.index(c) for c in (*positions, *groups, *last)])
        examples = tf.shape(tensor if before is None else before)[0]
        return tf.reshape(tensor, [examples, -1, shape[0], size])

    return Product(
        op.type,
        arrangement,
        shape,
        output,
        lambda: view(x, theirs, rows, shape[1]),
        lambda g: view(g, result, columns, shape[2]),
        path.addition(output) if result == [*positions, *groups, *columns] else None,
    )


def _convolution(op, arrangement, path):
    window = patches.Window(op)
    groups, channels, depth = window.groups, window.depth, window.columns
    kernel = shape_of(op.inputs[1])
    size = math.prod(window.size)
    shape = (groups, size * channels, depth)
    if op.type == "DepthwiseConv2dNative":
        steps = [("reshape", kernel, (size, groups, depth)), ("transpose", (1, 0, 2))]
    else:
        flat = (size * channels, groups, depth)
        steps = [("reshape", kernel, flat), ("transpose", (1, 0, 2))]
    output, back = path.behind(op), None
    source = op.inputs[0].op
    alone = source.type == "ExpandDims"  # one spatial axis, and another one for the op
    source = source.inputs[0].op if alone else source
    if source.type == "SpaceToBatchND":  # how TensorFlow dilates
        squeezed = path.following(output, "Squeeze") if alone else output
        back = None if squeezed is None else path.following(squeezed, "BatchToSpaceND")
        if back is None:
            return None
        output = back

    def inputs():
        rows = window.rows(op.inputs[0])  # [examples, *positions, groups · n]
        if back is not None:
            rows = tf.squeeze(rows, 1) if alone else rows
            _, block, crops = back.op.inputs
            rows = tf.raw_ops.BatchToSpaceND(input=rows, block_shape=block, crops=crops)
        return tf.reshape(rows, [tf.shape(rows)[0], -1, groups, shape[1]])

    def outputs(g):
        g = window.channels_last(g)
        return tf.reshape(g, [tf.shape(g)[0], -1, groups, depth])

    bias_at = path.addition(output)
    return Product(op.type, arrangement.then(*steps), shape, output, inputs, outputs, bias_at)


def _lookup(op, arrangement, path):
    table, indices, axis = op.inputs
    fixed = constant_of(axis)
    if fixed is None or int(fixed) != 0 or table.shape.rank != 2 or op.get_attr("batch_dims"):
        return None
    if indices.shape.rank in (None, 0):
        return None
    shape = (1, *shape_of(table))

    def view(tensor, last):
        return tf.reshape(tensor, [tf.shape(indices)[0], -1, *last])

    return Product(
        op.type,
        arrangement.then(("reshape", shape_of(table), shape)),
        shape,
        path.behind(op),
        lambda: view(indices, []),
        lambda g: view(g, [1, shape[2]]),
        lookup=True,
    )


def _unflattened(x, width):
    """The tensor `[examples, …, width]` that was reshaped to the rows `x`, if it was."""
    if x.op.type != "Reshape" or x.shape.rank != 2:
        return None
    before = x.op.inputs[0]
    rank = before.shape.rank
    return before if rank is not None and rank > 2 and before.shape[-1] == width else None


def _labels(op):
    """A list of labels for each input and the output, or None."""
    if op.type == "Einsum":
        equation = op.get_attr("equation")
        equation = equation.decode() if isinstance(equation, bytes) else equation
        parts = [list(part) for part in equation.replace("->", ",").split(",")]
        repeats = any(len(set(part)) < len(part) for part in parts)
        return None if "." in equation or repeats or len(parts) != 3 else parts
    # The adjoint of real matrices is the transpose.
    flips = ("transpose_a", "transpose_b") if op.type == "MatMul" else ("adj_x", "adj_y")
    flipped = [op.get_attr(flip) for flip in flips]
    ranks = [given.shape.rank for given in op.inputs]
    if None in ranks or min(ranks) < 2:
        return None
    # One of two matrices may stand without axes of a batch; else both must have the same ones.
    leading = [list(string.ascii_lowercase[: rank - 2]) for rank in ranks]
    if ranks[0] != ranks[1] and min(ranks) > 2:
        return None
    if ranks[0] == ranks[1] and not _same_leading(*op.inputs):
        return None
    first = ["C", "P"] if flipped[0] else ["P", "C"]
    second = ["F", "C"] if flipped[1] else ["C", "F"]
    longest = max(leading, key=len)
    return [leading[0] + first, leading[1] + second, [*longest, "P", "F"]]


def _same_leading(x, y):
    return x.shape[:-2] == y.shape[:-2]


def shape_of(tensor):
    """The static shape of a tensor, as a tuple."""
    return tuple(tensor.shape.as_list())


def constant_of(tensor):
    """The value of a tensor that is known when the graph is built, or None."""
    return tf.get_static_value(tensor)
