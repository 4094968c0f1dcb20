"""MONAI's exports where a package is missing, as a user starts them."""

from pathlib import Path

import pytest

BUNDLE = Path(__file__).parents[2] / "bundles/camel"
# In the place of an environment without these packages.
WITHOUT = """
import importlib.machinery as machinery, os
found = machinery.PathFinder.find_spec
machinery.PathFinder.find_spec = classmethod(
    lambda cls, name, *rest: None if name.split(".")[0] in os.environ["WITHOUT"].split() else found(name, *rest)
)
"""


@pytest.mark.parametrize(
    ("command", "without", "package"),
    [("onnx_export", "onnx onnxscript onnxruntime onnx_ir", "onnxscript"), ("trt_export", "torch_tensorrt", "torch-tensorrt")],
)
def test_the_missing_package_is_named(run_python, tmp_path, command, without, package):
    (tmp_path / "sitecustomize.py").write_text(WITHOUT)
    options = ["--net_id", "network_def", "--filepath", tmp_path / "network", "--ckpt_file", tmp_path / "model.pt"]
    options += ["--meta_file", BUNDLE / "configs/metadata.json", "--config_file", BUNDLE / "configs/inference.json"]
    options += ["--input_shape", "[1,3,64,64]", "--bundle_root", BUNDLE]
    process = run_python(
        "-m", "monai.bundle", command, *options, cwd=tmp_path, PYTHONPATH=f"{tmp_path}:{BUNDLE}", WITHOUT=without
    )
    assert process.returncode == 1
    (said,) = (line for line in process.stderr.splitlines() if line.startswith("error: "))
    assert said == f"error: {command} needs the package {package}, which requirements.txt leaves out: pip install {package}"
    assert list(tmp_path.glob("network*")) == []
