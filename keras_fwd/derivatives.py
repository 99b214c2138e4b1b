"""Jacobians, Hessians and symbolic forward gradients, all from linear maps."""

import tensorflow as tf

from keras_fwd import double_gradient, functional, nest
from keras_fwd.errors import ConfigurationError, StructureError
from keras_fwd.leaks import scan
from keras_fwd.linear_map import LinearMap, map_basis


@functional.public
def jacobian(fn, primals, wrt="inputs", mode="auto", chunk_size=None, per_example=False):
    """The Jacobian of `fn` as dense tensors.

    Args:
        fn: As in `linearize`.
        primals: As in `linearize`.
        wrt: As in `linearize`.
        mode: `"forward"` (one JVP a column), `"reverse"` (one VJP a row), or `"auto"` (default):
            the one that needs fewer products.
        chunk_size: How many products run at once; default all of them. Memory grows with it.
        per_example: If True, axis 0 of every output and input leaf is the batch, and only the
            blocks of an example with itself are computed, `[batch, …out, …in]`. Valid when `fn`
            does not mix examples. With respect to weights it changes nothing: outputs already
            carry the batch.

    Returns:
        The structure of the outputs; at each of its leaves the structure of the inputs (or
        variables), with tensors of shape `output.shape + input.shape`. `None` where either side
        is an integer tensor.

    Raises:
        ConfigurationError: unknown `mode`.
        StructureError: sizes are unknown when a graph is traced, or leaves without a batch axis.
        LeakError: As `linearize`.

    Cost: The forward pass once, and `min(components in, components out)` products (of one example
        with `per_example`), vectorized.

    Example:

    >>> x = tf.constant([[1.0, 2.0], [3.0, 4.0]])
    >>> jacobian(lambda x: x[:, 0] * x[:, 1], x, per_example=True).numpy()
    array([[2., 1.],
           [4., 3.]], dtype=float32)
    """
    if mode not in ("auto", "forward", "reverse"):
        raise ConfigurationError(
            f'jacobian: `mode` must be "auto", "forward" or "reverse". Received: mode={mode!r}.'
        )
    outputs, J = double_gradient.linearize(fn, primals, wrt)
    out_spec, in_spec, mv, transpose_mv = J.out_spec, J.in_spec, J.mv, J.T.mv
    if per_example and wrt == "inputs":
        batch = _batch_size(primals, outputs)
        out_spec, in_spec = _without_batch(J.out_spec), _without_batch(J.in_spec)
        mv, transpose_mv = _spread(mv, batch), _spread(transpose_mv, batch)
        if _forward_is_cheaper(mode, out_spec, in_spec):
            columns = map_basis(mv, in_spec, chunk_size, _ravel_examples)  # [in, batch, out]
            matrix = tf.transpose(columns, [1, 2, 0])
        else:
            rows = map_basis(transpose_mv, out_spec, chunk_size, _ravel_examples)
            matrix = tf.transpose(rows, [1, 0, 2])
        return _blocks(matrix, out_spec, in_spec, [batch])
    if _forward_is_cheaper(mode, out_spec, in_spec):
        matrix = tf.transpose(map_basis(mv, in_spec, chunk_size))
    else:
        matrix = map_basis(transpose_mv, out_spec, chunk_size)
    return _blocks(matrix, _known(out_spec, outputs), _known(in_spec, primals), [])


