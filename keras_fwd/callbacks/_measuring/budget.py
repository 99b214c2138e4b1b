"""How many examples a measurement may use so that it keeps below a share of the training time."""

import collections
import statistics
import time

SMALLEST = 32  # examples of the smallest measurement
GROWTH = 4  # a measurement uses at most so many times the examples of the one before
SAFETY = 0.8  # share of the allowance that a prediction may fill
MEMORY = 5  # timings that a prediction is made from
PATIENCE = 1.0  # seconds before training after which the smallest measurement is timed only once


class Budget:
    """Chooses the number of examples from what training and earlier measurements took.

    Training time earns an allowance, `share` of it, which a measurement may spend. Its time is
    predicted as that of the smallest one, the shortest of the last, plus so much for each further
    example, the median of the last: one interruption by something else is outvoted. An allowance
    that was not needed is forgotten, one that was too small for any measurement is kept for the
    next; where that is the rule, it is kept until it pays for twice the smallest, because the first
    examples are then dear and further ones cheap. What a measurement took above its allowance is
    taken from the next one, but no more than all of that.

    Args:
        share: Of the training time without the measurements, above 0.
        examples: How many there are.
        clock: Seconds as a function without arguments.

    Attributes:
        used: The number of examples of each measurement.
        skipped: How many measurements were left out.
    """

    def __init__(self, share, examples, clock=time.perf_counter):
        self.used = []
        self.skipped = 0
        self._share = share
        self._clock = clock
        self._sizes = sizes(examples)
        self._smallest = collections.deque(maxlen=MEMORY)  # seconds
        self._slopes = collections.deque(maxlen=MEMORY)  # seconds per further example
        self._balance = self._earned = 0.0  # seconds; all, and since the last question
        self._trained = self._spent = 0.0
        self._since = self._granted = None
        self._last = self._sizes[0]

    def calibrate(self, measure):
        """Time the two smallest measurements, before training; `measure` takes a number."""

        def timed(size):
            start = self._clock()
            measure(size)
            return self._clock() - start

        # The first call prepares much that later ones find prepared: it is no timing.
        quick = timed(self._sizes[0]) < PATIENCE
        for size in (self._sizes[0], *self._sizes[:2]) if quick else self._sizes[:1]:
            self._learn(size, timed(size))
            self._last = size

    def resume(self):
        """Training goes on."""
        self._since = self._clock()

    def pause(self):
        """Training has paused."""
        if self._since is not None:
            seconds = self._clock() - self._since
            self._trained += seconds
            self._earned = self._share * seconds
            self._balance += self._earned
            self._since = None

    def grant(self):
        """The number of examples of the next measurement, which begins now; 0 for none."""
        allowance, need = SAFETY * self._balance, self.predicted(self._sizes[0])
        if need > SAFETY * self._earned:
            need *= 2
        if allowance < need or allowance <= 0:
            self.skipped += 1
            return 0
        count = self.within(allowance, GROWTH * self._last)
        self._granted = self._clock()
        return count

    def charge(self, count):
        """The measurement that was granted is over."""
        seconds = self._clock() - self._granted
        self._learn(count, seconds)
        self._spent += seconds
        self._last = count
        self.used.append(count)
        self._balance = max(min(0.0, self._balance - seconds), -self._earned)

    def predicted(self, count):
        """Seconds that a measurement with that many examples takes."""
        return min(self._smallest, default=0.0) + self._slope() * (count - self._sizes[0])

    def within(self, seconds, most=float("inf")):
        """The largest number of examples whose time is predicted to fit; at least the smallest."""
        fit = [size for size in self._sizes if size <= most and self.predicted(size) <= seconds]
        return fit[-1] if fit else self._sizes[0]

    def summary(self):
        """What the bound has changed, in words; empty if nothing."""
        least, most, all_of = min(self.used, default=0), max(self.used, default=0), self._sizes[-1]
        if least == all_of and not self.skipped:
            return ""
        counts = f"{least}" if least == most else f"{least} to {most}"
        text = f"{counts} of {all_of} examples in each of {len(self.used)} measurements"
        if self.skipped:
            text += f", {self.skipped} left out"
        share = self._spent / self._trained if self._trained else 0.0
        return f"{text}; they took {share:.1%} of the time of training"

    def _learn(self, count, seconds):
        first = self._sizes[0]
        known = min(self._smallest, default=seconds)
        if count == first:
            self._smallest.append(seconds)
        elif seconds >= known:
            self._slopes.append((seconds - known) / (count - first))
        else:  # fewer would have taken less than is known, at least their part
            rest = seconds - self._slope() * (count - first)
            self._smallest.append(max(rest, seconds * first / count))

    def _slope(self):
        return statistics.median_low(self._slopes) if self._slopes else 0.0


def sizes(examples):
    """Numbers of examples to choose from, each twice the one before: few, so that they recur."""
    found = [min(SMALLEST, examples)]
    while found[-1] < examples:
        found.append(min(2 * found[-1], examples))
    return found
