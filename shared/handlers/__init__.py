"""Ignite handlers of the training stages: tracking with MLflow, progress, and the list that every stage carries."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
