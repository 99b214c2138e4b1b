"""The passes of the double-gradient trick: the one file that holds gradient tapes.

The forward pass is recorded by the inner tape only and the first pullback by the outer tape only,
which watches nothing but the dummy cotangent `v`: that gives the smallest graph.
"""

import threading

import tensorflow as tf

from keras_fwd._derivatives import functional
from keras_fwd._graphs import scan
from keras_fwd._rules import sealing
from keras_fwd._spaces import given, nest
from keras_fwd.errors import LeakError, StructureError


def pull(call, function, sources, cotangents, primals=None):
    """`Jᵀ cotangents` of a function of a list, zeros where nothing depends on a source.

    Args:
        call: Name for messages.
        function: Of the sources, or of `primals` if the sources are variables it reads.
        sources: List of tensors, or of variables.
        cotangents: List like the floating-point outputs.
        primals: Nest of tensors, the argument of `function` where the sources are variables.
    """
    forward = Forward(call, functional.Point(sources, function, primals), persistent=False)
    return forward.pull(cotangents, strict=False)


def unchecked(function, sources, primals, dummy=tf.ones_like):
    """The passes of the trick in the graph being built, without a look for leaks.

    Args:
        function: Of the primals; it reads the sources.
        sources: List of tensors or variables.
        primals: Nest of tensors.
        dummy: The dummy cotangent of an output.

    Returns:
        `(outputs, dummies, pulled, push)`: `pulled` leaves out sources that nothing depends on,
        `push` takes a list like it and returns a list like the dummies, without what vanishes.
    """
    with tf.GradientTape(watch_accessed_variables=False) as inner:
        inner.watch(sources)
        outputs = function(primals)
    targets = [y for y in nest.flatten(outputs) if nest.is_differentiable(y.dtype)]
    # Made outside of the outer tape, which then records nothing but what reads them.
    dummies = [dummy(target) for target in targets]
    outer = tf.GradientTape(persistent=True, watch_accessed_variables=False)
    with outer:
        outer.watch(dummies)
        gradients = inner.gradient(targets, sources, output_gradients=dummies)
        pulled = [nest.densify(g) for g in gradients if g is not None]

    def push(tangents):
        pushed = outer.gradient(pulled, dummies, output_gradients=tangents)
        return [nest.densify(p) for p in pushed if p is not None]

    return outputs, dummies, pulled, push


# Of each thread: replicas are traced side by side, and what another one runs is not nested in this.
class _Depth(threading.local):
    forward_passes = 0  # that are running, one inside the other


_depth = _Depth()


class Forward:
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
        # Noted before anything is traced: what stands in the graph already is not part of this
        # pass.
        since = (None, 0) if tf.executing_eagerly() else scan.here()
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
                f"Received: {given.describe(self.outputs)}."
            )
        if not tf.executing_eagerly():
            nested = _depth.forward_passes > 0
            fuse = scan.check_forward(call, self.sources, self.targets, nested, since)
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
        except (LookupError, tf.errors.InvalidArgumentError) as error:
            raise scan.missing(self.call, error, self.sources, self.targets) from error
        if strict and all(gradient is None for gradient in gradients):
            raise StructureError(
                f"{self.call}: `fn` must depend on what it is differentiated by, through ops that "
                "TensorFlow can differentiate. Received: outputs "
                f"{given.describe(self.outputs)} that do not depend on "
                f"{given.describe(self.point.sources)}."
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

    @sealing.in_context
    def gradients_at(self, tensors, cotangents):
        """`Jᵀ cotangents` by tensors of the forward pass; `None` where the tape knows of no way.

        Args:
            tensors: List of tensors between the sources and the outputs.
            cotangents: List like the floating-point outputs, `None` for those to leave out.
        """
        pairs = [p for p in zip(self.targets, cotangents, strict=True) if p[1] is not None]
        targets, cotangents = [y for y, _ in pairs], [c for _, c in pairs]
        gradients = self.tape.gradient(targets, tensors, output_gradients=cotangents)
        return [nest.densify(gradient) for gradient in gradients]

    @sealing.in_context
    def slope(self, tensor, source):
        """The derivative of the sum of a tensor of the forward pass by one of the sources."""
        return nest.densify(self.tape.gradient(tensor, source))


class Pullback:
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
        # What no output depends on is not in `pulled`, and its tangent moves nothing.
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
