from .class_evaluation import ClassEvaluation as ClassEvaluation
from .lattice_evaluation import LatticeEvaluation as LatticeEvaluation
from .map_evaluation import MapEvaluation as MapEvaluation
from .maps.feature_maps import FeatureMaps as FeatureMaps
from .maps.split_maps import SplitMaps as SplitMaps
from .patch_evaluation import PatchCamelyonEvaluation as PatchCamelyonEvaluation
from .region_evaluation import RegionEvaluation as RegionEvaluation
from .segmenters import InstanceMap as InstanceMap, ProbabilityMaps as ProbabilityMaps, ScoredMaps as ScoredMaps
from .slide_scores import SlideScores as SlideScores
