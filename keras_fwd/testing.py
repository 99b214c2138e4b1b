"""Checks for those who write rules: of JVPs, of transposes, of linear maps.

Use float64: a central difference there is good to about ten digits, in float32 to three or four.
"""

import numpy as np
import tensorflow as tf

from keras_fwd._derivatives import double_gradient, functional
from keras_fwd._spaces import nest
from keras_fwd._spaces.linear_map import LinearMap
from keras_fwd.errors import ConfigurationError
from keras_fwd.typing import Function, Nest, WithRespectTo

__all__ = [
    "check_adjoint",
    "check_jvp",
    "check_linear_map",
]


def check_jvp(
    fn: Function,
    primals: Nest,
    wrt: WithRespectTo = "inputs",
    order: int = 1,
    tolerance: float | None = None,
    seed: int = 0,
    jit_compile: bool | None = None,
) -> float:
    """Check the JVPs of a function against central differences, along a random direction.

    At order 1 `J u` is compared with differences of `fn`; at order 2 also its own derivative along
    `u`, by a `jvp` and by a `vjp` of it, with differences of `J u`; and so on. A
    rule that is off by 2.001 for 2 does not pass.

    Args:
        fn: As in `linearize`.
        primals: As in `linearize`; a smooth point of `fn`.
        wrt: As in `linearize`; above order 1 only `"inputs"`.
        order: Highest order, from 1 to 3.
        tolerance: Relative error that passes; default 1e-6 in float64 and 1e-3 in float32, ten
            times as much with each further order.
        seed: Of the directions.
        jit_compile: None (default) for eager code; False for a `tf.function`, True under XLA.

    Returns:
        The largest relative error found.

    Raises:
        AssertionError: an error is above the tolerance; shows both values.
        ConfigurationError: `order` or `wrt` has no meaning.

    Cost: A few evaluations of `fn` and of each derivative.

    Example:

    >>> error = check_jvp(tf.sin, tf.constant([0.5, 1.0], tf.float64), order=2)
    >>> error < 1e-6
    True
    """
    if order not in (1, 2, 3) or (order > 1 and wrt != "inputs"):
        raise ConfigurationError(
            'check_jvp: `order` must be 1, 2 or 3, and 1 unless wrt="inputs". Received: '
            f"order={order!r}, wrt={wrt!r}."
        )
    point = functional.resolve("check_jvp", fn, primals, wrt)
    direction = nest.random_like(point.sources, [seed, 1])
    run = _runner(jit_compile)
    if point.variables:
        return _check_by_variables(fn, point, wrt, direction, run, tolerance)
    worst, function, primals = 0.0, point.call, point.sources
    for k in range(1, order + 1):
        derivative = _along(function, direction)
        expected, noise = _central(run(function), primals, direction)
        limit = _tolerance(tolerance, expected, k)
        worst = max(worst, _compare(f"order {k}", run(derivative)(primals), expected, limit, noise))
        if k > 1:  # by a reverse pass through what the last order gave
            w = nest.random_like(expected, [seed, 2])
            pull = run(lambda x, f=function, w=w: double_gradient.vjp(f, x, w)[1])
            # ⟨(J u)'ᵀ w, u⟩ is the second derivative along u, seen by w.
            found = nest.dot(pull(primals), direction)
            name, scale = f"order {k}, by a vjp of a jvp", float(nest.norm(w))
            wanted = nest.dot(w, expected)
            worst = max(worst, _compare(name, found, wanted, limit, noise * scale))
        function = derivative
    return worst


def check_adjoint(
    fn: LinearMap | Function,
    primals: Nest | None = None,
    wrt: WithRespectTo = "inputs",
    tolerance: float | None = None,
    seed: int = 0,
) -> float:
    """Check that pullback and pushforward are transposes: the adjoint gap `⟨Ju, w⟩ − ⟨u, Jᵀw⟩`.

    Args:
        fn: A `LinearMap`, or as in `linearize` with the primals.
        primals: The point, unless `fn` is a `LinearMap`.
        wrt: As in `linearize`.
        tolerance: Of the gap relative to `‖Ju‖ ‖w‖`; default 1e-10 in float64, 1e-4 in float32.
        seed: Of the vectors.

    Returns:
        The relative adjoint gap.

    Raises:
        AssertionError: the gap is above the tolerance.

    Cost: A product with the map and one with its transpose.

    Example:

    >>> gap = check_adjoint(tf.sin, tf.constant([0.5, 1.0], tf.float64))
    >>> gap < 1e-12
    True
    """
    J = fn if primals is None else double_gradient.linearize(fn, primals, wrt)[1]
    u = _random(J.in_spec, [seed, 3])
    pushed = J(u)
    w = _random(J.out_spec, [seed, 4])
    gap = abs(float(nest.dot(pushed, w)) - float(nest.dot(u, J.T(w))))
    scale = float(nest.norm(pushed)) * float(nest.norm(w))
    gap = gap / scale if scale else gap
    single = nest.accumulator_dtype(J.in_spec) != tf.float64
    limit = tolerance or (1e-4 if single else 1e-10)
    assert gap <= limit, (
        f"check_adjoint: J.T must be the transpose of J. The relative gap between <Ju, w> and "
        f"<u, J.T w> is {gap:.2e}, the tolerance {limit:.0e}."
    )
    return gap


