"""Ships the head of a training on features: a small folder in the repository with which a fresh clone maps slides.

python scripts/ship.py --bundle bundles/camel --run runs/camel_ebhi --overlay ebhi_seg features --mpp 0.5 \
    --mpp_reason "EBHI-Seg states a magnification of 400x alone"

Writes bundles/<bundle>/models/<first overlay>/: model.pt (the head), calibration.json (its threshold), inference.json (one
configuration behind the bundle's own), metrics.json and test_images.csv (its scores), and README.md, the model card. Every number
is that of the run and of its evaluation on the test split, with intervals over cases. The data's manifest and masks need not be
shipped, but must be at hand.

Refused are runs that were not scored on the test split, networks that hold their encoder's weights (fine-tuned), and data whose
licence, in the bundle's docs/data_license.txt, is neither CC0 nor CC BY 4.0.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from shared.front_door import begin_script


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True, help="folder of the bundle")
    parser.add_argument("--run", type=Path, required=True, help="output folder of the training, with its evaluation")
    parser.add_argument(
        "--overlay",
        nargs="+",
        required=True,
        help="of the training, in their order; the first one is the data's",
    )
    parser.add_argument("--mpp", type=float, help="um per pixel at which slides are read (default: that of the training)")
    parser.add_argument("--mpp_reason", help="why, where the training had another; the card says it")
    parser.add_argument("--slides", type=Path, help="manifest of slides with masks, to be mapped and scored for the card")
    parser.add_argument("--slides_split", help="of them: train, val or test; all rows without it")
    parser.add_argument("--slides_note", help="what slides these are, and what of them the training has seen; the card says it")
    return parser.parse_args()


def main() -> None:
    begin_script()
    arguments = parsed()
    # Takes seconds to import, which --help and wrong options need not wait for.
    from scripts.shipping.shipper import Request, ship

    given = vars(arguments)
    given["overlays"] = tuple(given.pop("overlay"))
    try:
        folder = ship(Request(**given))
    except (ValueError, RuntimeError, ModuleNotFoundError) as error:
        sys.exit(f"error: {error}")
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{folder}: {size / 1000:.0f} kB, {', '.join(sorted(path.name for path in folder.iterdir()))}")


if __name__ == "__main__":
    main()
