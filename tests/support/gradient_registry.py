"""Frees what TensorFlow keeps of the functions with custom gradients that tests have traced."""

from contextlib import contextmanager

# Private: no public interface removes an entry. Without it, tests hold memory until they end.
from tensorflow.python.framework.ops import gradient_registry


@contextmanager
def dropped_afterwards():
    """Drops the entries made in the block.

    Each call of a `tf.custom_gradient` in a graph registers a closure by a name of its own, which
    holds the graph, and with it the model: for the process's life, though no one asks for it once
    the graph is gone.
    """
    entries = gradient_registry._registry
    before = set(entries)
    yield
    for name in set(entries) - before:
        if name.startswith("CustomGradient-"):
            del entries[name]
