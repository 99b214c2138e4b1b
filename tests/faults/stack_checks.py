"""What must hold of a random stack: its derivatives and its training steps, or an error of ours.

Nothing here shares code with what it tests but the model: the oracles are central differences and
dense linear algebra in NumPy.
"""

import numpy as np
import tensorflow as tf
from support.cases import flat

import keras_fwd

EXACT, LEAK, OURS, KINK = "exact", "LeakError", "error of ours", "kink"
DAMPING = 0.3
MOST_WEIGHTS = 400  # for which the dense solution is worked out
FLOOR = 1e-9  # what rounding leaves of a central difference of numbers of order one


class Wrong(AssertionError):
    """A number that is not what it must be."""


def outcome(check, *arguments):
    """How a check ended; `Wrong`, and any error that is not ours, leave it."""
    try:
        return check(*arguments)
    except keras_fwd.LeakError:
        return LEAK
    except keras_fwd.KerasFwdError:
        return OURS


def graph(function):
    return tf.function(function, autograph=False)


# --- derivatives ----------------------------------------------------------------------------------


class Derivatives:
    """`J u` and the adjoint gap of a stack, by its inputs or by its weights."""

    def __init__(self, stack, linearize=keras_fwd.linearize):
        self.stack, self.linearize = stack, linearize
        self.forward = graph(lambda points: stack.model(points, training=False))
        self.points = stack.points()
        self.weights = [v.value for v in stack.model.trainable_variables]

    def check(self, wrt):
        """`EXACT`, or `KINK` where a difference is none; raises `Wrong`."""
        random = np.random.default_rng(1)
        by_inputs = wrt == "inputs"
        sources = tf.nest.flatten(self.points) if by_inputs else self.weights
        u = [_normal(random, s) for s in sources]
        if not any(t is not None for t in u):
            return EXACT  # whole numbers alone: there is nothing to be differentiated by
        tangents = tf.nest.pack_sequence_as(self.points, u) if by_inputs else u
        w = tf.constant(random.normal(size=self.stack.targets.shape))
        pushed, pulled = self.both(wrt, tangents, w)
        gap = abs(dot(pushed, w) - dot(u, pulled)) / (norm(pushed) * norm(w) + FLOOR)
        limit = 1e-9 if self.stack.tolerance < 1e-5 else 1e-3
        if not gap <= limit:
            raise Wrong(f"by {wrt}: adjoint gap {gap:.1e}")
        return self.compare(wrt, pushed, lambda h: self.difference(by_inputs, u, h))

    def both(self, wrt, tangents, w):
        """`J u` and `Jᵀ w`, in the two ways in which one asks for them."""

        @graph
        def run(points):
            if wrt == "weights":
                _, J = self.linearize(self.stack.model, points, wrt)
                return J(tangents), J.T(w)
            _, pushed = keras_fwd.jvp(self.stack.model, points, tangents, wrt)
            return pushed, keras_fwd.vjp(self.stack.model, points, w, wrt)[1]

        return run(self.points)

    def compare(self, wrt, pushed, difference):
        step, tolerance = self.stack.step, self.stack.tolerance
        found = flat(pushed)
        for h in (step, step / 8):
            expected = difference(h)
            if _error(found, expected, h) <= tolerance * 20:
                return EXACT
        if not smooth(difference, step, tolerance):
            return KINK
        raise Wrong(f"by {wrt}: J u is {found[:4]}, central differences give {expected[:4]}")

    def difference(self, by_inputs, u, h):
        plus, minus = (self.at(by_inputs, u, sign * h) for sign in (1, -1))
        return (plus - minus) / (2 * h)

    def at(self, by_inputs, u, h):
        if by_inputs:
            leaves = tf.nest.flatten(self.points)
            moved = [x if t is None else x + h * t for x, t in zip(leaves, u, strict=True)]
            return flat(self.forward(tf.nest.pack_sequence_as(self.points, moved)))
        with moved_weights(self.weights, [h * t for t in u]):
            return flat(self.forward(self.points))


def smooth(difference, step, tolerance):
    """Whether differences over steps of several lengths agree, as they do away from kinks."""
    near, far = difference(step / 3), difference(step)
    return _error(near, far, step / 3) <= tolerance


def _error(found, expected, h):
    scale = np.linalg.norm(expected) + np.linalg.norm(found)
    return np.linalg.norm(found - expected) / (scale + 1e-3 + FLOOR / h)


class moved_weights:
    """Variables moved by some tensors, until the end of a `with`."""

    def __init__(self, variables, shifts):
        self.variables, self.shifts = variables, shifts

    def __enter__(self):
        self.before = [v.numpy() for v in self.variables]
        for variable, value, shift in zip(self.variables, self.before, self.shifts, strict=True):
            variable.assign(value + np.asarray(shift, value.dtype))

    def __exit__(self, *_):
        for variable, value in zip(self.variables, self.before, strict=True):
            variable.assign(value)


# --- training -------------------------------------------------------------------------------------


