"""Which values of a configuration MLflow is told, with MONAI's own parser."""

from monai.bundle import ConfigParser

from shared.handlers.runs.parameters import effective_parameters


def parameters(items, given=()):
    parser = ConfigParser(items)
    return effective_parameters(parser.get(), parser.get_parsed_content, given)


def test_numbers_words_lists_and_nulls_also_of_groups():
    items = {"rate": 0.1, "name": "x", "on": True, "none": None, "sizes": [1, 2], "words": ["a", "b"], "of_items": [{"a": 1}]}
    items |= {"_desc_": "text", "component": {"_target_": "a", "width": 3}, "imports": ["$import os"], "run": []}
    items["stage"] = {"rate": 0.2, "_desc_rate": "text", "network": {"_target_": "a", "width": 3}, "inner": {"size": None}}
    assert parameters(items) == {
        "rate": "0.1",
        "name": "x",
        "on": "True",
        "none": "None",
        "sizes": "[1, 2]",
        "words": "['a', 'b']",
        "stage.rate": "0.2",
        "stage.inner.size": "None",
    }


def test_formulas_of_values_are_computed_and_those_of_components_are_not():
    items = {
        "imports": ["$import torch"],
        "size": 320,
        "crop": "$@size * 3 // 4",
        "again": "@crop",
        "device": "$torch.device('cpu')",
        "nothing": "$None",
        "wrong": "$1 / 0",
        "copy": "%size",
        "group": {"half": "$@crop // 2"},
        "network": {"_target_": "torch.nn.Linear", "in_features": 1, "out_features": "$1 / 0"},
        "steps": {"_target_": "shared.engines.Steps", "min_steps": "@size"},
        "min_steps": "$@steps.min_steps",
        "weights": "$@network.weight",
        "of_weights": "$len(@weights)",
        "run_train": "$@network.train()",
    }
    assert parameters(items) == {
        "size": "320",
        "crop": "240",
        "again": "240",
        "device": "cpu",
        "nothing": "None",
        "copy": "320",
        "min_steps": "320",
        "group.half": "120",
    }


def test_what_was_given_for_arguments_of_components():
    items = {
        "network": {"_target_": "Net", "features": [8, 16], "width": 3},
        "optimizer": {"_target_": "Adam", "lr": "@lr"},
        "lr": 1,
    }
    given = [("network::features", [8, 16]), ("+optimizer", {"_target_": "Adam", "lr": "@lr"}), ("run", ["@x"])]
    assert parameters(items, given) == {
        "lr": "1",
        "network.features": "[8, 16]",
        "optimizer._target_": "Adam",
        "optimizer.lr": "1",
    }
