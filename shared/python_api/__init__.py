"""Trained networks, maps and trainings from Python: `load_network`, `map_slide` and `train`.

Installed, this is the package `weakhisto`. A bundle brings the code that it runs, so this room imports none of the others: it
finds them in the bundle that it is given.
"""

from .network import Network, load_network
from .slide_map import SlideMap, map_slide
from .training import Training, train

__all__ = ["Network", "SlideMap", "Training", "load_network", "map_slide", "train"]
