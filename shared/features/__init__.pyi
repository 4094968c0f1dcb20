from .bags import FeatureBagDataset as FeatureBagDataset
from .copies import Copies as Copies
from .feature_writer import CellFrame as CellFrame, SlideFeatureWriter as SlideFeatureWriter
from .foreign import foreign_patches as foreign_patches
from .images import EmbeddedImages as EmbeddedImages
from .instances import EmbeddedInstances as EmbeddedInstances
from .slide_features import SlideFeatures as SlideFeatures
from .stamp import link_for_stamp as link_for_stamp
