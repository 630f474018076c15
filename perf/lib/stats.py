"""Median and quartiles."""

import statistics
from dataclasses import dataclass


@dataclass(frozen=True)
class Quartiles:
    """A sample's lower quartile, median and upper quartile, and how many values it had."""

    low: float
    median: float
    high: float
    count: int


def quartiles(values):
    """Quartiles of the values that are there (None is none); None if there are none."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    if len(known) == 1:
        return Quartiles(known[0], known[0], known[0], 1)
    low, median, high = statistics.quantiles(known, n=4, method="inclusive")
    return Quartiles(low, median, high, len(known))
