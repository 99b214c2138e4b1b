"""A model's inputs and outputs as flat, named columns, and the derivatives between them."""

import tensorflow as tf

from keras_fwd._derivatives.double_gradient import jvp, linearize
from keras_fwd._models.names import output_names
from keras_fwd._spaces import nest
from keras_fwd._spaces.vectorized import RowMap

#: So many products are written out one by one, more are vectorized.
FEW = 8


class FlatModel:
    """A model as a function between columns: the outputs and their derivatives.

    Traced once for each of its three methods, whatever the length of the batch.

    Args:
        model: Keras model or layer.
        x: Nest of tensors, one batch of its inputs.
        features: Indices of the columns of floating-point inputs to differentiate by; None: all.

    Attributes:
        output_names: One name for each column of all outputs; None before the model has run.
        chosen: Indices of the columns of the outputs that are used; None: all.
    """

    def __init__(self, model, x, features=None):
        self._model, self._features = model, features
        self._spec = tf.nest.map_structure(
            lambda leaf: tf.TensorSpec([None, *leaf.shape[1:]], leaf.dtype), x
        )
        self.output_names = self.chosen = None
        self._traced = {}

    def names_of_outputs(self):
        """`output_names`, by the trace of what will be run, if need be."""
        if self.output_names is None:
            inputs = any(nest.is_differentiable(leaf.dtype) for leaf in nest.flatten(self._spec))
            some = self._features is None or len(self._features)
            name = "_derivatives" if inputs and some else "_outputs"
            self._function(name).get_concrete_function()
        return self.output_names

    def choose(self, outputs):
        """Use only the columns of the outputs with these indices."""
        self.chosen = outputs
        self._traced = {}

    def _function(self, name, *more):
        if name not in self._traced:
            self._traced[name] = tf.function(
                getattr(self, name), input_signature=[self._spec, *more], autograph=False
            )
        return self._traced[name]

    def _run(self, name, *arguments, more=()):
        results = self._function(name, *more)(*arguments)
        return tf.nest.map_structure(lambda t: t.numpy(), results)

    def outputs(self, x):
        """The chosen outputs of a batch, `[batch, outputs]`, NumPy float64."""
        return self._run("_outputs", x)

    def derivatives(self, x):
        """The columns of a batch.

        Returns:
            `(features, outputs, derivatives)`: `[batch, features]`, `[batch, outputs]` and
            `[batch, features, outputs]`, NumPy float64.

        Raises:
            StructureError, LeakError: As `linearize`.

        Cost: A forward pass and the smaller of one pushforward a feature and one pullback an
            output, all at once.
        """
        return self._run("_derivatives", x)

    def second_columns(self, x, direction, rows):
        """∂²y/∂xᵢ∂u along a direction u, by forward over forward.

        Args:
            x: Nest of tensors.
            direction: `[all columns of floating-point inputs]`.
            rows: Indices i of columns.

        Returns:
            `[batch, rows, outputs]`.
        """
        more = (tf.TensorSpec([None], tf.float64), tf.TensorSpec([None], tf.int32))
        return self._run("_second", x, direction, rows, more=more)

    def hessian_products(self, x, directions):
        """H v for each example and output, with a v for each example: `[batch, features, outputs]`.

        A pullback for each output of one pushforward.
        """
        more = (tf.TensorSpec([None, None], tf.float64),)
        return self._run("_products", x, directions, more=more)

    @tf.autograph.experimental.do_not_convert
    def _flat_call(self, x):
        """The chosen outputs as `[batch, outputs]`."""
        outputs = self._model(x, training=False)
        self.output_names = output_names(self._model, outputs)
        flat = _columns(outputs)
        return flat if self.chosen is None else tf.gather(flat, self.chosen, axis=1)

    def _outputs(self, x):
        return tf.cast(self._flat_call(x), tf.float64)

    def _derivatives(self, x):
        outputs, J = linearize(self._flat_call, x)
        features = _columns(x)
        count, chosen = features.shape[1], self._features
        wanted = count if chosen is None else len(chosen)
        if wanted <= outputs.shape[1]:
            every = tf.range(count) if chosen is None else chosen
            derivatives = tf.transpose(_pushforwards(J.mv, x, features, every), [1, 0, 2])
        else:
            rows = _pullbacks(J.T.mv, x, outputs)
            derivatives = tf.transpose(rows, [1, 2, 0])
            if chosen is not None:
                # A pullback brings all columns, wanted or not.
                derivatives = tf.gather(derivatives, chosen, axis=1)
        if chosen is not None:
            features = tf.gather(features, chosen, axis=1)
        return tuple(tf.cast(t, tf.float64) for t in (features, outputs, derivatives))

    def _second(self, x, direction, rows):
        def columns(x):
            _, J = linearize(self._flat_call, x)
            return _pushforwards(J.mv, x, _columns(x), rows)

        spread = tf.broadcast_to(direction, tf.shape(_columns(x)))
        _, tangents = jvp(columns, x, _as_inputs(spread, x))
        return tf.cast(tf.transpose(tangents, [1, 0, 2]), tf.float64)

    def _products(self, x, directions):
        def along(x):
            return jvp(self._flat_call, x, _as_inputs(directions, x))[1]

        values, J = linearize(along, x)
        products = tf.transpose(_pullbacks(J.T.mv, x, values), [1, 2, 0])
        if self._features is not None:
            products = tf.gather(products, self._features, axis=1)
        return tf.cast(products, tf.float64)


