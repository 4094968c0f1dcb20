"""What of a configuration makes its network: the definition, and every item that it refers to."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

NETWORK = "network_def"
# Of the network's definition in training: nothing is drawn here.
_CHECKED = "@check_version"
_LEFT_TO_INFERENCE = frozenset({"check_version", "seed", "device", "bundle_root"})


def network_items(known: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """The network of a training and every item that its definition refers to, but those that are known and the same.

    Args:
        known: a configuration that they are to be read after. What it defines by an expression or a component in its own way,
            such as what of the network's depends on the training's data, stays as it is there.
        config: that the training recorded.
    """
    whole = whole_network(known, config)
    return {key: value for key, value in whole.items() if key == NETWORK or known.get(key, ...) != value}


def whole_network(known: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Like `network_items`, with what is known and the same, but for what `known` defines in its own way."""
    network = {key: value for key, value in config[NETWORK].items() if not key.startswith("_desc")} | {"_requires_": _CHECKED}
    own = {key: known[key] for key, value in config.items() if key in known and not is_plain(value)}
    needed = needed_items(network, {**config, **own})
    return {key: value for key, value in needed.items() if value == config[key]} | {NETWORK: network}


def needed_items(value: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    """The items of a configuration that a value refers to, and those that these refer to.

    >>> needed_items({"encoder": "@encoder_def"}, {"encoder_def": {"source": "@encoder"}, "encoder": "resnet18", "lr": 0.1})
    {'encoder_def': {'source': '@encoder'}, 'encoder': 'resnet18'}
    """
    found: dict[str, Any] = {}
    left = list(_references(value))
    while left:
        name = left.pop()
        if name in found or name not in config or name in _LEFT_TO_INFERENCE:
            continue
        found[name] = config[name]
        left += _references(config[name])
    return found


def is_plain(value: Any) -> bool:
    """Whether a value is neither an expression, nor a component, nor refers to others."""
    return (
        not isinstance(value, Mapping) and not list(_references(value)) and not (isinstance(value, str) and value.startswith("$"))
    )


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _references(item)
    elif isinstance(value, str) and value.startswith(("@", "$", "%")):
        yield from re.findall(r"[@%](\w+)", value)
