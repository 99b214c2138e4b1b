"""The factors of a model: when their averages and inverses are renewed, and by which replica."""

import copy

import tensorflow as tf

from keras_fwd._curvature.blocks import kronecker, statistics
from keras_fwd.errors import ConfigurationError
from keras_fwd.optimizers._steps import replicas

# The state of K-FAC's blocks: averaged factors, and their inverses.


class KroneckerState:
    """Averages and inverses of the two factors of one block.

    Args:
        block: A `Kronecker`.
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


#: How the factors are inverted: with the damping split between them, or exactly.
METHODS = ("cholesky", "eigen")
#: Steps before the periods of updates and renewals begin to grow.
FIRST_STEPS = 16


class Factors:
    """All blocks of a model, with their state.

    Args:
        blocks: From `blocks.of_forward_pass`.
        variable: Function `(name, shape, dtype)` that makes a variable of zeros.
        method: One of `METHODS`.
        decay: Of the averages, at each update.
    """

    def __init__(self, blocks, variable, method, decay):
        self._decay = decay
        # Sum of the shares in the averages, which start at zero: divided by it they have no bias.
        self._weight = variable("factor_weight", [], "float32")
        self.states = []
        for i, block in enumerate(blocks):

            def own(name, shape, i=i, dtype=block.dtype.name):
                return variable(f"block_{i}_{name}", shape, dtype)

            make = KroneckerState if block.kind == "Kronecker" else DiagonalState
            self.states.append(make(block, own, method))

    def bound(self, blocks, call):
        """The same state, with the tensors of another trace of the same model."""
        same = [state.block.signature for state in self.states]
        if same != [block.signature for block in blocks]:
            raise ConfigurationError(
                f"{call}: one optimizer trains one model; make another one for another model. "
                "Received: a model whose weights are used in other ways."
            )
        same = copy.copy(self)
        same.states = [copy.copy(state) for state in self.states]
        for state, block in zip(same.states, blocks, strict=True):
            state.block = block
        return same

    def update(self, step, every, measure, sound):
        """Let the averages follow the statistics of the batch, if they are due.

        Args:
            step: Number of the step.
            every: Steps between updates, once training is under way.
            measure: Function without arguments: what `measured` returns.
            sound: Whether loss and gradient of the batch are finite. Where they are not, what is
                measured may be finite all the same, and so large that nothing else counts after.
        """
        due = tf.equal(step % growing_period(step, every), 0) & sound
        like = [average.value for state in self.states for average in state.averages]
        if replicas.count() > 1:
            like.append(self._weight.value)
        replicas.carry_out([replicas.Job(due, measure, self._follow, like)])

    def _follow(self, new):
        """Let the averages follow what was measured on a batch, unless it is not finite."""
        new = list(new)
        shares = new.pop() if replicas.count() > 1 else None
        finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(value)) for value in new])
        # A batch that is not finite has no share at all: its NaN would stay for good.
        keep = tf.where(finite, self._decay, 1.0)
        values = iter(new)
        for state in self.states:
            for average, is_mean in zip(state.averages, state.means, strict=True):
                value = next(values)
                # Means over the examples were summed over the replicas that have any.
                if is_mean and shares is not None:
                    value /= tf.cast(shares, value.dtype)
                share = tf.cast(keep, value.dtype)
                fresh = tf.math.multiply_no_nan(value, 1 - share)  # zero times infinity is zero
                average.assign(share * average.value + fresh)
        self._weight.assign(keep * self._weight.value + (1 - keep))

    def measured(self, forward, cotangents):
        """What the averages follow, on this batch, a list.

        In several replicas it ends with 1, or 0 for a share of the batch without examples.

        Args:
            forward: The `Forward` of the batch.
            cotangents: A `Cotangents`.
        """
        blocks = [state.block for state in self.states]
        found = tf.nest.flatten(statistics.of_batch(blocks, forward, cotangents))
        if replicas.count() > 1:
            found.append(tf.cast(tf.shape(forward.targets[-1])[0] > 0, tf.float32))
        return found

    def renew(self, step, every, damping):
        """Renew the inverses that are due: all at first, then each block in a step of its own."""
        period = growing_period(step, every)
        jobs = []
        for state, (phase, owner) in zip(self.states, self._turns(every), strict=True):
            if not state.renewed:
                continue

            def renew(state=state):
                dtype = state.block.dtype
                return state.renew(self._total(dtype), tf.cast(damping, dtype))

            def assign(values, state=state):
                for variable, value in zip(state.renewed, values, strict=True):
                    variable.assign(value)

            due = tf.equal((step - phase) % period, 0) | tf.equal(step, 0)
            like = [variable.value for variable in state.renewed]
            jobs.append(replicas.Job(due, renew, assign, like, owner))
        replicas.carry_out(jobs)

    def _total(self, dtype):
        """The weight to divide averages by; they are zero where it is."""
        weight = self._weight.value
        return tf.cast(tf.where(weight > 0, weight, tf.ones_like(weight)), dtype)

    def _turns(self, every):
        """In which of `every` steps, and by which replica, each block is renewed.

        So that the costs of all steps are even, and in a step those of all replicas.
        """
        loads = [[0] * replicas.count() for _ in range(every)]
        totals, turns = [0] * replicas.count(), [(0, 0)] * len(self.states)
        # The dearest first: what is cheap fills the gaps that they leave.
        for i in sorted(range(len(self.states)), key=lambda i: -self.states[i].cost):
            phase = min(range(every), key=lambda phase: sum(loads[phase]))
            pairs = list(zip(loads[phase], totals, strict=True))
            owner = pairs.index(min(pairs))
            loads[phase][owner] += self.states[i].cost
            totals[owner] += self.states[i].cost
            turns[i] = phase, owner
        return turns

    def mean_eigenvalue(self):
        """Of all blocks together."""
        total = tf.add_n(
            [tf.cast(s.trace(self._total(s.block.dtype)), tf.float32) for s in self.states]
        )
        return total / sum(s.block.size for s in self.states)

    def solve(self, gradients, damping):
        """The direction: a list like the gradients."""
        result, done = list(gradients), []
        for state in self.states:
            dtype = state.block.dtype
            mine = [gradients[i] for i in state.block.places]
            with tf.control_dependencies(done):  # with memory for one block at a time
                found = state.solve(mine, tf.cast(damping, dtype), self._total(dtype))
            done = found
            for i, value in zip(state.block.places, found, strict=True):
                result[i] = tf.cast(value, gradients[i].dtype)
        return result


def growing_period(step, every):
    """The period of what happens each `every` steps later on: 1 at first, then it doubles.

    The curvature changes fastest in the first steps.
    """
    period = tf.constant(1)
    for power in range((every - 1).bit_length()):
        longer = min(2 ** (power + 1), every)
        period = tf.where(step >= FIRST_STEPS * 2**power, longer, period)
    return period
