"""Name the op of a traced graph at which a derivative would be lost.

Three questions are asked, each of the graph and not of numbers:

- of the forward pass, from the inputs to the outputs: does an op on the way hide its derivative?
- of the pullback, from the dummy cotangent `v` to `g(v) = Jᵀ v`: can every op be differentiated
  once more? An op that cannot would drop its branch and leave a plausible, wrong number.
- of the pushforward `J u`: does it still read `v`? It must not, for `g` is linear in `v`.
"""

import re

import tensorflow as tf

from keras_fwd._graphs import flow
from keras_fwd._graphs import graph as graphs
from keras_fwd.errors import LeakError

#: Inputs whose gradient TensorFlow leaves out although the derivative there is not zero.
_LEFT_OUT = {
    **dict.fromkeys(flow.WRITES, (1,)),
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
#: Ops that run Python code, in which no leak can be found, and which has no second derivative.
OPAQUE = frozenset({"EagerPyFunc"})
_ADVICE = {
    "missing": "TensorFlow has no gradient for this op, so the second reverse pass cannot be built",
    "severed": "TensorFlow registers this op as not differentiable, so the second reverse pass "
    "would silently drop its branch",
    "hidden": "TensorFlow does not differentiate this op, so its part of the derivative would "
    "silently be zero",
    "opaque": "this op runs Python code, where nothing can be said of derivatives",
    "frozen": "TensorFlow holds the mean constant in this variance, which is right for a first "
    "derivative only, and here is a derivative of a derivative",
    "flat": "the gradient is constant almost everywhere, so there is no second derivative",
    "dependent": "the result depends on the dummy cotangent: a backward rule (of "
    "tf.custom_gradient, perhaps) is not linear in its cotangent",
}


def here():
    """This point of the graph that is being traced: the graph, and how many nodes it has."""
    graph = tf.compat.v1.get_default_graph()
    return graph, len(graph.get_operations())


def check_forward(call, sources, targets, nested, since=(None, 0)):
    """Raise `LeakError` for an op on the way from sources to targets that hides its derivative.

    Returns:
        The `LeakError` to raise once the derivative is itself differentiated, or `None`.

    Args:
        call: Name of the public call, for the message.
        sources: Tensors or variables.
        targets: Tensors.
        nested: Whether it is known that the derivative will be differentiated again.
        since: From `here`, where the forward pass began: what a variable was given before, by an
            earlier step of training in the same graph, is no part of it.
    """
    later = None
    for node, hit in flow.between(sources, targets, derivative=True, since=since):
        if hides(node, hit):
            kind = "opaque" if node.type in OPAQUE else "hidden"
            raise leak(call, kind, node.type, node.name)
        if is_frozen(node):
            # Right for a first derivative, so it is not raised yet: the outputs carry it, see
            # `fuse`.
            later = leak(call, "frozen", node.type, node.name)
            if nested:
                raise later
    return later


def hides(node, hit):
    """Whether a forward node hides its derivative by one of the inputs `hit`."""
    if node.type in OPAQUE:
        return True
    none = graphs.gradient_of(node) == "none" and node.type not in flow.CONSTANT
    return none or bool(hit.intersection(_LEFT_OUT.get(node.type, ())))


def is_frozen(node):
    """Whether a node holds the mean in a variance constant."""
    return node.type == "StopGradient" and "/moments" in f"/{node.name}"


def fuse(error, tensors):
    """The tensors, whose gradient raises an error."""

    @tf.custom_gradient
    def fused(*tensors):
        def gradient(*cotangents, variables=None):
            raise error

        return [tf.identity(t) for t in tensors], gradient

    return fused(*tensors)


def check_pullback(call, sources, targets, dummies, pulled):
    """Raise `LeakError` for an op from the dummy cotangents to the pullback without a gradient."""
    for node, _ in flow.between(dummies, pulled, rules=True):
        known = graphs.gradient_of(node)
        kind = {"missing": "missing", "none": "severed"}.get(known)
        if kind or flow.is_step(node):
            rules = custom_rules(sources, targets, node)
            raise leak(call, kind or "dependent", node.type, node.name, rules)


def check_unused(call, sources, targets, dummies, pulled, results):
    """Raise `LeakError` if a result still reads a dummy cotangent."""
    path = [node for node, _ in flow.dependence(dummies, results)]
    if path:
        # Named is the first op that takes a value of the pullback as its coefficient: its scope is
        # that of the rule at fault, while the ops before it may be those of any layer above.
        first_pass = {node.name for node, _ in flow.between(dummies, pulled)}
        node = next((n for n in path if n.name not in first_pass), path[0])
        rules = custom_rules(sources, targets, node)
        raise leak(call, "dependent", node.type, node.name, rules)


def check_curved(call, sources, gradients):
    """Raise `LeakError` if gradients depend on the sources only through steps, or not at all."""
    zero = flow.CONSTANT | flow.STEPS
    if not any(flow.between(sources, gradients, derivative=True, blocked=zero)):
        raise leak(call, "flat", "Sign", gradients[0].op.name)


def custom_rules(sources, targets, node):
    """The layers with a `tf.custom_gradient` on the way, if the node's own name shows no layer.

    TensorFlow runs such a rule outside of the name scope of its layer.
    """
    path = [n for n, _ in flow.between(sources, targets, derivative=True)]
    scope = layer_of(node.name)
    if any(layer_of(n.name).startswith(scope) for n in path):
        return []
    names = {layer_of(n.name) for n in path if flow.is_custom(n)}
    return sorted(name for name in names if not name.startswith("IdentityN"))  # no layer


def leak(call, kind, op, name, rules=()):
    """The `LeakError` for an op; `name` is its name in the graph, `rules` the suspects."""
    where = f"{layer_of(name)!r}"
    if rules:
        where += ", in the tf.custom_gradient of " + " or ".join(map(repr, rules))
    way_out = _LINEAR if kind == "dependent" else _REPLACE
    return LeakError(
        f"{call}: {_ADVICE[kind]}. Received: op {op} ({kind}) in {where}. {way_out} "
        f"[graph node: {name}]"
    )


_REPLACE = (
    "Replace the layer or op by one that is differentiable twice, give it a rule with "
    "keras_fwd.custom_jvp, or freeze its input with tf.stop_gradient if its derivative is meant to "
    "be left out."
)
_LINEAR = (
    "Make the rule linear in its cotangent (clip or normalize gradients in the optimizer instead: "
    "clipnorm, clipvalue), or give the function a rule with keras_fwd.custom_jvp."
)


def missing(call, error, sources, targets):
    """The `LeakError` for TensorFlow's LookupError, which tells only the type of the op.

    TensorFlow differentiates a call of a function made by `Defun`, as in `ctc_loss`, by an op that
    has no gradient. Where a process knows that function for two shapes, it stumbles before that,
    with an InvalidArgumentError. Any other error is returned as it is.
    """
    if not isinstance(error, LookupError):
        if tf.executing_eagerly():
            return error
        path = flow.between(sources, targets, derivative=True)
        calls = [node.name for node, _ in path if graphs.gradient_of(node) == "missing"]
        return leak(call, "missing", "SymbolicGradient", calls[0]) if calls else error
    op = re.split(r"op type: |no entry for: ", str(error))[-1].split(")")[0]
    path = flow.between(sources, targets, derivative=True)
    name = next((node.name for node, _ in path if node.type == op), op)
    return leak(call, "missing", op, name)


def layer_of(name):
    """The layer path in a graph node's name, without the scopes that gradient tapes add."""
    *scopes, last = name.split("/")
    tapes = ("gradient_tape", "gradients", "while")
    return "/".join(part for part in scopes if part not in tapes) or last
