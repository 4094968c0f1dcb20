import json

import pytest
from monai.bundle import ConfigParser

from shared.engines import RunFolder, executed_config


def config(folder, **changes):
    """A configuration as MONAI runs it, its output folder opened as the first item."""
    items = {
        "imports": ["$import os"],
        "output_dir": str(folder),
        "learning_rate": 0.001,
        "device": "cpu",
        "num_workers": 2,
        "stages": {"max_max": {"epochs": 4, "_desc_epochs": "the paper names none"}},
        "run_folder": {"_target_": "shared.engines.RunFolder", "path": "@output_dir"},
        "run": ["$@run_folder.open()", "$@run_folder.close()"],
    }
    return items | changes


def run(items):
    return ConfigParser(items).get_parsed_content("run")


def refusal(items):
    """The text of the ValueError below MONAI's own "failed to evaluate"."""
    with pytest.raises(RuntimeError) as error:
        run(items)
    cause = error.value.__cause__
    while cause.__cause__ is not None:
        cause = cause.__cause__
    assert isinstance(cause, ValueError)
    return str(cause)


def test_the_executed_configuration_is_recorded(tmp_path):
    parser = ConfigParser(config(tmp_path / "out"))
    # As on MONAI's command line: --stages::max_max::epochs 9
    parser.update({"stages::max_max::epochs": 9})
    parser.get_parsed_content("run")
    saved = json.loads((tmp_path / "out/config.json").read_text())
    assert saved["stages"]["max_max"]["epochs"] == 9
    assert saved["learning_rate"] == 0.001
    assert saved["run"] == ["$@run_folder.open()", "$@run_folder.close()"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["config.json"]


def test_the_same_configuration_goes_on(tmp_path):
    run(config(tmp_path))
    before = (tmp_path / "config.json").read_bytes()
    run(config(tmp_path))
    assert (tmp_path / "config.json").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"learning_rate": 0.01}, "learning_rate: 0.001 before, 0.01 now"),
        ({"stages": {"max_max": {"epochs": 5}}}, "stages::max_max::epochs: 4 before, 5 now"),
        ({"dropout": 0.1}, "dropout: None before, 0.1 now"),
        ({"stages": {}}, "stages::max_max: "),
    ],
)
def test_another_configuration_is_refused(tmp_path, changes, named):
    run(config(tmp_path))
    before = (tmp_path / "config.json").read_bytes()
    text = refusal(config(tmp_path, **changes))
    assert text.startswith(f"{tmp_path} contains a run with another configuration ({named}")
    assert (tmp_path / "config.json").read_bytes() == before


def test_many_differences_are_counted(tmp_path):
    run(config(tmp_path))
    assert "and 2 more" in refusal(config(tmp_path, **{f"item_{number}": number for number in range(10)}))


@pytest.mark.parametrize(
    "changes",
    [
        {"device": "cuda:1", "num_workers": 8, "amp_dtype": None, "tracking_uri": "http://x", "run_name": "again"},
        {"run": ["$@run_folder.open()"], "imports": ["$import os", "$import math"], "initialize": [], "finalize": []},
        {"stages": {"max_max": {"epochs": 4, "_desc_epochs": "another text"}}, "_desc_": "a text"},
    ],
)
def test_what_does_not_change_the_result_may_change(tmp_path, changes):
    run(config(tmp_path))
    run(config(tmp_path, **changes))
    saved = json.loads((tmp_path / "config.json").read_text())
    assert all(saved[name] == value for name, value in changes.items())


def test_a_folder_may_be_moved(tmp_path):
    run(config(tmp_path / "a"))
    (tmp_path / "a").rename(tmp_path / "b")
    run(config(tmp_path / "b"))


def test_other_names_may_be_volatile(tmp_path):
    folder = {"_target_": "shared.engines.RunFolder", "path": "@output_dir", "volatile": ["learning_rate"]}
    run(config(tmp_path, run_folder=folder))
    run(config(tmp_path, run_folder=folder, learning_rate=1.0))
    assert "num_workers: 2 before, 3 now" in refusal(config(tmp_path, run_folder=folder, num_workers=3))


def with_files(folder, *files):
    return config(
        folder, run_folder={"_target_": "shared.engines.RunFolder", "path": "@output_dir", "files": [str(f) for f in files]}
    )


def test_another_content_of_a_file_is_another_run(tmp_path):
    manifest, folder = tmp_path / "images.csv", tmp_path / "out"
    manifest.write_text("image,label\n")
    run(with_files(folder, manifest))
    before = (folder / "config.json").read_bytes()
    assert list(json.loads(before)["_files_"]) == ["images.csv"]
    run(with_files(folder, manifest))
    manifest.write_text("image,label\na.png,1\n")
    assert f"(the content of {manifest} has changed)" in refusal(with_files(folder, manifest))
    assert (folder / "config.json").read_bytes() == before


