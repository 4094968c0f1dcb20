"""Reading slides, tiles and masks. Points are (x, y) in level-0 pixels, sizes (width, height), arrays (H, W)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
