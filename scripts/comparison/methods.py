"""The methods that can be compared, as bundles declare them: which labels each needs, with which settings it fits the data."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from scripts.declarations.supervision import IMAGES, SLIDES, Supervision, read_supervision
from shared.data import load_manifest
from shared.data.manifest import REGION
from shared.data.record import Record, has_known_mask, label_of

from .data import ComparisonData
from .selection import chosen_by, selection_effort

_NOT_OF_INFERENCE = {
    *("bundle_root", "dataset_dir", "output_dir", "split", "imports", "initialize", "run", "finalize"),
    *("batch_size", "pretrained"),
}
# No overlays of data sets.
_CONFIGS = {"train", "inference", "evaluate", "metadata", "multi_gpu_train", "features"}
_STAGES = {"run", "initialize", "finalize"}
# An overlay that a bundle may have: what differs from its training when it is compared.
_OVERLAY = "comparison"


class NotComparable(ValueError):
    """A method cannot be trained on these data; the message says what is missing."""


@dataclass(frozen=True)
class Method:
    """A bundle with some of its overlays.

    Attributes:
        bundle: its folder.
        overlays: names of configurations of its ``configs``.
    """

    bundle: Path
    overlays: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Key of the method as on the command line: ``camel+unet``."""
        return "+".join([self.bundle.name, *self.overlays])

    @cached_property
    def title(self) -> str:
        metadata = json.loads((self.bundle / "configs" / "metadata.json").read_text())
        overlays = ", ".join(name.replace("_", " ") for name in self.overlays)
        return str(metadata["name"]) + (f" ({overlays})" if overlays else "")

    @property
    def config_files(self) -> list[str]:
        """Configuration files of the training, followed by its overlays and the bundle's own for comparisons."""
        own = [_OVERLAY] if (self.bundle / "configs" / f"{_OVERLAY}.json").is_file() else []
        return [str(self.bundle / "configs" / f"{name}.json") for name in ("train", *self.overlays, *own)]

    @cached_property
    def training(self) -> dict[str, Any]:
        """The configuration of the training, overlays included."""
        return dict(ConfigParser.load_config_files(self.config_files))

    @cached_property
    def overlaid(self) -> dict[str, Any]:
        """The entries of the overlays."""
        return {name: value for overlay in self.overlays for name, value in self._overlay(overlay).items()}

    @cached_property
    def inference_overlays(self) -> tuple[str, ...]:
        """The overlays that are also given after the inference: those that do not change the training's stages."""
        return tuple(overlay for overlay in self.overlays if not _STAGES & self._overlay(overlay).keys())

    @cached_property
    def inference(self) -> dict[str, Any]:
        """The configuration of the inference, with the overlays that follow it."""
        files = [self.bundle / "configs" / f"{name}.json" for name in ("inference", *self.inference_overlays)]
        return {name: value for file in files for name, value in json.loads(file.read_text()).items()}

    @property
    def reads_features(self) -> bool:
        """Whether it trains on stored features of an encoder that stays as it is, and maps slides from them."""
        has_features = "features_dir" in self.training and "stored_features" in self.inference
        return has_features and not self.training["network_def"].get("finetune", False)

    def _overlay(self, name: str) -> dict[str, Any]:
        return dict(json.loads((self.bundle / "configs" / f"{name}.json").read_text()))

    @cached_property
    def supervision(self) -> Supervision:
        """The supervision that its bundle declares."""
        return read_supervision(self.bundle)

    @property
    def kind(self) -> str:
        """The kind of records it learns from: ``"slides"`` or ``"images"``."""
        return self.supervision.unit

    def labels(self, settings: Mapping[str, Any] | None = None) -> tuple[str, ...]:
        """Columns of the manifest that its training learns from: the key ``learned_columns`` of its configuration.

        Args:
            settings: keys and values over those of the configuration.

        Raises:
            ValueError: if the configuration does not say it.
        """
        if "learned_columns" not in self.training:
            raise ValueError(
                f"{self.config_files[0]} has no key 'learned_columns': expected the columns of the manifest that the training "
                'learns from, such as ["label"]'
            )
        return tuple(self.parser(settings).get_parsed_content("learned_columns"))

    def parser(self, settings: Mapping[str, Any] | None = None) -> ConfigParser:
        """Parser of the training's configuration with these settings; its items are created on demand."""
        parser = ConfigParser()
        parser.read_config(self.config_files)
        parser.read_meta(str(self.bundle / "configs" / "metadata.json"))
        parser.update({"bundle_root": str(self.bundle)} | {name: _given(value) for name, value in (settings or {}).items()})
        return parser


