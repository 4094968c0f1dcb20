"""Packed bundles, downloaded by MONAI's own commands from servers on loopback, and used."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from scripts.packing import packer
from scripts.packing.archive import unpack, write_archive
from scripts.packing.refusals import reasons
from scripts.packing.verification import verify
from scripts.packing.zoo_process import Result, Task, run_tasks
from shared.synthetic import DemoPlan, SlidePlan, write_demo
from tests.packing.conftest import ADDRESS
from tests.packing.servers import Answer, Loopback, github, hub, serve

REPOSITORY = Path(__file__).parents[2]
BUNDLES = REPOSITORY / "bundles"
OWNER = "someone/bundles"
HOSTS = ["github.com", "api.github.com", "raw.githubusercontent.com", "release-assets.githubusercontent.com"]
# By this name MONAI reads the list of releases, by any other model_info.json.
LISTED_TAG, TAG = "hosting_storage_v1", "first"

TWO = """
import sys
from pathlib import Path
import torch
from monai.bundle import load
first, second = map(Path, {paths!r})
sys.path.insert(0, str(first))
for folder in (first, second):
    network = load(folder.name, bundle_dir=folder.parent, workflow_type="inference", device="cpu")
    scripted, metadata, _ = load(folder.name, bundle_dir=folder.parent, load_ts_module=True, device="cpu")
    image = 255 * torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(image), scripted.eval()(image))
    assert "generated" in metadata["description"]
