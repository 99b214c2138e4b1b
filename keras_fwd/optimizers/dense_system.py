"""The damped system of one batch as a matrix: from the dense Jacobian, for a direct solver."""

import tensorflow as tf

from keras_fwd import curvature, least_squares, model, nest
from keras_fwd.linear_map import rowwise
from keras_fwd.optimizers import replicas, triangles

#: Columns of the Jacobian computed at once.
CHUNK = 128


def dense_system(model_pass, expansion, H, ridge, solver):
    """The system, of vectors; that of the whole batch in all replicas.

    Args:
        model_pass: The `keras_fwd.model.TrainingPass` of the batch.
        expansion: Its `Expansion`.
        H: `LinearMap`, the Hessian of the loss in the leaves.
        ridge: Curvature of the weights' regularizers, a list like the weights.
        solver: `"dense"` or `"dual"`.
    """
    kinds = loss_kinds(model_pass, expansion.leaves)
    columns = _healthy(expansion, expansion.jacobian.to_dense(CHUNK))
    ridge = _healthy(expansion, nest.ravel(ridge))
    if "general" in kinds:
        curved = _healthy(expansion, _product(H, expansion.leaves, columns))
        (matrix,) = replicas.sums([tf.linalg.matmul(columns, curved, transpose_a=True)])
        gradient = _healthy(expansion, nest.ravel(expansion.gradient))
        return least_squares.NormalEquations(matrix + tf.linalg.diag(ridge), gradient)
    rows = _healthy(expansion, _rooted(H, kinds, expansion.leaves, columns))
    residual, rest = _residual_and_rest(H, kinds, expansion, model_pass)
    residual, rest = _healthy(expansion, residual), _healthy(expansion, rest)
    dense = solver == "dense"
    rows, residual = triangles.of_all_replicas(rows, residual, reduced=dense)
    (rest,) = replicas.sums([rest])
    method = least_squares.DenseLeastSquares if dense else least_squares.DualLeastSquares
    return method(rows, residual, ridge, rest)


def loss_kinds(model_pass, leaves):
    """What is known of the loss of each leaf; see `keras_fwd.curvature.loss_kind`."""
    triples = zip(leaves, nest.flatten(model_pass.outputs), model_pass.losses, strict=True)
    return [
        curvature.loss_kind(loss, model.is_logits(leaf, output, loss))
        for leaf, output, loss in triples
    ]


def _healthy(expansion, tensor):
    """Zeros instead of a batch that is not finite: some kernels raise on NaN."""
    return tf.where(expansion.finite, tensor, tf.zeros_like(tensor))


def _split(leaves, columns):
    """`[m, n]` cut into one block `[…leaf, n]` for each leaf."""
    blocks = tf.split(columns, [tf.size(leaf) for leaf in leaves])
    pairs = zip(blocks, leaves, strict=True)
    return [tf.reshape(b, tf.concat([tf.shape(leaf), [-1]], 0)) for b, leaf in pairs]


def _rooted(H, kinds, leaves, columns):
    """`S J` with `SᵀS = H`, `[m, n]`."""
    blocks = [
        curvature.hessian_root(kind, leaf, _on_leaf(H, leaves, i), block)
        for i, (kind, leaf, block) in enumerate(
            zip(kinds, leaves, _split(leaves, columns), strict=True)
        )
    ]
    return tf.concat([tf.reshape(block, [-1, tf.shape(columns)[1]]) for block in blocks], 0)


def _on_leaf(H, leaves, i):
    def product(vector):
        zeros = [tf.zeros_like(leaf) for leaf in leaves]
        return H._mv([*zeros[:i], vector, *zeros[i + 1 :]])[i]

    return product


def _product(H, leaves, columns):
    """`H J`, `[m, n]`, column by column, vectorized."""

    def column(c):
        return nest.ravel(H._mv(nest.unravel(c, leaves)), columns.dtype)

    mapped, _ = rowwise(column, tf.TensorSpec(columns.shape[:1], columns.dtype))
    return tf.transpose(mapped(tf.transpose(columns)))


def _residual_and_rest(H, kinds, expansion, model_pass):
    """`b`, `r` with gradient `Jᵀ Sᵀ b + r`; `b` is zero but where the loss is a sum of squares.

    The rest is pulled back by itself, not found as a difference: where there is none it is zero to
    the last bit, for a small damping would magnify the rounding.
    """
    gradient = curvature.loss_gradient(model_pass.loss_of_leaves, expansion.leaves)
    parts, outside = [], []
    for i, (kind, leaf) in enumerate(zip(kinds, expansion.leaves, strict=True)):
        zeros = tf.zeros_like(leaf)
        if kind == "squares":
            curved = _on_leaf(H, expansion.leaves, i)(tf.ones_like(leaf))
            parts.append(tf.math.divide_no_nan(gradient[i], tf.sqrt(tf.maximum(curved, 0.0))))
            outside.append(-gradient[i])
        else:
            parts.append(zeros)
            outside.append(zeros)
    # The loss less the outputs that the residual stands for: these cancel inside one pullback.
    rest = expansion.whole._transpose_mv({"loss": tf.ones_like(expansion.loss), "outputs": outside})
    dtype = nest.accumulator_dtype(expansion.gradient)
    return nest.ravel(parts, dtype), nest.ravel(rest, dtype)
