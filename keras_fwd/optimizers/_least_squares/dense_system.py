"""The damped system of one batch as a matrix: from the dense Jacobian, for a direct solver."""

import numpy as np
import tensorflow as tf

from keras_fwd._curvature import loss_hessian
from keras_fwd._linear_algebra import least_squares
from keras_fwd._models import model_losses
from keras_fwd._spaces import nest
from keras_fwd._spaces.linear_map import LinearMap, rowwise
from keras_fwd.errors import ConfigurationError
from keras_fwd.optimizers._least_squares.batch_jacobian import CHUNK, batch_jacobian
from keras_fwd.optimizers._steps import replicas
from keras_fwd.optimizers._steps.micro_batches import MicroBatches
from keras_fwd.optimizers._steps.precision import is_half


def dense_system(model_pass, expansion, kinds, H, ridge, damping, scale=()):
    """The system of few weights, of vectors; that of the whole batch in all replicas.

    Args:
        model_pass: The `TrainingPass` of the batch.
        expansion: Its `Expansion`.
        kinds: What `loss_kinds` says of the leaves.
        H: `LinearMap`, the Hessian of the loss in the leaves.
        ridge: Curvature of the weights' regularizers, a list like the weights.
        damping: About what the system will be solved with.
        scale: Variables like the weights: the largest scales seen so far, which follow; or empty
            for a system that is not scaled.
    """
    _check_blocks(model_pass, kinds)
    ridge = _healthy(expansion, nest.ravel(ridge))
    if "general" in kinds:
        columns = _healthy(expansion, _columns(model_pass, expansion))
        curved = _healthy(expansion, _product(H, expansion.leaves, columns))
        (matrix,) = replicas.sums([tf.linalg.matmul(columns, curved, transpose_a=True)])
        matrix += tf.linalg.diag(ridge)
        gradient = _healthy(expansion, nest.ravel(expansion.gradient))
        norms = tf.sqrt(tf.maximum(tf.linalg.diag_part(matrix), 0.0))
        return least_squares.normal_equations(
            matrix, gradient, _largest(scale, norms, model_pass.variables)
        )
    rows, residual, rest = _least_squares(model_pass, expansion, H, kinds)
    rows, residual = replicas.of_all_replicas(_healthy(expansion, rows), residual, reduced=True)

    def scale_of(norms):
        return _largest(scale, norms, model_pass.variables)

    return least_squares.dense_least_squares(rows, residual, ridge, rest, scale_of, damping)


def dual_system(model_pass, expansion, kinds, H, ridge):
    """The system of few residuals, of vectors; arguments as in `dense_system`."""
    rows, residual, rest = _least_squares(model_pass, expansion, H, kinds)
    rows, residual = replicas.of_all_replicas(rows, residual, reduced=False)
    plain = all(variable.regularizer is None for variable in model_pass.variables)
    ridge = None if plain else _healthy(expansion, nest.ravel(ridge))
    return least_squares.DualLeastSquares(rows, residual, ridge, rest)


def _columns(model_pass, expansion):
    """The Jacobian, `[m, n]`."""
    n = expansion.jacobian.shape[1]
    return _unless_empty(expansion.leaves, lambda: batch_jacobian(model_pass, expansion), n)


def _unless_empty(leaves, rows, n):
    """`rows()`, `[m, n]`; of a replica without examples none, for vectorized ops fail on them."""
    if replicas.count() == 1:
        return rows()
    size = tf.add_n([tf.size(leaf) for leaf in leaves])
    dtype = nest.accumulator_dtype(leaves)
    return tf.cond(size > 0, rows, lambda: tf.zeros([0, n], dtype))


def _least_squares(model_pass, expansion, H, kinds):
    """`A`, `b`, `r` with curvature `AᵀA` and gradient `Aᵀ b + r`; `r` is that of all replicas."""
    parts = _residual_and_rest(H, kinds, expansion, model_pass)
    residual, rest = (_healthy(expansion, part) for part in parts)
    if isinstance(model_pass, MicroBatches):
        return *_triangle(model_pass, expansion, H, kinds, residual), rest
    rows = _rooted(H, kinds, expansion.leaves, _columns(model_pass, expansion))
    return rows, residual, *replicas.sums([rest])


def _check_blocks(model_pass, kinds):
    """Raise `ConfigurationError` for a pass in blocks whose rows have no closed form."""
    if not isinstance(model_pass, MicroBatches):
        return
    if is_half(model_pass.outputs):
        raise ConfigurationError(
            'GaussNewton: `micro_batch` in half precision needs solver="cg". Received: the solver '
            f'"dense", micro_batch={model_pass.size}.'
        )
    if "general" in kinds:
        raise ConfigurationError(
            'GaussNewton: `micro_batch` with the solver "dense" needs mse, a robust loss or a '
            "cross-entropy (with its softmax or sigmoid as the last activation, or "
            "from_logits=True). Use "
            f'solver="cg". Received: another loss, micro_batch={model_pass.size}.'
        )


