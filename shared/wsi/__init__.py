"""Reading slides, tiles and masks. Points are (x, y) in level-0 pixels, sizes (width, height), arrays (H, W)."""

from .mask_region import read_mask_region
from .slide import Slide
from .slide_pool import SlidePool, open_slide
from .tissue import tissue_mask

__all__ = ["Slide", "SlidePool", "open_slide", "read_mask_region", "tissue_mask"]
