"""Which instances of a bag speak for it: pure functions of logits and labels."""

from .alpha_beta import alpha_beta_labels, check_shares, number_of
from .criteria import CRITERIA, Criterion, criterion, max_max, max_min

__all__ = ["CRITERIA", "Criterion", "alpha_beta_labels", "check_shares", "criterion", "max_max", "max_min", "number_of"]
