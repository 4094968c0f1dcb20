"""A real server, as a process, over generated slides; and a client that speaks as the viewers do."""

import contextlib
import http.client
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from shared.networks import InstanceClassifier, SideOutputVGG
from shared.synthetic import DemoPlan, SlidePlan, write_demo, write_slide
from tests.free_port import free_port

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "serve.py"
DEADLINE_S = 900
IMAGE_SIZE_PX = 64
JAVA = {"User-Agent": "Java-http-client/17.0.8"}
JSON = {"Content-Type": "application/json"}
PAINT = (70, 30, 120)
SLIDES = (
    SlidePlan("train", 0.3, (520, 680)),
    SlidePlan("train", 0.0, (500, 620)),
    SlidePlan("train", 0.3, (640, 520)),
    SlidePlan("test", 0.0, (600, 560)),
    SlidePlan("test", 0.4, (1300, 1100)),
)
TINY_CAMEL: dict[str, Any] = {
    "image_size_px": IMAGE_SIZE_PX,
    "backbone": "resnet10",
    "segmentation_backbone": "resnet10",
    "amp_dtype": "$None",
    "num_workers": 0,
    "cmil::num_epochs": 3,
    "cmil::lr": 0.003,
    "max_min::num_epochs": 2,
    "retrain::num_epochs": 2,
    "retrain::batch_size": 8,
    "num_epochs": 4,
    "batch_size": 4,
    "tracking::enabled": False,
}
TINY_SLIDES: dict[str, Any] = {
    "backbone": "resnet10",
    "norm": "batch",
    "tiles_per_slide": 12,
    "tile_size_px": 32,
    "margin_px": 8,
}
TINY_CDWS: dict[str, Any] = {"image_size_px": IMAGE_SIZE_PX, "mpp": 0.5, "num_stages": 2, "etas": [2.5, 5], "norm": "batch"}


class Reply(NamedTuple):
    """What came back."""

    status: int
    kind: str
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)

    @property
    def reason(self) -> str:
        return str(self.json["detail"])


@dataclass
class Server:
    """The server's process, and requests to it as Java's client makes them: without a type where none is given."""

    studies: Path | str
    work_dir: Path
    arguments: list[str]
    variables: dict[str, str] = field(default_factory=dict)
    port: int = 0
    process: subprocess.Popen[bytes] | None = None
    log: list[Path] = field(default_factory=list)

    def start(self) -> None:
        self.port = free_port()
        command = [sys.executable, str(SCRIPT), "--studies", str(self.studies), "--work_dir", str(self.work_dir)]
        self.log.append(self.work_dir.parent / f"server{len(self.log)}.log")
        with self.log[-1].open("w") as log:
            self.process = subprocess.Popen(
                [*command, "--port", str(self.port), *self.arguments],
                stdout=log,
                stderr=log,
                env=environment() | self.variables,
                start_new_session=True,
            )
        deadline = time.monotonic() + DEADLINE_S
        while True:
            assert self.process.poll() is None, self.log[-1].read_text()
            assert time.monotonic() < deadline, self.log[-1].read_text()
            with contextlib.suppress(OSError):
                if self.ask("GET", "/info/").status == 200:
                    return
            time.sleep(0.2)

    def stop(self, number: int = signal.SIGTERM) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(DEADLINE_S)

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, timeout: float = DEADLINE_S
    ) -> Reply:
        if body is not None and not isinstance(body, bytes | str):
            body = json.dumps(body, separators=(",", ":"))
        data = body.encode() if isinstance(body, str) else body
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.putrequest(method, path, skip_host="Host" in (headers or {}), skip_accept_encoding=True)
            for name, value in {**JAVA, **(headers or {})}.items():
                connection.putheader(name, value)
            if data is not None:
                connection.putheader("Content-Length", str(len(data)))
            connection.endheaders(data)
            response = connection.getresponse()
            return Reply(response.status, response.getheader("content-type", ""), response.read())
        finally:
            connection.close()

    def send(self, method: str, path: str, files: dict[str, tuple[str, bytes, str]], fields: dict[str, str]) -> Reply:
        """A multipart body as QuPath builds it: no line end behind the last boundary."""
        boundary = str(uuid.uuid4().int)
        body = b""
        for name, (file_name, content, kind) in files.items():
            head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{file_name}"\r\n'
            head += f"Content-Type: {kind}\r\n\r\n"
            body += head.encode() + content + b"\r\n"
        for name, value in fields.items():
            body += f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        return self.ask(
            method, path, body + f"--{boundary}--".encode(), {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        )


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "ignore"}


@pytest.fixture(scope="session")
def monai_label() -> None:
    """Skips what needs a server where there can be none."""
    if importlib.util.find_spec("monailabel") is None:
        pytest.skip("MONAI Label is not installed: bash scripts/test.sh installs it")


