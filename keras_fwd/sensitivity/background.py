"""Work on one batch while the next one is on its way."""

from concurrent.futures import ThreadPoolExecutor


class Background:
    """Calls in a thread of their own, one after the other, at most one of them unfinished.

    NumPy sums up one batch while TensorFlow differentiates the next. An error of a call is raised
    by the next one, or at the end.
    """

    def __enter__(self):
        self._thread, self._last = ThreadPoolExecutor(1), None
        return self

    def __call__(self, function, *arguments):
        """Start a call once the one before is done."""
        self._wait()
        self._last = self._thread.submit(function, *arguments)

    def __exit__(self, kind, error, trace):
        with self._thread:
            self._wait()

    def _wait(self):
        if self._last is not None:
            last, self._last = self._last, None
            last.result()
