"""What a value reaches in a traced graph: data flow into loop bodies, branches and functions."""

import dataclasses
from typing import Any

import tensorflow as tf

from keras_fwd._graphs import conditions
from keras_fwd._graphs import graph as graphs

#: Forward ops without a gradient whose true derivative is zero, or was meant to be.
CONSTANT = graphs.SHAPE_ONLY | frozenset(
    "StopGradient Const OneHot Less LessEqual Greater GreaterEqual Equal NotEqual "
    "ApproximateEqual LogicalAnd LogicalOr LogicalNot BitwiseAnd BitwiseOr BitwiseXor Invert "
    "InvertPermutation ConcatOffset BroadcastGradientArgs Assert AsString StringJoin "
    "NonMaxSuppression NonMaxSuppressionV2 NonMaxSuppressionWithOverlaps ScalarSummary "
    "HistogramSummary Multinomial StatelessMultinomial SparseMatrixNNZ".split()
)
#: Ops that write a value (their second input) into a variable; a later read depends on it.
WRITES = frozenset("AssignVariableOp AssignAddVariableOp AssignSubVariableOp".split())
#: Ops whose first output alone depends on their first input: the second holds indices.
INDICES_BESIDE = frozenset(
    "SparseSegmentSumGradV2 SparseSegmentMeanGradV2 SparseSegmentSqrtNGradV2".split()
)
WRITTEN = -1  # stands beside the indices of a body's results for the variables it writes
#: Ops whose registered gradient is zero, as is right in a forward pass; in a pullback, a cotangent
#: must not pass through them.
STEPS = frozenset("Sign Floor Ceil Rint Round FloorDiv FloorMod ArgMax ArgMin".split())
#: Inputs that only choose between branches: the derivative by them is zero almost everywhere.
STEP_INPUTS = {"ReluGrad": {1}, "Relu6Grad": {1}, "LeakyReluGrad": {1}}


