"""From the output folder of a training to a folder in the repository that maps slides."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from scripts.declarations.network_items import NETWORK
from shared.calibration.carried_threshold import with_threshold
from shared.encoders import Encoder
from shared.inference import SlideMapper
from shared.inference.bundle_mapper import load_slide_mapper

from .card import CardFacts, card
from .data_terms import data_terms
from .finished_run import WEIGHTS, FinishedRun, read_run
from .overlay import shipped_overlay
from .scores import image_scores, scores_of_test_images
from .slides import slide_scores
from .training import training_command

OVERLAY, CARD, METRICS = "inference.json", "README.md", "metrics.json"
_SAME_THRESHOLD = 1e-9


@dataclass(frozen=True)
class Request:
    """The request to ship a head.

    Attributes:
        bundle: its folder.
        run: output folder of the training.
        overlays: of the training, by their names; the first one is that of the data, unless there is a `head`.
        head: name of the folder, for data that have no overlay; None for the name of the first overlay.
        data_note: what the card says of such data: how they were made, and what of them cannot be had.
        mpp: micrometres per pixel at which slides are read; None for that of the training.
        mpp_reason: why, where the training's images do not say it.
        slides: manifest of slides with masks, to be mapped and scored too; None for none.
        slides_split: of them.
        slides_note: what the card says of these slides.
    """

    bundle: Path
    run: Path
    overlays: tuple[str, ...] = ()
    head: str | None = None
    data_note: str | None = None
    mpp: float | None = None
    mpp_reason: str | None = None
    slides: Path | None = None
    slides_split: str | None = None
    slides_note: str | None = None

    @property
    def name(self) -> str:
        return self.head or self.overlays[0]

    @property
    def folder(self) -> Path:
        return self.bundle / "models" / self.name


def ship(request: Request) -> Path:
    """Write ``models/<name>`` of a bundle: the head, its threshold, one configuration after ``inference.json``, and its card.

    The folder appears once the head has been loaded from it, and replaces one of the same name.

    Raises:
        ValueError: naming what is missing, does not fit or may not be given on; nothing was written then.
    """
    _check(request)
    terms = data_terms(request.bundle, request.name)
    run = read_run(request.run)
    mpp = _mpp(request, run.config)
    command = training_command(
        request.bundle, request.overlays, run.config, None if request.head is None else f"data/{request.head}"
    )
    encoder = _encoder(run.config)
    scores = scores_of_test_images(run)
    request.folder.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".shipping-", dir=request.folder.parent) as temporary:
        staged = Path(temporary) / request.name
        staged.mkdir()
        overlay = shipped_overlay(request.bundle, request.name, run.config, encoder, mpp)
        _write(staged, run, overlay)
        mapper = _loaded(request, run, staged)
        if request.slides is not None:
            found = slide_scores(mapper, request.slides, request.slides_split, Path(temporary) / "maps")
            scores["slides"] = {"note": request.slides_note} | found
        (staged / METRICS).write_text(json.dumps(scores, indent=2) + "\n")
        (staged / CARD).write_text(card(_facts(request, run, encoder, overlay, command, terms), scores), encoding="utf-8")
        shutil.rmtree(request.folder, ignore_errors=True)
        staged.replace(request.folder)
    return request.folder


def _check(request: Request) -> None:
    """Refuse a request that lacks what the folder's name or the card needs."""
    if not (request.head or request.overlays):
        raise ValueError("a training without overlays has data without a name: give --name, the name of the head's folder")
    if request.head is not None and not request.data_note:
        raise ValueError(
            "--name is for data that no overlay names, and needs --data_note: state how they were made, and what of them cannot "
            "be had"
        )
    if request.slides is not None and not request.slides_note:
        raise ValueError(
            "--slides needs --slides_note: state what slides these are, and whether the training has seen any of their tissue"
        )


def _mpp(request: Request, config: Mapping[str, Any]) -> float:
    trained = ConfigParser(dict(config)).get_parsed_content("mpp")
    if request.mpp is None and trained is None:
        raise ValueError(
            "the training read its images as stored (mpp null): give --mpp, um per pixel at which slides are read, and "
            "--mpp_reason"
        )
    mpp = float(trained if request.mpp is None else request.mpp)
    if mpp != trained and not request.mpp_reason:
        raise ValueError(
            f"the training had mpp {trained}, and slides are read at {mpp:g}: give --mpp_reason, which is stated on the card"
        )
    return mpp


def _encoder(config: Mapping[str, Any]) -> Encoder:
    encoder: Encoder = ConfigParser(dict(config)).get_parsed_content(f"{NETWORK}::encoder")
    return encoder


def _write(folder: Path, run: FinishedRun, overlay: Mapping[str, Any]) -> None:
    # Of each tensor its own values alone, whatever storage it was a part of.
    state = {name: value.detach().clone().contiguous() for name, value in run.weights.items()}
    torch.save(with_threshold(state, None if run.calibration is None else run.threshold), folder / WEIGHTS)
    if run.calibration is not None:
        shutil.copyfile(run.calibration, folder / run.calibration.name)
    (folder / OVERLAY).write_text(json.dumps(overlay, indent=4) + "\n", encoding="utf-8")
    image_scores(run).to_csv(folder / f"test_{run.unit}.csv", index=False)


def _loaded(request: Request, run: FinishedRun, folder: Path) -> SlideMapper:
    """The mapper that a user will have, with the threshold at which the card's scores were made."""
    given: dict[str, Any] = {"checkpoint": str(folder / WEIGHTS)}
    if run.config.get("encoder_file") is not None:
        given["encoder_file"] = run.config["encoder_file"]
    mapper = load_slide_mapper(request.bundle, [str(folder / OVERLAY)], given)
    if abs(mapper.threshold - run.threshold) > _SAME_THRESHOLD:
        raise ValueError(
            f"{run.folder / 'evaluation'}: the test images were scored at a threshold of {run.threshold:g}, and maps would be "
            f"made at {mapper.threshold:g}: score the run again without --threshold"
        )
    return mapper


def _facts(
    request: Request, run: FinishedRun, encoder: Encoder, overlay: Mapping[str, Any], command: str, terms: str
) -> CardFacts:
    metadata = json.loads((request.bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
    return CardFacts(
        bundle=request.bundle.name,
        name=request.name,
        method=run.method,
        task=metadata["task"],
        terms=terms,
        data_note=request.data_note,
        encoder=encoder.description(),
        overlay=overlay,
        command=command,
        seed=run.config.get("seed"),
        version=run.version,
        calibration=_calibration(run),
        mpp_reason=request.mpp_reason,
    )


def _calibration(run: FinishedRun) -> str:
    chosen = f"A pixel counts as tumour from a probability of {run.threshold:.4g}"
    if run.calibration is None:
        return f"{chosen}."
    reason = json.loads(run.calibration.read_text(encoding="utf-8")).get("reason")
    return f"{chosen}, see `{run.calibration.name}`" + (f": {reason}." if reason else ".")
