"""Which branches of a traced program are taken together.

A conditional and its gradients read one condition. They hand values from branch to branch in slots
that the branches share, so that a look at each by itself sees a value of the one branch reach the
other.
"""

import itertools

from keras_fwd._graphs import graph as graphs

#: How many conditions are followed jointly, in two ways each; further ones are not told apart,
#: which may raise an alarm too many and never one too few.
MOST = 6


class Scope:
    """A graph, or a function body as one call runs it.

    Args:
        nodes: Its nodes.
        functions: From a name to its `Body`.
        arguments: From the name of an argument to the key of what the call hands over.
        path: The names of the calls that lead here.
    """

    def __init__(self, nodes, functions, arguments=None, path=()):
        self.nodes = nodes
        self.functions = functions
        self.arguments = arguments or {}
        self.path = path
        self._by_name = {node.name: node for node in nodes}
        self._keys = {}
        self._inner = {}

    def key(self, endpoint):
        """The same for two endpoints that are known to hold the same value."""
        if endpoint not in self._keys:
            self._keys[endpoint] = self._key(*endpoint)
        return self._keys[endpoint]

    def _key(self, name, index):
        if name in self.arguments:
            return self.arguments[name]
        node = self._by_name.get(name)
        if node is not None and node.type == "Identity":
            # A condition is handed on through Identity ops, which all hold one value.
            return self.key(node.inputs[0])
        if node is not None and node.type in graphs.CALLS:
            (body,) = graphs.bodies_of(node, self.functions)
            return self.into(node, body).key(body.results[index])
        # With the path of calls: a function that is called twice may hold two values.
        return self.path, name, index

    def into(self, node, body):
        """The scope of a body that a node of this one runs."""
        place = node.name, id(body)
        if place not in self._inner:
            self._inner[place] = self._into(node, body)
        return self._inner[place]

    def _into(self, node, body):
        offset = node.type in graphs.BRANCHES
        arguments = {}
        if node.type not in graphs.LOOPS:  # where an argument changes from turn to turn
            pairs = zip(body.arguments, node.inputs[offset:], strict=True)
            arguments = {name: self.key(endpoint) for name, endpoint in pairs}
        return Scope(body.nodes, self.functions, arguments, (*self.path, node.name))

    def conditions(self):
        """`(key, number of branches)` of each conditional, in all calls and branches."""
        for node in self.nodes:
            if node.type in graphs.BRANCHES:
                yield self.key(node.inputs[0]), len(graphs.bodies_of(node, self.functions))
            if node.type in graphs.BODIES:
                for body in graphs.bodies_of(node, self.functions):
                    yield from self.into(node, body).conditions()


def choices(scope):
    """Each way to decide the conditions that several conditionals read: `{key: branch}`."""
    counts, ways = {}, {}
    for key, branches in scope.conditions():
        counts[key] = counts.get(key, 0) + 1
        ways[key] = branches
    shared = [key for key in counts if counts[key] > 1][:MOST]
    for choice in itertools.product(*(range(ways[key]) for key in shared)):
        yield dict(zip(shared, choice, strict=True))
