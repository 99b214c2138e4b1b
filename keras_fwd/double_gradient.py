"""`linearize`, `jvp` and `vjp`: the one file that holds gradient tapes.

The double-gradient trick: `g(v) = Jᵀ v` is linear in the dummy cotangent `v`, so the pullback of
`g` with respect to `v`, applied to a tangent `u`, is `J u`. The forward pass is recorded by the
inner tape only and the first pullback by the outer tape only, which watches nothing but `v`: that
gives the smallest graph.
"""

import threading

import tensorflow as tf

from keras_fwd import functional, nest
from keras_fwd.errors import LeakError, StructureError
from keras_fwd.leaks import scan, sealing, tracing
from keras_fwd.linear_map import LinearMap


@functional.public
def linearize(fn, primals, wrt="inputs"):
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
        about one forward pass. All activations stay in memory as long as `J` does.

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
    point = functional.resolve("linearize", fn, primals, wrt)
    fuse = _check_by_tracing("linearize", fn, point)
    forward = _Forward("linearize", point, persistent=True, fuse=fuse)
    pullback = _Pullback(forward, persistent=True)
    jacobian = LinearMap(
        lambda tangents: pullback.push(nest.live(tangents)),
        forward.pull,
        nest.spec(point.sources),
        nest.spec(forward.outputs),
    )
    return forward.outputs, jacobian


