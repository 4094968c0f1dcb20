"""Training stages that survive an interruption, CAMEL's label enrichment between them, and the evaluations behind them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
