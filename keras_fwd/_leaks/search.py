"""Every place of a traced function where the double-gradient trick, or a derivative of it, breaks.

`scan` raises at the first leak of a derivative that is being taken; here all of them are listed.
The function is traced once as plain TensorFlow takes it and once inside the rules of this package:
what the second trace no longer shows is sealed. Nothing of the model is run, so its state stays.

The first pullback alone is built for most (TensorFlow stops at the first op without a gradient in
the second). For an op that even the first one stops at, a stand-in passes its cotangent on, so that
what lies before it is looked at as well.

Private interface used here: the dictionary behind TensorFlow's gradient registry, for the stand-in.
"""

import contextlib
import dataclasses
import re

import tensorflow as tf

from keras_fwd._graphs import flow, registry, scan
from keras_fwd._graphs import graph as graphs
from keras_fwd._leaks import declared
from keras_fwd._rules import sealing, table
from keras_fwd._spaces import nest

#: Ops whose second reverse pass is right, but NaN at a dummy cotangent of zeros.
POISONED = frozenset({"CumulativeLogsumexp", "EuclideanNorm"})
#: A scope with this name holds what `seal_leaks` made right.
SEAL = "keras_fwd_seal"
#: Scopes that are made by TensorFlow's derivatives, loops, branches and calls.
_SCOPES = re.compile(
    r"(gradients|gradient_tape|while|cond|\w*PartitionedCall|lifted|.*_grad)(_\d+)?"
)

#: What TensorFlow raises for a gradient that it cannot build.
_REFUSED = (LookupError, NotImplementedError, TypeError, ValueError)


@dataclasses.dataclass(frozen=True, order=True)
class Place:
    """A leak in the graph.

    Attributes:
        layer: The layer, or the scopes around the op.
        op: Its type, or the name of a function that leaks as a whole.
        kind: What breaks: `"missing"`, `"severed"` and so on, the words of `Leak.kind`.
        hidden: Whether not even the first derivative is right in TensorFlow.
        words: How a declared rule differs from the derivative.
    """

    layer: str
    op: str
    kind: str
    hidden: bool = False
    words: str = ""


def leaks(function, primals, variables=None, label=str):
    """`(places, sealed)`: all leaks, in their order in the graph, and those mended here.

    Args:
        function: Of one nest of tensors; returns one.
        primals: The nest; declared rules are compared with the derivative at its values.
        variables: `tf.Variable`s to differentiate by besides; default all that the function reads.
        label: From the scopes around an op to the name of its layer.
    """
    with sealing.unsealed():
        places = _Trace(function, primals, variables, label).places(compare=True)
    with sealing.sealed():
        left = set(_Trace(function, primals, variables, label, sealed=True).places())
    sealed = {p for p in places if p not in left and p.kind not in ("dependent", "custom rule")}
    return places, sealed


