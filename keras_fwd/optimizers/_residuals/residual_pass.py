"""A function that returns residuals, as the optimizers see a model on a batch."""

from typing import Any

import keras
import tensorflow as tf

from keras_fwd._derivatives import double_gradient, functional
from keras_fwd._models.training_pass import Recorder
from keras_fwd._spaces import given, nest
from keras_fwd.errors import ConfigurationError, StructureError

#: Of messages.
CALL = "GaussNewton"


class ResidualVariable:
    """A variable of a least squares problem, with what optimizers ask of a weight."""

    #: A penalty would be a residual of its own.
    regularizer = None

    def __init__(self, variable):
        self.value = functional.unwrap(variable)
        self.shape = tf.TensorShape(variable.shape)
        self.constraint = variable.constraint
        #: Those of a layer's weight share one; a `tf.Variable` may hold all unknowns of a problem.
        self.entries_have_own_units = not isinstance(variable, keras.Variable)
        self.path = getattr(variable, "path", variable.name)

    def assign(self, value):
        """Give it a new value; returns the operation, in a graph."""
        return self.value.assign(value, read_value=False)


class ResidualPass:
    """The sum of squares of residuals, with the interface of `TrainingPass`.

    The residuals are differentiated by the variables themselves, which they read where they like,
    inside a `tf.function` of their own too. For a trial the variables get its values, and then
    their old ones again.

    Args:
        residual_fn: Function without arguments, or of `data`.
        variables: List of `ResidualVariable`.
        data: Nest of tensors, or None.
        weights: Nest like the residuals, of tensors that broadcast to them; or None.
        mean: Whether the loss is the sum of the means of the squares; else half of their sum.

    Attributes: As `TrainingPass`; the curvature leaves are the residuals.
    """

    model = None
    loss_is_of_outputs = True
    loss_scale = None

    def __init__(self, residual_fn, variables, data=None, weights=None, mean=False):
        self.variables = variables
        self.batch = (data, None, weights)
        self.outputs: Any = None
        self.recorder: Any = None
        self.losses: list = []
        self._arguments = () if data is None else (data,)
        self._function = residual_fn
        self._weights: list = []
        self._mean = mean
        self._start: list = []

    def linearization(self, values):
        """The forward pass at the present values of the variables, and the Jacobian there."""
        self._start = values
        sources = [variable.value for variable in self.variables]
        return double_gradient.linearization(CALL, self._at_present, values, sources)

    def __call__(self, values):
        """The loss and the residuals at other values of the variables, a list of tensors."""
        for variable, value in zip(self.variables, values, strict=True):
            variable.assign(value)
        result = self._at_present()
        again = [
            variable.assign(value)
            for variable, value in zip(self.variables, self._start, strict=True)
        ]
        # The old values must be back before the loss is used: a graph may run it in any order.
        with tf.control_dependencies([operation for operation in again if operation is not None]):
            return tf.nest.map_structure(tf.identity, result)

    def second_derivative(self, values, direction):
        """Of the residuals along a line through the present values, a list of tensors."""
        sources = [variable.value for variable in self.variables]

        def slope(_):
            _, J = double_gradient.linearize(self._at_present, values, sources)
            return J._mv(direction)["outputs"]

        _, J = double_gradient.linearization(CALL, slope, values, sources)
        return J._mv(direction)

    def loss_of_leaves(self, leaves):
        """The loss as a function of the residuals, a list of tensors."""
        dtype = nest.accumulator_dtype(leaves)
        terms = []
        for leaf, weight in zip(leaves, self._weights, strict=True):
            squares = leaf * leaf if weight is None else weight * leaf * leaf
            total = tf.cast(tf.reduce_sum(squares), dtype)
            terms.append(total / tf.cast(tf.size(leaf) if self._mean else 2, dtype))
        return tf.add_n(terms)

    def _at_present(self, _=None):
        with Recorder([], []) as recorder:  # states of layers and seeds change with a step only
            residuals = _as_residuals(self._function(*self._arguments))
        self._check_count(residuals)
        self._weights = weights_of(residuals, self.batch[2])
        self.outputs, self.recorder = residuals, recorder
        leaves = nest.flatten(residuals)
        self.losses = [keras.losses.mean_squared_error] * len(leaves)
        return {"loss": self.loss_of_leaves(leaves), "outputs": leaves}

    def _check_count(self, residuals):
        """Refuse a scalar for many unknowns: it is a loss, with nothing left to be squared."""
        unknowns = sum(variable.shape.num_elements() for variable in self.variables)
        if tf.is_tensor(residuals) and residuals.shape.rank == 0 and unknowns > 1:
            raise StructureError(
                f"{CALL}: `residual_fn` must return residuals, not a loss: they are squared and "
                f"summed for it. Received: one scalar for {unknowns} unknowns. Return the terms "
                "themselves; one that is a residual all the same as a tensor of shape [1]."
            )


