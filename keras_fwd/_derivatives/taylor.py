"""Higher derivatives along lines: all orders along one direction, and the Laplacian.

Both move the primals by few scalar parameters `t` and differentiate `φ(t, v) = ⟨v, f(x + …t…)⟩`,
with a dummy cotangent `v`, by reverse passes in `t`. `φ` and what follows from it is linear in
`v`, so that one last pullback, by `v`, gives the derivative of every output. TensorFlow prunes what
belongs to the dummy alone: what remains runs forward, through all orders at once.
"""

import tensorflow as tf

from keras_fwd._checks import check_count
from keras_fwd._derivatives import functional
from keras_fwd._derivatives.double_gradient import pullback
from keras_fwd._spaces import given, nest
from keras_fwd.errors import StructureError
from keras_fwd.typing import Function, Nest


@functional.public
def directional_derivatives(fn: Function, primals: Nest, direction: Nest, order: int) -> list[Nest]:
    """The outputs of `fn` and their derivatives along one direction, up to any order.

    `f⁽ᵏ⁾ = dᵏ/dtᵏ f(x + t u)` at `t = 0`; divided by `k!`, the Taylor coefficients of `f` on the
    line.

    Args:
        fn: As in `linearize`.
        primals: The point `x`, as in `linearize`.
        direction: The direction `u`: nest like the primals, same shapes and dtypes; `None` at
            integer leaves.
        order: The highest order, a non-negative integer. Used and tested up to 4.

    Returns:
        The list `[f, f', …, f⁽ᵒʳᵈᵉʳ⁾]` of nests like the outputs; in the derivatives, `None` at
        integer outputs.

    Raises:
        ConfigurationError: `order` is not a whole number of at least 0, or `fn` is not callable.
        StructureError: As `jvp`; the outputs do not depend on the primals.
        LeakError: TensorFlow would get a derivative wrong.

    Cost: Inside a `tf.function`, 2, 3, 4 and 7 forward passes for the orders 1 to 4 of a tanh
        network; a loop (an RNN) takes about 4 times as much with each order, and as much longer to
        trace. In eager code the call is traced anew each time: wrap it in a `tf.function`.

    References:
        Griewank & Walther, Evaluating Derivatives (2nd ed., SIAM 2008), chapter 13, for what
        Taylor coefficients give.

    Example:

    >>> ds = directional_derivatives(lambda x: x**3, tf.constant(2.0), tf.constant(1.0), order=4)
    >>> [float(d) for d in ds]
    [8.0, 12.0, 12.0, 6.0, 0.0]
    """
    call = "directional_derivatives"
    check_count(call, "order", order, least=0)
    point = functional.resolve(call, fn, primals, "inputs")
    spec = nest.spec(point.sources)
    direction = given.match(call, "direction", direction, spec)
    dtype = nest.accumulator_dtype(spec)

    def derivatives(function, sources, direction):
        def line(t):
            return function(nest.moved(sources, nest.scale(t, direction)))

        return _along(call, line, dtype, order)

    return _traced(derivatives, point.function, point.sources, direction)


@functional.public
def laplacian(fn: Function, primals: Nest, chunk_size: int | None = None) -> Nest:
    """The Laplacian of `fn` for each example: `Δf = Σᵢ ∂²f/∂xᵢ²` over the last axis of the inputs.

    The inputs are `[…examples, d]`, the outputs `[…examples, …]`, with any number of leading axes.
    `fn` must not mix examples: an output may depend on the inputs of its own example only. If it
    does mix them (BatchNormalization in training), the result is instead the second derivative by
    a common shift of all examples.

    Args:
        fn: As in `linearize`. Not checked: that it keeps examples apart.
        primals: Nest of tensors `[…, d]`. With several floating-point leaves the sum runs over the
            components of all of them; integer leaves are held.
        chunk_size: How many components are handled at once; default 16. Memory grows with it.

    Returns:
        A nest like the outputs, same shapes and dtypes; `None` at integer outputs. Differentiable
        by weights and inputs.

    Raises:
        ConfigurationError: `chunk_size` is no whole number of at least 1; `fn` is not callable.
        StructureError: an input has no last axis, or one whose size is unknown when a graph is
            traced; the outputs do not depend on the inputs.
        LeakError: TensorFlow would get a derivative wrong.

    Cost: Inside a `tf.function`, the work of about `d + 2` forward passes, less what they share (a
        tanh network on the CPU: 1.5, 2, 2.5 forward passes for d = 1, 2, 3). In eager code the call
        is traced anew each time: wrap it in a `tf.function`.

    References:
        The pass forward that remains carries `(f, ∂f/∂xᵢ, Δf)`, as the forward Laplacian: Li et
        al., A computational framework for neural network-based variational Monte Carlo with
        Forward Laplacian, Nature Machine Intelligence 6 (2024), https://arxiv.org/abs/2307.08214

    Example:

    >>> x = tf.constant([[1.0, 2.0], [3.0, 4.0]])
    >>> laplacian(lambda x: x[:, 0] ** 2 * x[:, 1], x).numpy()  # 2 y
    array([4., 8.], dtype=float32)
    """
    call = "laplacian"
    check_chunk_size(chunk_size)
    point = functional.resolve(call, fn, primals, "inputs")
    shifts = _shifts(point.sources)
    count, dtype = nest.size(shifts), nest.accumulator_dtype(shifts)
    chunk = min(chunk_size or _COMPONENTS, count)

    def traces(function, sources):
        def part(start):
            # The last chunk may run past the end, where `one_hot` is zero and adds nothing.
            basis = tf.one_hot(start + tf.range(chunk), count, dtype=dtype)

            def shifted(t):
                shift = tf.linalg.matvec(basis, t, transpose_a=True)
                return function(nest.moved(sources, nest.unravel(shift, shifts)))

            return _trace(call, shifted, tf.zeros([chunk], dtype))

        return _summed(part, count, chunk)

    return _traced(traces, point.function, point.sources)


