"""TensorFlow's gradient registry: ask it, add to it for good, stand in for it for a while.

Private interface used here: the registry itself. It tells whether an op has a gradient, has none
(`None`), or was never heard of (`LookupError`), and there is no public way to ask. Without it (an
import that fails in a later release) every op counts as differentiable and nothing is sealed: a
missing gradient is then still reported by TensorFlow's own LookupError, a severed one only when it
is the sole path.
"""

import dataclasses
import weakref
from collections.abc import Callable

import tensorflow as tf

try:
    from tensorflow.python.framework.ops import gradient_registry as _registry
except ImportError:  # pragma: no cover - a later TensorFlow may move it
    _registry = None

#: Op types whose gradient was registered here, because TensorFlow had none.
added = set()
_own = {}  # op type -> the registry's entry, while another stands in for it


def lookup(op_type):
    """The registered gradient function: `None` for "not differentiable".

    Raises:
        LookupError: TensorFlow never heard of a gradient of that op.
    """
    if _registry is None:
        raise LookupError(op_type)
    return _registry.lookup(op_type)


def state(op_type):
    """How the op is differentiated: "known", "none" or "missing"."""
    if _registry is None:
        return "known"
    try:
        return "none" if lookup(op_type) is None else "known"
    except LookupError:
        return "missing"


def register(rules):
    """Register gradients for good: of ops that have none, whatever TensorFlow's release."""
    for op_type, rule in rules.items():
        if _registry is not None and state(op_type) == "missing":
            tf.RegisterGradient(op_type)(rule)
            added.add(op_type)


@dataclasses.dataclass(frozen=True)
class Op:
    """What a gradient function reads of an op, with tensors of the caller's choice."""

    inputs: list
    outputs: list
    get_attr: Callable


def stand_in(rules, active):
    """Let rules stand in for TensorFlow's own wherever `active()` is true.

    Args:
        rules: Op type -> gradient function, as for `tf.RegisterGradient`. Op types that TensorFlow
            has no entry for are left alone.
        active: Function without arguments.

    Returns:
        Function that puts TensorFlow's own entries back.
    """
    entries = {} if _registry is None else _registry._registry
    for op_type in rules.keys() & entries.keys():
        _own[op_type] = entries[op_type]
        # The entry itself is replaced and not its function: tapes look the entry up at each op.
        either = _either(rules[op_type], _own[op_type]["type"], active)
        entries[op_type] = {**_own[op_type], "type": either}

    def undo():
        entries.update(_own)
        _own.clear()

    return undo


def _either(rule, own, active):
    def gradient(op, *cotangents):
        if active():
            return rule(op, *cotangents)
        return [None] * len(op.inputs) if own is None else own(op, *cotangents)

    return gradient


def hand_to_graph(op):
    """Let the rule of a `tf.custom_gradient` live as long as the graph that it was traced in.

    TensorFlow registers the rule under a name of its own for good, and the rule holds the graph:
    every trace of such a function, with all tensors and constants in it, would stay in memory.
    """
    entries = {} if _registry is None else _registry._registry
    try:
        name = op.get_attr("_gradient_op_type").decode()
    except ValueError:  # a function without a rule
        return
    entry = entries.get(name)
    if entry is None or isinstance(entry["type"], _HeldElsewhere):
        return
    rules = getattr(op.graph, _RULES, None)
    if rules is None:
        rules = {}
        setattr(op.graph, _RULES, rules)
    rules[name] = entry["type"]
    weak = weakref.ref(entry["type"], lambda _: entries.pop(name, None))
    entries[name] = {**entry, "type": _HeldElsewhere(weak)}


_RULES = "_keras_fwd_rules"  # the attribute of a graph that holds its rules


@dataclasses.dataclass(frozen=True)
class _HeldElsewhere:
    """A gradient function that is called as long as somebody holds it."""

    rule: Callable  # a weak reference

    def __call__(self, op, *cotangents):
        return self.rule()(op, *cotangents)


def own_gradient(op_type):
    """TensorFlow's own gradient function of the op, also while a rule stands in for it."""
    return _own[op_type]["type"] if op_type in _own else lookup(op_type)
