"""Learning without gradient steps: boosted trees on bags of instances."""

from .mil_boost import MILBoost

__all__ = ["MILBoost"]
