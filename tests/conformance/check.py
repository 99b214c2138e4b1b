"""How a case is checked: one traced function for all orders, run at five points.

Each function `f` is followed by a sine, so that those that are linear have derivatives of every
order too. With a direction `u`, a cotangent `w` and another direction `d`:

* order 1: `J u` by `jvp` and by `linearize` against a central difference of `f`, and the adjoint
  gap of `linearize`;
* order 2: `jvp` of `jvp` against a central difference of `J u`, and the gradient of `⟨w, J u⟩` by
  a `tf.GradientTape` of the caller, along `d`, against a central difference of `⟨w, J u⟩`;
* order 3: `jvp` of `jvp` of `jvp` against a central difference of `jvp` of `jvp`.

A *lean* case has only `linearize`, the tape of the caller around it, and `d = u`.

Where another derivative than the true one is declared (a straight-through estimator, say), the
differences of order 1 are those of the function that has it, and nothing follows `f`.

The central differences are taken once, in the first mode (the graph) that gives anything, by
running what was traced at `x ± h u` and `x ± h d`. All modes are compared with them.
"""

import dataclasses
import re

import numpy as np
import tensorflow as tf

from conformance.case import WEIGHTS
from keras_fwd import LeakError, jvp, linearize

# Relative to the derivative of one order less: what rounding leaves of a central difference where
# the derivative itself is zero (eps / step is 1e-11; the rest is for ill-conditioned functions).
FLOOR = 1e-3


@dataclasses.dataclass(frozen=True)
class Row:
    """One case with respect to one thing: what came out, by mode and order."""

    name: str
    wrt: str
    outcomes: dict  # mode -> {order: "exact" | "LeakError: op" | "wrong: …" | "error: …"}
    note: str = ""


def rows(case):
    """The rows of a case, one for the inputs and one for the weights."""
    points = case.points()
    fn, variables = case.subject(points)
    found = []
    for wrt in case.wrt:
        sources = variables if wrt == "weights" else points
        if any(s.dtype.is_floating for s in sources):
            found.append(_row(case, wrt, fn, points, variables))
    return found


def _row(case, wrt, fn, points, variables):
    problem = Problem(case, fn, points, variables if wrt == "weights" else None)
    orders = case.orders
    if wrt == "weights":
        orders = {mode: min(order, WEIGHTS[mode]) for mode, order in orders.items()}
    outcomes = {mode: problem.outcomes(mode, orders[mode]) for mode in orders}
    outcomes = {mode: found for mode, found in outcomes.items() if found}
    return Row(case.name, wrt, outcomes, _note(case, outcomes))


def _note(case, outcomes):
    notes = [case.note] if case.note else []
    if "xla" in case.orders and "xla" not in outcomes:
        notes.append("XLA does not compile the forward pass")
    if "graph" in case.orders and "graph" not in outcomes:
        notes.append("cannot be traced in a graph")
    if case.xla_fails:
        notes.append(f"XLA: {case.xla_fails}")
    return "; ".join(notes)


def outer(outputs, linear=False):
    """The sine of each output that is a floating-point tensor, in float64."""
    leaves = []
    for leaf in tf.nest.flatten(outputs):
        if leaf is None or not (leaf.dtype.is_floating or leaf.dtype.is_complex):
            continue
        parts = [tf.math.real(leaf), tf.math.imag(leaf)] if leaf.dtype.is_complex else [leaf]
        parts = [tf.cast(part, tf.float64) for part in parts]
        leaves += parts if linear else [tf.sin(part) for part in parts]
    return leaves


