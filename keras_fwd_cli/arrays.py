"""Arrays that grow as a file is read: in memory while small, in a temporary file when large."""

import tempfile

MOST_IN_MEMORY = 1 << 28  # bytes of one array


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
        """Adds rows, `[rows, …]` of any shape that has as many entries."""
        import numpy as np

        piece = np.asarray(piece, self._dtype).reshape(len(piece), *self._shape)
        self._rows += len(piece)
        self._bytes += piece.nbytes
        if self._file is None and self._bytes > MOST_IN_MEMORY and piece.dtype != object:
            self._file = tempfile.TemporaryFile(prefix="keras-fwd-")  # noqa: SIM115 - outlives this
            for earlier in self._pieces:
                earlier.tofile(self._file)
            self._pieces = []
        if self._file is None:
            self._pieces.append(piece)
        else:
            piece.tofile(self._file)

    def finish(self):
        """All rows as one array, or as a view of the file, of which pages are read when needed."""
        import numpy as np

        if self._file is None:
            empty = np.empty((0, *self._shape), self._dtype)
            return np.concatenate(self._pieces) if self._pieces else empty
        self._file.flush()
        shape = (self._rows, *self._shape)
        return np.memmap(self._file, dtype=self._dtype, mode="r", shape=shape)
