"""What the user of a run gives is checked before anything else, in every configuration of every bundle."""

import json
from pathlib import Path

import pytest
from monai.bundle import ConfigParser, ConfigWorkflow, run as run_bundle

from shared.front_door import Given, check_given
from shared.inference.bundle_mapper import first_cause

ROOT = Path(__file__).parents[2]
BUNDLES = sorted(path.parents[1] for path in (ROOT / "bundles").glob("*/configs/metadata.json"))
BASES = ("train", "evaluate", "inference")
CONFIGS = [bundle / "configs" / f"{base}.json" for bundle in BUNDLES for base in BASES]
OVERLAYS = [
    path
    for bundle in BUNDLES
    for path in sorted((bundle / "configs").glob("*.json"))
    if path.stem not in (*BASES, "metadata", "patch_camelyon")
]
CAMEL = ROOT / "bundles" / "camel" / "configs"


def identify(value):
    return str(value.relative_to(ROOT / "bundles")) if isinstance(value, Path) else None


def problems_of(*files, **values):
    """What is said of these files and keys; empty where all is well."""
    try:
        check_given(Given(tuple(files), values))
    except ValueError as error:
        return str(error)
    return ""


def replaces_what_is_not_there(base, overlay):
    """Whether MONAI itself refuses an overlay: it changes an item that the base does not have."""
    try:
        ConfigParser.load_config_files([str(base), str(overlay)])
    except KeyError:
        return True
    return False


@pytest.mark.parametrize("overlay", [one for one in OVERLAYS if "_without_" in one.read_text()], ids=identify)
def test_an_overlay_is_not_given_beside_one_whose_place_it_takes(overlay):
    replaced = json.loads(overlay.read_text())["_without_"]
    problem = problems_of(overlay.with_name("train.json"), overlay.with_name(f"{replaced}.json"), overlay)
    assert f"{overlay} replaces {replaced}.json: leave that file out" in problem


@pytest.mark.parametrize("config", CONFIGS, ids=identify)
def test_every_configuration_passes_as_it_is_and_begins_with_the_check(config):
    content = json.loads(config.read_text())
    assert problems_of(config) == ""
    check = content["check_configuration"]
    assert check["_target_"] == "shared.front_door.check_configuration"
    # The weights come with the workflow, where they are what it is for.
    loaded = ["@checks", "@network"] if config.stem == "inference" else []
    assert content["initialize"] == ["@check_version", check, *loaded]
    assert content["run"][0] == "@check_configuration"


@pytest.mark.parametrize("overlay", OVERLAYS, ids=identify)
@pytest.mark.parametrize("base", BASES)
def test_every_overlay_passes_after_its_base_and_nowhere_else(base, overlay):
    config = overlay.parent / f"{base}.json"
    needed = json.loads(overlay.read_text()).get("_after_")
    between = [overlay.with_name(f"{needed}.json")] if needed else []
    if replaces_what_is_not_there(config, overlay):
        assert base != "train"
        assert f"{overlay} does not fit {config}" in problems_of(config, overlay)
    else:
        assert problems_of(config, *between, overlay) == ""
        if needed:
            assert f"{overlay} changes what {needed}.json sets: give {needed}.json before it" in problems_of(config, overlay)
    assert f"{overlay} is given before {config}" in problems_of(overlay, config)


@pytest.mark.parametrize("config", CONFIGS, ids=identify)
@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"bundle_rot": "."}, "has no key 'bundle_rot', so it would have no effect. Was bundle_root"),
        ({"output_dir": 2024}, "expected a path, found the int 2024, which is how Python reads '2024'. Use --output_dir ./2024"),
        ({"output_dir": ("a", "b")}, "found the list ('a', 'b'), which is how Python reads 'a,b'. Use --output_dir ./a,b"),
        ({"dataset_dir": True}, "--dataset_dir: expected a path, found the bool True"),
        ({"output_dir": "runs/#3"}, "MONAI reads 'runs/#3' as 'runs/::3'"),
        # Of formulas too.
        ({"output_dir": "$@bundle_root + '/#3'"}, "MONAI reads \"$@bundle_root + '/#3'\" as \"$@bundle_root + '/::3'\""),
        ({"device": "none"}, "expected a value, found the word 'none'. For no value use --device '$None'"),
    ],
)
def test_what_is_wrong_is_named_with_its_remedy(config, values, said):
    assert said in problems_of(config, **values)


