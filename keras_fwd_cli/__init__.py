"""The `keras-fwd` command.

A package of its own beside `keras_fwd`, because importing that takes seconds (TensorFlow), and
`--help`, `--version` and mistakes in the arguments are answered without it. So every file here
imports `keras_fwd`, Keras, TensorFlow and NumPy inside the functions that need them.
"""