class Problem:
    """A function at a point, with directions and the central differences along them."""

    def __init__(self, case, fn, points, variables):
        self.case = case
        self.variables = variables
        self.points = points
        linear = case.surrogate is not None
        self.function = lambda xs: outer(fn(xs), linear)
        self.sources = points if variables is None else variables
        self.wrt = "inputs" if variables is None else variables
        generator = np.random.default_rng(1)

        def random(tensor):
            if not tensor.dtype.is_floating:
                return None
            return tf.constant(generator.normal(size=tensor.shape), tensor.dtype)

        self.u = [random(s) for s in self.sources]
        self.d = self.u if case.lean else [random(s) for s in self.sources]
        self.w = [random(y) for y in self.function(points)]
        self.expected = None  # what the derivatives are compared with, once it is known

    # -- what is differentiated --------------------------------------------------------------------

    def derivatives(self, points, order, mode):
        """Everything up to an order, by name."""
        if self.case.lean:
            return self.lean(points, order)

        def pushed(function):
            return lambda xs: jvp(function, xs, self.u, self.wrt)

        first = pushed(self.function)
        second = pushed(first)
        if order == 1:
            found = dict(zip(("y", "t1"), first(points), strict=True))
        elif order == 2:
            (y, t1), (_, t2) = second(points)
            found = {"y": y, "t1": t1, "t2": t2}
        else:
            ((y, t1), (_, t2)), (_, (_, t3)) = pushed(second)(points)
            found = {"y": y, "t1": t1, "t2": t2, "t3": t3}
        # The most expensive mode does without, and one mode is enough for an identity of the code.
        if mode == ("eager" if "eager" in self.case.orders else "graph"):
            found |= self.linear_map(points)
        return found | self.slope(points) if order > 1 and mode != "xla" else found

    def lean(self, points, order):
        """Order 1 by `linearize` alone, order 2 by a tape of the caller around it alone."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self.live(points))
            y, J = linearize(self.function, points, self.wrt)
            t1 = J(self.u)
            s = dot(self.w, t1)
        found = {"y": y, "t1": t1, "wJu": s, "uJw": dot(self.u, J.T(self.w))}
        return found | {"s": s, "slope": self.along_d(tape, s, points)} if order > 1 else found

    def linear_map(self, points):
        """J u and both sides of the adjoint gap, by `linearize`."""
        _, J = linearize(self.function, points, self.wrt)
        pushed = J(self.u)
        return {"Ju": pushed, "wJu": dot(self.w, pushed), "uJw": dot(self.u, J.T(self.w))}

    def slope(self, points):
        """⟨w, J u⟩, and its gradient along d by a tape of the caller, as a regularizer takes it."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self.live(points))
            _, t1 = jvp(self.function, points, self.u, self.wrt)
            s = dot(self.w, t1)
        return {"s": s, "slope": self.along_d(tape, s, points)}

    def along_d(self, tape, s, points):
        """The gradient of a scalar, along d."""
        live = self.live(points)
        gradients = tape.gradient(s, live, unconnected_gradients="zero")
        gradients = [tf.convert_to_tensor(g) for g in gradients]
        return dot(gradients, [d for d in self.d if d is not None])

    def live(self, points):
        return [s for s in self.moving(points) if s.dtype.is_floating]

    def moving(self, points):
        return points if self.variables is None else self.variables

    # -- how it is run -----------------------------------------------------------------------------

    def runner(self, mode, order):
        """A function of the points in one mode."""

        def run(*points):
            return self.derivatives(list(points), order, mode)

        return in_mode(run, mode)

    def at(self, run, direction, step):
        """What `run` gives at the point plus a step along a direction."""
        sources = [tf.convert_to_tensor(s) for s in self.moving(self.points)]
        moved = [
            s if t is None else s + tf.cast(step, t.dtype) * t
            for s, t in zip(sources, direction, strict=True)
        ]
        if self.variables is None:
            return run(*moved)
        for variable, value in zip(self.variables, moved, strict=True):
            variable.assign(value)
        try:
            return run(*self.points)
        finally:
            for variable, value in zip(self.variables, sources, strict=True):
                variable.assign(value)

    def difference(self, run, direction, names):
        """Central differences along a direction of what `run` gives under some names."""
        plus, minus = (self.at(run, direction, sign * self.case.step) for sign in (1, -1))
        return {
            name: (flat(plus[name]) - flat(minus[name])) / (2 * self.case.step) for name in names
        }

    def outcomes(self, mode, highest):
        """What comes out in one mode, by order; nothing where `f` itself does not run."""
        failures = {}
        if self.case.random:
            self.expected = None  # the numbers drawn are others in each mode
        for order in range(highest, 0, -1):
            try:
                run = self.runner(mode, order)
                found = run(*self.points)
                if self.expected is None or f"t{order}" not in self.expected:
                    self.expected = self.reference(run, order, found)
                return self.verdicts(found, order) | failures
            except Exception as error:  # whatever it is, it is what the user gets
                failures[order] = failure(error)
                if mode != "eager" and self.no_forward_pass(mode):
                    return {}
        return failures

    def no_forward_pass(self, mode):
        try:
            in_mode(lambda *xs: self.function(list(xs)), mode)(*self.points)
        except Exception:
            return True
        return False

    def reference(self, run, order, found):
        """Central differences of everything up to an order."""
        names = ["y"] if self.case.lean else ["y", "t1", "t2"][:order]
        if self.case.lean and order > 1:
            names.append("s")
        along_u = self.difference(run, self.u, names)
        if self.case.surrogate:

            def declared(*xs):
                return {"y": outer(self.case.surrogate(*xs), linear=True)}

            along_u |= self.difference(declared, self.u, ["y"])
        expected = {"t1": along_u["y"], "Ju": along_u["y"]}
        if order > 1:
            expected["t2"] = along_u.get("t1")
        if "s" in found:
            along_d = along_u if self.case.lean else self.difference(run, self.d, ["s"])
            expected["slope"] = along_d["s"]
        if order > 2:
            expected["t3"] = along_u["t2"]
        return expected

    def verdicts(self, found, order):
        """ "exact" or what is wrong, by order."""
        scale = {"t1": "y", "Ju": "y", "t2": "t1", "slope": "t1", "t3": "t2"}
        checks = {1: ["t1", "Ju"], 2: ["t2", "slope"], 3: ["t3"]}
        verdicts = {}
        for k in range(1, order + 1):
            errors = {
                name: relative_error(found[name], self.expected[name], found[scale[name]])
                for name in checks[k]
                if name in found
            }
            if k == 1 and "wJu" in found:
                errors["adjoint gap"] = relative_error(found["wJu"], found["uJw"], found["t1"])
            wrong = [f"{n} {e:.0e}" for n, e in errors.items() if not e < self.tolerance(n)]
            verdicts[k] = f"wrong: {', '.join(wrong)}" if wrong else "exact"
        return verdicts

    def tolerance(self, name):
        # No step is taken for the adjoint gap: what is left is rounding.
        return self.case.tolerance * (1e-2 if name == "adjoint gap" else 1)


