"""Arrays that grow as a file is read: in memory while small, in a temporary file when large."""

import tempfile

from keras_fwd_cli.failures import UsageError

MOST_IN_MEMORY = 1 << 26  # bytes of one array


class GrowingArray:
    """Rows of one dtype and shape, appended in pieces.

    Args:
        shape: Of one row.
        dtype: NumPy dtype or its name; "object", for text, always stays in memory.
    """

    def __init__(self, shape, dtype):
        self._shape = tuple(shape)
        self._dtype = dtype
        self._pieces = []
        self._bytes = 0
        self._rows = 0
        self._file = None

    def append(self, piece):
        """Adds rows, `[rows, …]` of any shape that has as many entries.

        Raises:
            UsageError: There is no room for them.
        """
        import numpy as np

        piece = np.asarray(piece, self._dtype).reshape(len(piece), *self._shape)
        self._rows += len(piece)
        self._bytes += piece.nbytes
        self._pieces.append(piece)
        if piece.dtype != object and (self._file or self._bytes > MOST_IN_MEMORY):
            self._move_to_file()

    def _move_to_file(self):
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="keras-fwd-")  # noqa: SIM115 - stays open
            for piece in self._pieces:
                piece.tofile(self._file)
            self._file.flush()
        except OSError as error:
            raise UsageError(
                f"{tempfile.gettempdir()}: no room for the numbers of the table ({error}); set "
                "TMPDIR to a folder with more."
            ) from error
        self._pieces = []

    def finish(self):
        """All rows as one array, or as a view of the file, of which pages are read when needed."""
        import numpy as np

        if self._file is None:
            empty = np.empty((0, *self._shape), self._dtype)
            return np.concatenate(self._pieces) if self._pieces else empty
        shape = (self._rows, *self._shape)
        return np.memmap(self._file, dtype=self._dtype, mode="r", shape=shape)

    def close(self):
        """Lets go of the file, which is there as long as an array shows it."""
        if self._file is not None:
            self._file.close()