@functional.public
def hessian(fn, primals, wrt="inputs"):
    """The Hessian of a scalar `fn` as a symmetric `LinearMap`.

    Args:
        fn: As in `linearize`; returns one scalar.
        primals: As in `linearize`.
        wrt: As in `linearize`.

    Returns:
        `LinearMap` from the space of the primals (or variables) to itself.

    Raises:
        StructureError: `fn` does not return a scalar; use `jacobian` of its gradient instead.
        LeakError: TensorFlow would get a second derivative wrong.

    Cost: The gradient once; each product about two more gradients' worth of work.

    Example:

    >>> H = hessian(lambda x: x[0] ** 2 * x[1], tf.constant([1.0, 2.0]))
    >>> H.to_dense().numpy()
    array([[4., 2.],
           [2., 0.]], dtype=float32)
    """
    point = functional.resolve("hessian", fn, primals, wrt)
    variables = point.sources if point.variables else "inputs"

    def gradient(inputs):
        function = (lambda _: point.call(None)) if point.variables else point.call
        value, pull = double_gradient.pullback(function, inputs, variables, call="hessian")
        _check_scalar(value)
        return nest.live(pull(nest.map_live(tf.ones_like, value)))

    gradients, pull = double_gradient.pullback(gradient, primals, variables, call="hessian")
    del gradients

    def mv(vector):
        return pull(nest.live(vector))

    spec = nest.spec(point.sources)
    return LinearMap(mv, mv, spec, spec)


@tf.autograph.experimental.do_not_convert
def fwd_gradients(ys, xs, grad_xs=None, assert_unused=False):
    """Forward gradients of symbolic tensors: the pushforward, where `tf.gradients` is the pullback.

    Args:
        ys: Tensor or list of tensors of the graph being built, computed from `xs`.
        xs: Tensor (or variable) or list of them.
        grad_xs: Tangents, same structure, shapes and dtypes as `xs`; `None` (default) means ones.
        assert_unused: If True, raise when the result depends on the dummy cotangent in the graph,
            as it does behind a backward rule that is not linear in its cotangent.

    Returns:
        The tangents of `ys`, in their structure: `sum_x ∂y/∂x · grad_x`; zeros for a `y` that does
        not depend on any `x`.

    Raises:
        ConfigurationError: called in eager code; use `jvp` there.
        StructureError: `grad_xs` does not fit `xs`, or an `x` is not a floating-point tensor.
        LeakError: TensorFlow would get the derivative wrong, or `assert_unused` found a dependence.

    Cost: About one forward pass more than `tf.gradients(ys, xs)`.

    Example:

    >>> @tf.function
    ... def f(x):
    ...     return fwd_gradients(x**2, x)
    >>> f(tf.constant([1.0, 3.0])).numpy()
    array([2., 6.], dtype=float32)
    """
    if tf.executing_eagerly():
        raise ConfigurationError(
            "fwd_gradients: symbolic tensors exist only while a tf.function is traced; call it "
            "there, or use `jvp` in eager code. Received: a call in eager code."
        )
    sources = [functional.unwrap(x) for x in nest.flatten(xs)]
    targets = [tf.convert_to_tensor(y) for y in nest.flatten(ys)]
    spec = nest.pack(xs, nest.flatten(nest.spec(sources)))
    if None in nest.flatten(spec):
        raise StructureError(
            f"fwd_gradients: `xs` must be floating-point tensors. Received: {nest.describe(xs)}."
        )
    tangents = nest.pack(xs, [tf.ones_like(x) for x in sources]) if grad_xs is None else grad_xs
    tangents = nest.flatten(nest.match("fwd_gradients", "grad_xs", tangents, spec))
    # Zeros: rules that clip their cotangent are linear there, and a 0/0 shows itself as NaN.
    dummies = [tf.zeros_like(y) for y in targets]
    scan.check_forward("fwd_gradients", sources, targets, nested=False)
    pulled = [nest.densify(g) for g in _gradients(targets, sources, dummies)]
    tangents = [t for t, g in zip(tangents, pulled, strict=True) if g is not None]
    pulled = [g for g in pulled if g is not None]
    if not pulled:
        return nest.pack(ys, [tf.zeros_like(y) for y in targets])
    scan.check_pullback("fwd_gradients", sources, targets, dummies, pulled)
    pushed = [nest.densify(g) for g in _gradients(pulled, dummies, tangents)]
    if assert_unused:
        scan.check_unused("fwd_gradients", sources, targets, dummies, pulled, pushed)
    zeros_or = [tf.zeros_like(y) if g is None else g for g, y in zip(pushed, targets, strict=True)]
    return nest.pack(ys, zeros_or)


def _gradients(ys, xs, grad_ys):
    try:
        return tf.gradients(ys, xs, grad_ys=grad_ys)
    except LookupError as error:
        raise scan.missing("fwd_gradients", error, xs, ys) from error