@pytest.fixture(scope="session")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated images and slides, their tumour painted in another colour."""
    folder = tmp_path_factory.mktemp("monailabel") / "data"
    write_demo(folder, DemoPlan(images={"train": 16, "val": 8, "test": 8}, size_px=IMAGE_SIZE_PX, slides=SLIDES))
    for mask in sorted((folder / "masks").iterdir()):
        image = folder / "images" / mask.name
        pixels = np.array(Image.open(image))
        pixels[np.array(Image.open(mask)) > 0] = PAINT
        Image.fromarray(pixels).save(image)
    for mask in sorted((folder / "slide_masks").iterdir()):
        slide = folder / "slides" / f"{mask.stem}.tif"
        pixels = tifffile.imread(slide, level=0)
        pixels[np.array(Image.open(mask)) > 0] = PAINT
        write_slide(slide, pixels)
    return folder


@pytest.fixture(scope="session")
def truth(generated: Path) -> dict[str, np.ndarray]:
    """Tumour of each slide, bool ``(H, W)`` at level 0."""
    return {path.stem: np.array(Image.open(path)) > 0 for path in sorted((generated / "slide_masks").iterdir())}


@pytest.fixture(scope="session")
def checkpoints(monai_label: None, generated: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Output folders of a tiny trained CAMEL, and of the two others as far as inference reads them, with random weights."""
    folder = tmp_path_factory.mktemp("checkpoints")
    options = {**TINY_CAMEL, "dataset_dir": generated, "output_dir": folder / "camel"}
    arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "bundles/camel/configs/train.json", *arguments]
    run = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    torch.manual_seed(0)
    networks = {
        "alpha_beta_mil": (InstanceClassifier("resnet10", norm="batch"), TINY_SLIDES),
        "cdws_mil": (SideOutputVGG(num_stages=2, norm="batch"), TINY_CDWS),
    }
    for name, (network, config) in networks.items():
        (folder / name).mkdir()
        torch.save(network.state_dict(), folder / name / "model.pt")
        (folder / name / "config.json").write_text(json.dumps(config))
    (folder / "alpha_beta_mil" / "calibration.json").write_text('{"threshold": 0.5}')
    return {name: folder / name for name in ("camel", *networks)}


@contextlib.contextmanager
def running(server: Server) -> Iterator[Server]:
    """A server that is started, and killed at the end with all that it has started."""
    try:
        server.start()
        yield server
    finally:
        if server.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.process.pid, signal.SIGKILL)
            server.process.wait()


@pytest.fixture(scope="module")
def server(generated: Path, checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server a module, over slides of its own, one of which is cut short."""
    folder = tmp_path_factory.mktemp("served")
    studies = folder / "studies"
    shutil.copytree(generated / "slides", studies)
    (studies / "broken.svs").write_bytes((studies / "slide_00.tif").read_bytes()[:3000])
    arguments = [text for name, path in checkpoints.items() for text in ("--checkpoint", f"{name}={path}")]
    arguments += ["--models", ",".join(checkpoints)]
    for key, value in (("tracking::enabled", "false"), ("num_workers", "0"), ("amp_dtype", "null")):
        arguments += ["--train_set", key, value]
    with running(Server(studies, folder / "work", arguments)) as started:
        yield started


def asap(name: str, box: tuple[int, int, int, int]) -> bytes:
    """What QuPath submits: one rectangle (x, y, x, y) of a class."""
    left, top, right, bottom = box
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    points = "".join(f'<Coordinate Order="{order}" X="{x}" Y="{y}"/>' for order, (x, y) in enumerate(corners))
    return (
        '<?xml version="1.0" encoding="UTF-8" standalone="no"?>\n<ASAP_Annotations><Annotations Description="" H="0" Name="" '
        f'W="0" X="0" Y="0"><Annotation Color="#c80000" Name="{name}" PartOfGroup="{name}" Type="Polygon"><Coordinates>{points}'
        "</Coordinates></Annotation></Annotations><AnnotationGroups/></ASAP_Annotations>"
    ).encode()


@pytest.fixture(scope="session")
def asap_annotation():
    return asap


# What a client says of a slide.
SAID = {"weak_label": {"tumor": 1, "fraction": 0.1}}


@pytest.fixture
def store(monai_label, tmp_path):
    """Opens the studies folder, as a server does when it starts."""
    from scripts.label_server.studies.datastore import SlideDatastore

    (tmp_path / "studies" / "sub").mkdir(parents=True)
    for name in ("a.tif", "a.svs", "b.tif", "sub/c.tif"):
        (tmp_path / "studies" / name).write_bytes(name.encode())
    return lambda: SlideDatastore(str(tmp_path / "studies"), auto_reload=False)


def upload(tmp_path, name, content=""):
    (tmp_path / name).write_text(content)
    return str(tmp_path / name)


def said_and_drawn(opened, slide="c"):
    drawn = opened.annotation_file(slide)
    return opened.get_image_info(slide).get("weak_label"), drawn and drawn.read_text()
