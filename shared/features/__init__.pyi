from .feature_writer import CellFrame as CellFrame, SlideFeatureWriter as SlideFeatureWriter
from .slide_features import SlideFeatures as SlideFeatures
from .stamp import link_for_stamp as link_for_stamp
