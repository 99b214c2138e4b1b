"""Follow values through a traced graph and name the op at which a derivative would be lost.

Three questions are asked, each of the graph and not of numbers:

- of the forward pass, from the inputs to the outputs: does an op on the way hide its derivative?
- of the pullback, from the dummy cotangent `v` to `g(v) = Jᵀ v`: can every op be differentiated
  once more? An op that cannot would drop its branch and leave a plausible, wrong number.
- of the pushforward `J u`: does it still read `v`? It must not, for `g` is linear in `v`.
"""

import dataclasses
import re

import tensorflow as tf

from keras_fwd.errors import LeakError
from keras_fwd.leaks import graph as graphs

#: Forward ops without a gradient whose true derivative is zero, or was meant to be.
_CONSTANT = graphs.SHAPE_ONLY | frozenset(
    "StopGradient Const OneHot Less LessEqual Greater GreaterEqual Equal NotEqual "
    "ApproximateEqual LogicalAnd LogicalOr LogicalNot BitwiseAnd BitwiseOr BitwiseXor Invert "
    "InvertPermutation ConcatOffset BroadcastGradientArgs Assert AsString StringJoin "
    "NonMaxSuppression NonMaxSuppressionV2 NonMaxSuppressionWithOverlaps ScalarSummary "
    "HistogramSummary Multinomial StatelessMultinomial SparseMatrixNNZ".split()
)
#: Inputs whose gradient TensorFlow leaves out although the derivative there is not zero.
_LEFT_OUT = {
    "Zeta": (0,),
    "Polygamma": (0,),
    "Betainc": (0, 1),
    "ImageProjectiveTransformV2": (1,),
    "ImageProjectiveTransformV3": (1, 3),
    "MatrixDiagV2": (4,),
    "MatrixDiagV3": (4,),
    "MatrixDiagPartV2": (2,),
    "MatrixDiagPartV3": (2,),
    "MatrixSolveLs": (2,),
    "ScaleAndTranslate": (2, 3),
}
#: Ops whose registered gradient is zero, as is right in a forward pass; in a pullback, a cotangent
#: must not pass through them.
_STEPS = frozenset("Sign Floor Ceil Rint Round FloorDiv FloorMod ArgMax ArgMin".split())

_ADVICE = {
    "missing": "TensorFlow has no gradient for this op, so the second reverse pass cannot be built",
    "severed": "TensorFlow registers this op as not differentiable, so the second reverse pass "
    "would silently drop its branch",
    "hidden": "TensorFlow does not differentiate this op, so its part of the derivative would "
    "silently be zero",
    "flat": "the gradient is constant almost everywhere, so there is no second derivative",
    "dependent": "the result depends on the dummy cotangent: a backward rule (of "
    "tf.custom_gradient, perhaps) is not linear in its cotangent",
}


