"""What a run leaves behind, one format a file; everything is written under a temporary name and then renamed."""

from .atomic import atomic_path, contended_path
from .geojson import TUMOUR_CLASS, annotation_feature, tumour_feature, write_geojson
from .legend import Legend
from .ome_tiff import RowSource, reduced_strips, write_ome_tiff, write_ome_tiff_channels
from .overlay import PROBABILITY_COLOURS, class_overlay_image, overlay_image, write_overlay
from .palette import TUMOUR_COLOUR, Colour, class_colour
from .storage import StorageError, check_writable, storage_error, storage_errors
from .table import read_rows, write_row, write_rows
from .tile_table import TileTable, column_name, tile_table
from .volume import VOLUME_SUFFIXES, check_volume_format, write_volume

__all__ = [
    "PROBABILITY_COLOURS",
    "TUMOUR_CLASS",
    "TUMOUR_COLOUR",
    "VOLUME_SUFFIXES",
    "Colour",
    "Legend",
    "RowSource",
    "StorageError",
    "TileTable",
    "annotation_feature",
    "atomic_path",
    "check_volume_format",
    "check_writable",
    "class_colour",
    "class_overlay_image",
    "column_name",
    "contended_path",
    "overlay_image",
    "read_rows",
    "reduced_strips",
    "storage_error",
    "storage_errors",
    "tile_table",
    "tumour_feature",
    "write_geojson",
    "write_ome_tiff",
    "write_ome_tiff_channels",
    "write_overlay",
    "write_row",
    "write_rows",
    "write_volume",
]