"""


@dataclass(frozen=True)
class Release:
    """Two packed bundles and the places where they were downloaded to."""

    name: str
    version: str
    archives: dict[str, Path]
    folder: Path
    server: Loopback
    results: dict[str, Result]

    def assert_passed(self, *steps: str) -> None:
        for step in steps:
            assert not self.results[step].error, self.results[step].error


@pytest.fixture(scope="module")
def packed(pack_into, training_of, names, tmp_path_factory):
    """Two bundles; what is done with files above 25 MB is done with those above 1 kB."""
    good = [name for name in names if not reasons(BUNDLES / name, training_of(name))]
    # The smallest, which are the fastest to move.
    two = sorted(good, key=lambda name: (training_of(name) / "model.pt").stat().st_size)[:2]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packer, "LARGE_BYTES", 1_000)
        return pack_into(two, tmp_path_factory.mktemp("release"))


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """One generated slide."""
    plan = DemoPlan(images={}, slides=(SlidePlan("test", 0.3, (640, 560)),))
    return next((write_demo(tmp_path_factory.mktemp("slides") / "data", plan) / "slides").iterdir())


def altered(archive, folder):
    """Two zips of a name: one that ends early, one with a changed byte in the weights."""
    content = bytearray(archive.read_bytes())
    (folder / "truncated").mkdir(parents=True)
    (folder / "truncated" / archive.name).write_bytes(content[: len(content) * 2 // 3])
    place = content.index(b"models/model.pt") + 5000
    content[place] ^= 1
    (folder / "altered").mkdir()
    (folder / "altered" / archive.name).write_bytes(content)


def routes(packed, name, folder):
    """All servers in one: each host and path belongs to one of them alone."""
    archive = packed[name].archive
    assets = {bundle.archive.name: bundle.archive for bundle in packed.values()}
    assets |= {file.name: file for bundle in packed.values() for file in bundle.large_files}
    model_info = archive.parent / "model_info.json"
    stations = (
        github(assets, OWNER, [TAG, LISTED_TAG], model_info),
        hub(unpack(archive, folder / "at_hub"), f"someone/{name}", "main"),
    )

    def route(host: str, path: str) -> Answer | None:
        if host == "127.0.0.1" and (folder / "served" / path.lstrip("/")).is_file():
            return Answer(folder / "served" / path.lstrip("/"))
        return next((answer for station in stations if (answer := station(host, path)) is not None), None)

    return route


@pytest.fixture(scope="module")
def release(packed, slide, tmp_path_factory):
    """Every download and use, one after the other, in processes that see the servers and no checkout."""
    folder = tmp_path_factory.mktemp("downloads")
    (name, first), (other, second) = packed.items()
    version = first.entry.rpartition("_v")[2]
    (folder / "served").mkdir()
    shutil.copy(first.archive, folder / "served")
    altered(first.archive, folder / "served")
    with serve(routes(packed, name, folder), HOSTS, folder) as server:
        tasks = steps(folder, server.address, name, version, first, slide)
        tasks += pairs(folder, unpack(first.archive, folder / "a"), unpack(second.archive, folder / "b"))
        done = run_tasks(tasks, server.environment | {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HOME": str(folder / "cache")})
    archives = {name: first.archive, other: second.archive}
    return Release(name, version, archives, folder, server, {result.name: result for result in done})


def steps(folder, address, name, version, first, slide):
    """Downloads by each source, and what a user does with them."""
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    clone = folder / "clone" / name
    clone.mkdir(parents=True)
    shutil.copy(first.bundle / "large_files.yml", clone)

    def download(step, *options):
        words = ["download", "--name", name, "--bundle_dir", str(folder / step), *options]
        return Task(step, elsewhere, "command", {"words": words})

    def infer(step, cwd, *options):
        words = ["run", *options, "--source", str(slide), "--output_dir", str(folder / step), "--num_workers", "1"]
        return Task(step, cwd, "command", {"words": words})

    url = folder / "url" / name
    return [
        download("url", "--version", version, "--url", f"{address}/{first.archive.name}"),
        infer("inside", url, "--config_file", "configs/inference.json"),
        infer("outside", elsewhere, "--config_file", str(url / "configs/inference.json"), "--bundle_root", str(url)),
        download("github", "--version", version, "--source", "github", "--repo", f"{OWNER}/{TAG}"),
        download("model_info", "--source", "github", "--repo", f"{OWNER}/{TAG}"),
        download("releases", "--source", "github", "--repo", f"{OWNER}/{LISTED_TAG}"),
        download("hub", "--version", "main", "--source", "huggingface_hub", "--repo", f"someone/{name}"),
        download("truncated", "--version", version, "--url", f"{address}/truncated/{first.archive.name}"),
        download("altered", "--version", version, "--url", f"{address}/altered/{first.archive.name}"),
        Task("large", clone, "command", {"words": ["download_large_files", "--bundle_path", str(clone)]}),
    ]


def pairs(folder, first, second):
    """Two bundles in one process: of one `shared`, and the second one of another."""
    other = folder / "other" / second.name
    shutil.copytree(second, other)
    build = (other / "shared/build.txt").read_text().strip()
    metadata = other / "configs/metadata.json"
    metadata.write_text(metadata.read_text().replace(build, "0" * 12))
    (other / "shared/build.txt").write_text("0" * 12)
    tasks = []
    for step, paths in {"same": (first, second), "different": (first, other)}.items():
        script = folder / f"{step}.py"
        script.write_text(TWO.format(paths=tuple(map(str, paths))))
        tasks.append(Task(step, folder / "elsewhere", "script", {"path": str(script)}))
    return tasks


def files_below(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_address_is_downloaded_and_used(release):
    release.assert_passed("url", "inside", "outside")
    found = {step: sorted(path.name for path in (release.folder / step).iterdir()) for step in ("inside", "outside")}
    assert found["inside"] == found["outside"]
    assert any(name.endswith(".ome.tif") for name in found["inside"])
    first, second = (next((release.folder / step).glob("*.geojson")).read_bytes() for step in ("inside", "outside"))
    assert first == second


@pytest.mark.parametrize("source", ["github", "model_info", "releases", "hub"])
def test_every_source_gives_the_files_that_were_packed(release, source, tmp_path):
    release.assert_passed(source)
    wanted = files_below(unpack(release.archives[release.name], tmp_path))
    found = files_below(release.folder / source / release.name)
    # Its own notes on what it has.
    found = {name: content for name, content in found.items() if not name.startswith(".cache/")}
    assert found == wanted


def test_each_source_was_asked_where_it_lies(release):
    asked = release.server.asked
    entry = f"{release.name}_v{release.version}.zip"
    assert ("github.com", f"/{OWNER}/releases/download/{TAG}/{entry}") in asked
    assert ("raw.githubusercontent.com", f"/{OWNER}/{TAG}/models/model_info.json") in asked
    assert ("api.github.com", f"/repos/{OWNER}/releases") in asked
    assert ("127.0.0.1", f"/api/models/someone/{release.name}/revision/main") in asked


@pytest.mark.parametrize(("source", "said"), [("truncated", "BadZipFile"), ("altered", "Bad CRC-32")])
def test_monai_refuses_a_damaged_zip(release, source, said):
    assert said in release.results[source].error


@pytest.mark.parametrize(("kind", "said"), [("truncated", "checksum"), ("altered", "checksum")])
def test_verifying_refuses_a_damaged_zip(release, kind, said):
    archive = release.archives[release.name]
    (result,) = verify([release.folder / "served" / kind / archive.name], archive.parent / "model_info.json")
    assert result.check == "archive"
    assert said in result.error


def test_verifying_refuses_a_zip_that_was_packed_again(release, tmp_path):
    """Sound as a zip, and not what was released."""
    archive = release.archives[release.name]
    folder = unpack(archive, tmp_path)
    with (folder / "shared/networks/__init__.py").open("a") as file:
        file.write("# changed\n")
    write_archive(folder, tmp_path / archive.name)
    (result,) = verify([tmp_path / archive.name], archive.parent / "model_info.json")
    assert "it was altered" in result.error


def test_large_files_complete_a_clone(release, tmp_path):
    release.assert_passed("large")
    packed = unpack(release.archives[release.name], tmp_path)
    for name in ("models/model.pt", "models/model.ts"):
        assert (release.folder / "clone" / release.name / name).read_bytes() == (packed / name).read_bytes()


def test_two_bundles_of_one_shared_work_in_one_process(release):
    release.assert_passed("same")


def test_a_bundle_of_another_shared_is_refused_in_one_process(release):
    error = release.results["different"].error
    assert "this bundle needs shared" in error
    assert "+000000000000" in error


def test_the_same_input_is_packed_to_the_same_bytes(packed, pack_into, tmp_path):
    (name, bundle), *_ = packed.items()
    again = pack_into([name], tmp_path / "again")[name]
    assert again.archive.read_bytes() == bundle.archive.read_bytes()
    info = json.loads((tmp_path / "again" / "model_info.json").read_text())
    assert info == {bundle.entry: {"checksum": bundle.checksum, "source": f"{ADDRESS}/{bundle.archive.name}"}}
