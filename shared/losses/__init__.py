"""One file a loss family. Losses take logits and compute in float32 (or float64), also under autocast."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
