"""Few masks and many labels (keys mode and masked_share): the score for each share of masks, with and without labelled images."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from scripts.benchmarks.class_maps import write_class_maps, write_slide_maps
from scripts.benchmarks.slides_of_runs import SlidesOfRuns
from scripts.declarations.published import bundle_of, published_rows, read_published
from scripts.options.key_values import key_values
from scripts.options.numbers import COUNT_FROM_0, SEED, SHARE
from shared.data.labels.supervision import MODES
from shared.sweeps.sweep import Sweep
from shared.sweeps.sweep_table import summarise
from shared.writers.atomic import atomic_path
from shared.writers.figures.bands import Band, write_bands

# Name of a line -> share of the masks -> score.
Published = Mapping[str, Mapping[float, float]]
# Ciga and Martel, section 3.3. With 0 a network learns from labels only; S would then learn nothing and is left out.
SHARES = (0.0, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0)
SCORES = {
    "BACH score": "bach_score",
    "Foreground accuracy": "foreground_accuracy",
    "Macro F1": "macro_f1",
    "Weighted F1": "weighted_f1",
    "Accuracy": "accuracy",
    "Mean IoU": "mean_iou",
    "Released IoU": "released_iou",
}

# The score of the papers' rows, as they call it.
PUBLISHED_SCORE = "bach_score_of_cases"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config_file", nargs="+", required=True, help="configuration files of the training, the bundle's train.json first"
    )
    parser.add_argument(
        "--shares",
        type=SHARE,
        nargs="+",
        default=list(SHARES),
        help="shares of the masked images, 0 to 1; 0 trains on labels only",
    )
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--seeds", type=SEED, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument(
        "--validation_cases",
        nargs="+",
        help="slides that choose the epoch, one per seed; the others that are not used for training are tested on",
    )
    parser.add_argument(
        "--slides", type=Path, help="manifest of whole slides with masks, on whose test slides all runs are scored"
    )
    parser.add_argument(
        "--pictures",
        type=COUNT_FROM_0,
        default=0,
        help="number of test images, or with --slides of test slides, in the picture of class maps (default 0: no picture)",
    )
    parser.add_argument(
        "--set", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"), help="set a key to this value in every run"
    )
    parser.add_argument(
        "--output_dir", type=Path, required=True, help="folder for one subfolder per run, sweep.csv, shares.png and maps.png"
    )


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train the unfinished runs, draw every score against the share, and return means and deviations over seeds.

    In every run the epoch is chosen on validation images, never on those of the evaluation. With all masks S+C equals S, because
    no labelled images are left, and without masks S+C* equals S+C; each is trained only once.
    """
    if min(arguments.shares) < 0 or max(arguments.shares) > 1:
        raise ValueError(f"shares must be from 0 to 1; got {arguments.shares}")
    fixed = key_values(arguments.set)
    varied: dict[str, list[Any]] = {"seed": arguments.seeds, "masked_share": sorted(arguments.shares), "mode": arguments.modes}
    cases = case_of_seed(arguments.seeds, arguments.validation_cases)
    if arguments.validation_cases:
        varied = {"validation_case": arguments.validation_cases, **varied}

    def is_allowed(values: dict[str, Any]) -> bool:
        return _is_new(values, varied) and values.get("validation_case") == cases[values["seed"]]

    sweep = Sweep(arguments.config_file, varied, arguments.output_dir, fixed, allowed=is_allowed)
    slides = None if arguments.slides is None else SlidesOfRuns(arguments.config_file, arguments.slides, fixed)
    if slides is not None:
        slides.check(cases.values())
    try:
        sweep.run()
    finally:
        table = sweep.table()
        if slides is not None and len(table):
            table = with_slide_scores(table, sweep, slides)
            with atomic_path(arguments.output_dir / "slides.csv") as temporary:
                table.to_csv(temporary, index=False)
        if arguments.pictures and len(table):
            draw = write_class_maps if slides is None else write_slide_maps
            draw(sweep, arguments.pictures, arguments.output_dir / "maps.png")
        is_scored = any(str(column).startswith("class_pixels.") for column in table)
        results = _report(table, arguments.output_dir, published_shares(arguments.config_file)) if is_scored else {}
    if not results:
        raise ValueError(
            "the runs have no scores of pixels: shares needs masks of the test images (truth: mask), and the default method"
        )
    return results


def case_of_seed(seeds: Sequence[int], cases: Sequence[str] | None) -> dict[int, str | None]:
    """The validation slide of each seed, as each of the paper's runs has a different one.

    Raises:
        ValueError: if there is not exactly one for each seed.
    """
    if cases and len(cases) != len(seeds):
        raise ValueError(f"expected one of --validation_cases per seed ({len(seeds)}), found {len(cases)}")
    return dict(zip(seeds, cases, strict=True)) if cases else dict.fromkeys(seeds)


