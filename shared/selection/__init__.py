"""Selection of the instances that represent a bag: pure functions of logits and labels."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