class Flow:
    """Data flow between endpoints `(node, output index)`, into loop bodies and branches.

    Args:
        functions: From a name to its `Body`.
        derivative: Follow only what may carry a derivative: not comparisons, steps, integers, nor
            what a `tf.custom_gradient` computes, for its own rule stands in for that.
    """

    def __init__(self, functions, derivative=False):
        self._functions = functions
        self._derivative = derivative

    def forward(self, nodes, seeds):
        """All endpoints whose value depends on a seed; `(node, None)` stands for all outputs."""
        reached = set(seeds)
        for node in nodes:
            hit = self.hit(node, reached)
            if not hit or self._stops(node):
                continue
            if node.type in graphs.BODIES:
                reached.update((node.name, i) for i in self._through(node, hit, self._body_forward))
            elif self._derivative and node.carriers is not None:
                reached.update((node.name, i) for i in node.carriers)
            else:
                reached.add((node.name, None))
        return reached

    def _stops(self, node):
        if self._derivative and (_is_step(node) or node.type in _CONSTANT):
            return True
        return node.type in graphs.SHAPE_ONLY

    def backward(self, nodes, targets):
        """All endpoints that a target's value depends on."""
        needed = set(targets)
        outputs = {}
        for name, index in needed:
            outputs.setdefault(name, set()).add(index)
        for node in reversed(nodes):
            wanted = outputs.get(node.name)
            if not wanted or self._stops(node):
                continue
            indices = range(len(node.inputs))
            if self._derivative and node.type == "IdentityN" and node.attr("_gradient_op_type"):
                # How tf.custom_gradient ends: its results, then its arguments, which alone count.
                indices = indices[max(wanted) + 1 :]
            elif node.type in graphs.BODIES:
                indices = self._through(node, wanted, self._body_backward, backward=True)
            for i in indices:
                needed.add(node.inputs[i])
                outputs.setdefault(node.inputs[i][0], set()).add(node.inputs[i][1])
        return needed

    @staticmethod
    def hit(node, endpoints):
        """Which inputs of the node are among the endpoints."""
        return {
            i
            for i, (name, index) in enumerate(node.inputs)
            if (name, index) in endpoints or (name, None) in endpoints
        }

    def path(self, nodes, seeds, targets):
        """The nodes between seeds and targets, each with the inputs that seeds reach.

        The nodes inside bodies are given instead of those that call them, named after both.
        """
        reached, needed = self.forward(nodes, seeds), self.backward(nodes, targets)
        wanted = {}
        for name, index in needed:
            wanted.setdefault(name, set()).add(index)
        for node in nodes:
            hit = self.hit(node, reached)
            if not hit or node.name not in wanted or node.type in graphs.SHAPE_ONLY:
                continue
            if node.type in graphs.BODIES:
                yield from self._path_inside(node, hit, wanted[node.name])
            else:
                yield node, hit

    def _path_inside(self, node, hit, wanted):
        offset = node.type in graphs.BRANCHES
        if node.type in graphs.LOOPS:
            hit = self._through(node, hit, self._body_forward)
            wanted = self._through(node, wanted, self._body_backward, backward=True)
        for body in graphs.bodies_of(node, self._functions):
            seeds = {(body.arguments[i - offset], 0) for i in hit if i >= offset}
            for inner, reached in self.path(body.nodes, seeds, {body.results[i] for i in wanted}):
                yield dataclasses.replace(inner, name=f"{node.name}/{inner.name}"), reached

    def _through(self, node, indices, step, backward=False):
        """Carry input indices to output indices, or back, over a node that runs bodies."""
        bodies = graphs.bodies_of(node, self._functions)
        if node.type in graphs.LOOPS:  # a loop feeds its results back: iterate until stable
            current = set(indices)
            while True:
                grown = current.union(*(step(body, current) for body in bodies))
                if grown == current:
                    return current
                current = grown
        if node.type not in graphs.BRANCHES:
            return set().union(*(step(body, indices) for body in bodies))
        choice = set() if self._derivative else {0}
        if backward:
            return choice | {i + 1 for body in bodies for i in step(body, indices)}
        if indices & choice:
            return set(range(len(bodies[0].results)))
        return set().union(*(step(body, {i - 1 for i in indices if i}) for body in bodies))

    def _body_forward(self, body, arguments):
        reached = self.forward(body.nodes, {(body.arguments[i], 0) for i in arguments})
        return {
            i
            for i, (name, index) in enumerate(body.results)
            if (name, index) in reached or (name, None) in reached
        }

    def _body_backward(self, body, results):
        needed = {name for name, _ in self.backward(body.nodes, {body.results[i] for i in results})}
        return {i for i, name in enumerate(body.arguments) if name in needed}


def check_forward(call, sources, targets):
    """Raise `LeakError` for an op on the way from sources to targets that hides its derivative."""
    for node, hit in _between(sources, targets, derivative=True):
        none = graphs.gradient_of(node) == "none" and node.type not in _CONSTANT
        if none or hit.intersection(_LEFT_OUT.get(node.type, ())):
            raise leak(call, "hidden", node.type, node.name)


def check_pullback(call, dummies, pulled):
    """Raise `LeakError` for an op from the dummy cotangents to the pullback without a gradient."""
    for node, _ in _between(dummies, pulled):
        known = graphs.gradient_of(node)
        if known == "missing":
            raise leak(call, "missing", node.type, node.name)
        if known == "none":
            raise leak(call, "severed", node.type, node.name)
        if _is_step(node):
            raise leak(call, "dependent", node.type, node.name)


