"""A damped system `(C + λ D²) x = g` in eigenvectors, where any damping and any length is cheap."""

import numpy as np
import tensorflow as tf

from keras_fwd._linear_algebra.solution import direct_solution, rounding

#: Dampings tried at once in the search for the one that gives a length.
GRID = 64
#: Decades of damping in which it is searched.
DECADES = 30.0


class DampedSpectrum:
    """A damped system in the eigenvectors `V` of `D⁻¹ C D⁻¹`: any damping costs two products.

    In double precision whatever the dtype of the system: its eigenvalues are squares.

    Attributes:
        values: The eigenvalues, `[n]`, not negative.

    Args:
        roots: `σ`, `[n]`: square roots of the eigenvalues.
        vectors: `V`, `[n, n]`.
        rooted: `ρ`, `[n]`, and
        rest: `ς`, `[n]`, with `D⁻¹ g = V (σ ρ + ς)`: products with `σ` that cancel are not formed.
        scale: `D`, `[n]`, positive.
        dtype: Of the solutions; below its rounding a `σ` counts as zero.
        values: The eigenvalues as they are, if some may be negative: these count as zero, but not
            in `bend`, and `within` then always damps. None for the squares of the roots.
        loose: `Vᵀ D⁻¹ r`, `[n]`, with `r` the part of `g` that need not be in the range of `C`:
            where `C` does not see it, `within` always damps. None for none.
        refined: `(D⁻¹ C D⁻¹, D⁻¹ g, share)`: a solution is corrected once by that share of what it
            leaves, as XLA finds eigenvalues to seven digits only. None for no correction.

    References:
        Moré, The Levenberg-Marquardt algorithm: implementation and theory, Numerical Analysis,
        Lecture Notes in Mathematics 630 (1978).
    """

    def __init__(
        self, roots, vectors, rooted, rest, scale, dtype, values=None, loose=None, refined=None
    ):
        self._vectors, self._scale, self._dtype = vectors, scale, dtype
        self._refined = refined
        self.values = roots**2
        self._curvature = self.values if values is None else values
        self._slopes = roots * rooted + rest
        self._least = rounding(roots, dtype) ** 2
        self._bounded = self._has_minimum(values, loose)

    def solve(self, damping, gradient=None):
        """`Solution` of `(C + damping · D²) x = g`; of least norm where that is singular.

        Args:
            damping: Scalar.
            gradient: In the place of `g`, `[n]`, or None.
        """
        slopes = self._slopes if gradient is None else self._turned(gradient)
        shares = self._shares(slopes, damping)
        value = tf.linalg.matvec(self._vectors, shares)
        if self._refined is not None:
            matrix, right, share = self._refined
            right = right if gradient is None else self._scaled(gradient)
            product = tf.linalg.matvec(matrix, value) + tf.cast(damping, value.dtype) * value
            left = tf.linalg.matvec(self._vectors, right - product, transpose_a=True)
            correction = tf.linalg.matvec(self._vectors, self._shares(left, damping))
            # A share of 0 is to leave out a correction that is NaN.
            value += tf.math.multiply_no_nan(correction, share)
        return direct_solution(tf.cast(value / self._scale, self._dtype))

    def slope(self, damping):
        """`⟨g, x⟩`."""
        return tf.reduce_sum(self._slopes * self._shares(self._slopes, damping))

    def bend(self, vector):
        """`⟨x, C x⟩`."""
        turned = tf.cast(vector, self._scale.dtype) * self._scale
        turned = tf.linalg.matvec(self._vectors, turned, transpose_a=True)
        return tf.cast(tf.reduce_sum(self._curvature * turned**2), self._dtype)

    def length(self, vector):
        """`‖D x‖`."""
        return tf.norm(tf.cast(vector, self._scale.dtype) * self._scale)

    def within(self, radius):
        """The least damping with `‖D x‖` at most the radius, to a thousandth of it; float64."""
        radius = tf.cast(radius, self.values.dtype)
        # Enough in any case: ‖D x‖ is at most ‖slopes‖ over the damping.
        most = tf.math.divide_no_nan(tf.norm(self._slopes), radius)
        powers = tf.linspace(tf.constant(0.0, most.dtype), tf.ones_like(most), GRID)
        grid = most * 10.0 ** (-DECADES * powers)
        # A second grid between two neighbors of the first: no iteration whose length depends on the
        # data.
        grid = tf.gather(grid, self._last_inside(grid, radius)) * 10.0 ** (
            -DECADES / (GRID - 1) * powers
        )
        last = self._last_inside(grid, radius)
        upper, lower = (tf.gather(grid, last + i) for i in (0, 1))
        shorter, longer = tf.unstack(self._lengths(tf.stack([upper, lower])), num=2)
        share = tf.clip_by_value(tf.math.divide_no_nan(radius - shorter, longer - shorter), 0, 1)
        # Linear in the logarithm of the damping.
        between = upper * tf.math.divide_no_nan(lower, upper) ** share
        free = self._bounded & (self._lengths(tf.zeros([1], most.dtype))[0] <= radius)
        return tf.where(free, tf.zeros_like(most), between)

    def _last_inside(self, grid, radius):
        """Before the first damping of a falling grid that is not enough; the last but one at most.

        That is, where the damping is between two of the grid.
        """
        inside = tf.cast(self._lengths(grid) <= radius, tf.int32)
        return tf.clip_by_value(tf.reduce_sum(tf.math.cumprod(inside)) - 1, 0, GRID - 2)

    def _has_minimum(self, values, loose):
        """Whether the quadratic model has one without damping."""
        bounded = tf.constant(True)
        if values is not None:
            bounded &= tf.reduce_all(values >= -rounding(values, self._dtype))
        if loose is not None:
            unseen = tf.where(self.values <= self._least, loose, tf.zeros_like(loose))
            # What of the gradient rounding turns out of the range of C stays below that.
            visible = np.sqrt(np.finfo(self._dtype.as_numpy_dtype).eps)
            bounded &= tf.norm(unseen) <= visible * tf.norm(loose)
        return bounded

    def _scaled(self, gradient):
        return tf.cast(gradient, self._scale.dtype) / self._scale

    def _turned(self, gradient):
        return tf.linalg.matvec(self._vectors, self._scaled(gradient), transpose_a=True)

    def _shares(self, slopes, damping):
        damped = self.values + tf.cast(damping, self.values.dtype)[..., None]
        zero = damped <= self._least  # which NaN is not: it must not be lost
        shares = slopes / tf.where(zero, tf.ones_like(damped), damped)
        return tf.where(zero, tf.zeros_like(shares), shares)

    def _lengths(self, dampings):
        return tf.norm(self._shares(self._slopes, dampings), axis=-1)
