import pytest

from .test_run_folder import refusal, run


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
        ({"mpp": 1.0}, "mpp: 0.5 then, 1.0 now"),
        ({"mpp": 1.0, "norm": None}, "mpp: 0.5 then, 1.0 now; norm: 'batch' then, None now"),
        ({"network_def": {"_target_": "UNet", "_disabled_": "true"}}, "network_def::_target_: 'DeepLabV2' then, 'UNet' now"),
    ],
)
def test_other_settings_are_refused(tmp_path, changes, named):
    trained(tmp_path)
    text = refusal(evaluation(tmp_path, **changes))
    assert f"the network of {tmp_path} was trained with other settings ({named}). Append the overlays and keys" in text
    run(evaluation(tmp_path, keys=[], **changes))


def test_null_in_training_may_mean_any(tmp_path):
    trained(tmp_path, mpp=None)
    assert "mpp: None then, 0.5 now" in refusal(evaluation(tmp_path))
    run(evaluation(tmp_path, keys=["norm"], unless_null=["mpp"]))
    trained(tmp_path / "b", mpp=1.0)
    assert "mpp: 1.0 then, 0.5 now" in refusal(evaluation(tmp_path / "b", keys=["norm"], unless_null=["mpp"]))
