"""How a method is trained on some data: which of its bundle's settings fit them, and which labels it uses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.declarations.supervision import IMAGES, SLIDES
from shared.data import load_manifest
from shared.data.record import Record, has_known_mask, label_of
from shared.wsi.notices import LARGEST_MPP_RATIO

from ..data import TRUTHS, ComparisonData
from .method_records import NotComparable, check_unseen, effort, is_folded, learned_records, selecting_records, trainable
from .methods import Method
from .selection import chosen_by, selection_effort

_NOT_OF_INFERENCE = {
    *("bundle_root", "dataset_dir", "output_dir", "split", "imports", "initialize", "run", "finalize"),
    *("batch_size", "pretrained"),
}

# What published numbers may be of that no key of a training says: the named cases of the training split, sorted, of which its
# keys may take a share, and whether its images are regions that the comparison has cut from whole slides.
FACTS = ("training_cases", "trains_on_regions")


@dataclass(frozen=True)
class Plan:
    """A method on some data.

    Attributes:
        method: the method.
        settings: keys of its training.
        inference: keys of its inference.
        effort: how many ``labels``, ``areas`` and ``masks`` of the training split it learns from.
        mpp: micrometres per pixel at which it reads; None for as they are.
        selection: how many of the records that it validates on it chooses its epoch and threshold by.
        facts: of the training, beside its keys, which published numbers may be of: see `FACTS`.
    """

    method: Method
    settings: dict[str, Any]
    inference: dict[str, Any]
    effort: dict[str, int]
    mpp: float | None = None
    selection: dict[str, int] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


def plan(method: Method, data: ComparisonData, tissue: Path, given: Mapping[str, Any], by_labels_alone: bool = False) -> Plan:
    """The plan for training a method on the data.

    What the user or an overlay gives stays. Else images are read at the pixel size of the bundle - finer, by halves, where they
    would be smaller than the bundle says (`Supervision.least_image_px`), and as they are where it names none - and at their
    full size; class names are those of the data; masks of validation and test images are used where all have one, or an overlay
    says of which (`TRUTHS`).

    Args:
        method: the method.
        data: to train on.
        tissue: folder for the tissue masks of slides.
        given: keys and values of the user.
        by_labels_alone: choose epochs and thresholds without the masks of the validation images.

    Raises:
        NotComparable: if the data lack what it needs, or if it would learn from or choose by what is scored.
        ValueError: if its records cannot be read with these settings.
    """
    if method.kind not in data.manifests:
        wanted = "whole slides, and these are images" if method.kind == SLIDES else f"labels of images: {data.why_no_regions}"
        raise NotComparable(f"needs {wanted}")
    settings: dict[str, Any] = {"manifest": str(data.manifests[method.kind])}
    if data.num_classes != len(method.training.get("class_names", ("normal", "tumour"))) or "class_names" in method.training:
        if "class_names" not in method.training:
            raise NotComparable(f"needs two classes, and these data have {data.num_classes}")
        settings["class_names"] = list(data.class_names)
    if "tissue_dir" in method.training:
        settings["tissue_dir"] = str(tissue)
    if "features_dir" in method.training:
        # Of every method and seed: nothing is embedded twice.
        settings["features_dir"] = str(tissue.with_name("features"))
    if method.overlaid.get("truth") not in TRUTHS and not _has_masks(data, method, given):
        settings["truth"] = None
    settings |= _image_size(method, data, given) | dict(given)
    settings = {name: value for name, value in settings.items() if name.split("::")[0] in method.training}
    columns = chosen_by(method.training, method.parser(settings))
    if by_labels_alone and "mask" in columns:
        settings |= {"truth": None} if "truth" in method.training else {}
        columns = chosen_by(method.training, method.parser(settings))
        if "mask" in columns:
            raise NotComparable("needs masks of validation images to choose its epoch or threshold")
    parser = method.parser(settings)
    _check_labels(method, trainable(data, method, parser), settings)
    check_unseen(data, method, parser)
    learned, selecting = learned_records(method, parser), selecting_records(data, method, parser)
    mpp = parser.get_parsed_content("mpp") if "mpp" in method.training else None
    _check_detail(data, mpp)
    cases = sorted({case for case in (record["case_id"] for record in data.training[method.kind]) if case is not None})
    facts = dict(zip(FACTS, (cases, data.is_slides and method.kind == IMAGES), strict=True))
    return Plan(
        method, settings, _inference_keys(method, settings), effort(learned), mpp, selection_effort(columns, selecting), facts
    )


def _check_detail(data: ComparisonData, mpp: float | None) -> None:
    """Check before any training that all test slides can be mapped at the pixel size of the method."""
    if mpp is None or not data.is_slides:
        return
    coarse = [record for record in data.records if (record["mpp"] or 0.0) > mpp * LARGEST_MPP_RATIO]
    if coarse:
        raise NotComparable(
            f"reads slides at {mpp:g} um per pixel: {len(coarse)} of {len(data.records)} test slides are coarser by more than a "
            f"quarter, such as {Path(coarse[0]['image']).name} ({coarse[0]['mpp']:g} um)"
        )


def _image_size(method: Method, data: ComparisonData, given: Mapping[str, Any]) -> dict[str, Any]:
    """Pixel size and image size of a method of images, unless the user gave them."""
    if method.kind != IMAGES or "image_size_px" not in method.training:
        return {}
    if data.region_size_um is None:
        if _is_named("image_size_px", method, given):
            return {}
        raise NotComparable(f"needs square images of one size, and these are {data.why_not_square}")
    mpp = given.get("mpp", method.training.get("mpp"))
    if isinstance(mpp, str):
        mpp = method.parser(given).get_parsed_content("mpp")
    mpp, side_um = data.image_mpp if mpp is None else mpp, data.region_size_um[0]
    if _is_named("mpp", method, given):
        return {"mpp": mpp, "image_size_px": round(side_um / mpp)}
    while side_um / mpp < method.supervision.least_image_px and mpp / 2 >= data.image_mpp:
        mpp /= 2
    width, multiple = round(side_um / mpp), _image_multiple(method, given)
    if width % multiple:
        # Read slightly coarser or finer, so that images divide into instances and features.
        width = multiple * max(round(width / multiple), 1)
        mpp = side_um / width
    return {"mpp": mpp, "image_size_px": width}


def _is_named(name: str, method: Method, given: Mapping[str, Any]) -> bool:
    """Whether the user or an overlay names the value: an overlay that refers to another entry leaves it to that one."""
    while name not in given and isinstance(value := method.overlaid.get(name), str) and value.startswith("@"):
        name = value.removeprefix("@")
    return name in given or method.overlaid.get(name) is not None


def _image_multiple(method: Method, given: Mapping[str, Any]) -> int:
    """The sides of images, in pixels, are multiples of this, as the check of the training images demands (`check_images`)."""
    checks = method.training.get("checked_images", {})
    names = [name for name in ("instances_per_side", "feature_stride_px") if name in checks]
    parser = method.parser(given)
    return math.prod(parser.get_parsed_content(f"checked_images::{name}") or 1 for name in names)


def _has_masks(data: ComparisonData, method: Method, given: Mapping[str, Any]) -> bool:
    """Whether every image with tumour that validates or tests has a mask; in folds each does that is not of the test split."""
    records = load_manifest(data.manifests[method.kind], require=(), num_classes=data.num_classes)
    others = "test" if is_folded(method, method.parser(given)) else "train"
    return all(has_known_mask(record) for record in records if record["split"] != others)


def _check_labels(method: Method, records: Sequence[Record], settings: Mapping[str, Any]) -> None:
    labels = [record["label"] for record in records]
    missing = labels.count(None)
    if missing:
        raise NotComparable(f"needs label 'label': {missing} of {len(records)} training {method.kind} have none")
    if len({label_of(record) > 0 for record in records}) < 2:
        raise NotComparable(f"needs training {method.kind} with label 0 and with a label above 0")
    tumour = [record for record in records if label_of(record) > 0]
    needed = method.labels(settings)
    without = {
        "area": [record for record in tumour if record["area"] is None and record["mask"] is None],
        "mask": [record for record in tumour if record["mask"] is None],
    }
    for name, lacking in without.items():
        if name in needed and (len(lacking) == len(tumour) or (lacking and name not in method.supervision.of_some)):
            raise NotComparable(
                f"needs label '{name}': {len(lacking)} of {len(tumour)} training {method.kind} with tumour have none"
            )


def _inference_keys(method: Method, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The training's settings that its inference also has, with the same meaning."""
    inference = method.inference
    # Of overlays that do not stand after the inference as a whole, what it has too; of the others it is there already.
    chosen = {} if method.inference_overlays == method.overlays else dict(method.overlaid)
    chosen |= settings
    keys = {
        name: value
        for name, value in chosen.items()
        if name.split("::")[0] not in _NOT_OF_INFERENCE and "_desc_" not in name and _has(inference, name)
    }
    if "num_workers" in keys:
        # Threads that read ahead, not processes: there is one at least.
        keys["num_workers"] = max(1, int(keys["num_workers"]))
    return keys


def _has(inference: Mapping[str, Any], name: str) -> bool:
    """Whether a key has a use there: groups of the training are empty, so that its overlays find them."""
    top, _, rest = name.partition("::")
    item = inference.get(top)
    return top in inference and not (
        rest and isinstance(item, dict) and "_target_" not in item and rest.split("::")[0] not in item
    )
