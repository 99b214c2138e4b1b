"""Where a weight enters the outputs: read from the graph of a forward pass, not from its layers.

A weight tensor is followed through what only rearranges it (casts, reshapes, transposes) to the ops
that use it. What is found is independent of the model's class, so that Sequential, functional and
subclassed models, shared layers and custom layers that multiply with a matrix are all alike.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_fwd._curvature.blocks.weight_products import Arrangement, constant_of, product, shape_of

# The way from the weights of a graph to its leaves: what reads a tensor, what has its gradient.

#: Ops that hand on the outputs of a product on the way to the bias.
_ONWARD = ("Identity", "IdentityN", "Cast", "Reshape", "ExpandDims", "Squeeze", "BatchToSpaceND")
ADDITIONS = ("AddV2", "Add", "BiasAdd")


class Path:
    """The part of a graph that leads to the leaves.

    Attributes:
        leading: The ops on it.
        single: Whether the batch is known to hold one example.
    """

    def __init__(self, leaves):
        self._leaves = {id(leaf) for leaf in leaves}
        self.single = all(leaf.shape.rank and leaf.shape[0] == 1 for leaf in leaves)
        self.leading = set()
        stack = [leaf.op for leaf in leaves]
        while stack:
            op = stack.pop()
            if op not in self.leading:
                self.leading.add(op)
                stack += [tensor.op for tensor in op.inputs]

    def consumers(self, tensor):
        """The ops on the path that read a tensor."""
        # An op that reads a tensor twice is listed twice.
        return [op for op in dict.fromkeys(tensor.consumers()) if op in self.leading]

    def following(self, tensor, kind):
        """The output of the op of a kind that reads a tensor, or None."""
        found = [op.outputs[0] for op in self.consumers(tensor) if op.type == kind]
        return found[0] if found else None

    def behind(self, op):
        """Where the gradient of an op's output is known: behind a gradient of its own, if any."""
        tensor = op.outputs[0]
        for consumer in self.consumers(tensor):
            if consumer.type == "IdentityN":
                place = [given is tensor for given in consumer.inputs].index(True)
                return consumer.outputs[place]
        return tensor

    def addition(self, tensor):
        """The addition to the outputs of a product, with nothing but reshapes before it."""
        while True:
            consumers = self.consumers(tensor)
            if len(consumers) != 1:
                return None
            (op,) = consumers
            if op.type in ADDITIONS:
                return op
            if op.type not in _ONWARD:
                return None
            place = [given is tensor for given in op.inputs].index(True)
            tensor = op.outputs[place if op.type == "IdentityN" else 0]

    def last_alike(self, tensor):
        """The last tensor on the way to the leaves that has the gradient of this one."""
        while id(tensor) not in self._leaves:
            readers = self.consumers(tensor)
            if len(readers) != 1 or not _adds_to(readers[0], tensor):
                break
            tensor = readers[0].outputs[0]
        return tensor


def _adds_to(op, tensor):
    """Whether an op is a sum of this tensor and something that is not wider."""
    places = [i for i, given in enumerate(op.inputs) if given is tensor]
    if len(places) != 1 or (op.type in ("BiasAdd", "Sub") and places != [0]):
        return False
    if op.type not in ("AddV2", "Add", "Sub"):
        return op.type in ("BiasAdd", "AddN", "Identity")
    rest = op.inputs[1 - places[0]].shape
    rank = tensor.shape.rank
    if None in (rank, rest.rank) or rest.rank > rank:
        return False
    sizes = zip([1] * (rank - rest.rank) + rest.as_list(), tensor.shape.as_list(), strict=True)
    return all(size == 1 or (mine is not None and mine == size) for size, mine in sizes)


#: Ops that hand on a weight's entries in their order.
_IN_ORDER = ("Identity", "Cast", "Reshape", "ExpandDims", "Squeeze")


