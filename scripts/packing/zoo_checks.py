"""The checks of the public model zoo, and a bundle's own commands, each in a process that sees nothing but the unpacked bundle.

python zoo_checks.py TASKS.json REPORT.json    as `zoo_process.py` starts it; imports nothing of this repository

Every check is called with the bundle's folder as working directory and first on ``sys.path``, as ``python -m monai.bundle`` has
it there, and raises what it has found.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import re
import runpy
import shlex
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

CONFIGS = Path("configs")
# An overlay that makes a bundle's training small.
SMALL = "small"
METADATA, INFERENCE = str(CONFIGS / "metadata.json"), str(CONFIGS / "inference.json")
WEIGHTS, TORCHSCRIPT = Path("models", "model.pt"), Path("models", "model.ts")
# Of a head on features: which encoder it needs, and whether model.ts holds it.
ENCODER = Path("models", "encoder.json")
DOCUMENTS = ("LICENSE", "docs/README.md", "docs/data_license.txt")
REQUIRED = (
    METADATA,
    "configs/train.json",
    INFERENCE,
    f"configs/{SMALL}.json",
    "configs/logging.conf",
    str(WEIGHTS),
    "shared/__init__.py",
)
LOG_TAIL = 3000
SMALL_SLIDE_PX = (900, 1100)


def directory() -> None:
    """Check that every file that a bundle needs exists, that none is left over from runs, and that no link leads out of it."""
    wanted = (*REQUIRED, *DOCUMENTS, *([str(TORCHSCRIPT)] if _holds_its_encoder() else []))
    missing = [name for name in wanted if not Path(name).is_file()]
    _refuse(missing, "missing")
    files = [path for path in Path().rglob("*") if "data" not in path.parts[:1]]
    _refuse([path for path in files if path.is_symlink()], "links")
    _refuse([path for path in files if path.name.startswith("large_files.")], "still to be downloaded")


def licence() -> None:
    """The bundle's licence and the data's."""
    text = Path("LICENSE").read_text(encoding="utf-8")
    if "Apache License" not in text or "Version 2.0" not in text:
        raise ValueError("LICENSE is not the Apache License, Version 2.0")
    if not Path("docs/data_license.txt").read_text(encoding="utf-8").strip():
        raise ValueError("docs/data_license.txt is empty")


def changelog() -> None:
    """The version is in the changelog."""
    metadata = _metadata()
    if metadata["version"] not in metadata["changelog"]:
        raise ValueError(f"version {metadata['version']} is missing from the changelog of {METADATA}")


def metadata(schema: str) -> None:
    """`verify_metadata` with a schema that is available locally: MONAI downloads none if the file exists."""
    from monai.bundle import verify_metadata

    wanted = _metadata()["schema"].rpartition("/")[2]
    if wanted != Path(schema).name:
        raise ValueError(f"{METADATA} names the schema {wanted}, but {Path(schema).name} is available")
    with tempfile.TemporaryDirectory() as folder:
        verify_metadata(METADATA, filepath=str(shutil.copy(schema, folder)))


def net_in_out() -> None:
    """`verify_net_in_out` of the smallest input that the metadata allow, and of one three times as large."""
    from monai.bundle import verify_net_in_out

    for n in (1, 3):
        verify_net_in_out("network_def", meta_file=METADATA, config_file=INFERENCE, bundle_root=".", device="cpu", n=n)


def weights() -> None:
    """The weights are a dictionary of tensors that loads without running code."""
    import torch

    state = torch.load(WEIGHTS, map_location="cpu", weights_only=True)
    _refuse([name for name, value in state.items() if not isinstance(value, torch.Tensor)], "no tensors")


def export_torchscript() -> None:
    """Write models/model.ts: `ckpt_export`, without the notes that name the exporting machine's folders."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, TORCHSCRIPT.name)
        _ckpt_export(path)
        _without_debug_notes(path, TORCHSCRIPT)


def torchscript() -> None:
    """`ckpt_export` works, and it and the file that ships answer as the network does."""
    import torch

    network, image = _network_and_image()
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        exported = Path(folder, "exported.ts")
        _ckpt_export(exported)
        for path in (exported, *([TORCHSCRIPT] if _holds_its_encoder() else [])):
            answer = torch.jit.load(path, map_location="cpu").eval()(image)
            try:
                torch.testing.assert_close(answer, network(image))
            except AssertionError as error:
                raise ValueError(f"{path.name} gives other results than the network: {error}") from error