class _Trace:
    def __init__(self, function, primals, variables, label, sealed=False):
        self.leaves = nest.flatten(primals)
        self.call = lambda leaves: function(nest.pack(primals, leaves))
        self.handles = None if variables is None else {id(v.handle) for v in variables}
        self.label = label
        self.sealed = sealed
        self.found = {}  # used as an ordered set
        self.declared = {}  # name of the op -> Rule

    def places(self, compare=False):
        specs = [tf.TensorSpec(leaf.shape, leaf.dtype) for leaf in self.leaves]
        wrapped = tf.compat.v1.wrap_function(self._look, specs)
        for rule in self.declared.values() if compare else ():
            if found := declared.verdict(rule, wrapped, self.leaves):
                kind, words = found
                self._add(rule.name, rule.title, kind, words=words)
        return self._distinct()

    def _add(self, name, op, kind, **more):
        if self._right(name) and not self.sealed:
            return
        place = Place(self.label(_scope(name)), op, kind, **more)
        self.found.setdefault(place, name)

    def _distinct(self):
        """Each once: not the derivative of what is named, nor what is no more than its echo."""
        named = {
            f"{self.found[p].rpartition('/')[2]}_grad"
            for p in self.found
            if p.kind == "poisoned" or (p.kind == "dependent" and p.words)
        }
        hidden = {(p.layer, p.op) for p in self.found if p.hidden}

        def echo(place, name):
            twice = not place.hidden and (place.layer, place.op) in hidden
            return twice or (not place.words and not named.isdisjoint(name.split("/")))

        return [place for place, name in self.found.items() if not echo(place, name)]

    def _look(self, *leaves):
        graph = tf.compat.v1.get_default_graph()
        outputs = [y for y in nest.flatten(self.call(leaves)) if tf.is_tensor(y)]
        targets = [y for y in outputs if nest.is_differentiable(y.dtype)]
        sources = [x for x in leaves if nest.is_differentiable(x.dtype)] + self._handles(graph)
        if sources and targets:
            with _passing_on(self._forward(sources, targets)):
                self._pullback(sources, targets)
        return outputs

    def _handles(self, graph):
        """The variables that were read, as the tensors through which they enter the graph."""
        handles = []
        for outer, name in graphs.captures(graph):
            wanted = self.handles is None or id(outer) in self.handles
            if wanted and outer.dtype == tf.resource and not graphs.is_symbolic(outer):
                inner = graph.get_tensor_by_name(f"{name}:0")
                reads = [op.outputs[0] for op in inner.consumers() if op.type == "ReadVariableOp"]
                if self.handles or any(read.dtype.is_floating for read in reads):
                    handles.append(inner)
        return handles

    def _forward(self, sources, targets):
        """Look at the forward pass; the op types that stop the first pullback."""
        stopping = {}
        nodes = list(flow.between(sources, targets, derivative=True))
        for node, hit in nodes:
            state, at = graphs.gradient_of(node), node.name
            if state == "missing" or (state == "none" and node.type not in flow.CONSTANT):
                self._add(at, node.type, "severed" if state == "none" else "missing", hidden=True)
                stopping[node.type] = state
            elif scan.hides(node, hit):
                self._add(at, node.type, "severed", hidden=True)
            elif node.type in registry.added and not self._right(at):
                self._add(at, node.type, "missing", hidden=True)
            elif node.type in POISONED and not (self._right(at) and node.type in table.SEALED):
                self._add(at, node.type, "poisoned")
            elif node.type == "StopGradient" and "/moments" in f"/{at}":
                self._add(at, node.type, "second-order")
            elif _is_hypot(node, nodes):
                self._add(at, "hypot", "second-order")
            elif flow.is_custom(node):
                self._declared(node)
        return stopping

    def _right(self, name):
        """Whether this op is differentiated by rules of this package."""
        return self.sealed or SEAL in name

    def _declared(self, node):
        rule = declared.rule_of(node)
        if rule is not None and rule.recomputes:
            self._add(node.name, "recompute_grad", "missing")
        elif rule is not None and not rule.trusted:
            self.declared[node.name] = rule

    def _pullback(self, sources, targets):
        dummies = [tf.ones_like(target) for target in targets]
        try:
            pulled = _gradients(targets, sources, dummies)
        except _REFUSED as error:
            self._add("", _op_in(error), "missing", hidden=True)
            return
        for node, _ in flow.between(dummies, pulled, rules=True):
            kind = {"missing": "missing", "none": "severed"}.get(graphs.gradient_of(node))
            if node.type in registry.added and not self._right(node.name):
                kind = "missing"
            elif flow.is_step(node):
                # A step of the cotangent is no linear function of it.
                kind = "dependent"
            if kind:
                self._add(node.name, node.type, kind)
        if pulled:
            self._pushforward(dummies, pulled)

    def _pushforward(self, dummies, pulled):
        """If it still reads a dummy cotangent, then a rule is not linear in its own."""
        try:
            pushed = _gradients(pulled, dummies, [tf.ones_like(p) for p in pulled])
        except _REFUSED:  # at an op that is listed
            return
        first = {node.name for node, _ in flow.between(dummies, pulled)}
        # Nodes of the pullback read the dummy by right.
        later = (node for node, _ in flow.dependence(dummies, pushed) if node.name not in first)
        for node in later:
            self._add(node.name, node.type, "dependent")
            return


def _gradients(ys, xs, cotangents):
    found = tf.gradients(ys, xs, cotangents)
    return [nest.densify(g) for g in found if g is not None]


def _op_in(error):
    return re.split(r"op type: |no entry for: ", str(error))[-1].split(")")[0][:60]


def _scope(name):
    """The scopes around an op of the forward pass, from the name of one of its derivatives."""
    *scopes, _ = name.split("/")
    scopes = [s for s in scopes if not _SCOPES.fullmatch(s) and s != SEAL]
    return "/".join(scopes)


def _is_hypot(node, nodes):
    """Whether this is the quotient of minimum and maximum from which Keras computes `hypot`."""
    if node.type != "DivNoNan":
        return False

    def before(index):
        name = node.inputs[index][0]
        return [n for n, _ in nodes if n.name == name or n.name.endswith(f"/{name}")]

    least, largest = before(0), before(1)
    return any(
        (low.type, high.type) == ("Minimum", "Maximum") and low.inputs == high.inputs
        for low in least
        for high in largest
    )


@contextlib.contextmanager
def _passing_on(op_types):
    """Inside, these op types have a gradient: one that reads its cotangents, no more."""
    entries = getattr(registry._registry, "_registry", {})
    before = {op_type: entries.get(op_type) for op_type in op_types}
    # As the registry itself keeps them; `location` says where a gradient was registered.
    entries.update({op_type: {"type": _pass_on, "location": None} for op_type in op_types})
    try:
        yield
    finally:
        for op_type, entry in before.items():
            entries.pop(op_type)
            if entry is not None:
                entries[op_type] = entry


def _pass_on(op, *cotangents):
    # Any function of all the cotangents does: its value is never looked at.
    total = tf.add_n([tf.cast(tf.reduce_sum(c), tf.float64) for c in cotangents if _live(c)])
    return [tf.zeros_like(x) + tf.cast(total, x.dtype) if _live(x) else None for x in op.inputs]


def _live(tensor):
    return tensor is not None and tensor.dtype.is_floating
