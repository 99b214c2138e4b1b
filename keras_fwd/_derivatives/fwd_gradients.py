"""`fwd_gradients`: the pushforward between symbolic tensors of a graph that is being built."""

import tensorflow as tf

from keras_fwd._derivatives import functional
from keras_fwd._graphs import scan
from keras_fwd._rules import sealing
from keras_fwd._spaces import given, nest
from keras_fwd.errors import ConfigurationError, StructureError
from keras_fwd.typing import Nest


@tf.autograph.experimental.do_not_convert
@sealing.in_context
def fwd_gradients(
    ys: Nest, xs: Nest, grad_xs: Nest | None = None, assert_unused: bool = False
) -> Nest:
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
            f"fwd_gradients: `xs` must be floating-point tensors. Received: {given.describe(xs)}."
        )
    tangents = nest.pack(xs, [tf.ones_like(x) for x in sources]) if grad_xs is None else grad_xs
    tangents = nest.flatten(given.match("fwd_gradients", "grad_xs", tangents, spec))
    # Zeros: rules that clip their cotangent are linear there, and a 0/0 shows itself as NaN.
    dummies = [tf.zeros_like(y) for y in targets]
    scan.check_forward("fwd_gradients", sources, targets, nested=False)
    pulled = [nest.densify(g) for g in _gradients(targets, sources, dummies)]
    # An `x` that no `y` depends on has no part in the pullback, and its tangent none in the result.
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
