"""Derivative rules for TensorFlow ops: a table, one row an op."""

from keras_fwd.leaks import contraction, convolution, slicing, tiling, windows

REGISTERED = {
    "XlaDynamicUpdateSlice": slicing.update_slice,
}
SEALED = {
    # Slow in TensorFlow.
    "Conv2D": convolution.conv2d,
    "Einsum": contraction.einsum,
    "MaxPool": windows.max_pool("MaxPool"),
    "MaxPool3D": windows.max_pool("MaxPool3D"),
    "Tile": tiling.tile,
}