@pytest.mark.parametrize(
    ("base", "values", "said"),
    [
        (
            "inference",
            {"treshold": 0.9},
            "--treshold 0.9: {config} has no key 'treshold', so it would have no effect. Was threshold",
        ),
        (
            "train",
            {"num_epoch": 3},
            "--num_epoch 3: {config} has no key 'num_epoch', so it would have no effect. Was num_epochs",
        ),
        ("evaluate", {"num_epochs": 3}, "has no key 'num_epochs' (it is a key of {folder}/train.json)"),
        ("inference", {"slide_mapper::treshold": 0.9}, "has no argument 'treshold'. Was threshold meant?"),
        ("inference", {"slide_mapper#treshold": 0.9}, "has no argument 'treshold'. Was threshold meant?"),
        ("train", {"train::trainer::max_epoch": 3}, "has no argument 'max_epoch'. Was max_epochs meant?"),
        ("train", {"train::trainr": {"max_epochs": 3}}, "'train' has no item 'trainr', so it would have no effect. Was trainer"),
        (
            "train",
            {"evaluation::classifiers": {"x": {"_target_": "@stage", "nam": "x"}}},
            "has no argument 'nam'. Was name meant?",
        ),
        ("train", {"+atrous_rates": [3]}, "has no key '+atrous_rates', so it would have no effect. Was atrous_rates meant?"),
        ("train", {"pretrained": "false"}, "--pretrained false: expected True or False, found 'false'"),
        ("train", {"atrous_rates": 3}, "expected a list such as [2, 3, 5, 6], found 3"),
        ("train", {"manifest": {"a": "x#y"}}, "MONAI reads 'x#y' as 'x::y'"),
        ("train", {"mpp": (0, 5)}, "--mpp (0, 5): expected a number, found (0, 5): write 0.5"),
        ("train", {"instances_per_side": "two"}, "--instances_per_side two: expected a number, found 'two'"),
        ("inference", {"slide_mpp": "fine"}, "--slide_mpp fine: expected a number, found 'fine'"),
        ("inference", {"threshold": (0, 5)}, "--threshold (0, 5): expected a number, found (0, 5): write 0.5"),
        ("train", {"cmil::batch_size": "0,5"}, "--cmil::batch_size 0,5: expected a number, found '0,5'"),
        ("train", {"image_size_px": (640, 640)}, "--image_size_px (640, 640): expected a number, found (640, 640)\n"),
        ("inference", {"temperature": (1, 5)}, "--temperature (1, 5): expected a number or a file, found (1, 5): write 1.5"),
        ("train", {"norm": 3}, "--norm 3: expected a text, found 3. Use --norm \"'3'\""),
        ("train", {"run_name": 2024}, "--run_name 2024: expected a text, found 2024"),
        ("train", {"run_folder::path": 7}, "--run_folder::path: expected a path, found the int 7"),
    ],
)
def test_keys_and_values_of_one_bundle(base, values, said):
    config = CAMEL / f"{base}.json"
    assert said.format(config=config, folder=CAMEL) in problems_of(config, **values) + "\n"


@pytest.mark.parametrize("value", [0, -1, 2.5, "3", 3.0, True, "$0", "$2.5", "$None", None])
@pytest.mark.parametrize("key", ["num_epochs", "cmil::num_epochs", "retrain::trainer::max_epochs"])
def test_epochs_are_whole_numbers_from_1(key, value):
    assert f"--{key}: {key} must be an integer of at least 1, found" in problems_of(CAMEL / "train.json", **{key: value})


def test_boosting_counts_its_trees_instead():
    config = ROOT / "bundles/mil_boosting/configs/train.json"
    assert "num_trees must be an integer of at least 1, found 0" in problems_of(config, num_trees=0)


