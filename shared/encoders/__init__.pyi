from .encoder import Encoder as Encoder, EncoderFacts as EncoderFacts, FeatureOptions as FeatureOptions
from .factory import load_encoder as load_encoder
from .foreign import foreign_encoder as foreign_encoder
from .stored import encoder_of_features as encoder_of_features
