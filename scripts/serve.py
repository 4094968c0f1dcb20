"""Serves this repository's bundles to viewers (QuPath, Digital Slide Archive, CVAT) through MONAI Label.

bash scripts/serve.sh --studies slides/                       # installs what the server needs first
python scripts/serve.py --studies slides/ --models camel,alpha_beta_mil
python scripts/serve.py --studies slides/ --checkpoint camel=runs/mine --retrain camel --retrain_every 5

It listens only on this machine unless --host is given. Labels are kept in the studies folder; maps and trained versions are
kept in --work_dir; bundles are never changed.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from scripts.options.numbers import COUNT_FROM_0, PIXEL_SIZE, PORT, number_above
from scripts.options.values import json_values


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--studies", required=True, help="folder of the slides, or a Digital Slide Archive's .../api/v1")
    parser.add_argument("--bundles", type=Path, default=ROOT / "bundles", help="folder of bundles (packed ones must be unpacked)")
    parser.add_argument(
        "--models", default="", help="bundles to serve, separated by commas (default: every bundle that has a trained network)"
    )
    parser.add_argument(
        "--checkpoint", action="append", default=[], metavar="NAME=PATH", help="weights of a bundle: model.pt, or its folder"
    )
    parser.add_argument(
        "--overlay", action="append", default=[], metavar="NAME=OVERLAY", help="overlay of a bundle, as in its training"
    )
    parser.add_argument(
        "--features",
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="folder of the slides' stored features, for a bundle that learns from features",
    )
    parser.add_argument(
        "--work_dir",
        type=Path,
        default=Path.home() / ".cache" / "wsss-monailabel",
        help="folder for maps and trainings (default %(default)s)",
    )
    parser.add_argument("--slide_mpp", type=PIXEL_SIZE, help="micrometres per level-0 pixel of slides that do not state it")
    parser.add_argument("--patch_mpp", type=PIXEL_SIZE, help="micrometres per pixel of uploaded PNG and JPEG images")
    parser.add_argument(
        "--annotation_frame",
        choices=("qupath", "level0"),
        default="qupath",
        help="coordinate frame of QuPath's requests, answers and submitted annotations; level0 if QuPath opened the slides "
        "with --no-crop",
    )
    parser.add_argument("--retrain", help="model to retrain automatically")
    parser.add_argument(
        "--retrain_every", type=COUNT_FROM_0, default=0, help="number of new labels after which --retrain starts a training"
    )
    parser.add_argument(
        "--case_pattern",
        metavar="REGEX",
        help="regular expression whose first group, found in a slide's path in --studies, names the patient, such as "
        "'^([^/]+)/'; slides of one patient stay in one split of a training",
    )
    for name, whose in (("set", "every bundle's inference.json"), ("train_set", "the train.json of every bundle that has it")):
        text = f"set a key of {whose} to a JSON value"
        parser.add_argument(f"--{name}", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"), help=text)
    network = parser.add_argument_group("access control")
    network.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1: this machine only)")
    network.add_argument("--port", type=PORT, default=8000)
    network.add_argument(
        "--insecure", action="store_true", help="allow access without authentication to everyone who can reach --host"
    )
    network.add_argument("--origin", action="append", default=[], help="origin of web pages that may send requests (CORS)")
    network.add_argument("--allow_delete", action="store_true", help="let clients remove slides and labels")
    network.add_argument(
        "--largest_upload_gb", type=number_above(0), default=4.0, help="largest size of a request in GiB (default %(default)s)"
    )
    return parser.parse_args()


def check_installed() -> None:
    """Exit with the remedy if MONAI Label is not installed."""
    if importlib.util.find_spec("monailabel") is None:
        sys.exit("error: MONAI Label is not installed. `bash scripts/serve.sh` installs it and starts the server")


def pairs(values: list[str]) -> dict[str, str]:
    """Parse options of the form ``NAME=VALUE`` into a dictionary.

    Raises:
        ValueError: if an option has another form.
    """
    wrong = [value for value in values if "=" not in value]
    if wrong:
        raise ValueError(f"expected NAME=VALUE, got {wrong[0]!r}")
    return dict(value.split("=", 1) for value in values)


def prepare_settings(arguments: argparse.Namespace) -> None:
    """Set the environment variables that MONAI Label reads when it is imported."""
    os.environ["MONAI_LABEL_APP_DIR"] = str(arguments.work_dir / "app")
    os.environ["MONAI_LABEL_STUDIES"] = arguments.studies
    os.environ["MONAI_LABEL_SERVER_PORT"] = str(arguments.port)
    os.environ["MONAI_LABEL_SESSIONS"] = "false"
    os.environ.setdefault("MONAI_LABEL_AUTO_UPDATE_SCORING", "false")
    if arguments.studies.startswith(("http://", "https://")):
        os.environ.setdefault("MONAI_LABEL_DATASTORE", "dsa")
    # Trainings run in processes that import this repository.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))


def serve(arguments: argparse.Namespace) -> None:
    from monailabel.config import settings

    from scripts.label_server.doors.access import check_host

    # Checked before the other imports, which take seconds.
    check_host(arguments.host, settings.MONAI_LABEL_AUTH_ENABLE, arguments.insecure)

    import uvicorn
    from filelock import FileLock, Timeout

    from scripts.label_server.app import REMOTE, AppConfig, PathologyApp
    from scripts.label_server.ending import run_until_signal
    from scripts.label_server.learning.served_model import find_bundles
    from scripts.label_server.server import create_server
    from scripts.label_server.studies.datastore import check_studies
    from shared.data.case_pattern import CasePattern

    if not arguments.studies.startswith(REMOTE):
        check_studies(Path(arguments.studies), arguments.work_dir)
    case_pattern = None if arguments.case_pattern is None else CasePattern(arguments.case_pattern)
    names = [name for name in arguments.models.split(",") if name]
    checkpoints = {name: Path(path) for name, path in pairs(arguments.checkpoint).items()}
    overlays = {name: text.split(",") for name, text in pairs(arguments.overlay).items()}
    sources = find_bundles(arguments.bundles, names, checkpoints, overlays)
    if arguments.retrain and arguments.retrain not in sources:
        raise ValueError(f"--retrain {arguments.retrain} is not served; the served models are {', '.join(sources)}")
    config = AppConfig(
        arguments.work_dir,
        sources,
        json_values(arguments.set),
        json_values(arguments.train_set),
        arguments.slide_mpp,
        arguments.patch_mpp,
        arguments.retrain,
        arguments.retrain_every,
        annotation_frame=arguments.annotation_frame,
        case_pattern=case_pattern,
        features={name: Path(path).expanduser().resolve() for name, path in pairs(arguments.features).items()},
    )
    lock = FileLock(arguments.work_dir / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"another server uses --work_dir {arguments.work_dir}: give this one another folder") from None
    temporary = arguments.work_dir / "temporary"
    # Removes what a killed server left behind.
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    tempfile.tempdir = os.environ["TMPDIR"] = str(temporary)
    app = PathologyApp(settings.MONAI_LABEL_APP_DIR, settings.MONAI_LABEL_STUDIES, config)
    logging.getLogger(__name__).info("models: %s; slides: %d", ", ".join(sources), len(app.datastore().list_images()))
    largest_upload = int(arguments.largest_upload_gb * 2**30)
    server = create_server(app, arguments.host, arguments.origin, arguments.allow_delete, largest_upload)
    serving = uvicorn.Config(server, arguments.host, arguments.port, log_level="info", access_log=False)
    run_until_signal(serving, app.trainings.close)


def main() -> None:
    arguments = parsed()
    check_installed()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", datefmt="%H:%M:%S")
    arguments.work_dir = arguments.work_dir.expanduser().resolve()
    if not arguments.studies.startswith(("http://", "https://")):
        arguments.studies = str(Path(arguments.studies).expanduser().resolve())
    prepare_settings(arguments)
    try:
        (arguments.work_dir / "app").mkdir(parents=True, exist_ok=True)
        serve(arguments)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