def with_slide_scores(table: pd.DataFrame, sweep: Sweep, slides: SlidesOfRuns) -> pd.DataFrame:
    """A sweep's table with scores of whole slides in place of those of images: means over slides, with the background."""
    rows = []
    for row in table.to_dict("records"):
        values = {name: row[name] for name in sweep.varied}
        metrics = slides.scores(sweep.folder(values), values.get("validation_case"))
        scores = next(iter(metrics["class_pixels_all_of_slides"].values()))
        kept = values | {f"class_pixels.{row['mode']}.{name}": scores[name] for name in SCORES.values()}
        # They follow that of the background, which `_f1_of_classes` leaves out.
        names = [name for name in scores if name.startswith("f1 ")]
        rows.append(kept | {f"classes.{name.removeprefix('f1 ')}.f1": scores[name] for name in names})
    return pd.DataFrame(rows)


def published_shares(config_files: Sequence[str]) -> Published:
    """The published scores for each share, unless a configuration is for other data."""
    overlays, bundle = {Path(file).stem for file in config_files} - {"train"}, bundle_of(config_files)
    found: dict[str, dict[float, float]] = {}
    for overlay, data in read_published(bundle).items():
        if not overlays <= {overlay}:
            continue
        for row in published_rows(data, bundle.name):
            name = f"{row.settings['mode']} (published, {overlay})"
            found.setdefault(name, {})[float(row.settings["masked_share"])] = row.scores[PUBLISHED_SCORE]
        for mode, scores in data.get("shares", {}).items():
            found[f"{mode} (published, {overlay})"] = {float(share): score for share, score in scores.items()}
    return found


def _is_new(values: dict[str, Any], varied: dict[str, list[Any]]) -> bool:
    mode, share = values["mode"], values["masked_share"]
    if share == 0:
        return mode == "S+C" or (mode == "S+C*" and "S+C" not in varied["mode"])
    return not (mode == "S+C" and share == 1 and "S" in varied["mode"])


def _report(table: pd.DataFrame, folder: Path, published: Published) -> dict[str, Any]:
    # The scores of each mode have their own columns.
    scores = {
        name: [f"class_pixels.{mode}.{score}" for mode in MODES if f"class_pixels.{mode}.{score}" in table]
        for name, score in SCORES.items()
    }
    for name, columns in scores.items():
        table[name] = table[columns].bfill(axis=1).iloc[:, 0]
    for mode, share, other in (("S", 1, "S+C"), ("S+C", 0, "S+C*")):
        if {mode, other} <= set(table["mode"]):
            same = table[(table["mode"] == mode) & (table["masked_share"] == share)].assign(mode=other)
            table = pd.concat([table, same], ignore_index=True)
    of_classes = _f1_of_classes(table)
    table = table.rename(columns=of_classes)
    names = [*SCORES, *of_classes.values()]
    over = [name for name in ("seed", "validation_case") if name in table]
    summary = summarise(table, ["mode", "masked_share", *over], names, over=over)
    write_bands(
        _panels(summary, published, names),
        folder / "shares.png",
        "share of the masked images",
        title="mean and deviation over seeds",
    )
    print(summary.to_string(index=False, float_format="%.3f"))
    print(folder / "shares.png")
    return {f"{row['mode']}, {row['masked_share']:g}": row for row in summary.to_dict("records")}


def _f1_of_classes(table: pd.DataFrame) -> dict[str, str]:
    """Column -> name in the figure, for the F1 of each class but the background, as in the paper's figure 3 g to i."""
    columns = [str(name) for name in table if str(name).startswith("classes.") and str(name).endswith(".f1")]
    named = {name: name.removeprefix("classes.").removesuffix(".f1") for name in columns}
    return {name: f"F1, {of}" for name, of in list(named.items())[1:] if not of.startswith("everything is ")}


def _panels(summary: pd.DataFrame, published: Published, names: Sequence[str] = tuple(SCORES)) -> dict[str, dict[str, Band]]:
    """Panels of each score, and of its ratio to that of S with all masks, as in the paper's figure 3."""
    panels: dict[str, dict[str, Band]] = {}
    for name in names:
        whole = summary[(summary["mode"] == "S") & (summary["masked_share"] == 1)][f"{name} mean"]
        for title, scale in ((name, 1.0), (f"{name}, of S with all masks", float(whole.iloc[0]) if len(whole) else None)):
            if scale is None:
                continue
            panels[title] = {
                str(mode): Band(*(rows[column].tolist() for column in ("masked_share", "mean", "std")))
                for mode, rows in _scaled(summary, name, scale).groupby("mode", sort=False)
            }
    panels["BACH score"] |= {name: Band(list(scores), list(scores.values())) for name, scores in published.items()}
    return panels


def _scaled(summary: pd.DataFrame, score: str, scale: float) -> pd.DataFrame:
    columns = {part: summary[f"{score} {part}"] / scale for part in ("mean", "std")}
    return summary[["mode", "masked_share"]].assign(**columns).sort_values("masked_share", kind="stable")
