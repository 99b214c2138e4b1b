"""Every layer, activation, loss and op of Keras, the usual ops of TensorFlow, and whole models.

A family is a table in a file of its own: what is checked (`CASES`), and what has nothing to check,
with the reason (`LISTED`). Where the table stands for a namespace, each name of it must be in one
of the two: a name that Keras adds tomorrow is *not covered*, and fails a test.

How a case is checked is told in `check.py`. What is run:

* in a graph (`tf.function`) everything, to order 3; it is also what takes the central differences;
* in eager code, where `linearize` is looked at too, order 2, with respect to weights order 1: the
  rules are those of the graph, and so is the trace that looks for leaks;
* under XLA order 2, for activations order 3, where XLA compiles the function itself in float64;
* loops over time steps less, because each order multiplies the time they take to be traced: order
  2 in a graph, 1 under XLA. One of each kind goes to order 3 unrolled;
* `keras.applications` in a graph, by the inputs, to order 2 or 1: their layers have cases of their
  own.

With `CONFORMANCE_RESULTS=FOLDER` in the environment each case writes what came out to a file there,
from which `keras-fwd coverage` makes `docs/coverage.md`.
"""
