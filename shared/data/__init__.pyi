from .bag_dataset import SlideBagDataset as SlideBagDataset, check_slides as check_slides, pixel_statistics as pixel_statistics
from .image_dataset import (
    RegionDataset as RegionDataset,
    check_images as check_images,
    read_image as read_image,
)
from .labels.areas import fill_areas as fill_areas
from .labels.class_counts import class_counts as class_counts, trained_with_labels as trained_with_labels
from .labels.enriched_labels import (
    attach_instance_labels as attach_instance_labels,
    decode_instances as decode_instances,
    encode_instances as encode_instances,
    load_picks as load_picks,
    write_instance_labels as write_instance_labels,
    write_picks as write_picks,
)
from .labels.lattice import (
    check_cascade as check_cascade,
    check_lattice as check_lattice,
    gather_instances as gather_instances,
    instance_labels_of_masks as instance_labels_of_masks,
    instance_region as instance_region,
    paint_instances as paint_instances,
    split_into_instances as split_into_instances,
)
from .labels.pixel_targets import pixel_target as pixel_target
from .labels.supervision import choose_supervision as choose_supervision
from .loaders import EvenBatchSampler as EvenBatchSampler, PairedLoader as PairedLoader, RegionLoader as RegionLoader
from .manifest import load_manifest as load_manifest, write_manifest as write_manifest
from .patches.centred_patches import (
    SIZE_MEASURES as SIZE_MEASURES,
    centred_patches as centred_patches,
    num_centres as num_centres,
)
from .patches.lesion_patches import slide_patches as slide_patches
from .patches.tissue_regions import slide_regions as slide_regions
from .pixel_cache import PixelCache as PixelCache
from .public.bach import bach_photos as bach_photos, bach_slides as bach_slides
from .public.bach_annotations import BACH_CLASSES as BACH_CLASSES
from .public.patch_camelyon import PatchCamelyonDataset as PatchCamelyonDataset
from .record import label_of as label_of, record_error as record_error
from .record_masks import columns_for as columns_for
from .splits import (
    assign_folds as assign_folds,
    assign_splits as assign_splits,
    take_number as take_number,
    take_share as take_share,
)
from .tissue_cache import TissueCache as TissueCache
from .transforms.batch_augmentation import TileAugmentation as TileAugmentation
from .transforms.colour_statistics import (
    check_pixel_normalization as check_pixel_normalization,
    colour_statistics as colour_statistics,
)
from .transforms.geometric import (
    normalized_and_augmented as normalized_and_augmented,
    stain_reference_of_maps as stain_reference_of_maps,
    training_augmentation as training_augmentation,
)
from .transforms.stain_jitter import RandomStainJitterd as RandomStainJitterd, scale_stains as scale_stains
from .transforms.stain_normalization import (
    NormalizeStains as NormalizeStains,
    NormalizeStainsd as NormalizeStainsd,
    StainNormalization as StainNormalization,
    StainReference as StainReference,
)
from .transforms.superpixels import Superpixels as Superpixels