def check_linear_map(A: LinearMap, tolerance: float | None = None, seed: int = 0) -> float:
    """Check that a `LinearMap` is linear both ways, and that `A.T` is its transpose.

    Args:
        A: The `LinearMap`.
        tolerance: Of relative errors; default 1e-10 in float64, 1e-4 in float32.
        seed: Of the vectors.

    Returns:
        The largest relative error found.

    Raises:
        AssertionError: `A(3x − 2y)` is not `3A(x) − 2A(y)`, or the transpose is none.

    Cost: Four products each way.

    Example:

    >>> import keras_fwd
    >>> _, J = keras_fwd.linearize(tf.sin, tf.zeros([3], tf.float64))
    >>> check_linear_map(J)
    0.0
    """
    worst = check_adjoint(A, tolerance=tolerance, seed=seed)
    for name, one in (("A", A), ("A.T", A.T)):
        x, y = (_random(one.in_spec, [seed, i]) for i in (5, 6))
        found = one(nest.map_live(lambda a, b: 3.0 * a - 2.0 * b, x, y))
        wanted = nest.map_live(lambda a, b: 3.0 * a - 2.0 * b, one(x), one(y))
        single = nest.accumulator_dtype(one.in_spec) != tf.float64
        limit = tolerance or (1e-4 if single else 1e-10)
        error = _relative(found, wanted)
        assert error <= limit, (
            f"check_linear_map: {name} must be linear. {name}(3x - 2y) differs from "
            f"3 {name}(x) - 2 {name}(y) by {error:.2e}, the tolerance is {limit:.0e}."
        )
        worst = max(worst, error)
    return worst


def _random(spec, seed):
    return nest.random_like(nest.map_live(lambda s: tf.zeros(s.shape, s.dtype), spec), seed)


def _runner(jit_compile):
    if jit_compile is None:
        return lambda function: function
    return lambda function: tf.function(function, autograph=False, jit_compile=jit_compile)


def _along(function, direction):
    return lambda x: double_gradient.jvp(function, x, direction)[1]


def _central(function, primals, direction):
    """The central difference along a direction, and the rounding error to expect of it."""
    dtype = nest.accumulator_dtype(direction)
    # Scales as the third root of the precision: the error of the formula meets that of rounding.
    step = 10 * np.finfo(dtype.as_numpy_dtype).eps ** (1 / 3) / 6
    up, down = (_moved(function, primals, direction, sign * step) for sign in (1, -1))
    difference = nest.map_live(lambda a, b: (a - b) / (2 * step), _live(up), _live(down))
    size = float(nest.norm(_live(up)))
    return difference, np.finfo(dtype.as_numpy_dtype).eps * size / step


def _moved(function, primals, direction, step):
    def move(x, u):
        return x if u is None else tf.convert_to_tensor(x) + tf.cast(step, u.dtype) * u

    pairs = zip(nest.flatten(primals), nest.flatten(direction), strict=True)
    return function(nest.pack(primals, [move(x, u) for x, u in pairs]))


def _live(outputs):
    leaves = [
        y if y is not None and nest.is_differentiable(y.dtype) else None
        for y in nest.flatten(outputs)
    ]
    return nest.pack(outputs, leaves)


def _check_by_variables(fn, point, wrt, direction, run, tolerance):
    variables = nest.flatten(point.sources)

    def function(values):
        before = [tf.identity(v) for v in variables]
        for variable, value in zip(variables, nest.flatten(values), strict=True):
            variable.assign(value)
        outputs = point.call(None)
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)
        return outputs

    values = nest.pack(point.sources, [tf.identity(v) for v in variables])
    expected, noise = _central(function, values, direction)
    push = run(lambda x: double_gradient.jvp(fn, x, direction, wrt)[1])
    limit = _tolerance(tolerance, expected, 1)
    return _compare("order 1", push(point.primals), expected, limit, noise)


def _tolerance(tolerance, expected, order):
    single = nest.accumulator_dtype(expected) != tf.float64
    return tolerance or (1e-3 if single else 1e-6) * 10 ** (order - 1)


def _relative(found, wanted):
    gap = float(nest.norm(nest.map_live(tf.subtract, found, wanted)))
    scale = float(nest.norm(wanted))
    return gap / scale if scale else gap


def _compare(name, found, expected, limit, noise):
    """The relative error, if it is within the tolerance and the noise of the difference."""
    gap = float(nest.norm(nest.map_live(tf.subtract, found, expected)))
    scale = max(float(nest.norm(expected)), float(nest.norm(found)))
    assert gap <= limit * scale + noise, (
        f"check_jvp, {name}: the derivative must equal central differences. It differs by "
        f"{gap / scale:.2e} of their norm, the tolerance is {limit:.0e}. Received: "
        f"{_first(found)}, central differences give {_first(expected)}."
    )
    return gap / scale if scale else gap


def _first(vector):
    values = np.concatenate([np.asarray(y, "float64").ravel() for y in nest.live(vector)])
    return np.array2string(values[:4], precision=6, threshold=4)
