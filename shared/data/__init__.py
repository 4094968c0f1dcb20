"""From a manifest to batches: records, splits, regions, lattices, super-pixels, areas, augmentation, enriched labels."""

from .areas import fill_areas
from .augmentation import normalized_and_augmented, training_augmentation
from .bach import bach_photos, bach_slides
from .bach_annotations import BACH_CLASSES
from .centred_patches import SIZE_MEASURES, CentredPatch, centred_patches, num_centres
from .class_counts import class_counts, trained_with_labels
from .instance_labels import (
    attach_instance_labels,
    decode_instances,
    encode_instances,
    load_picks,
    write_instance_labels,
    write_picks,
)
from .lattice import (
    check_cascade,
    check_lattice,
    gather_instances,
    instance_labels_of_masks,
    instance_region,
    paint_instances,
    split_into_instances,
)
from .loaders import EvenBatchSampler, PairedLoader, RegionLoader
from .manifest import load_manifest, write_manifest
from .patch_camelyon import PatchCamelyonDataset
from .regions import RegionDataset, check_images, pixel_target, read_image, record_error
from .slide_bags import SlideBagDataset, check_slides, pixel_statistics
from .slide_patches import slide_patches
from .slide_regions import slide_regions
from .splits import assign_folds, assign_splits, take_share
from .stain_augmentation import RandomStainJitterd, scale_stains
from .stain_normalization import NormalizeStains, NormalizeStainsd, StainNormalization, StainReference
from .superpixels import Superpixels
from .supervision import choose_supervision
from .tcga import tcga_records
from .tile_augmentation import TileAugmentation
from .tissue_cache import TissueCache

__all__ = [
    "BACH_CLASSES",
    "SIZE_MEASURES",
    "CentredPatch",
    "EvenBatchSampler",
    "NormalizeStains",
    "NormalizeStainsd",
    "PairedLoader",
    "PatchCamelyonDataset",
    "RandomStainJitterd",
    "RegionDataset",
    "RegionLoader",
    "SlideBagDataset",
    "StainNormalization",
    "StainReference",
    "Superpixels",
    "TileAugmentation",
    "TissueCache",
    "assign_folds",
    "assign_splits",
    "attach_instance_labels",
    "bach_photos",
    "bach_slides",
    "centred_patches",
    "check_cascade",
    "check_images",
    "check_lattice",
    "check_slides",
    "choose_supervision",
    "class_counts",
    "decode_instances",
    "encode_instances",
    "fill_areas",
    "gather_instances",
    "instance_labels_of_masks",
    "instance_region",
    "load_manifest",
    "load_picks",
    "normalized_and_augmented",
    "num_centres",
    "paint_instances",
    "pixel_statistics",
    "pixel_target",
    "read_image",
    "record_error",
    "scale_stains",
    "slide_patches",
    "slide_regions",
    "split_into_instances",
    "take_share",
    "tcga_records",
    "trained_with_labels",
    "training_augmentation",
    "write_instance_labels",
    "write_manifest",
    "write_picks",
]
