from .encoder import Encoder as Encoder, EncoderFacts as EncoderFacts, FeatureOptions as FeatureOptions
from .factory import load_encoder as load_encoder