def shipped() -> None:
    """Every head that lies in ``models`` in its own folder loads after inference.json, and has a model card."""
    for overlay in sorted(Path("models").glob("*/inference.json")):
        _refuse([name for name in ("README.md", "model.pt") if not overlay.with_name(name).is_file()], f"{overlay.parent} lacks")
        _parser(str(overlay)).get_parsed_content("slide_mapper")


def onnx() -> None:
    """`onnx_export` works, and onnxruntime answers as the network does."""
    import onnx
    import onnxruntime
    import torch
    from monai.bundle import onnx_export

    network, image = _network_and_image()
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        # MONAI exports to a temporary file first, and leaves its weights beside it.
        tempfile.tempdir = folder
        path = str(Path(folder, "model.onnx"))
        shape = list(image.shape)
        onnx_export("network_def", path, str(WEIGHTS), METADATA, INFERENCE, input_shape=shape, bundle_root=".")
        onnx.checker.check_model(path)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (answer,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
        torch.testing.assert_close(torch.from_numpy(answer), network(image), rtol=1e-3, atol=1e-3)


def trial_data() -> None:
    """A few generated images and slides where the bundle's own commands look for its data set."""
    demo = importlib.import_module("shared.synthetic.demo")
    folder = Path(_config("train")["dataset_dir"])
    if not folder.exists():
        demo.write_demo(folder, _small_plan(demo.PLANS[folder.name]))


def properties(output_dir: str) -> None:
    """`check_properties` finds nothing missing, in training and in inference.

    Args:
        output_dir: of a training that has ended: what later stages learn from is the work of earlier ones.
    """
    from monai.bundle import ConfigWorkflow

    trained = {**_small(), "tracking::enabled": False, "output_dir": output_dir}
    for name, kind, settings in (("train", "train", trained), ("inference", "infer", {})):
        workflow = ConfigWorkflow(
            str(CONFIGS / f"{name}.json"), workflow_type=kind, logging_file=False, bundle_root=".", **settings
        )
        workflow.initialize()
        _refuse(workflow.check_properties() or (), f"{name}.json has no")


def train(output_dir: str) -> None:
    """The README's training command, with few images and as few epochs as do."""
    _run_readme("train", {"output_dir": output_dir} | _small())
    if not Path(output_dir, WEIGHTS.name).is_file():
        raise ValueError(f"no {WEIGHTS.name} in {output_dir} after the training")


def inference(output_dir: str) -> None:
    """The README's inference command on one generated slide."""
    slide = min(Path(_config("inference")["dataset_dir"], "slides").iterdir())
    _run_readme("inference", {"source": str(slide), "output_dir": output_dir})
    for suffix in (".ome.tif", ".geojson", ".png"):
        if not Path(output_dir, slide.stem + suffix).is_file():
            raise ValueError(
                f"no {slide.stem}{suffix} in {output_dir}: {sorted(path.name for path in Path(output_dir).iterdir())}"
            )


def command(words: list[str]) -> None:
    """``python -m monai.bundle <words>``."""
    sys.argv = ["monai.bundle", *words]
    try:
        runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        if stop.code:
            raise ValueError(f"python -m monai.bundle {shlex.join(words)}: exit status {stop.code}") from stop


def script(path: str) -> None:
    """A Python file."""
    runpy.run_path(path, run_name="__main__")


def readme_command(config: str) -> list[str]:
    """The first command of docs/README.md that runs ``configs/<config>.json`` alone, seen from the bundle's folder."""
    text = Path("docs/README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    for line in re.findall(r"^\s*python -m monai\.bundle (run .*)$", text, re.MULTILINE):
        words = shlex.split(line, comments=True)
        words = [re.sub(rf"^bundles/{Path.cwd().name}(?=/)", ".", word) for word in words]
        if any(re.fullmatch(rf"(\./)?configs/{config}\.json", word) for word in words):
            return words
    raise ValueError(f"docs/README.md has no command 'python -m monai.bundle run ... configs/{config}.json'")


def _run_readme(config: str, settings: Mapping[str, Any]) -> None:
    """`settings` take the place of those in the README's command."""
    words = readme_command(config)
    for name, value in settings.items():
        if f"--{name}" in words:
            words[words.index(f"--{name}") + 1] = str(value)
        else:
            words += [f"--{name}", str(value)]
    command(words)


def _small() -> dict[str, Any]:
    """The settings of the bundle's overlay for small trainings, as MONAI's command line takes them: it drops None."""
    settings = {name: value for name, value in _config(SMALL).items() if not name.startswith("_")}
    return {name: "$None" if value is None else value for name, value in settings.items()}


def _small_plan(plan: Any) -> Any:
    """A data set's plan with few of everything: at most 8 training images of a kind, 4 of another split, 10 small slides."""
    import dataclasses

    changes: dict[str, Any] = {}
    for field in dataclasses.fields(plan):
        value = getattr(plan, field.name)
        if isinstance(value, Mapping):
            changes[field.name] = {split: min(count, 8 if split == "train" else 4) for split, count in value.items()}
    slides = [
        dataclasses.replace(slide, size_px=SMALL_SLIDE_PX)
        for split, count in (("train", 6), ("val", 2), ("test", 2))
        for slide in [slide for slide in plan.slides if slide.split == split][:count]
    ]
    return dataclasses.replace(plan, slides=slides, **changes)


def _config(name: str) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((CONFIGS / f"{name}.json").read_text(encoding="utf-8"))
    return config


def _metadata() -> dict[str, Any]:
    return _config("metadata")


def _holds_its_encoder() -> bool:
    """Whether model.ts is packed: not where it would hold an encoder whose weights are not given on."""
    return not ENCODER.is_file() or bool(json.loads(ENCODER.read_text(encoding="utf-8"))["is_packed"])


def _parser(*overlays: str) -> Any:
    from monai.bundle import ConfigParser

    parser = ConfigParser()
    parser.read_config([INFERENCE, *overlays])
    parser.read_meta(METADATA)
    parser["bundle_root"] = "."
    return parser


def _network_and_image() -> tuple[Any, Any]:
    import torch
    from monai.bundle.scripts import _get_fake_input_shape

    parser = _parser()
    network = parser.get_parsed_content("network_def")
    network.load_state_dict(torch.load(WEIGHTS, map_location="cpu", weights_only=True))
    batch, channels, *sides = _get_fake_input_shape(parser)
    image = 255 * torch.rand(batch, channels, *(2 * side for side in sides), generator=torch.Generator().manual_seed(0))
    return network.eval(), image


def _ckpt_export(path: Path) -> None:
    from monai.bundle import ckpt_export

    ckpt_export("network_def", str(path), str(WEIGHTS), METADATA, INFERENCE, bundle_root=".")


def _without_debug_notes(source: Path, target: Path) -> None:
    import torch

    reader = torch._C.PyTorchFileReader(str(source))
    writer = torch._C.PyTorchFileWriter(str(target))
    # The writer adds its own.
    written = ("version", "byteorder", ".data/serialization_id")
    for name in sorted(reader.get_all_records()):
        if not name.endswith(".debug_pkl") and name not in written:
            content = reader.get_record(name)
            writer.write_record(name, content, len(content))
    writer.write_end_of_file()


def _refuse(found: Any, what: str) -> None:
    if found:
        raise ValueError(f"{what}: {', '.join(sorted(map(str, found)))}")


CHECKS: dict[str, Callable[..., None]] = {
    check.__name__: check
    for check in (
        directory,
        licence,
        changelog,
        metadata,
        weights,
        net_in_out,
        export_torchscript,
        torchscript,
        shipped,
        onnx,
        trial_data,
        train,
        properties,
        inference,
        command,
        script,
    )
}


def _run_forked(task: Mapping[str, Any], log: Path) -> dict[str, Any]:
    """The task in a child process, so that no two of them share an imported `shared`."""
    start, failure = time.monotonic(), log.with_suffix(".error")
    failure.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with log.open("w") as output:
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
            os.chdir(task["folder"])
            sys.path[0] = str(task["folder"])
            CHECKS[task["check"]](**task["arguments"])
            status = 0
        except BaseException as error:
            failure.write_text(_causes(error))
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    _, status = os.waitpid(child, 0)
    message = ""
    if status:
        found = failure.read_text() if failure.is_file() else f"ended with status {os.waitstatus_to_exitcode(status)}"
        message = f"{found}\n{log.read_text(errors='replace')[-LOG_TAIL:]}"
    return {"name": task["name"], "check": task["check"], "error": message, "seconds": round(time.monotonic() - start, 2)}


def _causes(error: BaseException) -> str:
    """An error and what lies behind it: MONAI's own names the component alone."""
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)
    found = [f"{type(cause).__name__}: {cause}" for cause in causes]
    return "\nfrom ".join(found)


def main() -> None:
    tasks, report = Path(sys.argv[1]), Path(sys.argv[2])
    # Once, before the forks.
    for module in ("torch", "monai.bundle", "monai.engines", "monai.handlers", "ignite.engine", "mlflow"):
        importlib.import_module(module)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    log = report.with_suffix(".log")
    results = [_run_forked(task, log) for task in json.loads(tasks.read_text())]
    report.write_text(json.dumps(results))


if __name__ == "__main__":
    main()
