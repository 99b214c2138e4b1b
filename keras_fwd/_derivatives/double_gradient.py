"""`linearize`, `jvp` and `vjp`, by the double-gradient trick.

`g(v) = Jᵀ v` is linear in the dummy cotangent `v`, so the pullback of `g` with respect to `v`,
applied to a tangent `u`, is `J u`.
"""

import tensorflow as tf

from keras_fwd._derivatives import functional, passes, tracing
from keras_fwd._spaces import given, nest
from keras_fwd._spaces.linear_map import LinearMap
from keras_fwd.typing import Function, Nest, WithRespectTo


@functional.public
def linearize(fn: Function, primals: Nest, wrt: WithRespectTo = "inputs") -> tuple[Nest, LinearMap]:
    """The outputs of `fn` and its Jacobian there, as a `LinearMap`.

    `J(t)` is the pushforward of a tangent, `J.T(c)` the pullback of a cotangent. The forward pass
    runs once, however often both are used, also inside the body of a `tf.while_loop`.

    Args:
        fn: Function, layer or model of one argument, any nest of tensors, that returns a nest. A
            layer or model is called with `training=False`.
        primals: The point: nest of tensors or arrays. Integer and boolean leaves take no tangent:
            `None` stands at their place in tangents and pulled-back cotangents.
        wrt: `"inputs"` (default), `"weights"` (the `trainable_variables` of a layer or model), or
            a list of `tf.Variable` or `keras.Variable` that `fn` reads.

    Returns:
        `(outputs, J)`: the nest of output tensors and a `LinearMap` from the space of the primals
        (or of the variables) to the space of the outputs.

    Raises:
        LeakError: TensorFlow would get the derivative wrong; names the op and the layer.
        StructureError: a primal or an output is not a tensor, or no output depends on `wrt`.
        ConfigurationError: `wrt` or `fn` has no meaning.

    Cost: One forward pass and one pullback (not run in a graph unless used); each product costs
        about one forward pass. All activations stay in memory as long as `J` does. In eager code
        `fn` is traced besides, as `jvp` says.

    References:
        The trick goes back to a 2017 thread on forward-mode derivatives in TensorFlow:
        https://github.com/renmengye/tensorflow-forward-ad/issues/2

    Example:

    >>> outputs, J = linearize(lambda x: x**2, tf.constant([1.0, 3.0]))
    >>> J(tf.constant([1.0, 1.0])).numpy()
    array([2., 6.], dtype=float32)
    >>> J.T(tf.constant([1.0, 0.0])).numpy()
    array([2., 0.], dtype=float32)
    """
    forward, jacobian = linearization("linearize", fn, primals, wrt)
    return forward.outputs, jacobian


def linearization(call, fn, primals, wrt="inputs"):
    """The forward pass of `linearize`, for those who look inside it, and the Jacobian."""
    point = functional.resolve(call, fn, primals, wrt)
    fuse = _check_by_tracing(call, fn, point)
    forward = passes.Forward(call, point, persistent=True, fuse=fuse)
    return forward, jacobian_at(forward)


def jacobian_at(forward):
    """The Jacobian of a forward pass whose tape is persistent, as a `LinearMap`."""
    pullback = passes.Pullback(forward, persistent=True)
    return LinearMap(
        lambda tangents: pullback.push(nest.live(tangents)),
        forward.pull,
        nest.spec(forward.point.sources),
        nest.spec(forward.outputs),
    )


