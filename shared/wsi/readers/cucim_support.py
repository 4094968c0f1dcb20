"""May cuCIM be imported here, and may it be given this file? Answered without importing it."""

from __future__ import annotations

import functools
import importlib.util
import re
import warnings
from pathlib import Path

from ..tiff.layout import TiffLayout, TiffPageLayout

# What cuCIM 26.10 decodes to the file's own pixels. Other compressions fail in read_region or come back through a
# slow RGBA path; deflate with a predictor ends the process with a segmentation fault.
_DECODED_COMPRESSIONS = {1: "none", 5: "LZW", 7: "JPEG", 8: "deflate", 32946: "deflate", 33003: "JP2K", 33005: "JP2K"}
_LZW = 5
# OpenSlide's names for layouts of plain, adjoining tiles. Ventana and Trestle overlap theirs, Leica keeps several
# areas in one file, Philips pads its levels: cuCIM would read each of them as if it did not.
PLAIN_TILE_VENDORS = ("aperio", "generic-tiff", None)


def torch_cuda_version() -> str | None:
    """CUDA version that the installed torch was built for, or None for a CPU build or no torch.

    Read from torch's own ``version.py``: importing torch for it takes seconds, and the wheel's version number does
    not tell (the default wheel of PyPI is a CUDA build without a ``+cu`` suffix).
    """
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    version_file = Path(spec.origin).with_name("version.py")
    if not version_file.is_file():
        return None
    found = re.search(r"^cuda\b[^=\n]*=\s*['\"]([\d.]+)['\"]", version_file.read_text(), flags=re.MULTILINE)
    return found.group(1) if found else None


def cucim_host_problem(proc_modules: Path = Path("/proc/modules")) -> str | None:
    """Why cuCIM cannot run on this machine, or None if it can."""
    if importlib.util.find_spec("cucim") is None:
        return "cuCIM is not installed"
    if not proc_modules.exists() and torch_cuda_version() is not None:
        return f"with a CUDA build of torch, `import cucim` never returns on a host without {proc_modules}"
    return None


@functools.lru_cache(maxsize=1)
def usable_cucim_problem() -> str | None:
    """`cucim_host_problem` with a trial import; asked once a process, and warned about once."""
    problem = cucim_host_problem()
    if problem is None:
        try:
            import cucim  # noqa: F401
        except Exception as error:  # a broken CUDA installation raises anything from OSError to RuntimeError
            problem = f"cuCIM cannot be imported ({error})"
    if problem is not None:
        warnings.warn(f"slides are read with OpenSlide: {problem}", RuntimeWarning, stacklevel=2)
    return problem


def cucim_file_problem(layout: TiffLayout | None, vendor: str | None) -> str | None:
    """Why cuCIM should not read a file, or None if it may.

    Args:
        layout: of the TIFF, None for a file that is no TIFF.
        vendor: as OpenSlide calls the format, None where OpenSlide does not know it.
    """
    if layout is None:
        return "cuCIM reads TIFF files only"
    if vendor not in PLAIN_TILE_VENDORS:
        return f"cuCIM does not know the tile layout of {vendor} files"
    return _page_problem(layout.pages[0])


def _page_problem(page: TiffPageLayout) -> str | None:
    if not page.is_tiled:
        return "the TIFF is not tiled"
    if not page.is_uint8_rgb:
        return "the TIFF is not 8-bit RGB with interleaved samples"
    if page.compression not in _DECODED_COMPRESSIONS:
        return f"cuCIM does not decode TIFF compression {page.compression}"
    if page.predictor != 1 and page.compression != _LZW:
        return "cuCIM crashes on this compression with a predictor"
    return None
