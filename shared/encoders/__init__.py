"""Networks that turn images into features: RGB values 0 to 255 in, a map of features out."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