@dataclasses.dataclass(frozen=True)
class Broadcast:
    """A weight that scales, or is added to, each example alike, entry by entry.

    Attributes:
        op: The op.
        output: Where the gradient is taken: its output, or a later tensor with the same gradient.
        operand: The weight as the op gets it.
        gradients: Function: a tensor like `output` to the gradient of each example by the operand,
            `[examples, size]`.
    """

    op: Any
    output: Any
    operand: Any
    gradients: Callable


@dataclasses.dataclass(frozen=True)
class Other:
    """A use of a kind that is not followed."""

    op: str


def find(weights, leaves):
    """The uses of each weight on its way to the leaves: a list of `Product`, `Broadcast`, `Other`.

    Args:
        weights: Tensors of the graph being built.
        leaves: Tensors of the same graph that depend on them.
    """
    path = Path(leaves)
    uses = [_uses(path, weight, Arrangement(), in_order=True) for weight in weights]
    return [[_at_the_last(path, use) for use in mine] for mine in uses]


def _at_the_last(path, use):
    """The use, its gradient taken at the last tensor that has the same one.

    TensorFlow's rules of additions hand on the gradient as it came: a tape that is asked for it at
    two such tensors gives one for both, counts a reference too many, and the graph is never freed.
    """
    if isinstance(use, Other):
        return use
    return dataclasses.replace(use, output=path.last_alike(use.output))


def _uses(path, tensor, arrangement, in_order):
    """`in_order`: whether the entries still are in the order of the weight."""
    for op in path.consumers(tensor):
        places = [i for i, given in enumerate(op.inputs) if given is tensor]
        place = places[0]
        if op.type == "IdentityN":  # around a function with a gradient of its own
            for i in places:
                yield from _uses(path, op.outputs[i], arrangement, in_order)
        elif op.type in _IN_ORDER and place == 0:
            step = ("reshape", shape_of(tensor), shape_of(op.outputs[0]))
            yield from _uses(path, op.outputs[0], arrangement.then(step), in_order)
        elif op.type == "Transpose" and place == 0 and constant_of(op.inputs[1]) is not None:
            step = ("transpose", tuple(int(i) for i in constant_of(op.inputs[1])))
            yield from _uses(path, op.outputs[0], arrangement.then(step), False)
        elif len(places) == 1 and (use := product(op, place, arrangement, path)):
            yield use
        elif len(places) == 1 and in_order and op.type in (*ADDITIONS, "Sub", "Mul"):
            yield from _elementwise(path, tensor, op, place)
        else:
            yield Other(op.type)


def _elementwise(path, tensor, op, place):
    """A weight that meets a tensor entry by entry: with examples or, before that, without."""
    output = op.outputs[0]
    # No wider than the weight: no example has come in yet, unless the batch is a single one.
    same = output.shape.num_elements() == tensor.shape.num_elements()
    if same and not (path.single and output.shape.rank > 1):
        for use in _uses(path, output, Arrangement(), in_order=True):
            yield use if isinstance(use, Broadcast) else Other(op.type)
        return
    axes = _own_axes(tensor, op)
    if axes is None:
        yield Other(op.type)
        return
    other = op.inputs[1 - place]

    def gradients(g):
        if op.type == "Mul":
            g = g * other
        elif op.type == "Sub" and place == 1:
            g = -g
        rest = [i for i in range(1, g.shape.rank) if i not in axes]
        return tf.reshape(tf.reduce_sum(g, rest), [tf.shape(g)[0], tensor.shape.num_elements()])

    yield Broadcast(op, output, tensor, gradients)


def _own_axes(tensor, op):
    """The axes of the output along which a broadcast tensor varies; None if axis 0 is one."""
    rank, shape = op.outputs[0].shape.rank, tensor.shape
    if rank is None or not shape.is_fully_defined():
        return None
    if op.type == "BiasAdd" and op.get_attr("data_format") == b"NCHW":
        return [1]
    axes = [rank - shape.rank + i for i, size in enumerate(shape) if size != 1]
    return None if 0 in axes else axes
