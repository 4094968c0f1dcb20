"""The methods that can be compared, read from the bundles: which labels each needs, and with which settings it fits the data."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from shared.data import load_manifest
from shared.data.manifest import REGION, has_known_mask
from shared.data.record import Record, label_of

from .data import IMAGES, SLIDES, ComparisonData

# Smaller images than this lose what a network could see in them: they are read finer then.
LEAST_IMAGE_PX = 96
_NOT_OF_INFERENCE = {
    *("bundle_root", "dataset_dir", "output_dir", "split", "imports", "initialize", "run", "finalize"),
    *("batch_size", "pretrained"),
}
_SLIDE_DATASET, _AREAS, _SUPERVISION = "shared.data.SlideBagDataset", "shared.data.fill_areas", "shared.data.choose_supervision"


class NotComparable(ValueError):
    """A method cannot be trained on these data; the message says for want of what."""


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
        """As on the command line: ``camel+unet``."""
        return "+".join([self.bundle.name, *self.overlays])

    @cached_property
    def title(self) -> str:
        metadata = json.loads((self.bundle / "configs" / "metadata.json").read_text())
        overlays = ", ".join(name.replace("_", " ") for name in self.overlays)
        return str(metadata["name"]) + (f" ({overlays})" if overlays else "")

    @property
    def config_files(self) -> list[str]:
        """Of the training, with the overlays behind it."""
        return [str(self.bundle / "configs" / f"{name}.json") for name in ("train", *self.overlays)]

    @cached_property
    def training(self) -> dict[str, Any]:
        """The configuration of the training, overlays included."""
        return dict(ConfigParser.load_config_files(self.config_files))

    @cached_property
    def overlaid(self) -> dict[str, Any]:
        """What the overlays say."""
        files = (Path(file) for file in self.config_files[1:])
        return {name: value for file in files for name, value in json.loads(file.read_text()).items()}

    @property
    def kind(self) -> str:
        """What it learns from: ``"slides"`` where its training draws bags of tiles from whole slides, else ``"images"``."""
        return SLIDES if _SLIDE_DATASET in set(_targets(self.training)) else IMAGES

    def labels(self, settings: Mapping[str, Any] | None = None) -> tuple[str, ...]:
        """Columns of the manifest that its training learns from, as its configuration says.

        ``label`` always; ``area`` where areas are filled in and a loss asks for them; ``mask`` where a data set of the section
        ``train`` has pixel labels from masks, or masks are one of two kinds of supervision.

        Args:
            settings: keys and values over those of the configuration.
        """
        targets = set(_targets(self.training))
        parser = self.parser(settings)
        labels = ["label"]
        if _AREAS in targets and bool(parser.get_parsed_content("train_records::needed")):
            labels.append("area")
        if _SUPERVISION in targets or "mask" in _pixel_labels(self.training.get("train"), "train", parser):
            labels.append("mask")
        return tuple(labels)

    def parser(self, settings: Mapping[str, Any] | None = None) -> ConfigParser:
        """Of the training's configuration under these settings; its items are made when asked for."""
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
    """

    method: Method
    settings: dict[str, Any]
    inference: dict[str, Any]
    effort: dict[str, int]


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
            raise ValueError(f"there is no bundle {bundle!r} in {bundles}; there are: {', '.join(there)}")
        configs = bundles / bundle / "configs"
        for overlay in overlays:
            if not (configs / f"{overlay}.json").is_file():
                known = sorted(path.stem for path in configs.glob("*.json"))
                raise ValueError(f"the bundle {bundle} has no overlay {overlay!r}; its configurations are: {', '.join(known)}")
        methods.append(Method((bundles / bundle).resolve(), tuple(overlays)))
    return methods


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
        raise ValueError(f"--set names {', '.join(sorted(unknown))}: not among the methods that are compared")
    for name, keys in given.items():
        trainings = [method.training for method in methods if name in ("all", method.key)]
        for key in keys:
            if not any(key.split("::")[0] in training for training in trainings):
                keys_there = (part for part, value in trainings[0].items() if isinstance(value, (int, float, str)))
                known = ", ".join(sorted(part for part in keys_there if "_desc_" not in part))
                whose = "no method that is compared has" if name == "all" else f"{name} has no"
                raise ValueError(f"--set {name} {key}: {whose} key {key!r}" + ("" if name == "all" else f"; it has: {known}"))


def plan(method: Method, data: ComparisonData, tissue: Path, given: Mapping[str, Any]) -> Plan:
    """How a method is trained on the data.

    What the user or an overlay gives stays. Else images are read at the pixel size of the bundle - finer, by halves, where they
    would be smaller than 96 px, and as they are where the bundle names none - and at their full size; class names are those of
    the data; masks of validation and test images are used where all have one.

    Args:
        method: the method.
        data: to train on.
        tissue: folder for the tissue masks of slides.
        given: keys and values of the user.

    Raises:
        NotComparable: if the data lack what it needs.
    """
    if method.kind not in data.manifests:
        wanted = (
            "whole slides: these are images"
            if method.kind == SLIDES
            else ("labels of images: slides are cut into labelled regions where every training slide with tumour has a mask")
        )
        raise NotComparable(f"needs {wanted}")
    settings: dict[str, Any] = {"manifest": str(data.manifests[method.kind])}
    if data.num_classes != len(method.training.get("class_names", ("normal", "tumour"))) or "class_names" in method.training:
        if "class_names" not in method.training:
            raise NotComparable(f"needs two classes: these data have {data.num_classes}")
        settings["class_names"] = list(data.class_names)
    records = data.training[method.kind]
    if "tissue_dir" in method.training:
        settings["tissue_dir"] = str(tissue)
    # Images without a mask file are a set of labelled images only if some have tumour and some have none.
    if "labelled" in method.training and len({bool(record["label"]) for record in records if record["mask"] is None}) < 2:
        settings["labelled"] = "all"
    if not _has_masks(data, method.kind):
        settings["truth"] = None
    settings |= _image_size(method, data, given) | dict(given)
    settings = {name: value for name, value in settings.items() if name.split("::")[0] in method.training}
    _check_labels(method, records, settings)
    return Plan(method, settings, _inference_keys(method, settings), _effort(method, records, settings))


def _image_size(method: Method, data: ComparisonData, given: Mapping[str, Any]) -> dict[str, Any]:
    """Pixel size and image size of a method of images, of those that nobody gave."""
    if method.kind != IMAGES or "image_size_px" not in method.training:
        return {}
    if data.region_size_um is None:
        if "image_size_px" in {*method.overlaid, *given}:
            return {}
        raise NotComparable(f"needs square images of one size: these are {data.why_not_square}")
    mpp = given.get("mpp", method.training.get("mpp"))
    if mpp is None:
        mpp = data.image_mpp
    elif "mpp" not in {*method.overlaid, *given}:
        while min(data.region_size_um) / mpp < LEAST_IMAGE_PX and mpp / 2 >= data.image_mpp:
            mpp /= 2
    width = round(data.region_size_um[0] / mpp)
    sizes = {"mpp": mpp, "image_size_px": width}
    if "labelled_size_px" in method.training:
        sizes["labelled_size_px"] = width
    return sizes


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
    # Where masks are one of two kinds of supervision, some are enough.
    few = _SUPERVISION in set(_targets(method.training))
    for name, lacking in without.items():
        if name in needed and (len(lacking) == len(tumour) or (lacking and not (few and name == "mask"))):
            raise NotComparable(
                f"needs label '{name}': {len(lacking)} of {len(tumour)} training {method.kind} with tumour have none"
            )


def _effort(method: Method, records: Sequence[Record], settings: Mapping[str, Any]) -> dict[str, int]:
    """Labels, areas and masks that are used: those of the records that the configuration chooses from the training split."""
    needed, parser = method.labels(settings), method.parser(settings)
    if _SUPERVISION in set(_targets(method.training)):
        masked, labelled = parser.get_parsed_content("supervision")
        drawn = [record for record in masked if record["label"] is None or record["label"] > 0]
        # A mask says the label too, and of an image without tumour the label is the mask.
        distinct = {tuple(record.get(name) for name in ("image", *REGION)) for record in (*masked, *labelled)}
        return {"labels": len(distinct) - len(drawn), "areas": 0, "masks": len(drawn)}
    chosen = parser.get_parsed_content("train_records") if "train_records" in method.training else records
    num_tumour = sum(label_of(record) > 0 for record in chosen)
    return {
        "labels": len(chosen) - (num_tumour if "mask" in needed else 0),
        "areas": num_tumour if "area" in needed else 0,
        "masks": num_tumour if "mask" in needed else 0,
    }


def _inference_keys(method: Method, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the training's settings that its inference has too, in their sense."""
    training, inference = (
        json.loads((method.bundle / "configs" / f"{name}.json").read_text()) for name in ("train", "inference")
    )
    # Overlays one by one: a whole one may hold stages of the training, which are nothing to the inference.
    chosen = {**method.overlaid, **settings}
    keys = {
        name: value
        for name, value in chosen.items()
        if name.split("::")[0] in inference and name.split("::")[0] not in _NOT_OF_INFERENCE and "_desc_" not in name
    }
    # A tile of the inference is a training image where the bundle's own numbers are the same.
    is_image = training.get("image_size_px") is not None and inference.get("tile_size_px") == training["image_size_px"]
    if is_image and "image_size_px" in chosen:
        keys.setdefault("tile_size_px", chosen["image_size_px"])
    if "num_workers" in keys:
        # Threads that read ahead, not processes: there is one at least.
        keys["num_workers"] = max(1, int(keys["num_workers"]))
    return keys


def _targets(config: Any) -> Iterator[str]:
    """Every ``_target_`` of a configuration."""
    if isinstance(config, Mapping):
        if isinstance(config.get("_target_"), str):
            yield config["_target_"]
        config = list(config.values())
    if isinstance(config, list):
        for value in config:
            yield from _targets(value)


def _pixel_labels(section: Any, path: str, parser: ConfigParser) -> set[str]:
    """What the data sets of a section take their pixels' labels from, in components and in expressions."""
    found: set[str] = set()
    if isinstance(section, Mapping):
        for name, value in section.items():
            if name == "pixel_labels":
                found.add(str(parser.get_parsed_content(f"{path}::{name}")))
            else:
                found |= _pixel_labels(value, f"{path}::{name}", parser)
    elif isinstance(section, str) and section.startswith("$"):
        found |= set(re.findall(r"pixel_labels=['\"](\w+)['\"]", section))
    return found


def _given(value: Any) -> Any:
    # As MONAI's command line says it.
    return "$None" if value is None else value
