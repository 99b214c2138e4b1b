"""Models put together at random from the layers of the conformance tests, which build them."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf
from conformance import activations, layers
from conformance.case import image, randomize
from keras import layers as L
from support.cases import leaking

BATCH, OUTPUTS = 3, 2
#: Too large to be traced by the hundred, or no layer to be put into a stack.
LEFT_OUT = {
    "RandAugment": "traces each of its transforms",
    "TFSMLayer": "made for inputs of one shape",
    "Embedding": "of whole numbers, which only inputs are",
    "ReversibleEmbedding": "the same",
    "MelSpectrogram": "of long signals",
    "STFTSpectrogram": "of long signals",
}
STARTS = {
    "vectors": (4,),
    "rows": (5, 3),
    "plane": (5, 5, 2),
    "image": (6, 6, 3),
    "volume": (4, 4, 4, 2),
    "video": (2, 3, 3, 1),
    "ids": (3,),
}
SHARE = [0.25, 0.3, 0.15, 0.1, 0.05, 0.05, 0.1]
MERGES = (L.Add, L.Average, L.Concatenate, L.Maximum, L.Minimum, L.Multiply, L.Subtract)
ATTENTIONS = (
    lambda: L.MultiHeadAttention(2, 2),
    lambda: L.GroupQueryAttention(2, 4, 2),
    lambda: L.Attention(use_scale=True),
    lambda: L.Attention(score_mode="concat"),
    L.AdditiveAttention,
)
LARGEST = 200  # components of an example: the tests take differences by each weight


@dataclasses.dataclass
class Stack:
    """A model and where it is differentiated.

    Attributes:
        model: Keras model with random weights.
        names: What it is made of.
        inputs: List of arrays.
        targets: Array like its outputs.
        step: Of central differences.
        tolerance: Of their relative error.
    """

    model: keras.Model
    names: list
    inputs: list
    targets: np.ndarray
    step: float
    tolerance: float

    def points(self):
        tensors = [tf.constant(x) for x in self.inputs]
        return tensors if len(tensors) > 1 else tensors[0]


def _rank(case):
    value = case.inputs[0]
    return len(value) if isinstance(value, tuple) else np.ndim(value)


def _catalogue():
    """By the rank of what they take: cases of one input, without a call of their own."""
    found = {}
    for case in layers.CASES:
        name = case.name.partition(" (")[0]
        random = "(training)" in case.name and case.random
        plain = case.call is None or random
        if plain and len(case.inputs) == 1 and name not in LEFT_OUT and case.floatx == "float64":
            found.setdefault(_rank(case), []).append(case)
    return found


CATALOGUE = _catalogue()
FIRST = {case.name for case in [*layers.IMAGES, *layers.AUGMENTATION]}  # of numbers in [0, 1]
FUNCTIONS = [case.name for case in activations.CASES if case.name not in activations.ARGUMENTS]


class Builder:
    """Draws the parts of one model."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)
        self.names = []
        self.step, self.tolerance = 1e-5, 1e-6

    def choice(self, options):
        return options[self.random.integers(len(options))]

    def note(self, name, case=None):
        self.names.append(name)
        if case is not None:
            self.step = max(self.step, case.step)
            self.tolerance = max(self.tolerance, case.tolerance)

    def layer(self, x, first=False):
        """`x` after a layer that takes its shape."""
        cases = CATALOGUE[len(x.shape)]
        for _ in range(50):
            case = self.choice(cases)
            if case.name in FIRST and not (first and x.shape[-1] == 3):
                continue
            try:
                y = case.build()(x)
            except (ValueError, TypeError, AttributeError, tf.errors.OpError):  # another shape
                continue
            if isinstance(y, keras.KerasTensor) and _fits(y):
                self.note(case.name, case)
                return y
        return self.dense(x)

    def dense(self, x):
        name = self.choice(FUNCTIONS)
        self.note(f"Dense {name}")
        return L.Dense(4, name)(x)

    def activation(self, x):
        name = self.choice([f for f in FUNCTIONS if f != "glu" or x.shape[-1] % 2 == 0])
        self.note(name)
        return L.Activation(name)(x)

    def attention(self, x):
        layer = self.choice(ATTENTIONS)()
        self.note(layer.__class__.__name__)
        pair = isinstance(layer, (L.MultiHeadAttention, L.GroupQueryAttention))
        return layer(x, x) if pair else layer([x, x])

    def distributed(self, x):
        inner = self.choice([lambda: L.Dense(2, "tanh"), L.LayerNormalization, L.UnitNormalization])
        self.note("TimeDistributed")
        return L.TimeDistributed(inner())(x)

    def sequential(self, x):
        self.note("Sequential")
        return keras.Sequential([L.Dense(4, self.choice(FUNCTIONS)), L.LayerNormalization()])(x)

    def skip(self, x):
        y = self.dense(x)
        shortcut = x if x.shape == y.shape else L.Dense(y.shape[-1])(x)
        merge = self.choice(MERGES)
        self.note(merge.__name__)
        return merge()([shortcut, y])

    def hidden(self, x):
        self.note("hidden from TensorFlow")
        return L.Lambda(leaking, output_shape=x.shape[1:])(x)

    def block(self, x, first=False):
        draw = self.random.random()
        if draw < 0.015:
            return self.hidden(x)
        if draw < 0.12:
            return self.skip(x)
        if draw < 0.2:
            return self.activation(x)
        if draw < 0.25:
            return self.sequential(x)
        if len(x.shape) == 3 and draw < 0.4:
            return self.attention(x) if draw < 0.36 else self.distributed(x)
        return self.layer(x, first)

    def branch(self, kind):
        """An input, and what its layers make of it."""
        start = keras.Input(STARTS[kind], dtype="int32" if kind == "ids" else None)
        self.note(kind)
        x = start
        if kind == "ids":
            mask = bool(self.random.integers(2))
            self.note(f"Embedding{' masked' * mask}")
            x = L.Embedding(3, 2, mask_zero=mask)(x)
        for i in range(self.random.integers(1, 4)):
            x = self.block(x, first=i == 0)
        if len(x.shape) > 2:
            x = L.Flatten()(x)
        return start, x

    def model(self):
        kinds = [str(self.random.choice(list(STARTS), p=SHARE))]
        if self.random.random() < 0.15:
            kinds.append(str(self.random.choice(list(STARTS), p=SHARE)))
        starts, ends = zip(*map(self.branch, kinds), strict=True)
        x = ends[0]
        if len(ends) > 1:
            merge = self.choice(MERGES)
            self.note(merge.__name__)
            x = merge()([L.Dense(3)(end) for end in ends])
        return keras.Model(list(starts) if len(starts) > 1 else starts[0], L.Dense(OUTPUTS)(x))


