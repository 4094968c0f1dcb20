"""The libraries that read slides and pictures, in the order in which a file is offered to them."""

from __future__ import annotations

from .cucim import CucimReader
from .openslide import OpenSlideReader
from .pillow import PillowReader
from .reader import Reader

READERS: tuple[type[Reader], ...] = (CucimReader, OpenSlideReader, PillowReader)
