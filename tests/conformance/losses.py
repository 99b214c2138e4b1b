"""Every class in `keras.losses`, in its predictions.

The functions beside them are what the classes call.
"""

import numpy as np
from keras import losses

from conformance.case import listed, op, positive, probabilities, unit

FAMILY = "Losses"
NAMESPACE = {name: value for name, value in vars(losses).items() if isinstance(value, type)}

VALUES = np.random.default_rng(1).normal(size=(3, 4))
LABELS = np.array([[1, 0, 0, 1], [0, 1, 1, 0], [1, 1, 0, 0]], "float64")
SIGNS = 2 * LABELS - 1
CLASSES = np.array([2, 0, 3])
ONE_HOT = np.eye(4)[CLASSES]
SPREAD = probabilities(3, 4, seed=2)
LOGITS = (3, 4)

# Large values, whose sine is too curved for a closer difference.
LARGE = {"tolerance": 1e-5}
# TensorFlow computes it in float32.
CTC = {"leak": "SymbolicGradient", "leak_order": 2, "step": 0.01, "tolerance": 2e-3}


def loss(name, targets, predictions, variant="", case=None, **options):
    def function(y):  # made anew, for a loss keeps the precision that Keras had when it was made
        return getattr(losses, name)(**options)(targets, y)

    title = f"{name} ({variant})" if variant else name
    return op(title, function, predictions, **case or {})


CASES = [
    loss("BinaryCrossentropy", LABELS, unit(3, 4) ** 2),
    loss("BinaryCrossentropy", LABELS, LOGITS, "logits", from_logits=True),
    loss("BinaryFocalCrossentropy", LABELS, unit(3, 4) ** 2),
    loss("BinaryFocalCrossentropy", LABELS, LOGITS, "logits", from_logits=True),
    loss("CategoricalCrossentropy", ONE_HOT, SPREAD),
    loss(
        "CategoricalCrossentropy", ONE_HOT, LOGITS, "logits", case={"fast": True}, from_logits=True
    ),
    loss("CategoricalCrossentropy", ONE_HOT, SPREAD, "smoothed", label_smoothing=0.1),
    loss("CategoricalFocalCrossentropy", ONE_HOT, SPREAD),
    loss("CategoricalFocalCrossentropy", ONE_HOT, LOGITS, "logits", from_logits=True),
    loss("CategoricalGeneralizedCrossEntropy", CLASSES, SPREAD),
    loss("CategoricalHinge", ONE_HOT, LOGITS),
    loss("Circle", np.array([0, 1, 0, 1]), (4, 3), case=LARGE),
    loss("CosineSimilarity", VALUES, LOGITS),
    loss("CTC", np.array([[1, 2], [3, 1]]), (2, 5, 4), case=CTC),
    loss("Dice", LABELS, unit(3, 4) ** 2),
    loss("Hinge", SIGNS, LOGITS),
    loss("Huber", VALUES, LOGITS),
    loss("KLDivergence", probabilities(3, 4), SPREAD),
    loss("LogCosh", VALUES, LOGITS),
    loss("MeanAbsoluteError", VALUES, LOGITS),
    loss("MeanAbsolutePercentageError", VALUES, LOGITS, case=LARGE),
    loss("MeanSquaredError", VALUES, LOGITS),
    loss("MeanSquaredLogarithmicError", positive(3, 4), positive(3, 4, seed=7)),
    loss("Poisson", positive(3, 4), positive(3, 4, seed=7)),
    loss("SparseCategoricalCrossentropy", CLASSES, SPREAD),
    loss("SparseCategoricalCrossentropy", CLASSES, LOGITS, "logits", from_logits=True),
    loss("SquaredHinge", SIGNS, LOGITS),
    loss("Tversky", LABELS, unit(3, 4) ** 2),
]
LISTED = listed("abstract: what derives from it is differentiated", "Loss")