@functional.public
def jvp(
    fn: Function, primals: Nest, tangents: Nest, wrt: WithRespectTo = "inputs"
) -> tuple[Nest, Nest]:
    """The outputs of `fn` and the pushforward `J u` of one tangent.

    Args:
        fn: As in `linearize`.
        primals: As in `linearize`.
        tangents: Nest like the primals (or the variables), same shapes and dtypes; `None` at
            integer leaves.
        wrt: As in `linearize`.

    Returns:
        `(outputs, output_tangents)`, two nests of the same structure; `None` at integer outputs.

    Raises:
        LeakError, StructureError, ConfigurationError: As `linearize`.

    Cost: About two forward passes inside a `tf.function`; no tape outlives the call. In eager code
        `fn` is traced besides, to look for leaks: once for each function object and each shape, so
        at every call of a function that is made anew. For speed, wrap the call in a `tf.function`.

    Example:

    >>> _, tangent = jvp(tf.sin, tf.constant([0.0, 3.141592]), tf.constant([1.0, 1.0]))
    >>> tangent.numpy().round(4)
    array([ 1., -1.], dtype=float32)
    """
    point = functional.resolve("jvp", fn, primals, wrt)
    tangents = given.match("jvp", "tangents", tangents, nest.spec(point.sources))
    fuse = _check_by_tracing("jvp", fn, point)
    forward = passes.Forward("jvp", point, persistent=False, fuse=fuse)
    pullback = passes.Pullback(forward, persistent=False)
    return forward.outputs, pullback.push(nest.live(tangents))


@functional.public
def vjp(
    fn: Function, primals: Nest, cotangents: Nest, wrt: WithRespectTo = "inputs"
) -> tuple[Nest, Nest]:
    """The outputs of `fn` and the pullback `Jᵀ w` of one cotangent.

    Args:
        fn: As in `linearize`.
        primals: As in `linearize`.
        cotangents: Nest like the outputs, same shapes and dtypes; `None` at integer outputs.
        wrt: As in `linearize`.

    Returns:
        `(outputs, pulled_back)`; the second is a nest like the primals (or the variables), `None`
        at integer leaves, zeros where the outputs do not depend on a leaf.

    Raises:
        LeakError, StructureError, ConfigurationError: As `linearize`.

    Cost: One gradient.

    Example:

    >>> _, pulled = vjp(lambda x: x["a"] * x["b"], {"a": 2.0, "b": 5.0}, 1.0)
    >>> {name: float(value) for name, value in pulled.items()}
    {'a': 5.0, 'b': 2.0}
    """
    point = functional.resolve("vjp", fn, primals, wrt)
    fuse = _check_by_tracing("vjp", fn, point, reverse=1)
    forward = passes.Forward("vjp", point, persistent=False, fuse=fuse)
    # Not before the pass, which shows what the outputs are.
    cotangents = given.match("vjp", "cotangents", cotangents, nest.spec(forward.outputs))
    return forward.outputs, forward.pull(cotangents)


def pullback(fn, primals, wrt="inputs", call="pullback"):
    """The outputs and a function `cotangents -> Jᵀ cotangents`, without the dummy machinery.

    What a symmetric Jacobian (a Hessian) needs, and a gradient; cheaper than `linearize` there.
    """
    forward = forward_pass(call, fn, primals, wrt)
    return forward.outputs, forward.pull


def forward_pass(call, fn, primals, wrt="inputs"):
    """The forward pass of `pullback`, for those who look inside it."""
    point = functional.resolve(call, fn, primals, wrt)
    fuse = _check_by_tracing(call, fn, point, reverse=1)
    return passes.Forward(call, point, persistent=True, fuse=fuse)


def _check_by_tracing(call, fn, point, reverse=2):
    def derivative(here):
        forward = passes.Forward(call, here, persistent=False)
        if reverse == 1:
            # Any values do: it is the graph that is looked at.
            forward.gradient([tf.ones_like(target) for target in forward.targets])
        else:
            zeros = [tf.zeros_like(source) for source in forward.sources]
            passes.Pullback(forward, persistent=False).push(zeros)
        return forward.fuse

    if tf.executing_eagerly():
        # In a graph the passes are looked at as they are built; an eager pass leaves nothing to
        # look at.
        return tracing.trace_once(call, fn, point, reverse, derivative)
    return None