def _check_scalar(value):
    leaves = nest.flatten(value)
    if len(leaves) != 1 or leaves[0].shape.rank != 0:
        raise StructureError(
            "hessian: `fn` must return one scalar; sum or pick an output, or use `jacobian` of "
            f"the gradient. Received: {nest.describe(value)}."
        )


def _forward_is_cheaper(mode, out_spec, in_spec):
    rows, columns = nest.size(out_spec), nest.size(in_spec)
    if mode == "auto":
        forward = rows is None or (columns is not None and columns <= rows)
    else:
        forward = mode == "forward"
    if (columns if forward else rows) is None:
        raise StructureError(
            "jacobian: the side that is run through must have a static size. Received: in "
            f"{nest.describe(in_spec)}, out {nest.describe(out_spec)}, mode={mode!r}. Give the "
            "tf.function fixed shapes, or use the other mode."
        )
    return forward


def _batch_size(primals, outputs):
    leaves = [tf.convert_to_tensor(leaf) for leaf in nest.flatten([primals, outputs])]
    leaves = [leaf for leaf in leaves if nest.is_differentiable(leaf.dtype)]
    sizes = {leaf.shape[0] for leaf in leaves if leaf.shape.rank} - {None}
    if any(leaf.shape.rank == 0 for leaf in leaves) or len(sizes) > 1:
        raise StructureError(
            "jacobian: with per_example=True, axis 0 of every input and output must be the same "
            f"batch. Received: inputs {nest.describe(primals)}, outputs {nest.describe(outputs)}."
        )
    return sizes.pop() if sizes else tf.shape(leaves[0])[0]


def _without_batch(spec):
    return nest.map_live(lambda s: tf.TensorSpec(s.shape[1:], s.dtype), spec)


def _spread(mv, batch):
    """A map on one example's vectors: the same vector for every example of the batch."""

    def repeat(leaf):
        return tf.broadcast_to(leaf, tf.concat([[batch], tf.shape(leaf)], axis=0))

    return lambda vector: mv(nest.map_live(repeat, vector))


def _ravel_examples(vector):
    """`[batch, components]`."""
    leaves = nest.live(vector)
    dtype = nest.accumulator_dtype(leaves)
    return tf.concat(
        [tf.cast(tf.reshape(leaf, [tf.shape(leaf)[0], -1]), dtype) for leaf in leaves], axis=1
    )


def _known(spec, tensors):
    """The spec, or the tensors themselves where a size is only known at run time."""
    return spec if nest.size(spec) is not None else tensors


def _blocks(matrix, out_space, in_space, lead):
    """Cut `[…lead, out, in]` into a nest of blocks, outputs outside and inputs inside."""
    rows, columns = _shapes(out_space), _shapes(in_space)
    bands = iter(tf.split(matrix, _sizes(rows), axis=len(lead)))

    def block_row(row, dtype):
        if row is None:
            return nest.pack(in_space, [None] * len(columns))
        cells = iter(tf.split(next(bands), _sizes(columns), axis=len(lead) + 1))
        leaves = [
            None
            if column is None
            else tf.cast(tf.reshape(next(cells), [*lead, *row, *column]), dtype)
            for column in columns
        ]
        return nest.pack(in_space, leaves)

    dtypes = [None if leaf is None else leaf.dtype for leaf in nest.flatten(out_space)]
    return nest.pack(out_space, [block_row(*pair) for pair in zip(rows, dtypes, strict=True)])


def _shapes(space):
    """The shape of each live leaf as a list of numbers and, where unknown, scalar tensors."""
    return [
        None
        if leaf is None or not nest.is_differentiable(leaf.dtype)
        else [n if n is not None else tf.shape(leaf)[i] for i, n in enumerate(leaf.shape)]
        for leaf in nest.flatten(space)
    ]


def _sizes(shapes):
    return [
        tf.reduce_prod(tf.convert_to_tensor(shape, tf.int32))
        for shape in shapes
        if shape is not None
    ]
