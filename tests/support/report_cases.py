"""Made-up sensitivity reports, for tests of what is made of a report: no model is run."""

import numpy as np

from keras_fwd.sensitivity._statistics.estimates import (
    Estimate,
    Evolution,
    Groups,
    InputShape,
    Interactions,
    Sample,
)
from keras_fwd.sensitivity.report import SensitivityReport

MEASURES = (
    "mean mean_abs rms positive q05 q25 q50 q75 q95 standardized_mean standardized_mean_abs "
    "standardized_rms elasticity dgsm total_index_bound"
).split()
POOLED = (
    "positive standardized_mean standardized_mean_abs standardized_rms total_index_bound".split()
)


def estimate(random, *shape, least=None):
    value = random.normal(size=shape)
    value = np.abs(value) if least == 0 else value
    stderr = np.abs(random.normal(0.0, 0.1, shape))
    return Estimate(value, stderr, value - 2 * stderr, value + 2 * stderr)


def made_up_report(
    features=5, outputs=2, sample=40, slices=(), inputs=(), evolution=0, seed=0, **fields
):
    """A report of random numbers; `inputs` are shapes, whose sizes must add up to `features`."""
    random = np.random.default_rng(seed)
    signed = ("mean", "standardized_mean", "elasticity", "q05", "q25", "q50", "q75", "q95")

    def estimates(names, *shape):
        return {
            name: estimate(random, *shape, least=None if name in signed else 0) for name in names
        }

    pairs = np.array([(i, j) for i in range(min(features, 5)) for j in range(i)]).reshape(-1, 2)
    starts = np.cumsum([0, *(int(np.prod(shape)) for shape in inputs)])
    history = None
    if evolution:
        history = Evolution(
            np.arange(evolution),
            np.full(evolution, 100),
            estimates(("mean", "standardized_rms"), evolution, features, outputs),
        )
    report = {
        "feature_names": tuple(f"feature {i}" for i in range(features)),
        "output_names": tuple(f"output {o}" for o in range(outputs)),
        "kinds": ("derivative",) * features,
        "feature_mean": random.normal(size=features),
        "feature_std": np.abs(random.normal(size=features)),
        "output_std": np.abs(random.normal(size=outputs)),
        "examples": 100,
        "left_out": 3,
        "notes": ("3 of 103 examples were left out: an input or a derivative was NaN.",),
        "confidence": 0.95,
        "measures": estimates(MEASURES, features, outputs),
        "pooled": estimates(POOLED, features, 1),
        "groups": Groups(
            ("first two",),
            ((0, min(1, features - 1)),),
            estimates(("standardized_rms", "total_index_bound"), 1, outputs),
        ),
        "interactions": Interactions(
            pairs, estimates(("rms", "standardized_rms"), len(pairs), outputs), 50
        ),
        "sample": Sample(
            random.normal(size=(sample, features)), random.normal(size=(sample, features, outputs))
        ),
        "inputs": tuple(
            InputShape(f"input {i}", tuple(shape), int(start))
            for i, (shape, start) in enumerate(zip(inputs, starts, strict=False))
        ),
        "slices": {
            label: made_up_report(features, outputs, sample, seed=seed + 1 + k)
            for k, label in enumerate(slices)
        },
        "evolution": history,
        "about": {"model": "Model: made up\n dense (Dense)", "leaks": "no leaks"},
    }
    return SensitivityReport(**{**report, **fields})
