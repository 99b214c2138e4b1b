"""A change of shared state that holds for the threads that ask for it, as long as they do."""

import contextlib
import threading


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
