"""Slide -> probability map, streaming: memory does not depend on the slide's size."""

from .map_grid import MapGrid
from .inputs import ImageInput, find_images
from .polygons import Region, tumour_regions
from .probability_map import ProbabilityMap
from .slide_mapper import InferenceFailures, SlideMapper

__all__ = [
    "ImageInput",
    "InferenceFailures",
    "ProbabilityMap",
    "Region",
    "SlideMapper",
    "MapGrid",
    "find_images",
    "tumour_regions",
]
