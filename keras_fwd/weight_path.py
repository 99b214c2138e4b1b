"""The way from the weights of a graph to its leaves: what reads a tensor, what has its gradient."""

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