def check_unused(call, dummies, pulled, results):
    """Raise `LeakError` if a result still reads a dummy cotangent."""
    path = [node for node, _ in _between(dummies, results)]
    if path:
        # Named is the first op that takes a value of the pullback as its coefficient: its scope is
        # that of the rule at fault, while the ops before it may be those of any layer above.
        first_pass = {node.name for node, _ in _between(dummies, pulled)}
        node = next((n for n in path if n.name not in first_pass), path[0])
        raise leak(call, "dependent", node.type, node.name)


def check_curved(call, sources, gradients):
    """Raise `LeakError` if gradients depend on the sources only through steps, or not at all."""
    zero = _CONSTANT | _STEPS
    smooth = any(True for _ in _between(sources, gradients, blocked=zero))
    if not smooth:
        raise leak(call, "flat", "Sign", gradients[0].op.name)


def leak(call, kind, op, name):
    """The `LeakError` for an op; `name` is its name in the graph."""
    return LeakError(
        f"{call}: {_ADVICE[kind]}. Received: op {op} ({kind}) in {layer_of(name)!r}. Replace the "
        "layer or op by one that is differentiable twice, or freeze its input with "
        f"tf.stop_gradient if its derivative is meant to be left out. [graph node: {name}]"
    )


def missing(call, error, sources, targets):
    """The `LeakError` for TensorFlow's LookupError, which tells only the type of the op."""
    op = re.split(r"op type: |no entry for: ", str(error))[-1].split(")")[0]
    path = _between(sources, targets, derivative=True)
    name = next((node.name for node, _ in path if node.type == op), op)
    return leak(call, "missing", op, name)


def layer_of(name):
    """The layer path in a graph node's name, without the scopes that gradient tapes add."""
    *scopes, last = name.split("/")
    tapes = ("gradient_tape", "gradients", "while")
    return "/".join(part for part in scopes if part not in tapes) or last


def _between(sources, targets, derivative=False, blocked=frozenset()):
    """The nodes between sources and targets, in each graph that holds a target."""
    targets = [t for t in targets if graphs.is_symbolic(t)]
    for graph in {t.graph for t in targets}:
        wanted = {_endpoint(t) for t in targets if t.graph is graph}
        nodes, seeds = _reached_in(graph, sources, derivative)
        nodes = [node for node in nodes if node.type not in blocked]
        yield from _flow(graph, nodes, derivative).path(nodes, seeds, wanted)


def _reached_in(graph, sources, derivative):
    """The nodes of a graph that may matter, and the endpoints through which sources enter it."""
    inside = [s for s in sources if graphs.is_symbolic(s) and s.graph is graph]
    if len(inside) == len(sources):
        first = min(graphs.position(graph, t) for t in inside)
        return graphs.nodes_since(graph, first), {_endpoint(t) for t in inside}
    handles = {id(s.handle) for s in sources if isinstance(s, tf.Variable)}
    seeds, outer_flows = {_endpoint(t) for t in inside}, {}
    for outer, name in graphs.captures(graph):
        if not graphs.is_symbolic(outer):
            if id(outer) in handles:
                seeds.add((name, 0))
            continue
        if outer.graph not in outer_flows:
            nodes, entered = _reached_in(outer.graph, sources, derivative)
            flow = _flow(outer.graph, nodes, derivative)
            outer_flows[outer.graph] = flow.forward(nodes, entered)
        reached = outer_flows[outer.graph]
        if _endpoint(outer) in reached or (outer.op.name, None) in reached:
            seeds.add((name, 0))
    return graphs.nodes_since(graph), seeds


def _flow(graph, nodes, derivative):
    runs_bodies = any(node.type in graphs.BODIES for node in nodes)
    return Flow(graphs.library(graph) if runs_bodies else None, derivative)


def _endpoint(tensor):
    return tensor.op.name, tensor.value_index


def _is_step(node):
    to_integer = node.type == "Cast" and not graphs.carries(tf.as_dtype(node.attr("DstT")))
    return to_integer or node.type in _STEPS
