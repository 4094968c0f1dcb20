"""Generated H&E-like images and slides with known truth: the embedded default data of every bundle."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
