"""A damped system of vectors as one of nests."""

from keras_fwd._spaces import nest


class NestSystem:
    """A system of vectors as one of nests: what goes in is raveled, what comes out unraveled.

    Args:
        system: The system.
        spec: The space of its vectors.
    """

    def __init__(self, system, spec):
        self._system, self._spec = system, spec

    def solve(self, damping, gradient=None):
        """`Solution` of `(C + damping · D²) x = g`, or of another gradient, its value a nest."""
        vector = None if gradient is None else nest.ravel(gradient)
        solution = self._system.solve(damping, vector)
        return solution._replace(value=nest.unravel(solution.value, self._spec))

    def length(self, vector):
        """`‖D x‖`, the length that a trust region bounds."""
        return self._system.length(nest.ravel(vector))

    def bend(self, vector):
        """`⟨x, C x⟩`."""
        return self._system.bend(nest.ravel(vector))

    def __getattr__(self, name):
        return getattr(self._system, name)
