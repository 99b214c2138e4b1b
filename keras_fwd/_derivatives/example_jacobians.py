"""Norms of the Jacobian of each example, from products with it: no Jacobian is formed.

All examples of a batch go through every product together, which is right for a model that does
not mix examples, as none does with `training=False`.
"""

import numpy as np
import tensorflow as tf

from keras_fwd._derivatives.double_gradient import linearize
from keras_fwd._spaces import given, nest
from keras_fwd.errors import ConfigurationError, StructureError

MAX_ITERATIONS = 100  # of the power iteration
TOLERANCE = {tf.float32: 1e-5, tf.float64: 1e-8}  # relative change at which it stops


class ExampleJacobians:
    """The Jacobians J of a model's examples, seen from their smaller side.

    `small` is J or Jᵀ, whichever has fewer columns, so that a basis or a random vector of its
    space costs least; both have the same norms.

    Args:
        model: Keras model or layer, or any `fn` of `linearize` with the batch on axis 0.
        inputs: Nest of tensors whose shapes are known when a graph is traced.

    Raises:
        StructureError: An output has no batch axis; what `linearize` raises.
        LeakError: As `linearize`.

    Cost: One forward pass, and one more for every product.
    """

    def __init__(self, model, inputs):
        outputs, J = linearize(model, inputs)
        inside, outside = carriers(inputs, J.in_spec), carriers(outputs, J.out_spec)
        check_batch(inside, outside)
        columns, rows = example_size(inside), example_size(outside)
        if columns is not None and (rows is None or columns <= rows):
            self.small, self.space, self.size = J, inside, columns
        elif rows is not None:
            self.small, self.space, self.size = J.T, outside, rows
        else:
            raise StructureError(
                "The norm of each example's Jacobian needs inputs or outputs of a known shape. "
                f"Received: inputs {given.describe(inside)}, outputs {given.describe(outside)}."
            )
        self.batch = tf.shape(nest.live(inside)[0])[0]
        self.dtype = nest.accumulator_dtype([inside, outside])

    def apply(self, matrix):
        """`small` times one vector for each example, `[batch, size]`; returns a nest."""
        return self.small(split(matrix, self.space))

    def random(self, seed):
        """One vector for each example, uniform on the unit sphere, `[batch, size]`."""
        normal = tf.random.stateless_normal([self.batch, self.size], seed, dtype=self.dtype)
        return normal / tf.norm(normal, axis=1, keepdims=True)


def squared_norm_estimates(jacobians, num_probes, seed):
    """Unbiased estimates of the squared Frobenius norm of each example's Jacobian.

    ‖J‖² = E ‖J u‖² for u uniform on the sphere of radius √d, because E u uᵀ = I. Against normal u
    the length carries no noise: a Jacobian with orthogonal columns of one length is exact.

    Args:
        jacobians: `ExampleJacobians`.
        num_probes: How many u are drawn.
        seed: Whole number; the same one draws the same u.

    Returns:
        `[num_probes, batch]`, float64, independent in both axes.

    Cost: One product a probe, one after the other.
    """

    def estimate(probe):
        # A key for each probe, and one u for each example: estimates are independent in both axes.
        u = jacobians.random(tf.stack([tf.cast(seed, tf.int32), probe]))
        # u has length 1 and not √d.
        return jacobians.size * _squares(jacobians.apply(u))

    return tf.map_fn(estimate, tf.range(num_probes), fn_output_signature=tf.float64)


def frobenius_norms(jacobians, num_probes, seed):
    """The Frobenius norm of each example's Jacobian, exact where that takes few products.

    Exact when the smaller side has at most `num_probes` components: one product for each. Else
    estimated from s̄, the mean of the probes' squared norms. s̄ is unbiased, its root is not:
    √s̄ = √s · √(1 + e) with e = (s̄ − s)/s, so E √s̄ = √s (1 + E e/2 − E e²/8 + …)
    = √s (1 − v/(8 s²)) to second order, v the variance of s̄. Hence √s̄ (1 + v/(8 s̄²)).

    Args:
        jacobians: `ExampleJacobians`.
        num_probes: Number of random probes, at least 2 where they are needed.
        seed: Whole number.

    Returns:
        `(norms, variances)`, both `[batch]`, float64; the second is the variance v/(4 s̄) that the
        probes leave in each norm, or None where the norms are exact.

    Raises:
        ConfigurationError: A single probe, which does not show its own variance.
    """
    if jacobians.size <= num_probes:

        def column(index):
            basis = tf.one_hot(index, jacobians.size, dtype=jacobians.dtype)
            shape = [jacobians.batch, jacobians.size]
            return _squares(jacobians.apply(tf.broadcast_to(basis, shape)))

        indices = tf.range(jacobians.size)
        squares = tf.map_fn(column, indices, fn_output_signature=tf.float64)
        return tf.sqrt(tf.reduce_sum(squares, axis=0)), None
    if num_probes < 2:
        raise ConfigurationError(
            "`num_probes` must be at least 2 where the norm is estimated, here for Jacobians of "
            f"rank up to {jacobians.size}. Received: num_probes={num_probes}."
        )
    squares = squared_norm_estimates(jacobians, num_probes, seed)
    mean = tf.reduce_mean(squares, axis=0)
    variance = tf.math.reduce_variance(squares, axis=0) / (num_probes - 1)
    # No NaN for an example whose Jacobian is zero.
    bias = tf.math.divide_no_nan(variance, 8 * mean**2)
    return tf.sqrt(mean) * (1 + bias), tf.math.divide_no_nan(variance, 4 * mean)