@dataclass(frozen=True)
class Plan:
    """A method on some data.

    Attributes:
        method: the method.
        settings: keys of its training.
        inference: keys of its inference.
        effort: how many ``labels``, ``areas`` and ``masks`` of the training split it learns from.
        mpp: micrometres per pixel at which it reads; None for as they are.
        selection: how many of the validation split it chooses its epoch and threshold by.
    """

    method: Method
    settings: dict[str, Any]
    inference: dict[str, Any]
    effort: dict[str, int]
    mpp: float | None = None
    selection: dict[str, int] = field(default_factory=dict)


def find_methods(bundles: Path, wanted: Sequence[str] = ()) -> list[Method]:
    """The methods of some names, or every bundle of a folder.

    Args:
        bundles: folder of the bundles.
        wanted: names of bundles, with overlays behind a plus: ``camel+unet``. None: all bundles, as they are.

    Raises:
        ValueError: for a bundle or overlay that is not there, naming those that are.
    """
    there = sorted(path.parents[1].name for path in bundles.glob("*/configs/train.json"))
    methods = []
    for name in dict.fromkeys(wanted or there):
        bundle, *overlays = name.split("+")
        if bundle not in there:
            raise ValueError(f"there is no bundle {bundle!r} in {bundles}; the bundles are: {', '.join(there)}")
        configs = bundles / bundle / "configs"
        for overlay in overlays:
            if not (configs / f"{overlay}.json").is_file():
                known = sorted(path.stem for path in configs.glob("*.json"))
                raise ValueError(f"the bundle {bundle} has no overlay {overlay!r}; its configurations are: {', '.join(known)}")
        methods.append(Method((bundles / bundle).resolve(), tuple(overlays)))
    return methods


def dataset_of(bundles: Path, manifest: Path) -> str | None:
    """The data set whose overlays read from the folder of a manifest, by its name: ``ebhi_seg`` for data/ebhi_seg."""
    name = manifest.parent.name
    return name if any(_reads_data(path) for path in bundles.glob(f"*/configs/{name}.json")) else None


def datasets(bundles: Path) -> list[str]:
    """Names of the data sets that any bundle of a folder has an overlay of."""
    return sorted({path.stem for path in bundles.glob("*/configs/*.json") if _reads_data(path)})


def with_dataset(method: Method, dataset: str | None) -> Method:
    """The method with its bundle's overlay of a data set before its own overlays, if the bundle has one."""
    path = method.bundle / "configs" / f"{dataset}.json"
    if dataset is None or dataset in method.overlays or not _reads_data(path):
        return method
    return Method(method.bundle, (dataset, *method.overlays))


def _reads_data(overlay: Path) -> bool:
    """Whether a configuration is an overlay that gives the place of a data set."""
    return overlay.is_file() and overlay.stem not in _CONFIGS and "dataset_dir" in json.loads(overlay.read_text())


def check_given(methods: Sequence[Method], given: Mapping[str, Mapping[str, Any]]) -> None:
    """Check the user's keys: those for one method are keys of its training, those for all are keys of one at least.

    Args:
        methods: that are compared.
        given: method, as on the command line, or ``all`` -> key -> value.

    Raises:
        ValueError: naming the first method that is not compared, or key that is not there.
    """
    unknown = set(given) - {"all"} - {method.key for method in methods}
    if unknown:
        raise ValueError(f"--set names {', '.join(sorted(unknown))}: not among the compared methods")
    for name, keys in given.items():
        trainings = [method.training for method in methods if name in ("all", method.key)]
        for key in keys:
            if not any(key.split("::")[0] in training for training in trainings):
                keys_there = (part for part, value in trainings[0].items() if isinstance(value, (int, float, str)))
                known = ", ".join(sorted(part for part in keys_there if "_desc_" not in part))
                whose = "none of the compared methods has" if name == "all" else f"{name} has no"
                raise ValueError(
                    f"--set {name} {key}: {whose} key {key!r}" + ("" if name == "all" else f"; the keys are: {known}")
                )


