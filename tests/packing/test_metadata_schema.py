"""The schema that stands in for the published one accepts the bundles and refuses what that one refuses."""

import json
from pathlib import Path

import pytest
from jsonschema import ValidationError, validate

from scripts.packing.packer import bundle_names
from scripts.packing.verification import SCHEMA

BUNDLES = Path(__file__).parents[2] / "bundles"
REQUIRED = (
    *("schema", "version", "monai_version", "pytorch_version", "numpy_version", "required_packages_version"),
    *("task", "description", "authors", "copyright", "network_data_format"),
)
TENSOR = ("network_data_format", "inputs", "image")


def metadata_of(name):
    return json.loads((BUNDLES / name / "configs/metadata.json").read_text())


@pytest.fixture
def schema():
    return json.loads(SCHEMA.read_text())


@pytest.mark.parametrize("name", bundle_names(BUNDLES))
def test_accepts_the_bundles(name, schema):
    validate(metadata_of(name), schema)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("version",), 1, "1 is not of type 'string'"),
        (("changelog",), ["0.1.0"], "is not of type 'object'"),
        (("eval_metrics",), 0.9, "is not of type 'object'"),
        (("references",), [1], "1 is not of type 'string'"),
        (("network_data_format", "outputs"), [], "is not of type 'object'"),
        ((*TENSOR, "num_channels"), "3", "'3' is not of type 'integer'"),
        ((*TENSOR, "spatial_shape"), [1.5], "1.5 is not of type"),
        ((*TENSOR, "value_range"), ["0"], "'0' is not of type 'number'"),
        (("refiner_data_format",), {"inputs": {}}, "'outputs' is a required property"),
    ],
)
def test_refuses_other_kinds_of_values(schema, path, value, said):
    metadata = metadata_of("camel")
    *parents, name = path
    place = metadata
    for parent in parents:
        place = place[parent]
    place[name] = value
    with pytest.raises(ValidationError, match=said):
        validate(metadata, schema)


@pytest.mark.parametrize("name", REQUIRED)
def test_refuses_missing_entries(schema, name):
    metadata = metadata_of("camel")
    del metadata[name]
    with pytest.raises(ValidationError, match=f"'{name}' is a required property"):
        validate(metadata, schema)