class Flow:
    """Data flow between endpoints `(node, output index)`, into loop bodies and branches.

    Args:
        functions: From a name to its `Body`.
        derivative: Follow only what may carry a derivative: not comparisons, steps, integers.
        rules: Leave out what a `tf.custom_gradient` computes, for its own rule stands in for that;
            default where a derivative is followed.
        taken: From the key of a condition to the number of the branch that it chooses; others may
            choose any.
        scope: That of the nodes, which knows the keys.
    """

    def __init__(self, functions, derivative=False, rules=None, taken=None, scope=None):
        self._functions = functions
        self._taken = taken or {}
        self._scope: Any = scope
        self._derivative = derivative
        self._rules = derivative if rules is None else rules

    def forward(self, nodes, seeds):
        """All endpoints whose value depends on a seed; `(node, None)` stands for all outputs."""
        reached = set(seeds)
        for node in nodes:
            hit = self.hit(node, reached)
            if not hit or self._stops(node):
                continue
            if node.type in WRITES and 1 in hit:
                # Whoever reads the variable later reads this value.
                reached.add(node.inputs[0])
            if node.type in graphs.BODIES:
                outputs = self._through(node, hit, Flow._body_forward)
                reached.update((node.name, i) for i in outputs - {WRITTEN})
                if WRITTEN in outputs:
                    reached.update(self._written(node))
            elif self._derivative and node.carriers is not None:
                reached.update((node.name, i) for i in node.carriers)
            elif node.type in INDICES_BESIDE and hit == {0}:
                reached.add((node.name, 0))
            else:
                reached.add((node.name, None))
        return reached

    def _stops(self, node):
        if self._derivative and (is_step(node) or node.type in CONSTANT):
            return True
        return node.type in graphs.SHAPE_ONLY

    def backward(self, nodes, targets):
        """All endpoints that a target's value depends on."""
        needed = set(targets)
        outputs = {}
        for name, index in needed:
            outputs.setdefault(name, set()).add(index)
        for node in reversed(nodes):
            if node.type in WRITES and node.inputs[0] in needed:  # read later
                needed.add((node.name, 0))
                outputs[node.name] = {0}
            elif node.type in graphs.BODIES and self._written(node) & needed:
                needed.add((node.name, WRITTEN))
                outputs.setdefault(node.name, set()).add(WRITTEN)
            wanted = outputs.get(node.name)
            if not wanted or self._stops(node):
                continue
            indices = range(len(node.inputs))
            if self._rules and is_custom(node):
                # Its inputs are the function's results, then its arguments, which alone count.
                indices = indices[max(wanted) + 1 :]
            elif node.type in graphs.BODIES:
                indices = self._through(node, wanted, Flow._body_backward, backward=True)
            elif node.type in INDICES_BESIDE and 0 not in wanted:
                indices = indices[1:]
            for i in set(indices) - self._idle(node):
                needed.add(node.inputs[i])
                outputs.setdefault(node.inputs[i][0], set()).add(node.inputs[i][1])
        return needed

    def hit(self, node, endpoints):
        """Which inputs of the node are among the endpoints."""
        found = {
            i
            for i, (name, index) in enumerate(node.inputs)
            if (name, index) in endpoints or (name, None) in endpoints
        }
        return found - self._idle(node)

    def _idle(self, node):
        return STEP_INPUTS.get(node.type, set()) if self._derivative else set()

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
            if node.type in INDICES_BESIDE and (node.name, 0) not in needed:
                continue
            if node.type in graphs.BODIES:
                yield from self._path_inside(node, hit, wanted[node.name])
            else:
                yield node, hit

    def _path_inside(self, node, hit, wanted):
        offset = node.type in graphs.BRANCHES
        if node.type in graphs.LOOPS:
            hit = self._through(node, hit, Flow._body_forward)
            wanted = self._through(node, wanted, Flow._body_backward, backward=True)
        for flow, body in self._bodies(node):
            seeds = {(body.arguments[i - offset], 0) for i in hit if i >= offset}
            for inner, reached in flow.path(body.nodes, seeds, flow._targets(body, wanted)):
                yield dataclasses.replace(inner, name=f"{node.name}/{inner.name}"), reached

    def _through(self, node, indices, step, backward=False):
        """Carry input indices to output indices, or back, over a node that runs bodies."""
        bodies = self._bodies(node)
        if node.type in graphs.LOOPS:  # a loop feeds its results back: iterate until stable
            current = set(indices)
            while True:
                grown = current.union(*(step(flow, body, current) for flow, body in bodies))
                if grown == current:
                    return current
                current = grown
        if node.type not in graphs.BRANCHES:
            return set().union(*(step(flow, body, indices) for flow, body in bodies))
        # The condition changes every result, but no derivative goes through it.
        choice = set() if self._derivative else {0}
        if backward:
            return choice | {i + 1 for flow, body in bodies for i in step(flow, body, indices)}
        if indices & choice:
            return set(range(len(bodies[0][1].results)))
        inside = {i - 1 for i in indices if i}
        return set().union(*(step(flow, body, inside) for flow, body in bodies))

    def _bodies(self, node):
        """The bodies that the node may run, each with the flow inside of it."""
        bodies = graphs.bodies_of(node, self._functions)
        if not self._taken:
            return [(self, body) for body in bodies]
        key = self._scope.key(node.inputs[0]) if node.type in graphs.BRANCHES else None
        if key in self._taken:
            bodies = [bodies[self._taken[key]]]
        return [(self._into(node, body), body) for body in bodies]

    def _into(self, node, body):
        scope = self._scope.into(node, body)
        return Flow(self._functions, self._derivative, self._rules, self._taken, scope)

    def _body_forward(self, body, arguments):
        seeds = {(body.arguments[i], 0) for i in arguments if i != WRITTEN}
        reached = self.forward(body.nodes, seeds)
        found = {
            i
            for i, (name, index) in enumerate(body.results)
            if (name, index) in reached or (name, None) in reached
        }
        written = {(name, 0) for name in body.arguments} & reached - seeds
        return found | {WRITTEN} if written else found

    def _body_backward(self, body, results):
        needed = {name for name, _ in self.backward(body.nodes, self._targets(body, results))}
        return {i for i, name in enumerate(body.arguments) if name in needed}

    def _targets(self, body, results):
        """The endpoints that some results of a body stand for."""
        targets = {body.results[i] for i in results if i != WRITTEN}
        if WRITTEN in results:
            targets |= {(n.name, 0) for n in body.nodes if n.type in WRITES}
            targets |= {(n.name, WRITTEN) for n in body.nodes if n.type in graphs.BODIES}
        return targets

    def _written(self, node):
        """The variables that a node writes, by itself or in its bodies, as endpoints outside."""
        if node.type in WRITES:
            return {node.inputs[0]}
        if node.type not in graphs.BODIES:
            return set()
        offset = node.type in graphs.BRANCHES
        return {
            node.inputs[body.arguments.index(name) + offset]
            for flow, body in self._bodies(node)
            for inner in body.nodes
            for name, _ in flow._written(inner)
            if name in body.arguments
        }


