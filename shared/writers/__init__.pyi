from .atomic import atomic_path as atomic_path, contended_path as contended_path
from .geojson import TUMOUR_CLASS as TUMOUR_CLASS, annotation_feature as annotation_feature, write_geojson as write_geojson
from .geoparquet import write_geoparquet as write_geoparquet
from .legend import Legend as Legend
from .ome_tiff import (
    reduced_strips as reduced_strips,
    write_ome_tiff as write_ome_tiff,
    write_ome_tiff_channels as write_ome_tiff_channels,
)
from .ome_zarr import write_ome_zarr as write_ome_zarr
from .overlay import (
    PROBABILITY_COLOURS as PROBABILITY_COLOURS,
    class_overlay_image as class_overlay_image,
    overlay_image as overlay_image,
    write_overlay as write_overlay,
)
from .palette import TUMOUR_COLOUR as TUMOUR_COLOUR, class_colour as class_colour
from .storage import (
    StorageError as StorageError,
    check_inputs_stay as check_inputs_stay,
    check_writable as check_writable,
    storage_error as storage_error,
)
from .table import read_rows as read_rows, write_rows as write_rows
from .volume import write_volume as write_volume
from .wsinfer_table import tile_table as tile_table
