"""What a run leaves behind, one format a file; everything is written under a temporary name and then renamed."""

from .atomic import atomic_path, contended_path
from .geojson import tumour_feature, write_geojson
from .ome_tiff import RowSource, reduced_strips, write_ome_tiff
from .overlay import overlay_image, write_overlay
from .table import read_rows, write_row

__all__ = [
    "RowSource",
    "atomic_path",
    "contended_path",
    "overlay_image",
    "read_rows",
    "reduced_strips",
    "tumour_feature",
    "write_geojson",
    "write_ome_tiff",
    "write_overlay",
    "write_row",
]