def test_a_folder_of_an_earlier_version_may_have_any_files(tmp_path):
    manifest, folder = tmp_path / "images.csv", tmp_path / "out"
    manifest.write_text("image,label\n")
    items = with_files(folder, manifest)
    run(items)
    recorded = json.loads((folder / "config.json").read_text())
    del recorded["_files_"]
    (folder / "config.json").write_text(json.dumps(recorded))
    run(items)
    assert "_files_" in json.loads((folder / "config.json").read_text())


def test_outside_of_a_configuration(tmp_path):
    with pytest.raises(RuntimeError, match="ConfigParser"):
        executed_config()
    with pytest.raises(RuntimeError, match="ConfigParser"):
        RunFolder(tmp_path).open()


def test_a_copy_is_given():
    parser = ConfigParser({"a": {"b": 1}, "config": "$__import__('shared.engines').engines.executed_config()"})
    parser.get_parsed_content("config")["a"]["b"] = 2
    assert parser["a::b"] == 1


def trained(folder, **changes):
    """The ``config.json`` of a training with these items."""
    items = {"mpp": 0.5, "norm": "batch", "network_def": {"_target_": "DeepLabV2"}, "learning_rate": 0.1, **changes}
    run_folder = {"_target_": "shared.engines.RunFolder", "path": str(folder)}
    items |= {"network_def": {**items["network_def"], "_disabled_": "true"}}
    run({**items, "run_folder": run_folder, "run": ["$@run_folder.open()"]})


def evaluation(folder, keys=("mpp", "norm", "network_def::_target_", "backbone"), unless_null=(), **changes):
    check = {
        "_target_": "shared.engines.check_training",
        "config": f"{folder}/config.json",
        "keys": list(keys),
        "unless_null": list(unless_null),
    }
    items = {"mpp": 0.5, "norm": "batch", "learning_rate": 0.3, "backbone": "resnet18", **changes}
    return {**items, "check_training": check, "run": ["@check_training"]}


@pytest.mark.parametrize("changes", [{}, {"norm": "$None"}, {"_desc_norm": "a note"}])
def test_the_same_settings_pass(tmp_path, changes):
    trained(tmp_path, **({"norm": None} if "norm" in changes else {}))
    run(evaluation(tmp_path, **changes))


def test_without_a_training_nothing_is_compared(tmp_path):
    run(evaluation(tmp_path, mpp=3))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"mpp": 1.0}, "mpp: 0.5 before, 1.0 now"),
        ({"mpp": 1.0, "norm": None}, "mpp: 0.5 before, 1.0 now; norm: 'batch' before, None now"),
        ({"network_def": {"_target_": "UNet", "_disabled_": "true"}}, "network_def::_target_: 'DeepLabV2' before, 'UNet' now"),
    ],
)
def test_other_settings_are_refused(tmp_path, changes, named):
    trained(tmp_path)
    text = refusal(evaluation(tmp_path, **changes))
    assert f"the network of {tmp_path} was trained with other settings ({named}). Append the overlays and keys" in text
    run(evaluation(tmp_path, keys=[], **changes))


def test_null_in_training_may_mean_any(tmp_path):
    trained(tmp_path, mpp=None)
    assert "mpp: None before, 0.5 now" in refusal(evaluation(tmp_path))
    run(evaluation(tmp_path, keys=["norm"], unless_null=["mpp"]))
    trained(tmp_path / "b", mpp=1.0)
    assert "mpp: 1.0 before, 0.5 now" in refusal(evaluation(tmp_path / "b", keys=["norm"], unless_null=["mpp"]))


def test_expressions_are_compared_by_their_values(tmp_path):
    trained(tmp_path, mpp="$@learning_rate * 5")
    run(evaluation(tmp_path, mpp=0.5))
    run(evaluation(tmp_path, mpp="$@learning_rate * 5", learning_rate=0.1))
    assert "mpp: '$@learning_rate * 5' before, 0.75 now" in refusal(evaluation(tmp_path, mpp=0.75))


def test_expressions_that_are_written_alike_are_compared_by_what_they_refer_to(tmp_path):
    trained(tmp_path, mpp="$@learning_rate * 5")
    assert "(mpp: 0.5 before, 1.5 now)" in refusal(evaluation(tmp_path, mpp="$@learning_rate * 5"))


def test_the_key_that_decides_another_is_named(tmp_path):
    """As features.json lets encoded_mpp decide mpp."""
    trained(tmp_path, mpp="@encoded_mpp", encoded_mpp=1.0)
    now = evaluation(tmp_path, mpp="@encoded_mpp", encoded_mpp=0.5)
    text = refusal(now)
    assert "(encoded_mpp: 1.0 before, 0.5 now)" in text
    assert "for instance --encoded_mpp ..." in text
    run({**now, "encoded_mpp": 1.0})
    run({**now, "mpp": 1.0})


def test_components_that_expressions_refer_to_are_not_made(tmp_path):
    encoder = {"_target_": "shared.encoders.no_such_encoder", "source": "@source"}
    trained(tmp_path, mpp="$@encoder_def.mpp", encoder_def={**encoder, "_disabled_": "true"}, source="a")
    run(evaluation(tmp_path, mpp="$@encoder_def.mpp", encoder_def=encoder, source="b"))
