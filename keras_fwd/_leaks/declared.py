"""The backward rules that users declare with `tf.custom_gradient`, looked at in a traced graph.

In the graph such a function ends in an IdentityN of its results, its arguments and its variables,
whose gradient is the declared rule. So both can be built beside each other: the rule, and the
derivative of the results by the function's own ops.

Private interface used here: what TensorFlow's gradient of that IdentityN closes over (the rule, and
how many results there are). Without it no rule is compared.
"""

import dataclasses
import inspect

import numpy as np
import tensorflow as tf

from keras_fwd._graphs import flow, registry
from keras_fwd._graphs import graph as graphs
from keras_fwd._spaces import nest

_OURS = ("tensorflow.python.", "keras_fwd.")
_TOLERANCE = {tf.float64: 1e-6, tf.float32: 1e-3}  # of half precision: 0.05


@dataclasses.dataclass(frozen=True)
class Rule:
    """A declared rule: its node in the graph, and what TensorFlow keeps of it.

    Attributes:
        name: Of the IdentityN, with the scopes around it.
        source: The Python function that was declared.
        gradient: From cotangents to those of the results (none), arguments and variables.
        results: The results of the function before the IdentityN.
        arguments: Its arguments, as tensors.
    """

    name: str
    source: object
    gradient: object
    results: list
    arguments: list

    @property
    def trusted(self):
        """Whether it is TensorFlow's own or one of this package."""
        return (self.source.__module__ or "").startswith(_OURS)

    @property
    def title(self):
        """The name of the function that the rule was declared for."""
        outer, *rest = self.source.__qualname__.rsplit(".<locals>.", 1)
        name = outer if rest else self.source.__qualname__
        return f"{name.rpartition('.')[2]} (custom_gradient)"

    @property
    def recomputes(self):
        """Whether this is `tf.recompute_grad`, which refuses a second reverse pass."""
        return self.source.__qualname__.startswith("recompute_grad.<locals>.inner")


def rule_of(node):
    """The `Rule` of a node that `flow.is_custom`, or `None` if TensorFlow does not show it."""
    try:
        own = registry.lookup(node.attr("_gradient_op_type"))
        gradient = inspect.getclosurevars(own).nonlocals["tape_grad_fn"]
        kept = inspect.getclosurevars(gradient).nonlocals
        results = [r for r in tf.nest.flatten(kept["result"]) if graphs.is_symbolic(r)]
        last = _identity(results, node)
        arguments = list(last.inputs[len(results) : len(last.inputs) - len(kept["variables"])])
        return Rule(node.name, kept["grad_fn"], gradient, results, arguments)
    except (LookupError, AttributeError, TypeError, StopIteration):
        return None


def _identity(results, node):
    wanted = node.attr("_gradient_op_type").encode()
    return next(
        op
        for op in results[0].consumers()
        if op.type == "IdentityN" and op.get_attr("_gradient_op_type") == wanted
    )


def verdict(rule, wrapped, leaves):
    """`(kind, words)` for a rule that is not the derivative: "dependent", "custom rule", or None.

    Args:
        rule: The `Rule`.
        wrapped: The traced function, from `tf.compat.v1.wrap_function`.
        leaves: Its arguments, at which rule and derivative are compared. In the bodies of loops
            and functions random numbers stand for what is not known.
    """
    try:
        fetches, reads = _experiment(rule)
        values = _values(rule, fetches, wrapped, leaves)
    except Exception:  # whatever goes wrong in an experiment on the code of others
        return None
    dtype = rule.results[0].dtype
    return _judge(values, reads, _TOLERANCE.get(dtype, 0.05))


def _experiment(rule):
    """Tensors by name: the rule at some cotangents, and the derivative; does it read them?"""
    live = [nest.is_differentiable(y.dtype) for y in rule.results]
    xs = [x for x in rule.arguments if nest.is_differentiable(x.dtype)]

    def pulled(cotangents):
        found = rule.gradient(*cotangents)[len(rule.results) :][: len(rule.arguments)]
        pairs = zip(found, rule.arguments, strict=True)
        return [_dense(g, x) for g, x in pairs if nest.is_differentiable(x.dtype)]

    def random(seed):
        return [
            tf.cast(tf.random.stateless_normal(tf.shape(y), [seed, i]), y.dtype) if on else None
            for i, (y, on) in enumerate(zip(rule.results, live, strict=True))
        ]

    def scaled(cotangents, factor):
        return [None if c is None else c * tf.cast(factor, c.dtype) for c in cotangents]

    with rule.results[0].graph.as_default():
        a, b = random(1), random(2)
        both = [None if p is None else tf.add(p, q) for p, q in zip(a, b, strict=True)]
        tests = {"a": a, "b": b, "a + b": both, "0": scaled(a, 0.0)}
        # Clipping shows in the large one, a threshold in the small one.
        tests |= {"large": scaled(a, 1e3), "small": scaled(a, 1e-3)}
        fetches = {name: pulled(c) for name, c in tests.items()}
        given = [c for c in a if c is not None]
        as_is = any(g is c for g in fetches["a"] for c in given)
        reads = as_is or any(flow.between(given, fetches["a"], derivative=True))
        fetches["derivative"] = _derivative(rule, xs, a)
        return {name: _flat(tensors) for name, tensors in fetches.items() if tensors}, reads