class Training:
    """One step of an optimizer on a stack, and what that step should have been."""

    def __init__(self, stack):
        self.stack, self.model = stack, stack.model
        self.points = stack.points()
        self.targets = tf.constant(stack.targets)
        self.weights = [v.value for v in self.model.trainable_variables]
        self.start = [v.numpy() for v in self.weights]
        self.states = [v.value for v in self.model.non_trainable_variables]
        self.before = [v.numpy() for v in self.states]
        self.forward = graph(self.losses)

    def losses(self, points):
        """Outputs and total loss in training."""
        outputs = self.model(points, training=True)
        extra = [tf.cast(term, outputs.dtype) for term in self.model.losses]
        return outputs, tf.add_n([tf.reduce_mean((outputs - self.targets) ** 2), *extra])

    def at(self, weights):
        """`(outputs, loss)` with these weights, and the states and random numbers of the start."""
        for variable, value in zip(self.weights, unravel(weights, self.start), strict=True):
            variable.assign(value)
        for variable, value in zip(self.states, self.before, strict=True):
            variable.assign(value)
        outputs, loss = self.forward(self.points)
        return flat(outputs), float(loss)

    def step(self, optimizer):
        """The weights after a step, and the loss that its logs tell."""
        self.model.compile(optimizer=optimizer, loss="mse", jit_compile=False)
        self.at(ravel(self.start))
        for variable, value in zip(self.states, self.before, strict=True):
            variable.assign(value)
        x = [np.asarray(x) for x in self.stack.inputs]
        logs = self.model.train_on_batch(
            x if len(x) > 1 else x[0], self.stack.targets, return_dict=True
        )
        return ravel([v.numpy() for v in self.weights]), float(logs["loss"])

    def along(self, direction, h, which):
        w = ravel(self.start)
        plus, minus = self.at(w + h * direction)[which], self.at(w - h * direction)[which]
        return np.atleast_1d((plus - minus) / (2 * h))

    def extrapolated(self, direction, h, which):
        """Richardson's: the error falls with h⁴."""
        return (4 * self.along(direction, h / 2, which) - self.along(direction, h, which)) / 3

    def jacobian(self, along, h):
        """Of the outputs by all weights, column by column."""
        return np.stack([along(e, h, 0) for e in np.eye(sum(w.size for w in self.start))], axis=1)

    def gauss_newton(self, make=keras_fwd.GaussNewton):
        """The step equals the dense solution, or is none where that would raise the loss."""
        w = ravel(self.start)
        reached, told = self.step(make(damping=DAMPING, max_trials=1))
        loss = self.at(w)[1]
        self.check_loss(told, loss)
        step = reached - w
        if len(w) > MOST_WEIGHTS:
            return self.check_descent(step, loss, reached)
        h = self.stack.step
        # Where exponentials bend the loss, the error of the first differences is too large.
        for along, length in ((self.along, h), (self.extrapolated, 10 * h)):
            J = self.jacobian(along, length)
            g = np.concatenate([along(e, length, 1) for e in np.eye(len(w))])
            expected = -np.linalg.solve(2 / len(J) * J.T @ J + DAMPING * np.eye(len(w)), g)
            if not step.any() and self.at(w + expected)[1] >= loss - 1e-3 * abs(g @ expected):
                return EXACT  # rejected, and rightly so
            error = np.linalg.norm(step - expected) / (np.linalg.norm(expected) + 1e-6)
            if error <= max(1e-5, 50 * self.stack.tolerance):
                return self.check_descent(step, loss, reached)
        if not smooth(lambda h: self.along(expected, h, 0), h, self.stack.tolerance):
            return KINK
        near, far = (self.jacobian(self.along, length) for length in (h / 3, h))
        if np.linalg.norm(near - far) > 1e-4 * np.linalg.norm(far):
            return KINK
        raise Wrong(f"GaussNewton's step differs from the dense solution by {error:.1e}")

    def kfac(self, make=keras_fwd.KFAC):
        """The step goes down, and the loss does not rise."""
        reached, told = self.step(make())
        loss = self.at(ravel(self.start))[1]
        self.check_loss(told, loss)
        return self.check_descent(reached - ravel(self.start), loss, reached)

    def check_loss(self, told, loss):
        limit = max(1e-6, self.stack.tolerance)
        if not abs(told - loss) <= limit * (1 + abs(loss)):
            raise Wrong(f"the logs tell a loss of {told}, and it is {loss}")

    def check_descent(self, step, loss, reached):
        if not np.isfinite(step).all() or not np.isfinite(loss):
            raise Wrong("not finite")
        if not step.any():
            return EXACT
        after = self.at(reached)[1]
        if after > loss + max(1e-7, self.stack.tolerance) * (1 + abs(loss)):
            raise Wrong(f"a step raised the loss from {loss} to {after}")
        direction = step / np.linalg.norm(step)
        slope = self.along(direction, self.stack.step, 1)[0]
        if slope > 1e-3 * (1 + abs(loss)):
            raise Wrong(f"a step goes up, with a slope of {slope}")
        return EXACT


# --- vectors --------------------------------------------------------------------------------------


def _normal(random, tensor):
    if not tensor.dtype.is_floating:
        return None
    return tf.constant(random.normal(size=tensor.shape), tensor.dtype)


def dot(x, y):
    return float(flat(x) @ flat(y))


def norm(x):
    return float(np.linalg.norm(flat(x)))


def ravel(arrays):
    return np.concatenate([np.ravel(a).astype("float64") for a in arrays])


def unravel(vector, like):
    parts = np.split(vector, np.cumsum([a.size for a in like])[:-1])
    return [p.reshape(a.shape).astype(a.dtype) for p, a in zip(parts, like, strict=True)]