@pytest.mark.parametrize(
    "values",
    [
        {
            "cmil::num_epochs": 1,
            "retrain::trainer::max_epochs": 20,
            "stage::steps::final_lr_share": 0.5,
            "train::trainer::max_epochs": 3,
        },
        {"truth": "$None", "cmil::keep_best": "$None", "amp_dtype": "float16", "run_name": "a", "tracking_uri": "$None"},
        {
            "cmil::num_epochs": "$2 * 3",
            "output_dir": "$@dataset_dir + '/run'",
            "manifest": "%dataset_dir",
            "pretrained": "$not False",
        },
        {"tracking::enabled": False, "tracking::parent_run_id": "abc", "classifier::_mode_": "callable", "bundle_root": "."},
        {"outer": 4, "scored_columns": "$['label'] * (@outer > 0)"},
        {"run_train": "$@train#trainer.run()", "train::preprocessing::keys": "image"},
        {"initialize": [], "run": ["@run_train"], "imports": ["$import os"], "pretrained": 1, "_desc_mine": "words # and ~"},
        {"evaluation::classifiers": {}, "atrous_rates": (1, 2, 3, 4), "train_records": {"_target_": "shared.data.load_picks"}},
    ],
)
def test_what_is_right_passes(values):
    assert problems_of(CAMEL / "train.json", **values) == ""


@pytest.mark.parametrize(
    ("overlays", "values", "without"),
    [
        ([], {"backbone": "resnet50", "stain_jitter": 0.2, "seed": 1, "cmil::num_epochs": 2, "manifest": "a.csv"}, []),
        ([], {"tokens": "class"}, ["tokens"]),
        (["features"], {"pretrained": True, "encoder": "uni", "stain_jitter": 0.2}, ["pretrained", "stain_jitter"]),
        (["unet"], {"atrous_rates": [6, 12], "backbone": "resnet50"}, ["atrous_rates"]),
    ],
)
def test_a_key_to_which_nothing_refers_is_said_to_have_no_effect(overlays, values, without, caplog):
    """Such as a setting of the network in whose place an overlay has put another: a sweep over it would train the same."""
    files = [CAMEL / f"{name}.json" for name in ("train", *overlays)]
    assert problems_of(*files, **values) == ""
    among = f" with {overlays[0]}.json" if overlays else ""
    said = [f"--{key} {values[key]} has no effect{among}: nothing that runs refers to it" for key in without]
    assert [record.getMessage() for record in caplog.records] == said


@pytest.mark.parametrize("word", ["false", "true", "FALSE", "no", "off"])
@pytest.mark.parametrize(
    ("base", "key"),
    [
        ("train", "pretrained"),  # of the configuration itself
        ("train", "tracking::enabled"),  # arguments that the configuration leaves to their class
        ("train", "tracking#system_metrics"),
        ("inference", "slide_mapper::outputs::tile_table"),
    ],
)
def test_a_word_is_not_taken_for_true_or_false(base, key, word):
    assert f"--{key}" in (said := problems_of(CAMEL / f"{base}.json", **{key: word}))
    assert repr(word) in said
    assert problems_of(CAMEL / f"{base}.json", **{key: False}) == ""


@pytest.mark.parametrize("key", ["num_workers", "mpp", "device"])
def test_a_word_is_not_taken_for_a_value_that_is_null_or_computed(key):
    assert f"--{key} false: expected a value, found the word 'false'" in problems_of(CAMEL / "train.json", **{key: "false"})


def test_true_and_false_are_words_where_a_text_is_meant():
    values = {"run_name": "true", "manifest": "false", "tumour_classes": "True", "train::trainer::_disabled_": "false"}
    assert problems_of(CAMEL / "train.json", **values) == ""


def test_a_word_within_what_an_overlay_sets_is_found_too(tmp_path):
    overlay = tmp_path / "mine.json"
    overlay.write_text(json.dumps({"+tracking": {"enabled": "false"}}))
    assert f"{overlay}, key '+tracking': " in problems_of(CAMEL / "train.json", overlay)


def test_words_that_an_argument_takes_are_no_null():
    assert problems_of(ROOT / "bundles/alpha_beta_mil/configs/train.json", **{"mapper::tiles::tta": "none"}) == ""


def test_what_an_overlay_of_another_bundle_cannot_say_is_named():
    """The keys of the base count, not those of the overlay's own neighbours."""
    overlay = ROOT / "bundles/alpha_beta_mil/configs/tcga.json"
    said = problems_of(CAMEL / "train.json", overlay)
    assert f"{overlay}, key 'tiles_per_slide': {CAMEL / 'train.json'} has no key 'tiles_per_slide'" in said


