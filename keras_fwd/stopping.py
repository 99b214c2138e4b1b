"""When conjugate gradients should stop though their residual is still large: by their progress.

They lower `φ(x) = ½⟨x, A x⟩ − ⟨b, x⟩` in each iteration, the residual only in the end.
"""

import tensorflow as tf

#: Progress is measured over this many iterations at least, and over this share of all.
SPAN = 10
SHARE = 10


class Progress:
    """Whether the last iterations lowered `φ` by too little.

    After iteration `i`, with `k = max(10, i / 10)`: `i > k`, `φ(xᵢ) < 0` and
    `(φ(xᵢ) − φ(xᵢ₋ₖ)) / φ(xᵢ) < k ε`. Its state are the last values of `φ`, a tensor.

    Args:
        tolerance: `ε`.
        max_iterations: Bound on the iterations, an integer: it tells how many values are kept.

    References:
        Martens, Deep learning via Hessian-free optimization, ICML (2010), section 4.4.
    """

    def __init__(self, tolerance, max_iterations):
        self._tolerance = tolerance
        self._size = 1 + max(SPAN, -(-max_iterations // SHARE))

    def start(self, phi):
        """The state before the first iteration."""
        return tf.fill([self._size], phi)

    def after(self, i, fall, past):
        """The state after iteration `i`, from 1, in which `φ` fell; and whether to stop."""
        phi = tf.gather(past, (i - 1) % self._size) - fall
        past = tf.where(tf.equal(tf.range(self._size), i % self._size), phi, past)
        k = tf.maximum(SPAN, -(-i // SHARE))
        change = phi - tf.gather(past, (i - k) % self._size)
        bound = tf.cast(k, phi.dtype) * tf.cast(self._tolerance, phi.dtype) * phi
        return past, (i > k) & (phi < 0) & (change > bound)
