"""Which instances of a bag speak for it."""

from .criteria import CRITERIA, Criterion, criterion, max_max, max_min

__all__ = ["CRITERIA", "Criterion", "criterion", "max_max", "max_min"]
