"""Blocks of curvature: which weights share one, and its statistics on a batch.

A block is found once, when a training step is traced, from how its weights are used. Its
statistics are sums over the cotangents given: `H = Σ_k s_k s_kᵀ` being the loss's Hessian in the
outputs, those for every `s_k`, or for one random combination of them.
"""

import dataclasses
import math

import tensorflow as tf

from keras_fwd._curvature.blocks import kronecker, weight_uses
from keras_fwd._curvature.blocks.weight_products import Arrangement, Product
from keras_fwd._curvature.blocks.weight_uses import Broadcast, Other

#: How a weight that is used at many positions of an example is treated: each position as an example
#: of its own, or their sum as one.
SHARED = ("expand", "reduce")
#: A factor wider than this is kept as its diagonal.
WIDEST = 8192


@dataclasses.dataclass(frozen=True)
class Kronecker:
    """A matrix of weights, and its bias if it has one.

    Attributes:
        places: Of the weight, and of the bias, among the trainable variables.
        uses: `Product`s.
        bias_shape: None without a bias.
        shared: `"expand"` or `"reduce"`.
        dtype: Of the factors.
    """

    places: tuple
    uses: tuple
    bias_shape: tuple | None
    shared: str
    dtype: tf.DType
    kind = "Kronecker"

    @property
    def arrangement(self) -> Arrangement:
        """How the weight becomes the matrix."""
        return self.uses[0].arrangement

    @property
    def shape(self):
        """`(groups, n, m)` of the matrix, the bias being its last row."""
        groups, n, m = self.uses[0].shape
        return groups, n + (self.bias_shape is not None), m

    @property
    def outputs(self):
        """The tensors at which the gradients are taken."""
        return [use.output for use in self.uses]

    @property
    def state(self):
        """Shapes of the left and of the right factor."""
        groups, n, m = self.shape
        left = [groups, n] if self._left_diagonal else [groups, n, n]
        return left, [groups, m] if m > WIDEST else [groups, m, m]

    @property
    def size(self):
        """How many weights there are."""
        groups, n, m = self.shape
        return groups * n * m

    @property
    def signature(self):
        """What two traces of a model agree in."""
        # Without tensors, which belong to one trace.
        return self.kind, self.places, self.shape, self.uses[0].lookup

    @property
    def _left_diagonal(self):
        return self.uses[0].lookup or self.shape[1] > WIDEST

    @property
    def why(self):
        """In words."""
        ops = ", ".join(dict.fromkeys(use.op for use in self.uses))
        times = f", {len(self.uses)} times" if len(self.uses) > 1 else ""
        return f"matrix in {ops}{times}"

    def left(self):
        """The second moment of the inputs on this batch."""
        if self.uses[0].lookup:
            seen = [tf.reshape(use.inputs(), [-1]) for use in self.uses]
            seen = tf.concat(seen, 0)
            size = self.uses[0].shape[1]
            # The rows are one-hot: their second moment is diagonal, the share of each index.
            counts = tf.math.unsorted_segment_sum(tf.ones_like(seen, self.dtype), seen, size)
            return (counts / tf.cast(tf.maximum(tf.size(seen), 1), self.dtype))[None]
        rows = [tf.cast(use.inputs(), self.dtype) for use in self.uses]
        if self.bias_shape is not None:
            rows = [tf.concat([x, tf.ones_like(x[..., :1])], -1) for x in rows]
        rows = self._gather(rows, mean=True)
        count = tf.cast(tf.maximum(tf.shape(rows)[0], 1), self.dtype)
        return kronecker.second_moment(rows, self._left_diagonal) / count

    def right(self, gradients):
        """The second moment, summed, of the gradients at `outputs`."""
        pairs = zip(self.uses, gradients, strict=True)
        rows = self._gather([tf.cast(use.outputs(g), self.dtype) for use, g in pairs], mean=False)
        return kronecker.second_moment(rows, self.shape[2] > WIDEST)

    def _gather(self, rows, mean):
        """`[rows, groups, width]` of tensors `[examples, positions, groups, width]`."""
        _, _, groups, width = rows[0].shape
        if self.shared == "expand" or self.uses[0].lookup:
            return tf.concat([tf.reshape(part, [-1, groups, width]) for part in rows], 0)
        # "reduce": of gradients the sum over the positions, of inputs the mean (KFAC-reduce).
        total = tf.add_n([tf.reduce_sum(part, 1) for part in rows])
        if not mean:
            return total
        count = tf.add_n([tf.shape(part)[1] for part in rows])
        return total / tf.cast(count, total.dtype)

    def matrix(self, values):
        """`[groups, n, m]` of the weight and the bias, or of their gradients."""
        matrix = self.arrangement.matrix(tf.cast(values[0], self.dtype))
        if self.bias_shape is None:
            return matrix
        groups, _, m = self.shape
        row = tf.reshape(tf.cast(values[1], self.dtype), [groups, 1, m])
        return tf.concat([matrix, row], 1)

    def values(self, matrix):
        """Inverse of `matrix`: a list."""
        if self.bias_shape is None:
            return [self.arrangement.weight(matrix)]
        bias = tf.reshape(matrix[:, -1], self.bias_shape)
        return [self.arrangement.weight(matrix[:, :-1]), bias]


