"""TensorFlow graphs and function bodies as plain nodes, and what flows through them."""

import contextlib
import dataclasses
import functools

import tensorflow as tf

from keras_fwd._graphs import registry
from keras_fwd.errors import StructureError

#: Ops that run function bodies, and the attributes that name them.
BODIES = {
    "PartitionedCall": ("f",),
    "StatefulPartitionedCall": ("f",),
    "While": ("body",),
    "StatelessWhile": ("body",),
    "If": ("then_branch", "else_branch"),
    "StatelessIf": ("then_branch", "else_branch"),
    "Case": ("branches",),
    "StatelessCase": ("branches",),
}
CALLS = ("PartitionedCall", "StatefulPartitionedCall")
LOOPS = ("While", "StatelessWhile")
BRANCHES = ("If", "StatelessIf", "Case", "StatelessCase")  # their first input only chooses

#: Ops that read no more of a value than its shape.
SHAPE_ONLY = frozenset(
    "Shape ShapeN Size Rank ZerosLike OnesLike VariableShape TensorListElementShape "
    "TensorListLength".split()
)


@dataclasses.dataclass(frozen=True)
class Node:
    """An op in a graph or in a function body; inputs are `(producer, output index)`."""

    name: str
    type: str
    inputs: tuple
    attr: object  # name -> value, or None
    carriers: tuple | None = None  # outputs whose dtype can carry a derivative; None: not known


@dataclasses.dataclass(frozen=True)
class Body:
    """A function body: nodes in topological order, its arguments and its results."""

    nodes: tuple
    arguments: tuple  # names
    results: tuple  # (producer, output index)


def gradient_of(node):
    """How the op is differentiated: "known", "none" or "missing"."""
    if node.type in BODIES:
        return "known"
    return registry.state(node.attr("_gradient_op_type") or node.type)


def nodes_since(graph, first=0):
    """The nodes of a `tf.Graph` that were created after the first `first` ones."""
    return tuple(
        Node(
            op.name,
            op.type,
            tuple((t.op.name, t.value_index) for t in op.inputs),
            _attr_of(op),
            tuple(i for i, t in enumerate(op.outputs) if carries(t.dtype)),
        )
        for op in graph.get_operations()[first:]
    )


def carries(dtype):
    """Whether tensors of this dtype can carry a derivative, or hold tensors that do."""
    return dtype.is_floating or dtype.is_complex or dtype in (tf.resource, tf.variant)


def position(graph, tensor):
    """How many ops of `graph` are older than the one that made `tensor`."""
    names = [op.name for op in graph.get_operations()]
    return names.index(tensor.op.name)


def _attr_of(op):
    def get(name):
        try:
            value = op.get_attr(name)
        except ValueError:
            return None
        return value.decode() if isinstance(value, bytes) else value

    return get


def library(graph):
    """Function bodies by name, parsed when first asked for."""
    # No nodes are asked for (from_version is past the last), only the function library.
    definitions = {
        f.signature.name: f for f in graph.as_graph_def(from_version=2**31 - 1).library.function
    }
    return functools.cache(lambda name: _parse(definitions[name]))


def bodies_of(node, functions):
    """The `Body`s that a node of a type in `BODIES` may run."""
    names = []
    for attribute in BODIES[node.type]:
        value = node.attr(attribute)
        entries = value if isinstance(value, (list, tuple)) else [value]
        names += [entry.name for entry in entries]
    return [functions(name) for name in names]


def _parse(definition):
    by_name = {node.name: node for node in definition.node_def}
    ordered, done = [], set()
    for root in definition.node_def:
        # By a stack, for a body of thousands of nodes in a row is too deep for recursion. A
        # definition lists its nodes in any order.
        stack = [(root.name, False)]
        while stack:
            name, expanded = stack.pop()
            if name in done or name not in by_name:
                continue
            if expanded:
                done.add(name)
                ordered.append(_node_of(by_name[name]))
            else:
                stack.append((name, True))
                sources = (source.lstrip("^") for source in by_name[name].input)
                stack += [(source.split(":")[0], False) for source in sources]
    arguments = tuple(argument.name for argument in definition.signature.input_arg)
    results = tuple(
        _endpoint(definition.ret[argument.name]) for argument in definition.signature.output_arg
    )
    return Body(tuple(ordered), arguments, results)


def _node_of(definition):
    # `^name` orders two nodes and hands over no value.
    inputs = tuple(_endpoint(source) for source in definition.input if not source.startswith("^"))
    return Node(definition.name, definition.op, inputs, functools.partial(_attr, definition))


def _attr(definition, name):
    if name not in definition.attr:
        return None
    value = definition.attr[name]
    kind = value.WhichOneof("value")
    if kind == "list":
        # The only lists that are asked for are those of the branches of a Case.
        return list(value.list.func)
    found = getattr(value, kind)
    return found.decode() if isinstance(found, bytes) else found


def _endpoint(source):
    """`name`, `name:3` or `name:output:3`: the last number is the flat index for call ops."""
    parts = source.split(":")
    return parts[0], int(parts[-1]) if len(parts) > 1 else 0


def captures(graph):
    """`[(outer tensor, name of the placeholder inside)]` of a function graph being built."""
    pairs = getattr(graph, "captures", ())
    return [(outer, inner.op.name) for outer, inner in pairs if tf.is_tensor(outer)]


def is_symbolic(tensor):
    """Whether this is a tensor of a graph: eager tensors and variables are not."""
    return tf.is_tensor(tensor) and tf.is_symbolic_tensor(tensor)


# Tensors that a function reads without being given them.


@contextlib.contextmanager
def forbidden(name, arguments):
    """Raise `StructureError` if what is traced inside reads a tensor of the graph by closure.

    A rule in the place of a function knows of nothing but its arguments: whatever else it reads
    would count as constant. Constants themselves are allowed.

    Args:
        name: Of the call and the function, for the message.
        arguments: The tensors that it is given.
    """
    if tf.executing_eagerly():
        yield
        return
    graph = tf.compat.v1.get_default_graph()
    before = {op.name for op in graph.get_operations()}
    yield
    given = {id(argument) for argument in arguments}
    outer = {inner: tensor for tensor, inner in captures(graph)}
    for op in graph.get_operations():
        if op.name in before:
            continue
        captured = outer.get(op.name)
        read = [] if captured is None or not is_symbolic(captured) else [captured]
        read += [t for t in op.inputs if t.op.name in before and id(t) not in given]
        for tensor in read:
            if tensor.dtype.is_floating and tf.get_static_value(tensor) is None:
                raise StructureError(
                    f"{name} must take what it is computed from as its argument. "
                    f"Received: a function that closes over the tensor {tensor.name}, of shape "
                    f"{tensor.shape}, whose derivative would be lost. Pass it in the argument."
                )
