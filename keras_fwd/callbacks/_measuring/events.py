"""Writing scalars and images for TensorBoard."""

import contextlib
import os
from typing import Any

import numpy as np
import tensorflow as tf

from keras_fwd._checks import needed


class EventWriter:
    """Writes into one directory, by `tf.summary`.

    Args:
        call: Name of the public call, for messages.
        log_dir: Text or path; made when something is written.

    Raises:
        ImportError: TensorBoard, which `tf.summary` needs, is not installed.
    """

    def __init__(self, call, log_dir):
        needed(f"{call}: `log_dir`", "tensorboard")
        self._log_dir = os.fspath(log_dir)
        self._writer: Any = None

    def scalars(self, values, step):
        """Write a dict of numbers."""
        with self._open():
            for name, value in values.items():
                tf.summary.scalar(name, value, step=step)
        self._writer.flush()

    def image(self, name, pixels, step):
        """Write an image, `[height, width, 4]`, uint8."""
        with self._open():
            tf.summary.image(name, pixels[None], step=step)
        self._writer.flush()

    def close(self):
        """Close the file; what is written later goes into a new one."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    @contextlib.contextmanager
    def _open(self):
        if self._writer is None:
            self._writer = tf.summary.create_file_writer(self._log_dir)
        # All steps, also where `keras.callbacks.TensorBoard` has some recorded only.
        with self._writer.as_default(), tf.summary.record_if(True):
            yield


def pixels(figure):
    """A matplotlib figure as an image, `[height, width, 4]`, uint8; the figure is closed."""
    from matplotlib import pyplot
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    # It may have come from pyplot, which keeps figures until they are closed.
    pyplot.close(figure)
    return np.asarray(canvas.buffer_rgba()).copy()
