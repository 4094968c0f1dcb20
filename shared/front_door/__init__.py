"""Where a run begins: what its user gave is checked before anything is computed or written, and errors are told in one line."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
