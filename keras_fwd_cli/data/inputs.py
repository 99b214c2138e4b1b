"""What a model reads: its inputs, each with its name, shape and kind of values."""

import dataclasses
import math
import re

AUTOMATIC = re.compile(r"(input_layer|keras_tensor|input)(_\d+)?")  # names that Keras makes up
FLOAT, INTEGER, TEXT = "float", "integer", "text"


@dataclasses.dataclass(frozen=True)
class Input:
    """One input of a model.

    Attributes:
        name: Under which its data are known: the key of a dict of inputs, or Keras' name.
        shape: Without the batch; None where a length is open; None for a shape not declared.
        kind: `FLOAT`, `INTEGER` or `TEXT`.
        dtype: Of the arrays: a name that NumPy knows, or "object" for text.
    """

    name: str
    shape: tuple | None
    kind: str
    dtype: str

    @property
    def width(self):
        """How many columns of a table it takes; None if that is open."""
        return None if self.shape is None or None in self.shape else math.prod(self.shape)

    @property
    def named(self):
        """Whether a person chose the name."""
        return not AUTOMATIC.fullmatch(self.name)

    def __str__(self):
        return f"{self.name!r} ({self.kind}, {'×'.join(map(str, self.shape or '?')) or 'one'})"


def declared(model):
    """The inputs of a model, in the order in which Keras lists them.

    A model that declares none, a subclass of `keras.Model`, is taken to read one table of numbers.
    """
    tensors = getattr(model, "inputs", None)
    if not tensors:
        return [Input("inputs", None, FLOAT, model.variable_dtype)]
    struct = getattr(model, "input", None)
    names = {}
    if isinstance(struct, dict):
        names = {id(tensor): str(key) for key, tensor in struct.items()}
    return [_input(names.get(id(tensor), tensor.name), tensor) for tensor in tensors]


def pack(model, arrays):
    """Arrays in the structure that the model is called with.

    Args:
        model: Keras model.
        arrays: Dict from the names of `declared` to arrays.
    """
    import keras

    if not getattr(model, "inputs", None):
        return arrays["inputs"]
    if len(model.inputs) == 1:
        return arrays[declared(model)[0].name]
    if isinstance(model.input, dict):
        return {key: arrays[key] for key in model.input}
    by_tensor = {id(t): i.name for t, i in zip(model.inputs, declared(model), strict=True)}
    packed = keras.tree.map_structure(lambda tensor: arrays[by_tensor[id(tensor)]], model.input)
    return list(packed) if isinstance(packed, tuple) else packed  # a tuple would mean (x, y)


def _input(name, tensor):
    dtype = str(tensor.dtype)
    shape = tuple(tensor.shape[1:])
    if dtype == "string":
        return Input(name, shape, TEXT, "object")
    if "int" in dtype or dtype == "bool":
        return Input(name, shape, INTEGER, "int64" if dtype == "bool" else dtype)
    # NumPy has no bfloat16; halves are read as float32, and Keras casts them.
    return Input(name, shape, FLOAT, "float64" if dtype == "float64" else "float32")
