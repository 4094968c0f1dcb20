"""Slide -> probability map, streaming: memory does not depend on the slide's size."""

from .inputs import ImageInput, find_images
from .map_grid import MapGrid
from .polygons import Region, tumour_regions
from .probability_map import ProbabilityMap
from .slide_mapper import InferenceFailures, SlideMapper

__all__ = [
    "ImageInput",
    "InferenceFailures",
    "MapGrid",
    "ProbabilityMap",
    "Region",
    "SlideMapper",
    "find_images",
    "tumour_regions",
]
