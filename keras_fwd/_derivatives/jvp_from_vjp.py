"""Pushforwards of functions whose gradient cannot be differentiated: row by row."""

import functools
from collections.abc import Callable

import tensorflow as tf

from keras_fwd._derivatives import functional, passes
from keras_fwd._graphs import graph
from keras_fwd._rules.transposes import local, refused
from keras_fwd._spaces import given, nest
from keras_fwd._spaces.vectorized import map_basis
from keras_fwd.errors import StructureError
from keras_fwd.typing import Function, Nest


def jvp_from_vjp(fn: Function, per_example: bool = False) -> Callable[[Nest], Nest]:
    """Give a function that has a first gradient, and nothing else, a pushforward.

    The last resort, for code that raises a `LeakError` and that you cannot write another way or
    give a rule (`custom_jvp`): `J u` is put together from one gradient for each component of the
    outputs, `(J u)ᵢ = ⟨Jᵀ eᵢ, u⟩`.

    Args:
        fn: Function of one argument, any nest of tensors, that returns a nest and has a right
            gradient. What it is to be differentiated by comes in through the argument: it may not
            read trainable variables. Usable as a decorator.
        per_example: If True, axis 0 of every input and output leaf is the batch, and `fn` does not
            mix its examples: all of them then share their gradients, and there are only as many
            as one example has outputs.

    Returns:
        A function of the same value, exact under `jvp`, `vjp`, `linearize` and tapes of your own.
        Derivatives of its derivatives raise `LeakError`.

    Raises:
        ConfigurationError: `fn` is no function.
        StructureError: `fn` reads trainable variables or a tensor of the graph being built; or the
            size of the outputs is unknown when the graph is traced; or a leaf has no batch axis.
        LeakError: where a derivative of a derivative is taken.

    Cost: A pushforward runs `fn` once and as many gradients as the outputs have components (as
        one example's have, with `per_example`), vectorized where TensorFlow can; a pullback runs
        `fn` once more and one gradient.

    Example:

    >>> import keras_fwd
    >>> @tf.custom_gradient
    ... def cube(x):
    ...     return x**3, lambda dy: tf.numpy_function(lambda d, x: 3 * d * x**2, [dy, x], dy.dtype)
    >>> fn = jvp_from_vjp(cube)
    >>> _, tangent = keras_fwd.jvp(fn, tf.constant([1.0, 2.0]), tf.constant([1.0, 1.0]))
    >>> tangent.numpy()
    array([ 3., 12.], dtype=float32)
    """
    functional.check_callable("jvp_from_vjp", "fn", fn)

    @tf.autograph.experimental.do_not_convert
    def call(primals):
        return _Call(fn, primals, per_example).outputs()

    return functools.update_wrapper(call, fn, updated=())


