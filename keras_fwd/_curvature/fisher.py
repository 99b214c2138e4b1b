"""The Fisher information in the outputs, as cotangents: what K-FAC's factors are moments of.

With `SᵀS = H`, the loss's Hessian in the outputs (or logits), the type-2 Fisher (the GGN) is
`Σ_k (Jᵀ Sᵀ e_k)(Jᵀ Sᵀ e_k)ᵀ`, over the coordinates `k` of each example.
"""

import tensorflow as tf

from keras_fwd._curvature import loss_hessian
from keras_fwd._models import model_losses
from keras_fwd._spaces import nest
from keras_fwd.errors import ConfigurationError

KINDS = ("type-2", "monte-carlo", "empirical")
#: Up to this many outputs an example, the Hessian of a loss of unknown form is decomposed.
_DENSE = 256


class Cotangents:
    """Cotangents of the curvature leaves whose outer products sum to the Fisher there.

    Args:
        kind: `"type-2"`, `"monte-carlo"` or `"empirical"`.
        model_pass: The `TrainingPass` after its call.
        leaves: The curvature leaves.
        hessian: The loss's Hessian in them; not used by `"empirical"`.
        seed: A pair of integers for the signs.
        shares: How many replicas the batch is divided among; the loss is that of one share, over
            their number.

    Raises:
        ConfigurationError: a loss of unknown form, and too many outputs to decompose its Hessian.
    """

    def __init__(self, kind, model_pass, leaves, hessian, seed, shares=1):
        self.kind = kind
        self._shares = shares
        self._pass = model_pass
        self._leaves = leaves
        self._seed = seed
        self._hessian = hessian
        self._roots = []
        if kind != "empirical":
            self._roots = [self._root(i) for i in range(len(leaves))]

    def random(self, seed=None):
        """One cotangent for each leaf, the entries with independent random signs, of this seed."""
        signs = random_signs(self._leaves, self._seed if seed is None else seed)
        if self.kind == "empirical":
            return [s * g for s, g in zip(signs, self._gradients(), strict=True)]
        return [root(s) for root, s in zip(self._roots, signs, strict=True)]

    def sums(self, statistics):
        """The sum of `statistics(cotangents)`, a nest of tensors, over all the cotangents."""
        if self.kind == "monte-carlo":
            return statistics(self.random())
        if self.kind == "empirical":
            return statistics(self._gradients())
        counts = [tf.reduce_prod(tf.shape(leaf)[1:]) for leaf in self._leaves]
        total = None
        for place, count in enumerate(counts):

            def at(k, place=place):
                zeros = [tf.zeros_like(leaf) for leaf in self._leaves]
                leaf = self._leaves[place]
                size = tf.reduce_prod(tf.shape(leaf)[1:])
                unit = tf.one_hot(k, size, dtype=leaf.dtype)
                unit = tf.reshape(unit, tf.concat([[1], tf.shape(leaf)[1:]], 0))
                zeros[place] = self._roots[place](tf.broadcast_to(unit, tf.shape(leaf)))
                return statistics(zeros)

            # Outside of the loop, for the first one shows the structure of the sums.
            first = at(0) if total is None else tf.nest.map_structure(tf.add, total, at(0))
            _, total = tf.while_loop(
                lambda k, _, count=count: k < count,
                lambda k, so_far, at=at: (k + 1, tf.nest.map_structure(tf.add, so_far, at(k))),
                (tf.constant(1), first),
            )
        return total

    def _gradients(self):
        """Of the loss of each term, scaled so that their outer products sum to the Fisher."""
        gradients = loss_hessian.loss_gradient(self._pass.loss_of_leaves, self._leaves)
        return [
            g * self._root_of_count(loss, g)
            for g, loss in zip(gradients, self._pass.losses, strict=True)
        ]

    def _root_of_count(self, loss, gradient):
        if getattr(loss, "reduction", None) == "sum":
            return tf.ones([], gradient.dtype)
        # The loss is a mean over n terms, and 1/n stands in each gradient: in the outer products √n
        # leaves the 1/n of a mean.
        terms = self._shares * tf.reduce_prod(tf.shape(gradient)[:-1])
        return tf.sqrt(tf.cast(terms, gradient.dtype))

    def _on_leaf(self, place):
        def product(vector):
            zeros = [tf.zeros_like(leaf) for leaf in self._leaves]
            zeros[place] = vector
            return self._hessian._mv(zeros)[place]

        return product

    def _root(self, place):
        """The function `v -> Sᵀ v` of one leaf."""
        leaf, loss = self._leaves[place], self._pass.losses[place]
        output = nest.flatten(self._pass.outputs)[place]
        kind = loss_hessian.loss_kind(loss, model_losses.is_logits(leaf, output, loss))
        hessian = self._on_leaf(place)
        if kind != "general":
            return loss_hessian.hessian_root_transpose(kind, leaf, hessian)
        return _dense_root(leaf, hessian)


def random_signs(leaves, seed):
    """Entries of −1 and 1 in the shapes of the leaves."""

    def signs(i, leaf):
        mine = tf.random.experimental.stateless_fold_in(seed, i)
        bits = tf.random.stateless_uniform(tf.shape(leaf), mine, 0, 2, tf.int32)
        return tf.cast(2 * bits - 1, leaf.dtype)

    return [signs(i, leaf) for i, leaf in enumerate(leaves)]


def _dense_root(leaf, hessian):
    """By the eigendecomposition of each example's Hessian, negative eigenvalues left out."""
    size = leaf.shape[1:].num_elements()
    if size is None or size > _DENSE:
        raise ConfigurationError(
            "K-FAC needs a root of the loss's Hessian in the outputs: mse, a cross-entropy at the "
            f"logits, a loss of single entries of the outputs, or up to {_DENSE} outputs an "
            f"example. Received: another loss, and outputs of shape {leaf.shape}. Use "
            'fisher="empirical", or GaussNewton with preconditioner=None.'
        )
    shape = tf.shape(leaf)

    def column(k):
        unit = tf.reshape(tf.one_hot(k, size, dtype=leaf.dtype), [1, *leaf.shape[1:]])
        return tf.reshape(hessian(tf.broadcast_to(unit, shape)), [-1, size])

    # One product for column k of every example's matrix: examples do not mix in the loss.
    columns = tf.map_fn(column, tf.range(size), fn_output_signature=leaf.dtype)
    matrix = tf.transpose(columns, [1, 0, 2])
    values, basis = tf.linalg.eigh((matrix + tf.linalg.matrix_transpose(matrix)) / 2)
    root = basis * tf.sqrt(tf.maximum(values, 0.0))[:, None, :]
    return lambda v: tf.reshape(tf.linalg.matvec(root, tf.reshape(v, [-1, size])), shape)
