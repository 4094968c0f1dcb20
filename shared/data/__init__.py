"""From a manifest to batches: records, splits, regions, lattices, super-pixels, areas, augmentation, enriched labels."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