def _derivative(rule, xs, cotangents):
    """That of the function's own ops; nothing if TensorFlow cannot tell."""
    pairs = [(y, c) for y, c in zip(rule.results, cotangents, strict=True) if c is not None]
    for node, _ in flow.between(xs, rule.results, derivative=True):
        state = graphs.gradient_of(node)
        if state == "missing" or (state == "none" and node.type not in flow.CONSTANT):
            return []
    found = tf.gradients([y for y, _ in pairs], xs, [c for _, c in pairs])
    return [_dense(g, x) for g, x in zip(found, xs, strict=True)]


def _dense(gradient, x):
    return tf.zeros_like(x) if gradient is None else nest.densify(gradient)


def _flat(tensors):
    return tf.concat([tf.cast(tf.reshape(t, [-1]), tf.float64) for t in tensors], 0)


def _values(rule, fetches, wrapped, leaves):
    if rule.results[0].graph is wrapped.graph:
        inputs = wrapped.inputs[: len(leaves)]
        return {k: v.numpy() for k, v in wrapped.prune(inputs, fetches)(*leaves).items()}
    names = {key: tensor.name for key, tensor in fetches.items()}
    definition = rule.results[0].graph.as_graph_def()
    wanted = [name.split(":")[0] for name in names.values()]
    part = tf.compat.v1.graph_util.extract_sub_graph(definition, wanted)

    def lifted():
        given = {
            f"{node.name}:0": _some_value(rule.results[0].graph, node.name)
            for node in part.node
            if node.op == "Placeholder"
        }
        tensors = tf.graph_util.import_graph_def(part, given, list(names.values()), name="lifted")
        return dict(zip(names, tensors, strict=True))

    return {k: v.numpy() for k, v in tf.compat.v1.wrap_function(lifted, [])().items()}


def _some_value(graph, name):
    tensor = graph.get_tensor_by_name(f"{name}:0")
    # Of a batch of unknown size two examples are enough to see how a rule acts.
    shape = [2 if n is None else n for n in tensor.shape]
    if tensor.dtype.is_floating:
        return tf.cast(tf.random.stateless_normal(shape, [3, len(name)]), tensor.dtype)
    # A valid index into whatever there is.
    return tf.zeros(shape, tensor.dtype)


def _judge(values, reads, tolerance):
    found, finite = values["a"], np.isfinite(values["a"])
    # At these values nothing can be said.
    if not finite.any():
        return None

    def apart(x, y):
        return _apart(x[finite], y[finite], tolerance)

    if not apart(found, np.zeros_like(found)):  # zeros: the derivative is left out
        reads = True
    if (
        apart(values["a + b"], found + values["b"])
        or apart(values["large"], 1e3 * found)
        or apart(values["small"], 1e-3 * found)
        or not np.array_equal(values["0"][finite], 0 * found[finite])
    ):
        return "dependent", "is not linear in its cotangent"
    if not reads:
        return "dependent", "passes its cotangent on as a constant"
    true = values.get("derivative")
    if true is None or not np.isfinite(true[finite]).all() or not apart(true, found):
        return None
    return "custom rule", _difference(found[finite], true[finite], tolerance)


def _apart(x, y, tolerance):
    return not np.linalg.norm(x - y) <= tolerance * max(np.linalg.norm(x), np.linalg.norm(y))


def _difference(found, true, tolerance):
    if not true.any():
        return "is not zero where the derivative is (straight-through)"
    if not found.any():
        return "is zero where the derivative is not"
    ratio = (found @ true) / (true @ true)
    if not _apart(found, ratio * true, tolerance):
        return f"is {ratio:.3g} times the derivative"
    gap = np.linalg.norm(found - true) / np.linalg.norm(true)
    return f"differs from the derivative by {gap:.0%} (at random cotangents)"
