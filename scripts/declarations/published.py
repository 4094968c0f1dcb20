"""What the papers report, each number with its data set: shown where the data compared on are that data set's.

Shares of 1. Only numbers that stand in the papers' text and tables as such; where a paper's table is of another protocol the
``note`` says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class PublishedData:
    """A paper's results on one data set.

    Attributes:
        title: of the data set.
        citation: of the paper.
        scores: method, as on the command line -> score -> value.
        note: on how they were measured.
        overlay: of the bundles, that is these data's numbers.
    """

    title: str
    citation: str
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    note: str = ""
    overlay: str = ""

    def of(self, key: str) -> dict[str, float]:
        """The scores of a method, as on the command line, with the data set's own overlay or without; none where none are."""
        bundle, *overlays = key.split("+")
        return self.scores.get("+".join([bundle, *(name for name in overlays if name != self.overlay)]), {})


def _camel_row(sensitivity: float, specificity: float, accuracy: float, f1: float, iou: float) -> dict[str, float]:
    values = {"sensitivity": sensitivity, "specificity": specificity, "accuracy": accuracy, "f1": f1, "iou": iou}
    return {name: round(value / 100, 4) for name, value in values.items()}


_CAMEL_320 = _camel_row(94.7, 93.8, 94.1, 91.5, 84.3)
_PIXEL_FSB, _IMAGE_FSB = _camel_row(87.9, 99.1, 95.3, 92.6, 86.3), _camel_row(89.2, 88.7, 88.9, 84.4, 72.9)

PUBLISHED = {
    "camelyon16": PublishedData(
        title="CAMELYON16, patches of 1280 px at 20x",
        citation="Xu et al., CAMEL, ICCV 2019, table 3 (DeepLabv2; U-Net where named; comparators with ResNet-50)",
        scores={
            "camel": _CAMEL_320,
            "camel+n8": _camel_row(92.7, 95.7, 94.7, 92.1, 85.4),
            "camel+unet": _camel_row(94.7, 94.0, 94.2, 91.7, 84.7),
            "camel+n8+unet": _camel_row(94.7, 94.1, 94.3, 91.8, 84.8),
            "camel+pixel_fsb": _PIXEL_FSB,
            "camel+image_fsb": _IMAGE_FSB,
            "fully_supervised": _PIXEL_FSB,
            "fully_supervised+unet": _camel_row(87.8, 98.2, 94.7, 91.8, 84.8),
            "fully_supervised+image_fsb+unet": _camel_row(95.5, 82.1, 86.6, 82.8, 70.6),
            "fully_supervised+image_fsb": _IMAGE_FSB,
            "wildcat": _camel_row(69.6, 93.8, 85.7, 76.6, 62.0),
            "cdws_mil+dws": _camel_row(86.0, 93.4, 90.9, 86.4, 76.0),
            "cdws_mil": _camel_row(87.2, 93.8, 91.5, 87.4, 77.6),
        },
        overlay="camelyon16",
    ),
    "adenoma": PublishedData(
        title="Colorectal adenoma, patches of 1280 px at 20x",
        citation="Xu et al., CAMEL, ICCV 2019, table 4 (recall as sensitivity)",
        scores={
            "fully_supervised": {"sensitivity": 0.861, "f1": 0.875},
            "camel+n8": {"sensitivity": 0.897, "f1": 0.873},
            "camel": {"sensitivity": 0.954, "f1": 0.861},
        },
        overlay="adenoma",
    ),
    "dataset_a": PublishedData(
        title="Dataset A (colon, Jia et al.)",
        citation="Jia et al., IEEE TMI 2017, section V and table II",
        scores={
            "cdws_mil": {"region_f": 0.835, "ods": 0.559},
            "cdws_mil+baseline": {"region_f": 0.778, "ods": 0.345},
        },
        overlay="dataset_a",
    ),
    "tcga": PublishedData(
        title="TCGA frozen sections, hold-out slides of the training's locations",
        citation="Lerousseau et al., MICCAI 2020, table 1 (alpha 0.2, beta 0.2)",
        scores={"alpha_beta_mil": {"auc_tissue": 0.804, "auc_all": 0.952}},
        overlay="tcga",
    ),
    "bach": PublishedData(
        title="BACH whole slides, 5 % of the masks",
        citation="Ciga and Martel, Learning to segment images with classification labels",
        scores={"joint_seg_cls": {"bach_score": 0.491}},
        overlay="bach",
        note="Recomputed from the results released with the code, in which epochs were chosen on the evaluation slides.",
    ),
}
