"""Scores of trained networks and of finished maps, and the reports on them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
