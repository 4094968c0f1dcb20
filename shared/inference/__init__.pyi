from .arrays.array_map import map_array as map_array
from .bundle_mapper import load_slide_mapper as load_slide_mapper
from .cohort.cohort import InferenceFailures as InferenceFailures, run_cohort as run_cohort
from .cohort.single_slide import map_one as map_one
from .inputs import ImageInput as ImageInput, find_images as find_images
from .mapper_options import Compute as Compute, Outputs as Outputs, Tiles as Tiles, Tissue as Tissue
from .outputs.polygons import tumour_regions as tumour_regions
from .outputs.probability_map import ProbabilityMap as ProbabilityMap
from .slide_embedder import SlideEmbedder as SlideEmbedder
from .slide_mapper import SlideMapper as SlideMapper
from .stored_slides import own_features as own_features
from .tiles.map_grid import MapGrid as MapGrid
