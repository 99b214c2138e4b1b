"""How the measures of a sensitivity report change from one measurement to the next."""

import dataclasses
from typing import NamedTuple

import numpy as np

from keras_fwd.sensitivity._statistics.estimates import Estimate, Evolution

MEASURES = "mean", "standardized_rms"


class Moments:
    """Collects measurements; each stands where in the epochs it was taken.

    Within an epoch the number of batches done is known, and only at its end the number of all.
    """

    def __init__(self):
        self._placed = []
        self._waiting = []
        self._begun = False

    def add(self, report, epoch, batches=None):
        """A report after so many whole epochs and, if given, so many batches of the next."""
        measures = {name: report.measures[name] for name in MEASURES}
        moment = _Moment(epoch, report.examples, measures)
        if batches is None:
            self._placed.append(moment)
        else:
            self._waiting.append((moment, batches))

    def begin_epoch(self, epoch):
        """A training that goes on from an earlier one starts where that has ended."""
        if not self._begun:
            self._placed = [moment._replace(epoch=epoch) for moment in self._placed]
        self._begun = True

    def end_epoch(self, batches):
        """An epoch is over that had so many batches."""
        for moment, done in self._waiting:
            self._placed.append(moment._replace(epoch=moment.epoch + done / batches))
        self._waiting = []

    def evolution(self):
        """All that is placed, as an `Evolution`."""
        moments = self._placed
        fields = [field.name for field in dataclasses.fields(Estimate)]
        measures = {}
        for name in MEASURES:
            estimates = [moment.measures[name] for moment in moments]
            measures[name] = Estimate(
                *(np.stack([getattr(e, f) for e in estimates]) for f in fields)
            )
        epochs = np.array([moment.epoch for moment in moments])
        return Evolution(epochs, np.array([moment.examples for moment in moments]), measures)


class _Moment(NamedTuple):
    epoch: float
    examples: int
    measures: dict[str, Estimate]
