"""Pack bundles with their trained networks for download, and verify packed ones.

python scripts/pack.py --out dist                    all bundles, with the weights in their folders models/
python scripts/pack.py camel --out dist --weights runs/camel --release someone/bundles/hosting_storage_v1
python scripts/pack.py camel --weights runs/camel --mlflow --register camel    also logged as a model to the training's MLflow run
python scripts/pack.py --verify dist/camel_v0.11.0.zip    the zoo's checks and the README's commands, on the zip only

The same weights and bundle give the same bytes. models/model_info.json lists the packed bundles; scripts/README.md describes
the whole release, step by step.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from shared.front_door import begin_script

BUNDLES = REPOSITORY / "bundles"


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="bundles to pack (default: all of them)")
    parser.add_argument("--out", type=Path, default=Path("dist"), help="folder for the zips, and for copies of files above 25 MB")
    parser.add_argument(
        "--weights",
        help="output folder of the training; must contain {name} for several bundles (default: bundles/{name}/models)",
    )
    parser.add_argument(
        "--release", metavar="OWNER/REPOSITORY/TAG", help="where the files will be uploaded (default: origin on GitHub)"
    )
    parser.add_argument(
        "--model_info", type=Path, default=REPOSITORY / "models" / "model_info.json", help="list of packed bundles"
    )
    parser.add_argument("--mlflow", action="store_true", help="log each zip as a model to the MLflow run of its training")
    parser.add_argument(
        "--register", metavar="NAME", help="with --mlflow and one bundle: register the zip as a new version of this model"
    )
    parser.add_argument("--verify", type=Path, nargs="+", metavar="ZIP", help="verify these zips instead of packing")
    return parser.parse_args()


def main() -> None:
    begin_script()
    arguments = parsed()
    try:
        passed = _verify(arguments) if arguments.verify else _pack(arguments)
    except (ValueError, RuntimeError) as error:
        sys.exit(f"error: {error}")
    if not passed:
        sys.exit(1)


def _pack(arguments: argparse.Namespace) -> bool:
    # Takes seconds to import, which --help and wrong options need not wait for.
    from scripts.packing.model_info import release_address
    from scripts.packing.packer import bundle_names, pack

    names = arguments.names or bundle_names(BUNDLES)
    if arguments.register and not (arguments.mlflow and len(names) == 1):
        raise ValueError(f"--register needs --mlflow and one bundle; found {len(names)} bundles")
    pattern = arguments.weights or str(BUNDLES / "{name}" / "models")
    if len(names) > 1 and "{name}" not in pattern:
        raise ValueError(f"--weights {pattern} is one folder for {len(names)} bundles: write {{name}} where their names differ")
    address = release_address(arguments.release, REPOSITORY, arguments.out)
    packed = pack(
        BUNDLES, names, arguments.out, lambda name: Path(pattern.replace("{name}", name)), arguments.model_info, address
    )
    for bundle in packed:
        print(f"{bundle.checksum}  {bundle.archive}")
        for file in bundle.large_files:
            print(f"    above 25 MB, also to be uploaded to the release: {file}")
    if arguments.mlflow:
        from scripts.packing.mlflow_model import log_model

        for name, bundle in zip(names, packed, strict=True):
            print(f"MLflow: {log_model(bundle.archive, Path(pattern.replace('{name}', name)), arguments.register)}")
    if address.startswith("file:"):
        print(f"warning: {arguments.model_info} contains paths of this machine: pack again with --release before you publish")
    return True


def _verify(arguments: argparse.Namespace) -> bool:
    from scripts.packing.verification import verify

    results = verify(arguments.verify, arguments.model_info)
    for result in results:
        print(f"{result.name:<32} {result.check:<12} {result.seconds:7.1f} s  {'failed' if result.error else 'passed'}")
    for result in results:
        if result.error:
            print(f"\n{result.name}, {result.check}: {result.error}", file=sys.stderr)
    return not any(result.error for result in results)


if __name__ == "__main__":
    main()
