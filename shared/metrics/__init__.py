"""One file a metric family."""

from .binary import SCORES, PooledBinaryScores, binary_counts, binary_scores

__all__ = ["SCORES", "PooledBinaryScores", "binary_counts", "binary_scores"]
