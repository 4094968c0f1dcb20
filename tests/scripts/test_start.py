"""Help comes at once, and a training loads nothing that it does not use."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(path.name for path in (ROOT / "scripts").glob("*.py"))
LOADED = """
import runpy, sys
sys.argv[:] = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print(*sys.modules, file=sys.stderr)
"""
# Each takes a tenth of a second to seconds to import; MONAI itself imports all but rasterio.
SLOW = {"torch", "monai", "pandas", "rasterio", "sklearn", "matplotlib", "mlflow", "scipy", "skimage"}


def start(script, *options):
    """A script's process, and the modules that it had loaded when it ended."""
    command = [sys.executable, "-c", LOADED, f"scripts/{script}", *map(str, options)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    return done, set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_waits_for_no_library(script):
    done, loaded = start(script, "--help")
    assert (done.returncode, done.stdout[:7]) == (0, "usage: "), done.stderr
    assert not SLOW & loaded


def test_what_is_wrong_is_said_before_torch_and_monai_are_imported(tmp_path):
    common = ["--bundle", "bundles/camel", "--out", tmp_path / "maps"]
    done, loaded = start("infer.py", *common)
    assert (done.returncode, "the following arguments are required: --manifest" in done.stderr) == (2, True)
    assert not SLOW & loaded
    done, loaded = start("infer.py", *common, "--manifest", tmp_path, "--model_dir", tmp_path)
    assert (done.returncode, "holds no model.pt" in done.stderr) == (2, True)
    done, loaded = start("infer.py", *common, "--manifest", tmp_path / "no.csv")
    assert (done.returncode, "no.csv" in done.stderr) == (2, True)
    assert not {"torch", "monai"} & loaded


def loaded_by(start):
    """The modules of other packages that a module of `shared` imports when it is imported, directly or not, by their names."""
    seen, waiting, foreign = set(), [start], set()
    while waiting:
        module = waiting.pop()
        path = ROOT / (module.replace(".", "/") + ".py")
        if module in seen or not path.is_file():
            continue
        seen.add(module)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                foreign |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                foreign.add(node.module.split(".")[0])
            elif isinstance(node, ast.ImportFrom):
                parent = ".".join([*module.split(".")[: -node.level], *filter(None, [node.module])])
                waiting += [parent, *(f"{parent}.{alias.name}" for alias in node.names)]
    return foreign


@pytest.mark.parametrize(
    ("module", "spared"),
    [
        ("engines.trainer", {"pandas", "rasterio", "sklearn", "matplotlib", "scipy", "skimage"}),
        ("inference.slide_mapper", {"monai", "pandas", "sklearn", "matplotlib", "mlflow"}),
        ("data.manifest", {"torch", "monai", "pandas", "rasterio", "sklearn", "matplotlib", "mlflow", "scipy", "skimage"}),
    ],
)
def test_what_a_module_does_not_use_is_not_imported(module, spared):
    assert not loaded_by(f"shared.{module}") & spared
