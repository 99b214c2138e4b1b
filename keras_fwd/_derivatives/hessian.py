"""`hessian`: of a scalar function, as a `LinearMap`."""

import tensorflow as tf

from keras_fwd._derivatives import double_gradient, functional
from keras_fwd._spaces import given, nest
from keras_fwd._spaces.linear_map import LinearMap
from keras_fwd.errors import StructureError
from keras_fwd.typing import Function, Nest, WithRespectTo


@functional.public
def hessian(fn: Function, primals: Nest, wrt: WithRespectTo = "inputs") -> LinearMap:
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
        # Without integer leaves, where a gradient is None: this function must return tensors.
        return nest.live(pull(nest.map_live(tf.ones_like, value)))

    _, pull = double_gradient.pullback(gradient, primals, variables, call="hessian")

    def mv(vector):
        return pull(nest.live(vector))

    spec = nest.spec(point.sources)
    return LinearMap(mv, mv, spec, spec)


def _check_scalar(value):
    leaves = nest.flatten(value)
    if len(leaves) != 1 or leaves[0].shape.rank != 0:
        raise StructureError(
            "hessian: `fn` must return one scalar; sum or pick an output, or use `jacobian` of "
            f"the gradient. Received: {given.describe(value)}."
        )
