"""How the rules of ops are checked: rows of functions, their derivatives, whether a rule is asked.

`tests/_rules` has the rows, in a file for each module of rules.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from keras_fwd import jacobian, jvp, linearize, vjp
from keras_fwd._graphs import registry
from keras_fwd._rules import table
from support.cases import MODES, central_difference, dot, random, relative_error

IMAGE, COLORS = (2, 6, 6, 2), (1, 4, 4, 3)
LINEAR = {"single": True, "linear": True}


@dataclasses.dataclass(frozen=True)
class Row:
    """A function through an op.

    Attributes:
        id: Name in the tests' ids.
        fn: From one tensor to one tensor.
        shape: Of the tensor.
        single: Whether the kernel works in float32 whatever its input.
        linear: Whether it is linear, or piecewise: longer steps are exact then.
        xla: Whether TensorFlow can compile it.
        xla_tape: Whether the tape of a caller is right under XLA: kernels of XLA are wrong for
            complex numbers, and TensorFlow's own gradients call them.
        positive: Whether the inputs must lie between 0 and 1.
        stairs: Whether it is one of many small steps, over which a difference must reach.
    """

    id: str
    fn: Callable
    shape: tuple
    single: bool = False
    linear: bool = False
    xla: bool = False
    xla_tape: bool = True
    positive: bool = False
    stairs: bool = False

    @property
    def step(self):
        return 0.25 if self.stairs else 3e-3 if self.single else 1e-5

    @property
    def tolerance(self):
        return 1e-2 if self.single else 1e-6

    @property
    def dtype(self):
        return "float32" if self.single else "float64"

    def point(self):
        x = np.random.default_rng(0).normal(size=self.shape)
        if self.positive:  # apart from each other, so that no step meets a tie
            x = np.random.default_rng(1).permutation(np.linspace(0.1, 0.9, x.size))
            x = x.reshape(self.shape)
        return tf.constant(x, self.dtype), random(self.shape, 2, self.dtype) * 0.5


# --- rows, to third order -------------------------------------------------------------------------


def rows(some, fast=(), ops=()):
    """Parameters: rows by modes; not slow are those of `fast`, and in a graph linear ones.

    Of the rows in `ops` the fast case is that of their op, but for those of `fast`.
    """
    have_a_case = {row.id for row in dict(ops).values()}

    def parameter(row, mode):
        linear = mode == "graph" and row.linear and row.id not in have_a_case
        quick = row.id in fast or linear
        return pytest.param(
            row, mode, marks=[] if quick else pytest.mark.slow, id=f"{row.id}-{mode}"
        )

    return pytest.mark.parametrize(
        ("row", "mode"),
        [parameter(row, mode) for mode in MODES for row in some if mode != "xla" or row.xla],
    )


def of_table(some, **ids):
    """Rows by the ops whose rules they need."""
    known = {row.id: row for row in some}
    return {op: known[id] for op, id in ids.items()}


def check_row(row, mode):
    x, u = row.point()
    tape = row.xla_tape or mode != "xla"
    found = errors(row.fn, x, u, row.step, MODES[mode], tape=tape)
    assert max(found) < row.tolerance, found


def central(fn, x, u, step):
    return (fn(x + step * u) - fn(x - step * u)) / (2 * step)


def errors(fn, x, u, step, run, push=jvp, tape=True):
    """Relative errors of the derivatives of orders 1, 2 and 3 along `u`, and the adjoint gap."""

    def inner(x):  # so that derivatives of a linear op are not all zero
        return fn(x) ** 2

    def first(x):
        return push(inner, x, u)[1]

    def second(x):
        return push(first, x, u)[1]

    def energy(x):
        return tf.reduce_sum(first(x) ** 2)

    def slope(x):  # by a tape of the user's own
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = energy(x)
        return tf.reduce_sum(tape.gradient(value, x) * u)

    Ju, w, pulled = run(lambda x: both_ways(fn, x, u))(x)
    pairs = [(inner, first), (first, second), (energy, slope)][: 3 if tape else 2]
    found = [
        relative_error(run(derivative)(x), central(run(function), x, u, step))
        for function, derivative in pairs
    ]
    return [*found, adjoint_gap(Ju, w, u, pulled)]


def both_ways(fn, x, u):
    """`J u`, a cotangent `w`, and `Jᵀ w`."""
    y, J = linearize(fn, x)
    w = tf.cos(tf.range(tf.cast(tf.size(y), y.dtype)))
    w = tf.reshape(w, tf.shape(y))
    return J(u), w, J.T(w)


def adjoint_gap(Ju, w, u, pulled):
    return abs(dot(Ju, w) - dot(u, pulled)) / (np.linalg.norm(Ju) * np.linalg.norm(w))


# --- one row of the table of rules, in under a second ---------------------------------------------


def asked(op, monkeypatch):
    """A list that grows with each use of an op's rule."""
    calls = []

    def spying(rule):
        def spy(op, *cotangents):
            calls.append(op.type if hasattr(op, "type") else "")
            return rule(op, *cotangents)

        return spy

    if op in table.SEALED:
        monkeypatch.setitem(table.SEALED, op, spying(table.SEALED[op]))
    else:
        entry = registry._registry._registry[op]
        monkeypatch.setitem(entry, "type", spying(entry["type"]))
    return calls


