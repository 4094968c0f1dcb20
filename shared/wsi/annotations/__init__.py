"""Annotation files of whole slides: the outlines that people drew, (x, y) in level-0 pixels."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
