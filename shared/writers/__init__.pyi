from .atomic import atomic_path as atomic_path, contended_path as contended_path
from .geojson import (
    TUMOUR_CLASS as TUMOUR_CLASS,
    annotation_feature as annotation_feature,
    write_geojson as write_geojson,
)
from .legend import Legend as Legend
from .ome_tiff import (
    RowSource as RowSource,
    reduced_strips as reduced_strips,
    write_ome_tiff as write_ome_tiff,
    write_ome_tiff_channels as write_ome_tiff_channels,
)
from .overlay import (
    PROBABILITY_COLOURS as PROBABILITY_COLOURS,
    class_overlay_image as class_overlay_image,
    overlay_image as overlay_image,
    write_overlay as write_overlay,
)
from .palette import TUMOUR_COLOUR as TUMOUR_COLOUR, Colour as Colour, class_colour as class_colour
from .storage import (
    StorageError as StorageError,
    check_writable as check_writable,
    storage_error as storage_error,
    storage_errors as storage_errors,
)
from .table import read_rows as read_rows, write_rows as write_rows
from .volume import VOLUME_SUFFIXES as VOLUME_SUFFIXES, check_volume_format as check_volume_format, write_volume as write_volume
from .wsinfer_table import TileTable as TileTable, column_name as column_name, tile_table as tile_table
