"""The notebooks run from their first cell to their last, on few images; they are kept without outputs."""

import json
from pathlib import Path

import pytest

from shared.synthetic import DemoPlan, SlidePlan, write_demo

from .documented import ROOT

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
# In place of the cell of settings.
SETTINGS = {
    "weak_labels_to_maps": """
from pathlib import Path
CHECKOUT, DATA, OUT = Path({root!r}), Path({data!r}), Path("out")
KEYS = {{"num_epochs": 1, "cmil::num_epochs": 2, "retrain::num_epochs": 1}}
""",
    "own_folder": """
from pathlib import Path
CHECKOUT, OUT = Path({root!r}), Path("out")
FOLDER, MASKS, CLASSES, MPP = Path("my_images"), Path("my_masks"), ["normal", "tumour"], 0.5
METHODS = ["wildcat+features"]
KEYS = [("all", "num_workers", "0"), ("all", "num_epochs", "1")]
""",
}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert not [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")]
    assert [cell["metadata"].get("tags") for cell in cells].count(["parameters"]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient and ipykernel")
    pytest.importorskip("ipykernel", reason="needs nbclient and ipykernel")
    import nbformat

    plan = DemoPlan(images={"train": 8, "val": 4, "test": 4}, slides=(SlidePlan("test", 0.3, (700, 600)),))
    data = write_demo(tmp_path / "data", plan)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "weakhisto").symlink_to(ROOT / "shared" / "python_api")
    for name in ("JUPYTER_DATA_DIR", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "MPLCONFIGDIR"):
        monkeypatch.setenv(name, str(tmp_path / "jupyter"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(path, as_version=4)
    (settings,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    settings.source = SETTINGS[path.stem].format(root=str(ROOT), data=str(data))
    (tmp_path / "work").mkdir()
    client = nbclient.NotebookClient(
        notebook, timeout=1800, startup_timeout=600, resources={"metadata": {"path": str(tmp_path / "work")}}
    )
    client.execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert [output for output in shown if "image/png" in output.get("data", {})]
    assert Path(tmp_path / "work" / "out").is_dir()
