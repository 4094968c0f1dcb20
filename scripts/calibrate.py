"""Fits a temperature for a trained network on validation labels, and draws reliability curves on the test split.

python scripts/calibrate.py --bundle bundles/camel --model_dir runs/mine --manifest my/images.csv
python scripts/calibrate.py --bundle bundles/cdws_mil --model_dir runs/mine --manifest my/images.csv --overlay vgg5 \\
    --labels label

Works for every bundle: the network, its pixel size and its tiles are those of its inference.json. Pixels are compared with the
masks of the manifest (images with label 0 need none). With --labels label, which needs no masks, images are compared with
their labels, and an image's probability is the generalised mean over its pixels. Temperature and scores are written to
temperature.json next to the weights, curves to reliability.png and reliability.json in --out. Logits are counted as they are
computed, so memory does not grow with the number of images. Ranks, and decisions at a probability of 0.5, do not change.

Images are read as in inference: use the same --tile_mpp and overlays as in training; the folds (num_folds and fold) come from
its config.json. The same split cannot be used for fitting and for reporting. If the search for a temperature ends at its
limit, or a split has no image to measure, that is an error, and an earlier temperature.json stays as it is.

To apply it, give inference --temperature runs/mine/temperature.json (or a number).

Any other --key value sets a key of the bundle's inference.json, as with `python -m monai.bundle run`.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.infer import checkpoint_of, overrides_of
from scripts.options.annotation import add_annotation_options
from scripts.options.numbers import COUNT
from shared.front_door import begin_script

if TYPE_CHECKING:
    from shared.inference import SlideMapper


def parsed() -> tuple[argparse.Namespace, dict[str, Any]]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--bundle", type=Path, required=True, help="folder of the bundle")
    parser.add_argument("--model_dir", type=Path, required=True, help="output folder of the training, with its model.pt")
    parser.add_argument("--manifest", type=Path, required=True, help="manifest of the training")
    parser.add_argument("--overlay", nargs="+", default=[], help="overlays of inference.json, as in training, such as unet")
    add_annotation_options(parser)
    parser.add_argument(
        "--labels",
        choices=["mask", "label"],
        default="mask",
        help="labels to calibrate on: masks of pixels or labels of images (default mask)",
    )
    parser.add_argument("--fit_split", default="val", help="split on which the temperature is fitted (default val)")
    parser.add_argument("--report_split", default="test", help="split whose curves are drawn (default test)")
    parser.add_argument("--regions_per_slide", type=COUNT, default=100, help="regions read per slide (default 100)")
    parser.add_argument("--out", type=Path, help="folder for the curves (default: evaluation, in --model_dir)")
    arguments, rest = parser.parse_known_args()
    if arguments.fit_split == arguments.report_split:
        parser.error(
            f"--fit_split and --report_split are both {arguments.fit_split!r}: a temperature looks better than it is on the "
            "images that it was fitted to; name two splits"
        )
    try:
        overrides = overrides_of(rest) | {"checkpoint": str(checkpoint_of(arguments.model_dir)), "temperature": 1.0}
    except ValueError as error:
        parser.error(str(error))
    return arguments, overrides


def run(arguments: argparse.Namespace, mapper: SlideMapper) -> str:
    """Fit, write everything, and return the summary."""
    from shared.calibration.temperature import collect_logits, fit_temperature, write_reliability_report, write_temperature
    from shared.data import load_manifest
    from shared.engines.run_record import trained_with
    from shared.synthetic import demo_manifest

    num_classes = len(mapper.class_names) if mapper.class_names else 2
    manifest = demo_manifest(arguments.manifest)
    required = ["label"] if arguments.labels == "label" else []
    collected = {}
    for split in (arguments.fit_split, arguments.report_split):
        records = load_manifest(
            manifest,
            split=split,
            require=required,
            num_classes=num_classes,
            num_folds=trained_with(arguments.model_dir, "num_folds"),
            fold=trained_with(arguments.model_dir, "fold"),
            validation_fold=trained_with(arguments.model_dir, "validation_fold") is not False,
            tile_mpp=mapper.tile_mpp,
            tumour_classes=arguments.tumour_classes,
            annotation_frame=arguments.annotation_frame,
        )
        collected[split] = collect_logits(mapper, records, arguments.labels, arguments.regions_per_slide)
    fitted, reported = collected[arguments.fit_split], collected[arguments.report_split]
    about = {"labels": arguments.labels, "manifest": str(manifest)}
    found = fit_temperature(mapper.network, fitted, about | {"split": arguments.fit_split})
    out = arguments.out or arguments.model_dir / "evaluation"
    title = f"{arguments.bundle.resolve().name}, {arguments.report_split} split"
    report = write_reliability_report(out, reported, found["temperature"], title, about | {"split": arguments.report_split})
    # Last, once nothing else can fail: an earlier one stays otherwise.
    write_temperature(arguments.model_dir, found)
    lines = [f"{'':24}{'ECE (%)':>12}{'largest gap':>12}{'NLL':>12}"]
    for name, scores in ((arguments.fit_split, found), (arguments.report_split, report)):
        for when, said in (("before", "as trained"), ("after", "scaled")):
            score = scores[when]
            lines.append(f"{f'{name}, {said}':24}{100 * score['ece']:12.2f}{100 * score['mce']:12.1f}{score['nll']:12.4f}")
    return "\n".join([*lines, "", f"temperature {found['temperature']:.3f}; curves of {reported.quantity} in {out}"])


def main() -> None:
    begin_script()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", datefmt="%H:%M:%S")
    arguments, overrides = parsed()
    # Takes seconds to import, which --help and wrong options need not wait for.
    from shared.inference.bundle_mapper import first_cause, load_slide_mapper

    try:
        mapper = load_slide_mapper(arguments.bundle, arguments.overlay, overrides)
        print(run(arguments, mapper))
    except (ValueError, RuntimeError) as error:
        sys.exit(f"error: {first_cause(error)}")


if __name__ == "__main__":
    main()