def _triangle(model_pass, expansion, H, kinds, residual):
    """As many rows as weights, of a pass in blocks: the rows of one block are alive at a time."""
    residual = nest.unravel(residual, expansion.leaves)

    def add(i, R, short):
        leaves, J = model_pass.linearized(i, expansion.values)

        def of_block(v):
            curved = H._mv([model_pass.placed(i, part) for part in v])
            return [model_pass.part(i, leaf) for leaf in curved]

        spec = nest.spec(leaves)
        block = LinearMap(of_block, of_block, spec, spec)
        rows = _rooted(block, kinds, leaves, J.to_dense(CHUNK))
        rows = expansion.free.columns(_healthy(expansion, tf.cast(rows, R.dtype)))
        part = nest.ravel([model_pass.part(i, leaf) for leaf in residual], R.dtype)
        both = tf.concat([R, rows], 0), tf.concat([short, part], 0)
        return i + 1, *replicas.triangle(*both)

    n = expansion.jacobian.shape[1]
    # In double precision: each block's QR adds its rounding to that of the blocks before.
    start = tf.zeros([n, n], tf.float64), tf.zeros([n], tf.float64)
    _, *both = tf.while_loop(
        lambda i, *_: i < model_pass.blocks, add, (tf.constant(0), *start), parallel_iterations=1
    )
    dtype = nest.accumulator_dtype(expansion.leaves)
    return [tf.cast(each, dtype) for each in both]


def _largest(scale, norms, variables):
    """The largest scales seen, of this batch and of those before: `[n]`, or None without `scale`.

    The entries of a layer's weight have one scale, the root mean square of the norms of their
    columns, for they have one unit. With a scale for each, those that hardly matter at present, as
    the weights of a saturated neuron, would be free to go far away, and stay there.
    """
    if not scale:
        return None
    values = [variable.value for variable in scale]
    # A column of rounding, as of the bias of attention's keys, is no reason to go far along it.
    least = 8 * np.finfo(values[0].dtype.as_numpy_dtype).eps * tf.reduce_max(norms)
    norms = tf.where(norms > least, norms, tf.zeros_like(norms))
    parts = []
    triples = zip(scale, nest.unravel(norms, values), variables, strict=True)
    for seen, part, variable in triples:
        if not getattr(variable, "entries_have_own_units", False):
            largest = tf.reduce_max(part)
            unit = tf.where(largest > 0, largest, tf.ones_like(largest))  # no square overflows
            part = unit * tf.sqrt(tf.reduce_mean((part / unit) ** 2))
        parts.append(tf.maximum(seen.value, tf.cast(part, seen.dtype)))
        seen.assign(parts[-1])
    return nest.ravel(parts, norms.dtype)


def loss_kinds(model_pass, leaves):
    """What is known of the loss of each leaf; see `loss_hessian.loss_kind`."""
    triples = zip(leaves, nest.flatten(model_pass.outputs), model_pass.losses, strict=True)
    return [
        loss_hessian.loss_kind(loss, model_losses.is_logits(leaf, output, loss))
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
        loss_hessian.hessian_root(kind, leaf, _on_leaf(H, leaves, i), block)
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
    turned = tf.transpose(columns)
    return _unless_empty(leaves, lambda: tf.transpose(mapped(turned)), columns.shape[1])


def _residual_and_rest(H, kinds, expansion, model_pass):
    """`b`, `r` with gradient `Jᵀ Sᵀ b + r`; `b` is zero but where the loss is a sum of squares.

    The rest is pulled back by itself, not found as a difference: where there is none it is zero to
    the last bit, for a small damping would magnify the rounding.
    """
    gradient = loss_hessian.loss_gradient(model_pass.loss_of_leaves, expansion.leaves)
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
    dtype = nest.accumulator_dtype(expansion.gradient)
    if model_pass.loss_is_of_outputs and set(kinds) == {"squares"}:
        rest = [tf.zeros_like(g) for g in expansion.gradient]
    elif model_pass.loss_is_of_outputs and "squares" not in kinds:
        rest = nest.scale(1 / replicas.count(), expansion.gradient)  # this replica's share
    else:
        cotangents = {"loss": tf.ones_like(expansion.loss), "outputs": outside}
        rest = expansion.whole._transpose_mv(cotangents)
    return nest.ravel(parts, dtype), nest.ravel(rest, dtype)