@dataclasses.dataclass(frozen=True)
class Diagonal:
    """Weights without a matrix: the diagonal of their block.

    From the gradients of each example where the weight scales or shifts entry by entry (biases,
    normalizations); else from gradients of the batch, the examples with random signs, whose squares
    have the same mean.
    """

    places: tuple
    uses: tuple
    shape: tuple
    why: str
    dtype: tf.DType
    slopes: tuple = ()  # of the operand by the weight, for each use

    @property
    def kind(self):
        """Of the diagonal."""
        return "scale and shift" if self.uses else "diagonal"

    @property
    def outputs(self):
        """The tensors at which the gradients are taken."""
        return [use.output for use in self.uses]

    @property
    def size(self):
        """How many weights there are."""
        return math.prod(self.shape)

    @property
    def signature(self):
        """What two traces of a model agree in."""
        return self.kind, self.places, self.shape, None

    def squares(self, gradients):
        """The diagonal of `Σ g gᵀ` over the examples, from the gradients at `outputs`."""
        each = tf.add_n(
            [
                tf.cast(use.gradients(g), self.dtype) * tf.cast(slope, self.dtype)
                for use, g, slope in zip(self.uses, gradients, self.slopes, strict=True)
            ]
        )
        return tf.reshape(tf.reduce_sum(each**2, 0), self.shape)


def of_forward_pass(forward, leaves, shared):
    """The blocks of the sources of a forward pass.

    Args:
        forward: A `Forward` in a graph, its sources the weights.
        leaves: Those of its outputs that the curvature is taken in: the last ones.
        shared: How a weight that is used at many positions is treated: `"expand"` or `"reduce"`.

    Returns:
        List of `Kronecker` and `Diagonal`; each weight is in one of them.
    """
    # Any cotangents do: they only show at which tensors a tape knows a gradient.
    ones = [tf.ones_like(leaf) for leaf in leaves]
    cotangents = [*[None] * (len(forward.targets) - len(ones)), *ones]
    weights = forward.sources
    uses = weight_uses.find(weights, leaves)
    products = [use.output for mine in uses for use in mine if not isinstance(use, Other)]
    known = {
        id(output)
        for output, gradient in zip(
            products, forward.gradients_at(products, cotangents), strict=True
        )
        if gradient is not None
    }
    uses = [[_known(use, known) for use in mine] for mine in uses]
    biases = {}  # place of a kernel -> of its bias
    for place in range(len(weights)):
        partner = _bias_of(place, uses, weights)
        if partner is not None:
            biases[place] = partner
    blocks = []
    for place, (weight, mine) in enumerate(zip(weights, uses, strict=True)):
        if place in biases.values():
            continue
        # Half precision has too few digits for second moments, and no Cholesky.
        dtype = tf.float64 if weight.dtype == tf.float64 else tf.float32
        if _is_matrix(mine):
            bias = biases.get(place)
            places = (place,) if bias is None else (place, bias)
            shape = None if bias is None else tuple(weights[bias].shape.as_list())
            blocks.append(Kronecker(places, tuple(mine), shape, shared, dtype))
        else:
            blocks.append(_diagonal(place, weight, mine, forward, dtype))
    return blocks


def _known(use, known):
    """The use, or another kind of use if no tape knows the gradient there."""
    plain = isinstance(use, Other) or id(use.output) in known
    return use if plain else Other("a function with a gradient of its own")


def _is_matrix(uses):
    """Whether one Kronecker block stands for all uses."""
    if not uses or not all(isinstance(use, Product) for use in uses):
        return False
    first = uses[0]
    return all(
        (use.arrangement, use.shape, use.lookup) == (first.arrangement, first.shape, first.lookup)
        for use in uses
    )


def _bias_of(place, uses, weights):
    """The place of the weight that is added after every use of this one, and nowhere else."""
    if not _is_matrix(uses[place]) or uses[place][0].lookup:
        return None
    additions = [use.bias_at for use in uses[place]]
    if None in additions:
        return None
    groups, _, m = uses[place][0].shape
    for other, candidates in enumerate(uses):
        plain = all(isinstance(use, Broadcast) for use in candidates) and candidates
        if not plain or weights[other].shape.num_elements() != groups * m:
            continue
        if [use.op for use in candidates] == additions and _on_last_axes(candidates):
            return other
    return None


def _on_last_axes(uses):
    """Whether an addition varies along whole trailing axes only, as the columns do."""
    for use in uses:
        shape = use.operand.shape.as_list()
        while shape and shape[0] == 1:
            shape = shape[1:]
        trailing = use.output.shape.as_list()[len(use.output.shape) - len(shape) :]
        if use.op.type != "BiasAdd" and trailing != shape:
            return False
    return True


def _diagonal(place, weight, uses, forward, dtype):
    shape = tuple(weight.shape.as_list())
    if uses and all(isinstance(use, Broadcast) for use in uses):
        slopes = tuple(tf.reshape(forward.slope(use.operand, weight), [-1]) for use in uses)
        ops = ", ".join(dict.fromkeys(use.op.type for use in uses))
        return Diagonal((place,), tuple(uses), shape, f"entry by entry in {ops}", dtype, slopes)
    if not uses:
        why = "not in the outputs"
    else:
        kinds = [use.op.type if isinstance(use, Broadcast) else use.op for use in uses]
        why = f"used in {', '.join(dict.fromkeys(kinds))}"
    return Diagonal((place,), (), shape, why, dtype)