def between(sources, targets, derivative=False, rules=None, blocked=frozenset(), since=(None, 0)):
    """The nodes between sources and targets, in each graph that holds a target; as in `Flow`.

    `since`, a graph and a number: as uses of variables there, only later nodes than those count.
    """
    targets = [t for t in targets if graphs.is_symbolic(t)]
    for graph in {t.graph for t in targets}:
        wanted = {_endpoint(t) for t in targets if t.graph is graph}
        first = since[1] if graph is since[0] else 0
        nodes, seeds = _reached_in(graph, sources, derivative, first)
        nodes = [node for node in nodes if node.type not in blocked]
        yield from _flow(graph, nodes, derivative, rules).path(nodes, seeds, wanted)


def dependence(sources, targets):
    """Like `between`, where conditionals that read one condition take the same branch."""
    targets = [t for t in targets if graphs.is_symbolic(t)]
    for graph in {t.graph for t in targets}:
        wanted = {_endpoint(t) for t in targets if t.graph is graph}
        nodes, seeds = _reached_in(graph, sources, derivative=False)
        everything = graphs.nodes_since(graph)
        scope = conditions.Scope(everything, _functions(graph, everything))
        seen = set()
        # A path counts if it is there for one choice: that is a run which the program may take.
        for taken in conditions.choices(scope):
            flow = Flow(scope.functions, taken=taken, scope=scope)
            for node, hit in flow.path(nodes, seeds, wanted):
                if node.name not in seen:
                    seen.add(node.name)
                    yield node, hit


def _reached_in(graph, sources, derivative, first=0):
    """The nodes of a graph that may matter, and the endpoints through which sources enter it."""
    inside = [s for s in sources if graphs.is_symbolic(s) and s.graph is graph]
    if len(inside) == len(sources):
        # What is older than a source cannot depend on it.
        first = min(graphs.position(graph, t) for t in inside)
        return graphs.nodes_since(graph, first), {_endpoint(t) for t in inside}
    # A graph captures a variable by its handle.
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
        # A source may have become something else outside, before this graph captured it.
        reached = outer_flows[outer.graph]
        if _endpoint(outer) in reached or (outer.op.name, None) in reached:
            seeds.add((name, 0))
    return graphs.nodes_since(graph, first), seeds


def _flow(graph, nodes, derivative, rules=None):
    return Flow(_functions(graph, nodes), derivative, rules)


def _functions(graph, nodes):
    runs_bodies = any(node.type in graphs.BODIES for node in nodes)
    return graphs.library(graph) if runs_bodies else None


def _endpoint(tensor):
    return tensor.op.name, tensor.value_index


def is_custom(node):
    """Whether a node is the one that a function with a `tf.custom_gradient` ends in."""
    return node.type == "IdentityN" and node.attr("_gradient_op_type") is not None


def is_step(node):
    """Whether a node is constant almost everywhere, or counts."""
    to_integer = node.type == "Cast" and not graphs.carries(tf.as_dtype(node.attr("DstT")))
    return to_integer or node.type in STEPS