def test_an_overlay_of_the_user_is_checked_like_the_command_line(tmp_path):
    overlay = tmp_path / "mine.json"
    overlay.write_text(json.dumps({"treshold": 0.9, "slide_mpp": 0.25, "output_dir": 3, "tissue_only": "no", "source": "a#b"}))
    config = CAMEL / "inference.json"
    said = problems_of(config, overlay)
    for part in (
        f"{overlay}, key 'treshold': {config} has no key 'treshold'",
        f"{overlay}, key 'output_dir': expected a path, found the int 3",
        f"{overlay}, key 'tissue_only': expected True or False, found 'no'",
        f"{overlay}, key 'source': MONAI reads 'a#b' as 'a::b'",
    ):
        assert part in said
    assert len(said.splitlines()) == 4
    overlay.write_text(
        json.dumps({"+initialize": [], "num_epochs": 3, "slide_mpp": 0.25, "extra": 3, "margin_px": "$@extra * 16"})
    )
    assert problems_of(config, overlay) == ""


def cause_of(**arguments):
    """What ``python -m monai.bundle run`` would end with."""
    with pytest.raises(RuntimeError) as raised:
        run_bundle(**arguments)
    return first_cause(raised.value)


@pytest.mark.parametrize("run_id", [None, "run_train"])
@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"treshold": 0.9}, "--treshold 0.9: "),
        ({"cmil::keep_best": None}, "MONAI ignores it, and cmil::keep_best would stay 'val_image_auc'."),
        ({"manifest": "data/#1.csv"}, "MONAI reads 'data/#1.csv' as 'data/::1.csv'"),
        ({"device": "cuda:77"}, "--device: "),
        ({"device": "gpu"}, "'gpu' is not a device. Use cuda, cuda:1 or cpu"),
        ({"device": "$torch.device('gpu')"}, "is not a device. Use cuda, cuda:1 or cpu"),
        ({"output_dir": "$None"}, "--output_dir: expected a path, found None"),
        ({"output_dir": str(Path(__file__) / "run")}, "cannot be written: a part of its path is a file, not a folder"),
    ],
)
def test_monai_checks_before_its_first_item_whatever_it_runs(tmp_path, monkeypatch, run_id, values, said):
    monkeypatch.chdir(tmp_path)
    values = {"output_dir": "run"} | values
    error = cause_of(run_id=run_id, config_file=str(CAMEL / "train.json"), bundle_root=str(CAMEL.parent), **values)
    assert isinstance(error, ValueError)
    assert said in str(error)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_arguments_is_read_as_the_command_line_is(tmp_path):
    arguments = tmp_path / "arguments.json"
    # A null of a file is one.
    arguments.write_text(json.dumps({"config_file": str(CAMEL / "train.json"), "truth": None, "treshold": 1}))
    error = cause_of(args_file=str(arguments), num_epoch=3)
    assert [line.partition(":")[0] for line in str(error).splitlines()] == ["--treshold 1", "--num_epoch 3"]


def test_a_workflow_that_was_made_in_python_is_checked_too():
    workflow = ConfigWorkflow(str(CAMEL / "inference.json"), logging_file=False, workflow_type="infer", treshold=0.9)
    with pytest.raises(RuntimeError) as raised:
        workflow.initialize()
    assert "has no key 'treshold'" in str(first_cause(raised.value))


@pytest.mark.parametrize("given", ["~/slides", "~"])
def test_the_home_folder_is_put_in(tmp_path, monkeypatch, given):
    monkeypatch.setenv("HOME", str(tmp_path))
    files = [str(CAMEL / "inference.json"), str(CAMEL.parent / "models" / "ebhi_seg" / "inference.json")]
    workflow = ConfigWorkflow(files, logging_file=False, workflow_type="infer", source=given, output_dir="~/maps")
    workflow.initialize()
    assert workflow.parser.get_parsed_content("source") == str(tmp_path / given[2:])
    assert workflow.parser.get_parsed_content("output_dir") == str(tmp_path / "maps")
    # And in what is recorded of the run.
    assert workflow.parser["output_dir"] == str(tmp_path / "maps")


def test_a_home_folder_that_nobody_knows():
    assert "source: '~nobody_here/x' names a home folder" in problems_of(CAMEL / "inference.json", source="~nobody_here/x")
