"""The model card of a shipped head, of which every number comes from the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TITLES = {"iou": "IoU", "f1": "F1", "sensitivity": "sensitivity", "specificity": "specificity", "accuracy": "accuracy"}
SINGLE = {
    "auc": "AUC",
    "dice_positive": "mean Dice of tumour images",
    "false_positive_share": "false positives in normal images",
}


@dataclass(frozen=True)
class CardFacts:
    """The facts on a card in addition to the scores.

    Attributes:
        bundle: name of its folder.
        name: of the head's folder.
        method: in words.
        task: of the bundle.
        terms: of the data, with their source.
        encoder: what its `description` says.
        overlay: the head's own ``inference.json``.
        command: that trains it.
        seed: of the training.
        version: of the bundle that was trained.
        calibration: how the threshold was chosen.
        mpp_reason: why slides are read at that pixel size; None where the training's images say it.
        data_note: how data that have no overlay were made; None for those of an overlay.
    """

    bundle: str
    name: str
    method: str
    task: str
    terms: str
    encoder: Mapping[str, Any]
    overlay: Mapping[str, Any]
    command: str
    seed: Any
    version: str
    calibration: str
    mpp_reason: str | None
    data_note: str | None = None


def card(facts: CardFacts, scores: Mapping[str, Any]) -> str:
    """The card as Markdown.

    Args:
        facts: of the head.
        scores: as `scores_of_test_images` gives them, with ``slides`` where slides were mapped.
    """
    title, _, source = facts.terms.partition("\n")
    data = title.partition(" (")[0]
    parts = [
        f"# {facts.method} on {data}: a head for {facts.encoder['name']}",
        f"{facts.task}. This folder holds the head alone, trained on {data}. **Research only; not a medical device, not for "
        "diagnosis.**",
        _use(facts),
        f"## Data and licence\n\n{data}: {' '.join(source.split())}",
        *([facts.data_note] if facts.data_note else []),
        "The head was trained on these data; their authors must be named wherever it is used. The head itself is under the "
        "bundle's licence, Apache-2.0.",
        f"## Encoder\n\n{_encoder(facts.encoder)}",
        _training(facts),
        _scores(facts, scores, data),
        *([_slides(scores["slides"])] if "slides" in scores else []),
        _limits(facts, scores, data),
    ]
    return "\n\n".join(parts) + "\n"


def _use(facts: CardFacts) -> str:
    folder = f"bundles/{facts.bundle}"
    overlay = f"{folder}/models/{facts.name}/inference.json"
    return "\n".join(
        [
            "## Use",
            "",
            "```bash",
            f"python -m monai.bundle run --config_file \"['{folder}/configs/inference.json','{overlay}']\" \\",
            "    --source slide.tif --output_dir maps",
            f"python scripts/infer.py --manifest my/slides.csv --bundle {folder} --overlay {overlay} --out maps",
            "```",
            "",
            f"In the folder of a downloaded bundle leave `{folder}/` out.",
        ]
    )


def _encoder(encoder: Mapping[str, Any]) -> str:
    gated = ", available only to people who have accepted its terms" if encoder.get("is_gated") else ""
    return (
        f"`{encoder['name']}`, frozen, licence of its weights: {encoder.get('licence') or 'not known'}{gated}. It is not part of "
        f"this folder. Its key is `{encoder['key']}`: weights or settings of another key are refused."
    )


def _training(facts: CardFacts) -> str:
    shown = ("encoder", "feature_stride_px", "smoothing", "hidden_channels", "mpp", "tile_size_px", "margin_px")
    rows = [f"| `{name}` | {facts.overlay[name]} |" for name in shown if facts.overlay.get(name) is not None]
    return "\n".join(
        [
            "## Training",
            "",
            f"Version {facts.version} of the bundle, seed {facts.seed}:",
            "",
            "```bash",
            facts.command,
            "```",
            "",
            "| of inference.json | |",
            "|---|---|",
            *rows,
            "",
            facts.calibration,
        ]
    )


def _scores(facts: CardFacts, scores: Mapping[str, Any], data: str) -> str:
    pixels, interval = scores["pixels"], scores["interval"]
    single = [key for key in SINGLE if any(key in values for values in pixels.values())]
    rows = [
        [name, *(_interval(values[key]) for key in TITLES), *(_share(values.get(key)) for key in single)]
        for name, values in pixels.items()
    ]
    unit = "slides" if "num_slides" in scores else "images"
    cases = "" if interval["resampled"] == unit else f", of {scores['num_cases']} cases"
    counted = "pixels in tissue" if unit == "slides" else "pixels"
    return "\n".join(
        [
            "## Scores",
            "",
            f"{scores[f'num_{unit}']} test {unit} of {data}{cases} that took no part in the training; in per cent, {counted} of "
            f"all {unit} together, at a threshold of {scores['threshold']:.4g}. In brackets {100 * interval['level']:.0f} % "
            f"intervals over {interval['resampled']} ({interval['draws']} bootstrap draws, one training).",
            "",
            *_table([counted, *TITLES.values(), *(SINGLE[key] for key in single)], rows),
            "",
            *_labels(scores),
            f"`metrics.json` holds these numbers, and `test_{unit}.csv` the counts of each {unit[:-1]}.",
        ]
    )


def _labels(scores: Mapping[str, Any]) -> list[str]:
    """How well a network of slides ranks the slides by their labels."""
    aucs = [values["auc"] for values in scores.get("slide_labels", {}).values()]
    return [f"AUC of the slides' labels: {_share(auc)}.\n" for auc in aucs]


def _slides(slides: Mapping[str, Any]) -> str:
    titles = ["IoU", "F1", "sensitivity", "specificity", "AUC"]
    row = [f"{slides['num_slides']} slides, tissue", *(_share(value) for value in slides["all"].values())]
    return "\n".join(["### Slides", "", slides["note"], "", *_table(["pixels", *titles], [row])])


def _limits(facts: CardFacts, scores: Mapping[str, Any], data: str) -> str:
    resampled = scores["interval"]["resampled"]
    number = scores[f"num_{resampled}"]
    size = f"Slides are read at {facts.overlay['mpp']:g} um per pixel."
    if facts.mpp_reason:
        size += f" This is an assumption: {facts.mpp_reason.rstrip('.')}. Give another pixel size with `--mpp`."
    return "\n".join(
        [
            "## Limits",
            "",
            f"- The method was scored on {number} {resampled} of one data set, {data}. Nothing is known about other "
            "organs, scanners, stains and diagnoses.",
            f"- {size}",
            "- The network also gives an answer for kinds of tissue that the data do not contain.",
            "- Research only: this is not a clinical model, and its maps are not diagnoses.",
        ]
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def _interval(score: Mapping[str, float | None]) -> str:
    if score["mean"] is None:
        return "-"
    bounds = "" if score["low"] is None else f" ({_share(score['low'])} to {_share(score['high'])})"
    return _share(score["mean"]) + bounds


def _share(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"