def plan(method: Method, data: ComparisonData, tissue: Path, given: Mapping[str, Any], by_labels_alone: bool = False) -> Plan:
    """The plan for training a method on the data.

    What the user or an overlay gives stays. Else images are read at the pixel size of the bundle - finer, by halves, where they
    would be smaller than the bundle says (`Supervision.least_image_px`), and as they are where it names none - and at their
    full size; class names are those of the data; masks of validation and test images are used where all have one.

    Args:
        method: the method.
        data: to train on.
        tissue: folder for the tissue masks of slides.
        given: keys and values of the user.
        by_labels_alone: choose epochs and thresholds without the masks of the validation images.

    Raises:
        NotComparable: if the data lack what it needs.
    """
    if method.kind not in data.manifests:
        wanted = (
            "whole slides, and these are images"
            if method.kind == SLIDES
            else ("labels of images: slides are cut into labelled regions only if every training slide with tumour has a mask")
        )
        raise NotComparable(f"needs {wanted}")
    settings: dict[str, Any] = {"manifest": str(data.manifests[method.kind])}
    if data.num_classes != len(method.training.get("class_names", ("normal", "tumour"))) or "class_names" in method.training:
        if "class_names" not in method.training:
            raise NotComparable(f"needs two classes, and these data have {data.num_classes}")
        settings["class_names"] = list(data.class_names)
    records = data.training[method.kind]
    if "tissue_dir" in method.training:
        settings["tissue_dir"] = str(tissue)
    if "features_dir" in method.training:
        # Of every method and seed: nothing is embedded twice.
        settings["features_dir"] = str(tissue.with_name("features"))
    if not _has_masks(data, method.kind):
        settings["truth"] = None
    settings |= _image_size(method, data, given) | dict(given)
    settings = {name: value for name, value in settings.items() if name.split("::")[0] in method.training}
    columns = chosen_by(method.training, method.parser(settings))
    if by_labels_alone and "mask" in columns:
        settings |= {"truth": None} if "truth" in method.training else {}
        columns = chosen_by(method.training, method.parser(settings))
        if "mask" in columns:
            raise NotComparable("needs masks of validation images to choose its epoch or threshold")
    _check_labels(method, records, settings)
    if not data.validation[method.kind] and not _does_without_validation(method, settings):
        raise NotComparable(f"needs {method.kind} of the split 'val'")
    selection = selection_effort(columns, data.validation[method.kind])
    mpp = method.parser(settings).get_parsed_content("mpp") if "mpp" in method.training else None
    return Plan(method, settings, _inference_keys(method, settings), _effort(method, settings), mpp, selection)


def _does_without_validation(method: Method, settings: Mapping[str, Any]) -> bool:
    """Whether the configuration takes a manifest without validation rows, because nothing is chosen by them."""
    records = method.training.get("val_records")
    if not isinstance(records, Mapping):
        return True
    return "allow_empty" in records and bool(method.parser(settings).get_parsed_content("val_records::allow_empty"))


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


def _has_masks(data: ComparisonData, kind: str) -> bool:
    """Whether every image with tumour that validates or tests has a mask."""
    records = load_manifest(data.manifests[kind], require=(), num_classes=data.num_classes)
    return all(has_known_mask(record) for record in records if record["split"] != "train")


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


def _effort(method: Method, settings: Mapping[str, Any]) -> dict[str, int]:
    """Labels, areas and masks that are used: those of the records that the configuration chooses from the training split."""
    learned = _learned_records(method, settings)
    areas, masks = (
        [record for record in learned.get(name, ()) if record["label"] is None or record["label"] > 0]
        for name in ("area", "mask")
    )
    # A mask says the label too, and of an image without tumour the label is the mask.
    distinct = {tuple(record.get(name) for name in ("image", *REGION)) for records in learned.values() for record in records}
    return {"labels": len(distinct) - len(masks), "areas": len(areas), "masks": len(masks)}


def _learned_records(method: Method, settings: Mapping[str, Any]) -> dict[str, list[Record]]:
    """Learned column -> the records whose values of it are used: all of the training, unless the configuration says which."""
    parser = method.parser(settings)
    if "learned_records" in method.training:
        return dict(parser.get_parsed_content("learned_records"))
    return dict.fromkeys(method.labels(settings), parser.get_parsed_content("train_records"))


def _inference_keys(method: Method, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The training's settings that its inference also has, with the same meaning."""
    inference = method.inference
    # Of overlays that do not stand behind the inference as a whole, what it has too; of the others it is there already.
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


def _given(value: Any) -> Any:
    # As MONAI's command line says it.
    return "$None" if value is None else value