def check_op(op, row, monkeypatch):
    """The rule of an op is asked, and what comes out is right to second order."""
    calls = asked(op, monkeypatch)
    check_twice(row, plain=op in table.REGISTERED)
    assert calls, f"no derivative of {row.id} needs the rule of {op}"


def check_twice(row, plain=False):
    """First and second derivatives in one trace; the second by plain tapes, if rules serve them."""
    x, u = row.point()

    def inner(x):
        return row.fn(x) ** 2

    def first(x):
        return jvp(inner, x, u)[1]

    @tf.function(autograph=False)
    def everything(x):
        pairs = [jvp(inner, x, u), *(by_tapes(inner, x, u) if plain else [jvp(first, x, u)])]
        return pairs, both_ways(row.fn, x, u)

    pairs, (Ju, w, pulled) = everything(x)
    above, below = everything(x + row.step * u)[0], everything(x - row.step * u)[0]
    found = [
        relative_error(derivative, (high - low) / (2 * row.step))
        for (_, derivative), (high, _), (low, _) in zip(pairs, above, below, strict=True)
    ]
    found.append(adjoint_gap(Ju, w, u, pulled))
    assert max(found) < row.tolerance, found


def by_tapes(fn, x, u):
    """A scalar of `fn` with its slope, and the slope with its own, as TensorFlow alone has them."""
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            y = fn(x)
            w = tf.cos(tf.range(tf.cast(tf.size(y), y.dtype)))
            value = tf.reduce_sum(y * tf.reshape(w, tf.shape(y)))
        slope = tf.reduce_sum(inner.gradient(value, x) * u)
    return [(value, slope), (slope, tf.reduce_sum(outer.gradient(slope, x) * u))]


# --- rules for what TensorFlow differentiates right, but slowly -----------------------------------


def by_modes(cases, is_slow, not_in_xla=()):
    """Parameters: cases `(name, fn, shape)` by modes; `is_slow(name, mode)` marks some as slow."""
    return pytest.mark.parametrize(
        ("fn", "shape", "mode"),
        [
            pytest.param(
                fn,
                shape,
                mode,
                id=f"{name}-{mode}",
                marks=[pytest.mark.slow] if is_slow(name, mode) else [],
            )
            for name, fn, shape in cases
            for mode in MODES
            if mode != "xla" or not name.startswith(not_in_xla)
        ],
    )


def curved(fn):
    """Derivatives of every order that are not zero."""
    return lambda x: fn(tf.sin(x) + x**2) ** 2


def along(fn, u, order):
    """The derivative of an order along `u`, each by `jvp` of the one below."""
    return fn if not order else lambda x: jvp(along(fn, u, order - 1), x, u)[1]


def check_orders(fn, shape, mode, orders):
    x, u = random(shape), random(shape, 1)
    for order in orders:
        lower = along(fn, u, order - 1)
        pushed = MODES[mode](along(fn, u, order))(x)
        assert relative_error(pushed, central_difference(MODES["graph"](lower), x, u)) < 1e-7
        w = random(pushed.shape, 2)
        _, pulled = MODES[mode](lambda x, w, lower=lower: vjp(lower, x, w))(x, w)
        gap = abs(dot(pushed, w) - dot(u, pulled))
        assert gap < 1e-12 * np.linalg.norm(pushed) * np.linalg.norm(w)


def named(cases, names):
    """Parameters: some of the cases."""
    return pytest.mark.parametrize(
        ("fn", "shape"), [pytest.param(f, s, id=n) for n, f, s in cases if n in names]
    )


def check_vectorized(fn, shape, way):
    x, u = random(shape), random(shape, 1)
    dense = MODES["graph"](lambda x: jacobian(curved(fn), x, mode=way))(x)
    expected = central_difference(curved(fn), x, u)
    assert relative_error(tf.tensordot(dense, u, len(shape)), expected) < 1e-7


def check_unknown_batch(fn, shape):
    spec = tf.TensorSpec([None, *shape[1:]], tf.float64)

    @tf.function(autograph=False, input_signature=[spec, spec])
    def push_and_pull(x, u):
        _, J = linearize(curved(fn), x)
        return J(u), J.T(J(u))

    for batch in (1, 2):
        x, u = random(shape)[:batch], random(shape, 1)[:batch]
        pushed, pulled = push_and_pull(x, u)
        assert relative_error(pushed, central_difference(curved(fn), x, u)) < 1e-7
        assert dot(pulled, u) == pytest.approx(dot(pushed, pushed))


def check_loops(fn, shape, inside):
    x, u = random(shape), random(shape, 1)

    def twice(x, u):
        _, outer = linearize(curved(fn), x)

        def body(u):
            J = linearize(curved(fn), x)[1] if inside else outer
            return [J.T(J(u))]

        return tf.while_loop(lambda _: True, body, [u], maximum_iterations=2)[0]

    _, J = linearize(curved(fn), x)
    assert relative_error(MODES["graph"](twice)(x, u), J.T(J(J.T(J(u))))) < 1e-12
