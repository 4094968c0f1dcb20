"""Features of slides and images, computed once and stored: the files, and the data sets that training reads them by."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
