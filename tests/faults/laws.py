"""What the laws are checked on: how much hypothesis draws, and of what.

A hundred for each law, the same each time; of a share ten, which depend on the commit.
"""

import functools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from support import records

from faults import random_spaces as spaces
from faults.random_spaces import SmoothFunction, sample

EXAMPLES = 100
DRAWN_FROM = records.drawn_from("laws")


def law(test):
    """The settings of a law: each example traces a function, so there are not many."""
    if DRAWN_FROM:
        test = seed(int(DRAWN_FROM, 16) if DRAWN_FROM.isalnum() else 0)(test)
    test = settings(
        max_examples=EXAMPLES // records.SUITES["laws"].one_in if DRAWN_FROM else EXAMPLES,
        derandomize=not DRAWN_FROM,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )(test)
    return pytest.mark.recorded("laws")(test)


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