def in_mode(function, mode):
    if mode == "eager":
        return function
    return tf.function(function, autograph=False, jit_compile=mode == "xla", reduce_retracing=True)


def failure(error):
    """An exception in a few words, the same in every run."""
    if isinstance(error, LeakError):
        op = re.search(r"(?:Received: op|Received: Gradient for|which raises) (\w+)", str(error))
        return f"LeakError: {op.group(1) if op else str(error)[:200]}"
    return f"error: {type(error).__name__}: {' '.join(str(error).split())[:200]}"


def dot(xs, ys):
    """⟨x, y⟩ over lists of tensors; `None` where a leaf takes no tangent."""
    pairs = [(x, y) for x, y in zip(xs, ys, strict=True) if x is not None and y is not None]
    return tf.add_n(
        [tf.reduce_sum(tf.cast(x, "float64") * tf.cast(y, "float64")) for x, y in pairs]
    )


def flat(tensors):
    leaves = [np.asarray(t, "float64").ravel() for t in tf.nest.flatten(tensors) if t is not None]
    return np.concatenate(leaves)


def relative_error(actual, expected, scale):
    actual, expected, scale = flat(actual), flat(expected), flat(scale)
    size = np.linalg.norm(actual) + np.linalg.norm(expected) + FLOOR * np.linalg.norm(scale)
    return np.linalg.norm(actual - expected) / size if size else 0.0
