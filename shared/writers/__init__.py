"""The output formats of a run, one per module; every file is written under a temporary name and then renamed."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