@functional.public
def jvp(fn, primals, tangents, wrt="inputs"):
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
        `fn` is traced once besides, to look for leaks; wrap the call in a `tf.function` for speed.

    Example:

    >>> _, tangent = jvp(tf.sin, tf.constant([0.0, 3.141592]), tf.constant([1.0, 1.0]))
    >>> tangent.numpy().round(4)
    array([ 1., -1.], dtype=float32)
    """
    point = functional.resolve("jvp", fn, primals, wrt)
    tangents = nest.match("jvp", "tangents", tangents, nest.spec(point.sources))
    fuse = _check_by_tracing("jvp", fn, point)
    forward = _Forward("jvp", point, persistent=False, fuse=fuse)
    pullback = _Pullback(forward, persistent=False)
    return forward.outputs, pullback.push(nest.live(tangents))


@functional.public
def vjp(fn, primals, cotangents, wrt="inputs"):
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
    fuse = _check_by_tracing("vjp", fn, point, passes=1)
    forward = _Forward("vjp", point, persistent=False, fuse=fuse)
    cotangents = nest.match("vjp", "cotangents", cotangents, nest.spec(forward.outputs))
    return forward.outputs, forward.pull(cotangents)


def pullback(fn, primals, wrt="inputs", call="pullback"):
    """The outputs and a function `cotangents -> Jᵀ cotangents`, without the dummy machinery.

    What a symmetric Jacobian (a Hessian) needs, and a gradient; cheaper than `linearize` there.
    """
    point = functional.resolve(call, fn, primals, wrt)
    fuse = _check_by_tracing(call, fn, point, passes=1)
    forward = _Forward(call, point, persistent=True, fuse=fuse)
    return forward.outputs, forward.pull


def pull(call, function, sources, cotangents, primals=None):
    """`Jᵀ cotangents` of a function of a list, zeros where nothing depends on a source.

    Args:
        call: Name for messages.
        function: Of the sources, or of `primals` if the sources are variables it reads.
        sources: List of tensors, or of variables.
        cotangents: List like the floating-point outputs.
        primals: See `function`.
    """
    forward = _Forward(call, functional.Point(sources, function, primals), persistent=False)
    return forward.pull(cotangents, strict=False)


class _Depth(threading.local):
    forward_passes = 0  # that are running, one inside the other


_depth = _Depth()


class _Forward:
    """The forward pass under the inner tape."""

    @sealing.in_context
    def __init__(self, call, point, persistent, fuse=None):
        self.call = call
        self.point = point
        sources = nest.flatten(point.sources)
        self.live = [nest.is_differentiable(s.dtype) for s in sources]
        if not point.variables:
            # Copies, so that a nested call on the same tensor is not confused with this one.
            sources = [
                tf.identity(s) if live else s for s, live in zip(sources, self.live, strict=True)
            ]
        self.sources = [s for s, live in zip(sources, self.live, strict=True) if live]
        self.tape = tf.GradientTape(persistent=persistent, watch_accessed_variables=False)
        _depth.forward_passes += 1
        try:
            with self.tape:
                for source in self.sources:
                    self.tape.watch(source)
                outputs = point.call(nest.pack(point.sources, sources))
                self.outputs = functional.as_tensors(call, outputs)
        finally:
            _depth.forward_passes -= 1
        self.targets = [y for y in nest.flatten(self.outputs) if nest.is_differentiable(y.dtype)]
        if not self.targets:
            raise StructureError(
                f"{call}: `fn` must return at least one floating-point tensor. "
                f"Received: {nest.describe(self.outputs)}."
            )
        if not tf.executing_eagerly():
            nested = _depth.forward_passes > 0
            fuse = scan.check_forward(call, self.sources, self.targets, nested)
        self.fuse = fuse  # raised when what comes out of here is differentiated again

    def guard(self, tensors):
        """Derivatives as they leave this file."""
        return scan.fuse(self.fuse, tensors) if self.fuse and tensors else tensors

    @sealing.in_context
    def gradient(self, cotangents, strict=True):
        """Jᵀ cotangents as a list, `None` where no output depends on a source.

        A cotangent may be `None` too: that output is then left out, which is not the same as zeros
        where its own derivative is not finite.
        """
        pairs = [p for p in zip(self.targets, cotangents, strict=True) if p[1] is not None]
        targets, cotangents = [y for y, _ in pairs], [c for _, c in pairs]
        try:
            gradients = self.tape.gradient(targets, self.sources, output_gradients=cotangents)
        except LookupError as error:
            raise scan.missing(self.call, error, self.sources, self.targets) from error
        if strict and all(gradient is None for gradient in gradients):
            raise StructureError(
                f"{self.call}: `fn` must depend on what it is differentiated by, through ops that "
                "TensorFlow can differentiate. Received: outputs "
                f"{nest.describe(self.outputs)} that do not depend on "
                f"{nest.describe(self.point.sources)}."
            )
        return [nest.densify(gradient) for gradient in gradients]

    def pull(self, cotangents, strict=True):
        """Jᵀ cotangents as a nest like the sources, zeros where no output depends on a source."""
        pairs = zip(nest.flatten(cotangents), nest.flatten(self.outputs), strict=True)
        cotangents = [c for c, y in pairs if nest.is_differentiable(y.dtype)]
        gradients = [
            tf.zeros_like(source) if gradient is None else gradient
            for gradient, source in zip(
                self.gradient(cotangents, strict), self.sources, strict=True
            )
        ]
        gradients = iter(self.guard(gradients))
        leaves = [next(gradients) if live else None for live in self.live]
        return nest.pack(self.point.sources, leaves)


class _Pullback:
    """The pullback of dummy cotangents under the outer tape; its own pullback is J."""

    @sealing.in_context
    def __init__(self, forward, persistent):
        self.forward = forward
        # Any dummy is right where the rules are linear in it. Ones, because zeros meet 0/0 in the
        # rules of a few ops (cumulative_logsumexp, reduce_euclidean_norm).
        self.dummies = [tf.ones_like(target) for target in forward.targets]
        self.tape = tf.GradientTape(persistent=persistent, watch_accessed_variables=False)
        with self.tape:
            self.tape.watch(self.dummies)
            gradients = forward.gradient(self.dummies)
        self.depends = [gradient is not None for gradient in gradients]
        self.pulled = [gradient for gradient in gradients if gradient is not None]
        if not tf.executing_eagerly():
            scan.check_pullback(*self._traced(), self.dummies, self.pulled)

    def _traced(self):
        return self.forward.call, self.forward.sources, self.forward.targets

    @sealing.in_context
    def push(self, tangents):
        """J tangents as a nest like the outputs, zeros where an output depends on no source."""
        tangents = [t for t, depends in zip(tangents, self.depends, strict=True) if depends]
        try:
            pushed = self.tape.gradient(self.pulled, self.dummies, output_gradients=tangents)
        except LookupError as error:
            raise scan.missing(self.forward.call, error, self.dummies, self.pulled) from error
        except (NotImplementedError, TypeError) as error:  # from the depths of TensorFlow's rules
            raise LeakError(
                f"{self.forward.call}: TensorFlow fails to differentiate the pullback of `fn` once "
                f"more. Received: {error}"
            ) from error
        if all(p is None for p in pushed):
            raise LeakError(
                f"{self.forward.call}: the pullback of `fn` cannot be differentiated once more, "
                "though the outputs depend on the inputs. Received: no gradient at all."
            )
        pushed = [nest.densify(p) for p in pushed]
        if not tf.executing_eagerly():
            scan.check_unused(*self._traced(), self.dummies, self.pulled, pushed)
        pushed = [
            tf.zeros_like(target) if p is None else p
            for p, target in zip(pushed, self.forward.targets, strict=True)
        ]
        pushed = iter(self.forward.guard(pushed))
        outputs = self.forward.outputs
        leaves = [
            next(pushed) if nest.is_differentiable(y.dtype) else None for y in nest.flatten(outputs)
        ]
        return nest.pack(outputs, leaves)


def _check_by_tracing(call, fn, point, passes=2):
    def derivative(here):
        forward = _Forward(call, here, persistent=False)
        if passes == 1:
            forward.gradient([tf.ones_like(target) for target in forward.targets])
        else:
            zeros = [tf.zeros_like(source) for source in forward.sources]
            _Pullback(forward, persistent=False).push(zeros)
        return forward.fuse

    if tf.executing_eagerly():
        return tracing.trace_once(fn, point, passes, derivative)
    return None
