"""What the laws are checked on: how much hypothesis draws, and of what.

`make faults` draws 100 for each law, others each time; every run draws the same ten.
"""

import functools

import numpy as np
import tensorflow as tf
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from faults import random_spaces as spaces
from faults.random_spaces import SmoothFunction, sample
from faults.sizes import ALL

# Each example traces a function, which takes a tenth of a second or more: few, and always the same.
law = settings(
    max_examples=100 if ALL else 10,
    derandomize=not ALL,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
graph = functools.partial(tf.function, autograph=False)
seeds = st.integers(0, 1 << 16)
modes = st.sampled_from([lambda f: f, graph])
problems = st.builds(SmoothFunction, spaces.spaces(), spaces.spaces(), seeds)
WIDE = ("float64",)
wide_problems = st.builds(SmoothFunction, spaces.spaces(WIDE), spaces.spaces(WIDE), seeds)


def points(problem):
    """Primals, tangents and cotangents of a problem."""
    random = np.random.default_rng(problem.seed + 1)
    return (
        sample(problem.source, random),
        sample(problem.source, random, tangents=True),
        sample(problem.target, random, tangents=True),
    )


def limit(problem):
    return spaces.tolerance(problem.source, problem.target)


def nothing_known(problem):
    """Whether no input component reaches an output, so that either side is empty."""
    return 0 in problem.W.shape
