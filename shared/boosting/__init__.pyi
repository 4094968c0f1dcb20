from .mil_boost import MILBoost as MILBoost
