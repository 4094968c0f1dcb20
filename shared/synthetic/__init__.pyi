from .breast import (
    BREAST_MPP as BREAST_MPP,
    synthesize_breast_patch as synthesize_breast_patch,
    synthesize_breast_slide as synthesize_breast_slide,
)
from .breast_demo import BreastPlan as BreastPlan, BreastSlidePlan as BreastSlidePlan
from .demo import (
    DemoPlan as DemoPlan,
    SlidePlan as SlidePlan,
    demo_manifest as demo_manifest,
    rough_area as rough_area,
    write_demo as write_demo,
)
from .image import MPP as MPP, synthesize_image as synthesize_image
from .lesions import CLASS_NAMES as CLASS_NAMES
from .slide import synthesize_slide as synthesize_slide, write_slide as write_slide
from .stain import (
    EOSIN as EOSIN,
    HAEMATOXYLIN as HAEMATOXYLIN,
    Stain as Stain,
    sample_stain as sample_stain,
    stain_to_rgb as stain_to_rgb,
)
from .tissue import sample_tumour_share as sample_tumour_share