_COMPONENTS = 16  # of the Laplacian at once: beyond, tracing takes long and nothing is gained


def check_chunk_size(chunk_size):
    """Raise `ConfigurationError` for a `chunk_size` of `laplacian` that has no meaning."""
    check_count("laplacian", "chunk_size", chunk_size, none=f"{_COMPONENTS} at once")


def _shifts(sources):
    """The spec of a shift of every example alike: the last axis of each leaf."""
    leaves = nest.live(nest.spec(sources))
    if any(not leaf.shape.rank or leaf.shape[-1] is None for leaf in leaves):
        raise StructureError(
            "laplacian: every floating-point input must have a last axis of static size. Received: "
            f"{given.describe(sources)}."
        )
    return nest.map_live(lambda s: tf.TensorSpec(s.shape[-1:], s.dtype), nest.spec(sources))


def _along(call, line, dtype, order):
    """`[f, f', …]` of a function of one scalar at zero."""
    one = tf.ones([], dtype)

    def chain(k, t, v):  # [φ, φ', …, φ⁽ᵏ⁾] and f
        if k == 0:
            y = line(t)
            return [tf.cast(nest.dot(v, _live(y)), dtype)], y
        (values, y), pull = pullback(lambda t: chain(k - 1, t, v), t, call=call)
        # Of φ⁽ᵏ⁻¹⁾ alone; None leaves the lower ones out, whose derivatives are known already.
        last = pull(([*[None] * (k - 1), one], _nothing(y)))
        return [*values, last + _anchor(t, v)], y

    zero = tf.zeros([], dtype)
    if order == 0:
        return [functional.as_tensors(call, line(zero))]
    spec, dummies = _dummies(call, line, zero)
    (_, y), pull = pullback(lambda v: chain(order, zero, v), dummies, call=call)
    none = [None] * order
    # φ⁽ᵏ⁾ = ⟨v, f⁽ᵏ⁾⟩, so its gradient by v is f⁽ᵏ⁾.
    pulled = [pull(([*none[:k], one, *none[k:]], _nothing(y))) for k in range(1, order + 1)]
    return [y, *(_like(spec, leaves) for leaves in pulled)]


def _trace(call, shifted, zero):
    """The trace of the second derivatives of a function of a vector, at zero."""
    basis = tf.eye(zero.shape[0], dtype=zero.dtype)
    spec, dummies = _dummies(call, shifted, zero)

    def trace(v):
        def gradient(t):
            _, pull = pullback(shifted, t, call=call)
            return pull(_like(spec, v)) + _anchor(t, v)

        _, pull = pullback(gradient, zero, call=call)
        return tf.add_n([pull(row)[i] for i, row in enumerate(tf.unstack(basis))])

    _, pull = pullback(trace, dummies, call=call)
    return _like(spec, pull(tf.ones([], zero.dtype)))


def _summed(part, count, chunk):
    """The sum of `part(start)` over the chunks of `range(count)`."""
    # The first chunk outside of the loop: it shows the structure of the state.
    total = part(0)
    if chunk < count:
        leaves = tf.while_loop(
            lambda start, *_: start < count,
            lambda start, *sums: (start + chunk, *nest.add(list(sums), nest.live(part(start)))),
            (chunk, *nest.live(total)),
            maximum_iterations=-(-count // chunk) - 1,  # XLA differentiates no loop without it
        )[1:]
        total = _like(total, leaves)
    return total


def _dummies(call, function, argument):
    """The spec of the outputs, and ones like their floating-point leaves.

    They are traced apart from the graph, so that nothing runs twice where shapes are known.
    """
    spec = None

    def look(t):
        nonlocal spec
        spec = nest.spec(functional.as_tensors(call, function(t)))

    tf.function(look, autograph=False).get_concrete_function(argument)
    if nest.size(spec) is not None:
        return spec, [tf.ones(leaf.shape, leaf.dtype) for leaf in nest.live(spec)]
    return spec, [tf.ones_like(y) for y in _live(function(argument))]


def _live(outputs):
    return [y for y in nest.flatten(outputs) if nest.is_differentiable(y.dtype)]


def _anchor(t, v):
    """Zero with all its derivatives: lets TensorFlow find `t` and `v` where `fn` is linear."""
    weight = tf.add_n([tf.cast(tf.reduce_sum(leaf), t.dtype) for leaf in v])
    return 0 * tf.exp(t) * weight


def _nothing(outputs):
    return tf.nest.map_structure(lambda _: None, outputs)


def _like(spec, leaves):
    """The leaves in the structure of a spec, `None` where it has `None`."""
    leaves = iter(leaves)
    return nest.map_live(lambda _: next(leaves), spec)


def _traced(compute, function, *arguments):
    """`compute(function, *arguments)`, in a graph of its own where the call is eager.

    Nested tapes would look for leaks at every order anew.
    """
    if not tf.executing_eagerly():
        return compute(function, *arguments)
    structure = None

    def run(function):
        def graph(*leaves):
            nonlocal structure
            structure = compute(function, *_like(list(arguments), leaves))
            return nest.live(structure)

        leaves = nest.live(list(arguments))
        concrete = tf.function(graph, autograph=False).get_concrete_function(*leaves)
        return _like(structure, concrete(*leaves))

    try:
        return run(function)
    except tf.errors.OperatorNotAllowedInGraphError:  # `if` or `for` over a tensor
        return run(tf.autograph.to_graph(function))
