"""The context in which derivatives are taken: what leaks in TensorFlow is right inside of it.

Two things are put in place, for the threads inside alone, and taken away again: rules for ops that
TensorFlow differentiates once but not twice (`table.SEALED`), and functions in place of
compositions of which only the first derivative is right (`stand_ins.table`). Models, layers and
TensorFlow stay as they were. Gradients of ops that have none (`table.REGISTERED`) are added for
good when this module is imported.
"""

import contextlib
import functools
import threading

from keras_fwd._graphs import registry
from keras_fwd._rules import stand_ins, table

# A change of shared state that holds for the threads that ask for it, as long as they do.


class Switch:
    """Installs a change when the first thread enters, undoes it when the last one leaves.

    What is installed must ask `active` and do as before where that is False: in other threads.

    Args:
        install: Function without arguments that makes the change and returns what undoes it.
    """

    def __init__(self, install):
        self._install = install
        self._undo = install  # until entered, nothing is there to be undone
        self._users = 0
        self._lock = threading.Lock()
        # What is installed is seen by all threads; who has asked for it is known for each.
        self._here = threading.local()

    @property
    def active(self):
        """Whether the change holds in this thread."""
        return getattr(self._here, "on", False)

    @contextlib.contextmanager
    def set(self, on):
        """Inside, the change holds in this thread, or does not; may be nested either way."""
        before = self.active
        if on:
            self._enter()
        self._here.on = on
        try:
            yield
        finally:
            self._here.on = before
            if on:
                self._leave()

    def _enter(self):
        with self._lock:
            if not self._users:
                self._undo = self._install()
            self._users += 1

    def _leave(self):
        with self._lock:
            self._users -= 1
            if not self._users:
                self._undo()


registry.register(table.REGISTERED)


def _install():
    undo_rules = registry.stand_in(table.SEALED, lambda: _switch.active)
    undo_functions = stand_ins.stand_in(stand_ins.table(), lambda: _switch.active)

    def undo():
        # In the opposite order, as with nested contexts.
        undo_functions()
        undo_rules()

    return undo


_switch = Switch(_install)
_never = threading.local()


def sealed():
    """Inside, derivatives are taken by the rules of this package."""
    return _switch.set(not getattr(_never, "on", False))


def active():
    """Whether this thread is inside of `sealed`."""
    return _switch.active


def in_context(method):
    """Decorator: the function runs `sealed`."""

    @functools.wraps(method)
    def wrapper(*args, **kwargs):
        with sealed():
            return method(*args, **kwargs)

    return wrapper


@contextlib.contextmanager
def unsealed():
    """Inside, `sealed` does nothing: what plain TensorFlow does."""
    before = getattr(_never, "on", False)
    _never.on = True
    try:
        with _switch.set(False):
            yield
    finally:
        _never.on = before
