"""`LinearMap`: a matrix that is only known by what it does to vectors, and its algebra."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_fwd._checks import needed
from keras_fwd._spaces import given, nest
from keras_fwd._spaces.vectorized import map_basis, rowwise  # noqa: F401 - imported from here
from keras_fwd.errors import StructureError
from keras_fwd.typing import Nest, Tensor, TensorLike


class LinearMap:
    """A linear map between two spaces of nests of tensors, with its transpose.

    `A(x)` is the product; `A.T` the transpose; `A @ B`, `A + B`, `A - B` and `2.0 * A` are maps
    again, and `A @ x` is `A(x)`. Nothing is computed before a product is asked for.

    Args:
        mv: Function that takes a vector of `in_spec` and returns one of `out_spec`.
        transpose_mv: The same for the transpose.
        in_spec: Nest of `tf.TensorSpec`, `None` where a leaf takes no tangent.
        out_spec: The same for the outputs.

    Raises:
        StructureError: a vector or a map does not fit (`@`, `+`, `-`), or `*` has no scalar.

    Cost: A product with `A @ B` or `A + B` is one with each; `A.T` is free.

    Example:

    >>> A = diagonal(tf.constant([1.0, 2.0]))
    >>> (A @ A + 3.0 * A)(tf.constant([1.0, 1.0])).numpy()
    array([ 4., 10.], dtype=float32)
    >>> A.to_dense().numpy()
    array([[1., 0.],
           [0., 2.]], dtype=float32)
    """

    def __init__(
        self,
        mv: Callable[[Nest], Nest],
        transpose_mv: Callable[[Nest], Nest],
        in_spec: Nest,
        out_spec: Nest,
    ) -> None:
        self._mv = mv
        self._transpose_mv = transpose_mv
        self.in_spec = in_spec
        self.out_spec = out_spec

    @tf.autograph.experimental.do_not_convert
    def mv(self, x: Nest) -> Nest:
        """The product with a vector of `in_spec`; `A(x)` is the same.

        Raises:
            StructureError: `x` does not have the structure, shapes or dtypes of `in_spec`.
        """
        return self._mv(given.match("LinearMap", "vector", x, self.in_spec))

    __call__ = mv

    @property
    def T(self) -> "LinearMap":
        """The transpose, as a LinearMap."""
        return LinearMap(self._transpose_mv, self._mv, self.out_spec, self.in_spec)

    @property
    def shape(self) -> tuple[int | None, int | None]:
        """(components out, components in); None where a size is unknown in a graph."""
        return nest.size(self.out_spec), nest.size(self.in_spec)

    def __matmul__(self, other: Any) -> Any:
        if not isinstance(other, LinearMap):
            return self.mv(other)
        _check_same_space("@", self.in_spec, other.out_spec)
        return LinearMap(
            lambda x: self._mv(other._mv(x)),
            lambda y: other._transpose_mv(self._transpose_mv(y)),
            other.in_spec,
            self.out_spec,
        )

    def __add__(self, other: "LinearMap") -> "LinearMap":
        if not isinstance(other, LinearMap):
            return NotImplemented
        _check_same_space("+", self.in_spec, other.in_spec)
        _check_same_space("+", self.out_spec, other.out_spec)
        return LinearMap(
            lambda x: nest.add(self._mv(x), other._mv(x)),
            lambda y: nest.add(self._transpose_mv(y), other._transpose_mv(y)),
            self.in_spec,
            self.out_spec,
        )

    def __mul__(self, factor: TensorLike) -> "LinearMap":
        if isinstance(factor, LinearMap) or np.ndim(factor) != 0:
            raise StructureError(
                "LinearMap: `*` takes a scalar; use `@` for products of maps. "
                f"Received: {factor!r}."
            )
        return LinearMap(
            lambda x: nest.scale(factor, self._mv(x)),
            lambda y: nest.scale(factor, self._transpose_mv(y)),
            self.in_spec,
            self.out_spec,
        )

    __rmul__ = __mul__

    def __neg__(self) -> "LinearMap":
        return -1.0 * self

    def __sub__(self, other: "LinearMap") -> "LinearMap":
        return self + (-other) if isinstance(other, LinearMap) else NotImplemented

    @tf.autograph.experimental.do_not_convert
    def to_dense(self, chunk_size: int | None = None) -> Tensor:
        """The matrix, `[components out, components in]`, rows and columns in `ravel` order.

        Args:
            chunk_size: How many columns (or rows, if there are fewer) are computed at once, and
                take memory at once; default as many as fit in `vectorized.MEMORY_BUDGET`, 1 GiB.

        Raises:
            StructureError: In a graph, neither side has a size known when it is traced.

        Cost: `min(shape)` products.
        """
        rows, columns = self.shape
        # From the smaller side, which takes fewer products; of a batch of unknown size from the
        # other.
        if columns is not None and (rows is None or columns <= rows):
            return tf.transpose(map_basis(self._mv, self.in_spec, chunk_size))
        if rows is None:
            raise StructureError(
                "LinearMap.to_dense: one side must have a static size. Received: "
                f"in {given.describe(self.in_spec)}, out {given.describe(self.out_spec)}. "
                "Give the tf.function an input_signature with fixed shapes."
            )
        return map_basis(self._transpose_mv, self.out_spec, chunk_size)

    def to_scipy(self) -> Any:
        """The map as a `scipy.sparse.linalg.LinearOperator` on raveled vectors (eager only).

        Returns:
            LinearOperator with `matvec` and `rmatvec`: NumPy vectors `[components]`.

        Raises:
            ImportError: SciPy is not installed.
        """
        linalg = needed("LinearMap.to_scipy", "scipy.sparse.linalg")
        dtype = nest.accumulator_dtype([*nest.live(self.in_spec), *nest.live(self.out_spec)])

        def on_vectors(mv, spec):
            def apply(vector):
                x = nest.unravel(tf.constant(np.ravel(vector), dtype), spec)
                return nest.ravel(mv(x), dtype).numpy()

            return apply

        products = {  # by name: the type stubs of SciPy do not know them
            "matvec": on_vectors(self._mv, self.in_spec),
            "rmatvec": on_vectors(self._transpose_mv, self.out_spec),
        }
        return linalg.LinearOperator(shape=self.shape, dtype=dtype.as_numpy_dtype, **products)

    def __repr__(self) -> str:
        return f"LinearMap({given.describe(self.in_spec)} -> {given.describe(self.out_spec)})"


def identity(spec):
    """The identity map of a space.

    >>> identity(tf.TensorSpec([2]))(tf.constant([1.0, 2.0])).numpy()
    array([1., 2.], dtype=float32)
    """
    return LinearMap(lambda x: x, lambda y: y, spec, spec)


def diagonal(entries):
    """The diagonal map with the given nest of tensors on its diagonal."""

    def mv(x):
        return nest.map_live(tf.multiply, entries, x)

    spec = nest.spec(entries)
    return LinearMap(mv, mv, spec, spec)


def _check_same_space(operator, left, right):
    same = nest.paths(left) == nest.paths(right) and all(
        _compatible(a, b) for a, b in zip(nest.flatten(left), nest.flatten(right), strict=True)
    )
    if not same:
        raise StructureError(
            f"LinearMap: the two sides of `{operator}` must meet in the same space. Received: "
            f"{given.describe(left)} and {given.describe(right)}."
        )


def _compatible(a, b):
    if a is None or b is None:
        return a is b
    return a.dtype == b.dtype and a.shape.is_compatible_with(b.shape)
