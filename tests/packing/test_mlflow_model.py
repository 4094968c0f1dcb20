"""A packed bundle in a real MLflow database: loaded by another process, in another folder."""

import json
import shutil
from urllib.parse import urlparse
from urllib.request import url2pathname

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.models import get_model_info

from scripts.packing.mlflow_model import log_model
from shared.handlers import Tracking

LOAD = """
import sys, mlflow, numpy as np
mlflow.set_tracking_uri(sys.argv[1]); mlflow.set_registry_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(sys.argv[2])
images = np.random.default_rng(1).integers(0, 256, (2, 70, 96, 3), dtype=np.uint8)
found = model.predict(images)
import shared
print(shared.__file__)
np.save(sys.argv[3], found)
"""


@pytest.fixture
def training(tmp_path, training_of, migrated_database, monkeypatch):
    """A training of CAMEL with a run in MLflow."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "training"
    shutil.copytree(training_of("camel"), folder)
    shutil.copy(migrated_database, folder / "mlruns.db")
    tracking = Tracking(folder, "camel")
    tracking.start({})
    tracking.finish()
    return folder


def test_a_packed_bundle_is_a_registered_model(training, pack_into, tmp_path, run_python):
    (packed,) = pack_into(["camel"], tmp_path / "dist").values()
    uri = f"sqlite:///{training}/mlruns.db"
    addresses = [log_model(packed.archive, training, "tumour") for _ in range(2)]
    assert addresses == ["models:/tumour/1", "models:/tumour/2"]
    run_id = json.loads((training / "mlflow.json").read_text())["run_id"]
    client = MlflowClient(uri)
    assert {version.run_id for version in client.search_model_versions("name = 'tumour'")} == {run_id}
    info = get_model_info(url2pathname(f"{urlparse(client.get_run(run_id).info.artifact_uri).path}/model"))
    assert info.signature.inputs.inputs[0].shape == (-1, -1, -1, 3)
    assert info.metadata["name"] == "CAMEL"

    out = tmp_path / "found.npy"
    process = run_python("-c", LOAD, uri, addresses[0], out, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert "/artifacts/camel/shared/" in process.stdout
    found = np.load(out)
    assert (found.shape, found.dtype) == ((2, 70, 96), np.float32)
    assert 0 <= found.min() <= found.max() <= 1
    assert found.std() > 0


def test_a_training_that_mlflow_has_not_followed(training_of, tmp_path):
    with pytest.raises(
        ValueError, match=r"mlflow\.json does not exist: expected the note of a training that was logged to MLflow"
    ):
        log_model(tmp_path / "camel_v1.zip", training_of("camel"))
