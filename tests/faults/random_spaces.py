"""Nests of tensors drawn by hypothesis, and smooth functions between them with known derivatives.

`SmoothFunction` is `y = tanh(W x + b)` on the raveled nests, cut into the leaves of its outputs.
Its derivatives are written out in NumPy, so that nothing is compared with itself.
"""

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf
from hypothesis import strategies as st

from keras_fwd._spaces import nest

#: Relative error of a derivative whose primals, tangents and outputs have this dtype.
ROUNDING = {"float64": 1e-12, "float32": 2e-6, "float16": 1e-2, "bfloat16": 8e-2}
FLOATS = tuple(ROUNDING)
INTEGERS = ("int32", "int64", "uint8", "bool")
KEYS = ("a", "b", "key with spaces", "Z")


@dataclasses.dataclass(frozen=True)
class Leaf:
    """Dtype and shape of a tensor."""

    dtype: str
    shape: tuple

    @property
    def live(self):
        return self.dtype in FLOATS

    @property
    def size(self):
        return int(np.prod(self.shape))


def leaves(dtypes, shapes=None):
    """Scalars, empty tensors and others of up to three axes."""
    sizes = st.sampled_from([0, 1, 1, 2, 2, 3])
    shapes = st.lists(sizes, max_size=3).map(tuple) if shapes is None else shapes
    return st.builds(Leaf, st.sampled_from(dtypes), shapes)


def nests(of):
    """A leaf, or lists, tuples and dicts of nests, not deep; also empty ones."""
    return st.recursive(
        of,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.lists(inner, max_size=3).map(tuple)
            | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3)
        ),
        max_leaves=5,
    )


def spaces(dtypes=(*FLOATS, "float64", "float64", *INTEGERS)):
    """Nests of leaves, at least one of which is of floating point."""
    return nests(leaves(dtypes)).filter(lambda space: any(leaf.live for leaf in flat(space)))


def flat(space):
    return tf.nest.flatten(space)


def live(space):
    return [leaf for leaf in flat(space) if leaf.live]


def tolerance(*some):
    """The largest of the errors of the dtypes in some spaces."""
    return max(ROUNDING[leaf.dtype] for space in some for leaf in live(space))


def sample(space, random, tangents=False):
    """A random point of a space, or a random tangent there, with `None` at its other leaves."""

    def draw(leaf):
        if leaf.live:
            return tf.constant(random.normal(size=leaf.shape), leaf.dtype)
        if tangents:
            return None
        return tf.cast(tf.constant(random.integers(0, 3, leaf.shape)), leaf.dtype)

    return tf.nest.map_structure(draw, space)


def vector(values):
    """All live leaves as one vector, float64; integer tensors are left out."""
    parts = [np.ravel(tf.cast(v, tf.float64)) for v in tf.nest.flatten(values) if is_live(v)]
    return np.concatenate([*parts, np.zeros(0)])


def is_live(value):
    return value is not None and nest.is_differentiable(value.dtype)


def check_like(values, space, tangents=False):
    """Same structure, dtypes and shapes; `None` at the leaves that take no tangent."""
    tf.nest.assert_same_structure(space, values)
    for leaf, value in zip(flat(space), tf.nest.flatten(values), strict=True):
        if tangents and not leaf.live:
            assert value is None
        else:
            assert (value.dtype.name, tuple(value.shape)) == (leaf.dtype, leaf.shape)


@dataclasses.dataclass
class SmoothFunction:
    """`tanh(W x + b)` from one space to another; integer inputs shift `b`."""

    source: Any
    target: Any
    seed: int

    def __post_init__(self):
        random = np.random.default_rng(self.seed)
        rows = sum(leaf.size for leaf in live(self.target))
        columns = sum(leaf.size for leaf in live(self.source))
        self.W = random.normal(size=(rows, columns)) / np.sqrt(max(1, columns))
        self.b = random.normal(size=rows)

    def __call__(self, primals):
        pieces, shift = [tf.zeros([0], tf.float64)], tf.zeros([], tf.float64)
        for value in tf.nest.flatten(primals):
            wide = tf.reshape(tf.cast(value, tf.float64), [-1])
            if is_live(value):
                pieces.append(wide)
            else:
                shift += tf.reduce_sum(wide)
        x = tf.concat(pieces, axis=0)
        y = tf.tanh(tf.linalg.matvec(self.W, x) + self.b + 0.1 * shift)
        parts = iter(tf.split(y, [leaf.size for leaf in live(self.target)]))
        return tf.nest.map_structure(lambda leaf: self._leaf(leaf, parts), self.target)

    @staticmethod
    def _leaf(leaf, parts):
        if not leaf.live:
            return tf.zeros(leaf.shape, leaf.dtype)
        return tf.cast(tf.reshape(next(parts), leaf.shape), leaf.dtype)

    def values(self, primals):
        """`y`, in NumPy."""
        others = [np.sum(np.asarray(v, float)) for v in tf.nest.flatten(primals) if not is_live(v)]
        return np.tanh(self.W @ vector(primals) + self.b + 0.1 * sum(others))

    def jacobian(self, primals):
        """`diag(1 − y²) W`."""
        return (1 - self.values(primals) ** 2)[:, None] * self.W

    def along(self, primals, direction):
        """The first four Taylor derivatives along a direction."""
        y, a = self.values(primals), self.W @ vector(direction)
        s = 1 - y**2
        return [y, s * a, -2 * y * s * a**2, s * (6 * y**2 - 2) * a**3]


def block_rows(target, blocks):
    """For each leaf of the outputs, the nest of blocks that stands in its place."""
    if isinstance(target, Leaf):
        return [(target, blocks)]
    keys = sorted(target) if isinstance(target, dict) else range(len(target))
    assert type(blocks) is type(target) and len(blocks) == len(target)
    return [row for key in keys for row in block_rows(target[key], blocks[key])]


def close(found, expected, limit):
    """Within a share of the norm of what is expected, and of numbers of order one."""
    found, expected = np.asarray(found, float), np.asarray(expected, float)
    assert found.shape == expected.shape
    gap = np.linalg.norm(found - expected)
    assert gap <= limit * (1 + np.linalg.norm(expected)), (gap, found[:4], expected[:4])