def spectral_norms(jacobians, seed):
    """The largest singular value of each example's Jacobian, by power iteration with JᵀJ.

    All examples iterate together until the value of none changes by more than the `TOLERANCE` of
    the dtype, relatively, or `MAX_ITERATIONS` are done. From below: ‖J v‖ ≤ ‖J‖ for a unit v.

    Args:
        jacobians: `ExampleJacobians`.
        seed: Whole number, for the random start.

    Returns:
        `[batch]`, float64.

    Cost: Two products an iteration.
    """
    tolerance = TOLERANCE[jacobians.dtype]

    def proceed(iteration, v, sigma, change):
        del v
        return (iteration < MAX_ITERATIONS) & tf.reduce_any(change > tolerance * sigma)

    def step(iteration, v, sigma, change):
        del change
        image = jacobians.apply(v)
        new = tf.sqrt(_squares(image))
        v = join(jacobians.small.T(image), jacobians.dtype)
        v = tf.math.divide_no_nan(v, tf.norm(v, axis=1, keepdims=True))
        # tf.while_loop wants its state to keep its static shapes.
        new, v = tf.ensure_shape(new, sigma.shape), tf.ensure_shape(v, start.shape)
        return iteration + 1, v, new, tf.abs(new - sigma)

    start = jacobians.random([seed, 0])
    ones = tf.ones([jacobians.batch], tf.float64)
    # The first step outside of the loop, which is entered only with a change to compare.
    state = step(0, start, 0 * ones, ones)
    return tf.while_loop(proceed, step, state)[2]


def carriers(tensors, spec):
    """The tensors, with None where the spec has no tangent."""
    pairs = zip(nest.flatten(tensors), nest.flatten(spec), strict=True)
    return nest.pack(spec, [None if wanted is None else tensor for tensor, wanted in pairs])


def check_batch(inside, outside):
    """Raise `StructureError` unless inputs and outputs have the same batch on axis 0."""
    leaves = [*nest.live(inside), *nest.live(outside)]
    # 0 stands for a scalar: it has no batch axis.
    sizes = {leaf.shape[0] if leaf.shape.rank else 0 for leaf in leaves} - {None}
    if len(sizes) > 1 or 0 in sizes:
        raise StructureError(
            "The norm of each example's Jacobian needs the same batch on axis 0 of every input "
            f"and output. Received: inputs {given.describe(inside)}, outputs "
            f"{given.describe(outside)}."
        )


def example_size(tensors):
    """The number of components of one example, or None if it is unknown in a graph."""
    sizes = [leaf.shape[1:].num_elements() for leaf in nest.live(tensors)]
    return None if None in sizes else int(np.sum(sizes))


def split(matrix, space):
    """`[batch, size]` as a vector of the space."""
    leaves = nest.live(space)
    parts = iter(tf.split(matrix, [leaf.shape[1:].num_elements() for leaf in leaves], axis=1))
    return nest.map_live(
        lambda leaf: tf.cast(tf.reshape(next(parts), tf.shape(leaf)), leaf.dtype), space
    )


def join(vector, dtype):
    """A vector of a space as `[batch, size]`: inverse of `split`."""
    rows = [tf.reshape(leaf, [tf.shape(leaf)[0], -1]) for leaf in nest.live(vector)]
    return tf.concat([tf.cast(row, dtype) for row in rows], axis=1)


def _squares(vector):
    """The squared norm of each example's part, `[batch]`, float64."""
    return tf.reduce_sum(tf.square(join(vector, tf.float64)), axis=1)