def _as_residuals(residuals):
    """What the function returned, as tensors in single precision at least."""
    leaves = nest.flatten(residuals)
    rule = f"{CALL}: `residual_fn` must return real floating-point tensors, one or a nest of them"
    if not leaves or any(leaf is None for leaf in leaves):
        raise StructureError(
            f"{rule}. Received: {residuals!r}. Return residuals from it, not a loss."
        )
    tensors = given.to_tensors(CALL, "residual_fn()", residuals)
    for path, tensor in zip(nest.paths(residuals), tensors, strict=True):
        if not nest.is_differentiable(tensor.dtype):
            raise StructureError(
                f"{rule}. Received: `residual_fn(){path}` = {given.describe(tensor)}. "
                "Cast integers, and return the real and the imaginary part of complex numbers."
            )
    if all(tensor.shape.num_elements() == 0 for tensor in tensors):
        raise StructureError(
            f"{CALL}: `residual_fn` must return at least one residual. "
            f"Received: {given.describe(residuals)}."
        )
    wide = [tf.cast(t, tf.float32) if t.dtype.size < 4 else t for t in tensors]
    return nest.pack(residuals, wide)


def weights_of(residuals, weights):
    """The weights of each leaf of the residuals, a list of tensors in their dtypes, or of None.

    What is negative or not finite becomes NaN, and so does the loss.
    """
    leaves = nest.flatten(residuals)
    if weights is None:
        return [None] * len(leaves)
    given.check_structure(CALL, "weights", weights, residuals, "the residuals")
    paths = nest.paths(residuals)
    return list(map(_weight_of, paths, leaves, nest.flatten(weights)))


def precise(weight, where="weights"):
    """A weight as a tensor; a Python number in double precision."""
    if isinstance(weight, int | float) and not isinstance(weight, bool):
        return tf.constant(weight, tf.float64)
    return given.to_tensor(CALL, where, weight)


def _weight_of(path, leaf, weight):
    weight = precise(weight, f"weights{path}")
    try:
        fits = tf.broadcast_static_shape(leaf.shape, weight.shape).is_compatible_with(leaf.shape)
    except ValueError:
        fits = False
    if not fits:
        raise StructureError(
            f"{CALL}: `weights{path}` must be a scalar, or broadcast to its residual "
            f"{given.describe(leaf)}. Received: {given.describe(weight)}."
        )
    weight = tf.cast(weight, leaf.dtype)
    good = tf.math.is_finite(weight) & (weight >= 0)
    return tf.where(good, weight, tf.constant(float("nan"), leaf.dtype))


def variables_of(variables):
    """The variables of a problem, a list of `ResidualVariable`.

    Args:
        variables: A layer or model, for its trainable weights; or a nest of variables.

    Raises:
        ConfigurationError: none; one that is no variable, not trainable, or not of real numbers.
    """
    found = trainable(variables)
    rule = (
        f"{CALL}: `variables` must be a built layer or model, or a list of trainable tf.Variable "
        "or keras.Variable of dtype float32 or float64, each once"
    )
    if not found:
        raise ConfigurationError(f"{rule}. Received: none in {variables!r}.")
    for variable in found:
        if not isinstance(variable, tf.Variable | keras.Variable):
            hint = ""
            if functional.is_layer(variable):
                hint = " In a list, write `*model.trainable_variables`."
            raise ConfigurationError(f"{rule}. Received: {variable!r}.{hint}")
        if not variable.trainable:
            raise ConfigurationError(f"{rule}. Received: {variable.name!r}, not trainable.")
        if tf.as_dtype(variable.dtype) not in (tf.float32, tf.float64):
            raise ConfigurationError(f"{rule}. Received: {variable.name!r}, {variable.dtype}.")
    if len({id(functional.unwrap(variable)) for variable in found}) < len(found):
        names = [variable.name for variable in found]
        raise ConfigurationError(f"{rule}. Received: one twice in {names}.")
    return [ResidualVariable(variable) for variable in found]


def trainable(variables):
    """The list that `variables` stands for."""
    if functional.is_layer(variables):
        return list(variables.trainable_variables)
    return nest.flatten(variables)
