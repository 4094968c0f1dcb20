"""Slide -> probability map, streaming: memory does not depend on the slide's size."""

from .cohort import InferenceFailures, run_cohort
from .inputs import ImageInput, find_images
from .map_grid import MapGrid
from .polygons import Region, tumour_regions
from .probability_map import ProbabilityMap
from .slide_mapper import SlideMapper

__all__ = [
    "ImageInput",
    "InferenceFailures",
    "MapGrid",
    "ProbabilityMap",
    "Region",
    "SlideMapper",
    "find_images",
    "run_cohort",
    "tumour_regions",
]
