"""A tiny MONAI bundle workflow that writes what it was given, for sweeps over it."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Validation prefers the rate 0.2, the test images 0.3.
CONFIG = {
    "imports": ["$import json", "$import os", "$import pathlib", "$import time"],
    "output_dir": None,
    "tracking_uri": None,
    "_desc_rate": "A number.",
    "rate": 0.1,
    "nested": {"depth": 3},
    "num_workers": 0,
    "fold": 0,
    "needs": None,
    "folder": "$pathlib.Path(@output_dir)",
    "file": "$@folder / 'evaluation' / 'metrics.json'",
    "metrics": "$json.dumps({'num_images': 3, 'regions': {'A': {'f_all': @rate * 10 + @fold, 'ods': None}}})",
    "history": "$'epoch,train_loss,val_f\\n1,9,9\\n2,1,%r\\n' % (@fold - abs(@rate - 0.2))",
    "folders": "$[path.mkdir(parents=True, exist_ok=True) for path in (@file.parent, @folder / 'stage')]",
    # Fails where the fold's file is not there.
    "needed": "$@needs is None or os.stat(@needs + str(@fold))",
    "run": ["@needed", "@folders", "$(@folder / 'stage' / 'history.csv').write_text(@history)", "$@file.write_text(@metrics)"],
}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """A sweep is started from the checkout."""
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def write_config(tmp_path):
    def write(config=CONFIG, **entries):
        path = tmp_path / "train.json"
        path.write_text(json.dumps(config | entries))
        return str(path)

    return write


@pytest.fixture
def finish():
    """Runs of a sweep as if they had been trained."""

    def write(sweep, *combinations):
        for values in combinations or sweep.combinations:
            file = sweep.folder(values) / "evaluation" / "metrics.json"
            file.parent.mkdir(parents=True)
            file.write_text(json.dumps({"regions": {"A": {"f_all": 0.5}}}))
            (sweep.folder(values) / "sweep.json").write_text(json.dumps(sweep.settings(values)))

    return write


def script(*arguments):
    return [sys.executable, str(ROOT / "scripts/sweep.py"), *map(str, arguments)]
