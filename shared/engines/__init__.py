"""Training stages that survive an interruption, and CAMEL's label enrichment between them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
