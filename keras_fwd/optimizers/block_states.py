"""The state of K-FAC's blocks: averaged factors, and their inverses."""

import tensorflow as tf

from keras_fwd._curvature.blocks import kronecker


class KroneckerState:
    """Averages and inverses of the two factors of one block.

    Args:
        block: A `keras_fwd._curvature.blocks.blocks.Kronecker`.
        variable: Function `(name, shape)` that makes a variable of zeros.
        method: `"cholesky"` or `"eigen"`.
    """

    def __init__(self, block, variable, method):
        self.block = block
        self.method = method
        left, right = block.state
        self.shapes = left, right
        self.left = variable("left", left)
        self.right = variable("right", right)
        if method == "cholesky":
            self.renewed = [
                variable("left_inverse", left),
                variable("right_inverse", right),
            ]
        else:
            self.renewed = []
            for side, shape in (("left", left), ("right", right)):
                self.renewed.append(variable(f"{side}_eigenvalues", shape[:2]))
                if len(shape) == 3:
                    self.renewed.append(variable(f"{side}_eigenvectors", shape))

    #: Which of the averages are of means over the examples; the others are of sums.
    means = True, False

    @property
    def averages(self):
        """The variables that follow the statistics."""
        return [self.left, self.right]

    @property
    def cost(self):
        """Of a renewal, in multiplications."""
        return sum(shape[0] * shape[1] ** (3 if len(shape) == 3 else 1) for shape in self.shapes)

    def trace(self, weight):
        """Of the block."""
        left, right = (
            tf.cast(factor.shape[1], factor.dtype) * kronecker.mean_eigenvalue(factor / weight)
            for factor in (self.left.value, self.right.value)
        )
        return tf.reduce_sum(left * right)

    def renew(self, weight, damping):
        """New values of `renewed`, from averages that have the given total weight."""
        left, right = self.left.value / weight, self.right.value / weight
        if self.method == "cholesky":
            return kronecker.damped_inverses(left, right, damping)
        parts = [part for factor in (left, right) for part in kronecker.eigen(factor)]
        return [part for part in parts if part is not None]

    def solve(self, gradients, damping, weight):
        """The direction of this block's weights."""
        del weight
        x = self.block.matrix(gradients)
        if self.method == "cholesky":
            left, right = (variable.value for variable in self.renewed)
            return self.block.values(kronecker.sandwich(left, x, right))
        values = iter(variable.value for variable in self.renewed)
        eigens = [
            kronecker.Eigen(next(values), next(values) if len(shape) == 3 else None)
            for shape in self.shapes
        ]
        return self.block.values(kronecker.solve_eigen(eigens[0], x, eigens[1], damping))


class DiagonalState:
    """The average of the diagonal of one block."""

    renewed = ()
    cost = 0
    means = (False,)

    def __init__(self, block, variable, method):
        del method
        self.block = block
        self.average = variable("diagonal", list(block.shape))

    @property
    def averages(self):
        """The variable that follows the statistics."""
        return [self.average]

    def trace(self, weight):
        """Of the block."""
        return tf.reduce_sum(self.average.value / weight)

    def solve(self, gradients, damping, weight):
        """The direction of this weight."""
        entries = self.average.value / weight
        inverse = kronecker.damped_inverse(tf.reshape(entries, [1, -1]), damping[None])
        return [tf.cast(gradients[0], entries.dtype) * tf.reshape(inverse, entries.shape)]