def _columns(x, like=None):
    """The floating-point leaves of a nest as `[batch, columns]`, of the widest dtype.

    `like` is a nest of the same structure, where the shapes of `x` itself are not known.
    """
    leaves, shaped = (
        [
            leaf
            for leaf in nest.flatten(t)
            if leaf is not None and nest.is_differentiable(leaf.dtype)
        ]
        for t in (x, x if like is None else like)
    )
    dtype = nest.accumulator_dtype(leaves)
    sizes = [leaf.shape[1:].num_elements() for leaf in shaped]
    flat = [
        tf.cast(tf.reshape(leaf, [tf.shape(leaf)[0], size]), dtype)
        for leaf, size in zip(leaves, sizes, strict=True)
    ]
    return flat[0] if len(flat) == 1 else tf.concat(flat, axis=1)


def _as_inputs(columns, x):
    """Tangents of the inputs from their columns; `None` at leaves without."""
    space = nest.spec(x)
    sizes = [leaf.shape[1:].num_elements() for leaf in nest.live(space)]
    pieces = iter(tf.split(columns, sizes, axis=1))
    return tf.nest.map_structure(
        lambda leaf: (
            tf.cast(tf.reshape(next(pieces), tf.shape(leaf)), leaf.dtype)
            if nest.is_differentiable(leaf.dtype)
            else None
        ),
        x,
    )


def _pushforwards(mv, x, features, chosen):
    """J eᵢ of every example, for the chosen columns i: `[chosen, batch, outputs]`."""
    batch, count = tf.shape(features)[0], features.shape[1]
    chosen = tf.convert_to_tensor(chosen, tf.int32)

    def column(unit):
        return mv(_as_inputs(tf.broadcast_to(unit, [batch, count]), x))

    number = chosen.shape[0] if chosen.shape[0] is not None else tf.shape(chosen)[0]

    def units(i):
        # The last chunk may run past the end, which is cut off later.
        place = tf.gather(chosen, tf.minimum(i, tf.shape(chosen)[0] - 1))
        return tf.one_hot(place, count, dtype=features.dtype)

    return _images(column, units, number, tf.TensorSpec([count], features.dtype))


def _pullbacks(mv, x, outputs):
    """Jᵀ eₒ of every example, for every output o: `[outputs, batch, columns]`."""
    count, dtype = outputs.shape[1], outputs.dtype

    def row(unit):
        return _columns(mv(tf.broadcast_to(unit, tf.shape(outputs))), x)

    def units(i):
        return tf.one_hot(i, count, dtype=dtype)

    return _images(row, units, count, tf.TensorSpec([count], dtype))


def _images(function, units, number, spec):
    """`function` of each unit vector; a few are written out, which is traced sooner than a map."""
    if isinstance(number, int) and number <= FEW:
        return tf.stack([function(units(i)) for i in range(number)])
    return RowMap(function, spec).in_chunks(units, number)
