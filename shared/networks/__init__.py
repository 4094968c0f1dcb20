"""One file per network. Every network takes raw RGB pixel values, 0 to 255, and returns logits; `SideOutputVGG` probabilities."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
