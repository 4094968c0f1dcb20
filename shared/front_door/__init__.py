"""Where a run begins: its arguments are checked before anything is computed or written, and errors are reported in one line."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
