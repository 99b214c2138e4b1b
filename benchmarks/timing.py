"""How the sides of a benchmark are timed: by turns, in one process."""

import statistics
import time

import tensorflow as tf


def waiting(function, *arguments):
    """A call of a function that ends when its results are there."""

    def call():
        tf.nest.map_structure(lambda value: value.numpy(), function(*arguments))

    return call


def by_turns(sides, rounds, warm=1, settle=False):
    """Seconds of each call, a list for each name; the sides take turns.

    Args:
        sides: Names and functions without arguments.
        rounds: How often each is timed.
        warm: Rounds before those, which trace.
        settle: Whether each runs once before it is timed: what ran before must not cost a short
            one its caches.
    """
    times = {name: [] for name in sides}
    for turn in range(warm + rounds):
        for name, call in sides.items():
            if settle:
                call()
            start = time.perf_counter()
            call()
            if turn >= warm:
                times[name].append(time.perf_counter() - start)
    return times


def medians(sides, rounds, **options):
    """The median of each side's seconds; see `by_turns`."""
    found = by_turns(sides, rounds, **options)
    return {name: statistics.median(seconds) for name, seconds in found.items()}
