"""Is it so? JVPs by the plain trick and by this package against central differences."""

import numpy as np
import tensorflow as tf

from keras_fwd._derivatives import double_gradient, passes
from keras_fwd._rules import sealing
from keras_fwd._spaces import nest


def verify(function, primals):
    """Relative differences of JVPs along a random direction from central differences, by name.

    Every output counts. A value that is not finite is shown as such: a dependence on the dummy
    cotangent shows itself as NaN, or as a difference that depends on it.
    """
    rng = np.random.default_rng(1)
    leaves = nest.flatten(primals)
    floating = [x for x in leaves if nest.is_differentiable(x.dtype)]
    if not floating:
        return {"all": "not computed, for no input can be moved"}
    direction = [tf.constant(rng.normal(size=x.shape), x.dtype) for x in floating]

    def at(xs):
        xs = iter(xs)
        moved = [next(xs) if nest.is_differentiable(x.dtype) else x for x in leaves]
        return [y for y in nest.flatten(function(nest.pack(primals, moved))) if _moves(y)]

    # Where rounding, ε over the step, and the error of a central difference, its square, are equal.
    step = np.finfo(floating[0].dtype.as_numpy_dtype).eps ** (1 / 3)
    up, down = (
        at([x + sign * step * u for x, u in zip(floating, direction, strict=True)])
        for sign in (1, -1)
    )
    exact = _flat([(a - b) / (2 * step) for a, b in zip(up, down, strict=True)])
    dummies = {
        "zeros": tf.zeros_like,
        "random": lambda y: tf.cast(tf.random.stateless_normal(tf.shape(y), [1, 2]), y.dtype),
        "NaN": lambda y: tf.fill(tf.shape(y), tf.constant(float("nan"), y.dtype)),
    }
    found = {"keras_fwd": _difference(lambda: _ours(at, floating, direction), exact)}
    for name, dummy in dummies.items():
        with sealing.unsealed():
            found[f"plain trick, dummy {name}"] = _difference(
                lambda dummy=dummy: _plain(at, floating, direction, dummy), exact
            )
    return found


def _moves(y):
    return nest.is_differentiable(y.dtype)


def _ours(function, xs, us):
    return tf.function(lambda xs: double_gradient.jvp(function, xs, us)[1], autograph=False)(xs)


def _plain(function, xs, us, dummy):
    def trick(xs):
        _, dummies, pulled, push = passes.unchecked(function, xs, xs, dummy)
        if len(pulled) < len(us) or len(found := push(us)) < len(dummies):
            raise LookupError("no gradient")
        return found

    return tf.function(trick, autograph=False)(xs)


def _difference(push, exact):
    try:
        pushed = _flat(push())
    except Exception as error:  # what plain TensorFlow raises is what is to be shown
        return f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
    return float(np.linalg.norm(pushed - exact) / np.linalg.norm(exact))


def _flat(tensors):
    return np.concatenate([np.asarray(t, "float64").ravel() for t in tensors])