def _fits(y):
    sizes = y.shape[1:]
    return len(sizes) > 0 and None not in sizes and 0 < int(np.prod(sizes)) <= LARGEST


def stack(seed, attempt=0):
    """The model of a seed, at a point of its own for each attempt."""
    for draw in range(20):
        keras.utils.set_random_seed(seed)
        builder = Builder([seed, draw])
        model = builder.model()
        randomize(model)
        random = np.random.default_rng([seed, attempt])
        for variable in model.trainable_variables:  # no two layers alike
            variable.assign(variable * (1 + 0.1 * random.normal(size=variable.shape)))
        inputs = [_values(random, start) for start in model.inputs]
        targets = random.normal(size=(BATCH, OUTPUTS))
        made = Stack(model, builder.names, inputs, targets, builder.step, builder.tolerance)
        if _runs(made):
            return made
    raise AssertionError(f"seed {seed} gives no model that Keras can call")


def _runs(made):
    """Whether Keras can call the model: `RandomCrop`, for one, crops in training only.

    In a graph too, where `AdaptiveAveragePooling3D`, for one, may not have windows that are larger
    than the image.
    """
    try:
        tf.function(made.model, autograph=False).get_concrete_function(made.points())
        outputs = [made.model(made.points(), training=training) for training in (True, False)]
    except (ValueError, TypeError, tf.errors.InvalidArgumentError):
        return False
    return bool(np.isfinite(outputs).all())


def _values(random, start):
    shape = (BATCH, *start.shape[1:])
    if start.dtype == "int32":
        return random.integers(0, 3, shape).astype("int32")
    if start.shape[1:] == STARTS["image"]:
        return image(*shape, seed=int(random.integers(1 << 30)))
    return random.normal(size=shape)