class _Call:
    """The function at one point; sources are the differentiable leaves of its primals."""

    def __init__(self, fn, primals, per_example):
        self.fn = fn
        self.name = f"jvp_from_vjp({getattr(fn, '__qualname__', repr(fn))})"
        leaves = [
            given.to_tensor(self.name, f"primals{path}", leaf)
            for path, leaf in zip(nest.paths(primals), nest.flatten(primals), strict=True)
        ]
        self.primals = nest.pack(primals, leaves)
        self.per_example = per_example
        self.out_spec = None  # once it has run

    def outputs(self):
        """The nest of outputs, with a gradient that is differentiable by its cotangents."""
        made = []

        @tf.custom_gradient
        def run(*sources):
            with graph.forbidden(self.name, sources):
                outputs = functional.as_tensors(self.name, self._evaluate(sources, self.primals))
            made.append(outputs)
            self.out_spec = nest.spec(outputs)

            def gradient(*cotangents, variables=None):
                if variables:
                    raise StructureError(
                        f"{self.name}: the function must not read trainable variables. Received: "
                        f"{', '.join(v.name for v in variables)}. Pass what they hold in the "
                        "argument, or give the function a rule with keras_fwd.custom_jvp."
                    )
                pairs = zip(cotangents, nest.flatten(outputs), strict=True)
                live = [c for c, y in pairs if nest.is_differentiable(y.dtype)]
                return self._linear(self._pull, self._push, live, self.primals)

            return nest.flatten(outputs), gradient

        leaves = run(*local(_sources(self.primals)))
        return nest.pack(made[0], leaves)

    def _evaluate(self, sources, primals):
        sources = iter(sources)
        leaves = [
            next(sources) if nest.is_differentiable(leaf.dtype) else leaf
            for leaf in nest.flatten(primals)
        ]
        return functional.converted(self.fn)(nest.pack(primals, leaves))

    def _linear(self, function, transpose, vectors, primals):
        """`function(vectors)`, whose derivative is the transpose; by the primals it has none."""
        primals = nest.pack(primals, local(nest.flatten(primals)))

        @tf.custom_gradient
        def linear(*vectors):
            def gradient(*duals):
                return self._linear(transpose, function, duals, primals)

            return function(vectors, primals), gradient

        nothing = refused(
            f"{self.name}: the function has a first derivative only. Received: a derivative of its "
            "derivative. Give it a rule that can be differentiated with keras_fwd.custom_jvp.",
            _sources(primals),
        )
        # Zero, but it ties the result to the primals: who differentiates by them meets the error.
        return [y + tf.cast(nothing, y.dtype) for y in linear(*local(vectors))]

    def _pull(self, cotangents, primals):
        """`Jᵀ c`, by TensorFlow's gradient."""

        def function(sources):
            outputs = nest.flatten(self._evaluate(sources, primals))
            return [y for y in outputs if nest.is_differentiable(y.dtype)]

        return passes.pull(self.name, function, _sources(primals), list(cotangents))

    def _push(self, tangents, primals):
        """`J u`, a gradient for each component."""
        sources = _sources(primals)
        self._check(sources)
        spec = nest.live(self.out_spec)
        batch = tf.shape(sources[0])[0] if self.per_example else None
        if self.per_example:
            spec = [tf.TensorSpec(leaf.shape[1:], leaf.dtype) for leaf in spec]
        dtype = nest.accumulator_dtype(spec)

        def contracted(basis_vector):
            if self.per_example:
                basis_vector = [
                    tf.broadcast_to(e, tf.concat([[batch], tf.shape(e)], 0)) for e in basis_vector
                ]
            rows = self._pull(basis_vector, primals)
            pairs = zip(rows, tangents, strict=True)
            return tf.add_n([self._contract(tf.cast(r * t, dtype)) for r, t in pairs])

        components = map_basis(contracted, spec, ravel=tf.identity)
        sizes = [leaf.shape.num_elements() for leaf in spec]
        parts = zip(tf.split(components, sizes), spec, strict=True)
        return [self._shaped(tf.cast(part, leaf.dtype), leaf.shape) for part, leaf in parts]

    def _contract(self, products):
        """Sum over the components of the inputs (of each example)."""
        return tf.reduce_sum(products, tf.range(int(self.per_example), tf.rank(products)))

    def _shaped(self, components, shape):
        """`[components, (batch)]` as an output."""
        if not self.per_example:
            return tf.reshape(components, shape)
        return tf.reshape(tf.transpose(components), [-1, *shape])

    def _check(self, sources):
        leaves = [*sources, *nest.live(self.out_spec)]
        first = int(self.per_example)
        if any(leaf.shape.rank is None or leaf.shape.rank < first for leaf in leaves):
            raise StructureError(
                f"{self.name}: with per_example=True, axis 0 of every input and output must be the "
                f"batch. Received: inputs {given.describe(sources)}, outputs "
                f"{given.describe(self.out_spec)}."
            )
        if any(None in leaf.shape[first:] for leaf in nest.live(self.out_spec)):
            raise StructureError(
                f"{self.name}: the outputs must have a static size. Received: "
                f"{given.describe(self.out_spec)}. Give the tf.function fixed shapes, or, if only "
                "the batch is unknown, use per_example=True."
            )


def _sources(primals):
    return [leaf for leaf in nest.flatten(primals) if nest.is_differentiable(leaf.dtype)]
