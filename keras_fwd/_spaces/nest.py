"""Vector algebra on nests of tensors.

A *nest* is a tensor or a list, tuple or dict of nests. A *spec* is the same nest with a
`tf.TensorSpec` at each differentiable leaf and `None` where a leaf takes no tangent (integers,
booleans, strings). A vector of a spec's space has a tensor where the spec has a `TensorSpec`.
"""

import functools
import operator

import tensorflow as tf


def flatten(nest):
    """The leaves of a nest, in the order of `tf.nest` (dict keys sorted); `None` is a leaf."""
    return tf.nest.flatten(nest)


def pack(structure, leaves):
    """The nest with the given structure and leaves: inverse of `flatten`."""
    return tf.nest.pack_sequence_as(structure, leaves)


def paths(nest, prefix=""):
    """A readable path for each leaf, in the order of `flatten`: `["x"][0]`."""
    if isinstance(nest, dict):
        items = [(f"[{key!r}]", nest[key]) for key in sorted(nest)]
    elif isinstance(nest, tuple) and hasattr(nest, "_fields"):
        items = [(f".{name}", value) for name, value in zip(nest._fields, nest, strict=True)]
    elif isinstance(nest, (list, tuple)):
        items = [(f"[{i}]", value) for i, value in enumerate(nest)]
    else:
        return [prefix]
    return [path for step, value in items for path in paths(value, prefix + step)]


def is_differentiable(dtype):
    """Whether tensors of this dtype carry tangents: the floating-point ones."""
    return tf.as_dtype(dtype).is_floating


def spec(nest):
    """The spec of a nest of tensors or variables."""
    return tf.nest.map_structure(
        lambda x: tf.TensorSpec(x.shape, x.dtype) if is_differentiable(x.dtype) else None, nest
    )


def live(nest):
    """The leaves of a vector that are tensors; leaves without a tangent are left out."""
    return [leaf for leaf in flatten(nest) if leaf is not None]


def fill(space, leaves):
    """The vector of a space with these live leaves: inverse of `live`."""
    leaves = iter(leaves)
    return map_live(lambda _: next(leaves), space)


def map_live(function, *nests):
    """Apply `function` to matching leaves; `None` stays `None`."""
    return tf.nest.map_structure(
        lambda *leaves: None if leaves[0] is None else function(*leaves), *nests
    )


def add(x, y):
    """x + y."""
    return map_live(tf.add, x, y)


def scale(factor, x):
    """factor · x; the factor is cast to each leaf's dtype."""
    return map_live(lambda leaf: _cast(factor, leaf.dtype) * leaf, x)


def add_scaled(x, factor, y):
    """x + factor · y."""
    return map_live(lambda a, b: a + _cast(factor, a.dtype) * b, x, y)


def moved(point, shift):
    """A nest of tensors moved by a vector: leaves without a tangent stay, others may broadcast."""
    return tf.nest.map_structure(lambda x, s: x if s is None else x + s, point, shift)


def _cast(factor, dtype):
    # tf.cast would take a Python number through float32.
    is_number = isinstance(factor, (int, float))
    return tf.constant(factor, dtype) if is_number else tf.cast(factor, dtype)


def dot(x, y):
    """⟨x, y⟩ over all leaves, accumulated in float32 at least."""
    (product,) = dots([(x, y)])
    return product


def dots(pairs):
    """⟨x, y⟩ of each pair; the products of their entries take the memory of one leaf at a time."""
    results, last = [], []
    for x, y in pairs:
        x, y = live(x), live(y)
        dtype = accumulator_dtype(x)
        total = tf.zeros([], dtype)
        for a, b in zip(x, y, strict=True):
            # One leaf after the other: the scheduler would otherwise form all the products at once.
            with tf.control_dependencies(last):
                total += tf.reduce_sum(tf.cast(a, dtype) * tf.cast(b, dtype))
            last = [total]
        results.append(total)
    return results


def accumulator_dtype(nest):
    """float64 if a leaf (tensor or spec) is float64, else float32."""
    wide = any(tf.as_dtype(leaf.dtype) == tf.float64 for leaf in live(nest))
    return tf.float64 if wide else tf.float32


def squared_norm(x):
    """⟨x, x⟩; one pass over each leaf, without the product in memory."""
    leaves = live(x)
    dtype = accumulator_dtype(leaves)
    # `l2_loss` is half the sum of squares.
    terms = [2 * tf.nn.l2_loss(tf.cast(leaf, dtype)) for leaf in leaves]
    return functools.reduce(operator.add, terms, tf.zeros([], dtype))


def norm(x):
    """The Euclidean norm over all leaves."""
    return tf.sqrt(squared_norm(x))


def zeros_like(nest):
    """The zero vector of the space that the nest of tensors lies in."""
    return tf.nest.map_structure(
        lambda x: tf.zeros_like(x) if x is not None and is_differentiable(x.dtype) else None, nest
    )


def random_like(nest, seed):
    """A standard normal vector of the same space; `seed` is a pair of integers, as in tf.random."""
    leaves = flatten(nest)
    # A key for each leaf: with one for all, leaves of one shape would get the same numbers.
    drawn = [
        None
        if leaf is None or not is_differentiable(leaf.dtype)
        else tf.random.stateless_normal(
            tf.shape(leaf), tf.random.experimental.stateless_fold_in(seed, i), dtype=leaf.dtype
        )
        for i, leaf in enumerate(leaves)
    ]
    return pack(nest, drawn)


def all_finite(nest):
    """A boolean scalar: no leaf holds NaN or infinity."""
    checks = [tf.reduce_all(tf.math.is_finite(leaf)) for leaf in live(nest)]
    return functools.reduce(tf.logical_and, checks, tf.constant(True))


def densify(gradient):
    """`tf.IndexedSlices` (the gradient of a gather) as a tensor."""
    if isinstance(gradient, tf.IndexedSlices):
        return tf.convert_to_tensor(gradient)
    return gradient


def size(spec_):
    """The number of components of a vector of this spec, or None if a dimension is unknown."""
    sizes = [leaf.shape.num_elements() for leaf in live(spec_)]
    return None if None in sizes else sum(sizes)


def ravel(x, dtype=None):
    """All live leaves of a vector as one vector of a common dtype."""
    leaves = live(x)
    dtype = dtype or accumulator_dtype(leaves)
    return tf.concat([tf.reshape(tf.cast(leaf, dtype), [-1]) for leaf in leaves], axis=0)


def unravel(vector, spec_):
    """Inverse of `ravel`, for a spec (or nest of tensors) whose sizes are known at run time."""
    # Static where they can be, so that what is made of the pieces keeps its static shape.
    shapes = [
        leaf.shape if leaf.shape.is_fully_defined() else tf.shape(leaf) for leaf in live(spec_)
    ]
    pieces = tf.split(vector, [_count(shape) for shape in shapes])
    triples = zip(pieces, shapes, live(spec_), strict=True)
    return fill(spec_, [tf.cast(tf.reshape(p, shape), leaf.dtype) for p, shape, leaf in triples])


def _count(shape):
    return shape.num_elements() if isinstance(shape, tf.TensorShape) else tf.reduce_prod(shape)
