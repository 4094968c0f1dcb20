"""The options of an encoder that decide its features, as a feature file describes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# By the names of the options, what `Encoder.description` calls them.
ENCODER_OPTIONS = {"stride_px": "stride_px", "strides_px": "native_strides_px", "smoothing": "smoothing", "tokens": "tokens"}


def options_of(description: Mapping[str, Any]) -> dict[str, Any]:
    """The options of an encoder that `Encoder.description` describes, as far as it names them.

    >>> options_of({"name": "uni", "stride_px": 16, "smoothing": 1, "tokens": None})
    {'stride_px': 16, 'smoothing': 1}
    """
    found = {option: description.get(name) for option, name in ENCODER_OPTIONS.items()}
    return {option: value for option, value in found.items() if value is not None}


def differing_options(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """In words, in which options two descriptions of an encoder differ.

    >>> differing_options({"stride_px": 16, "smoothing": 1}, {"stride_px": 32, "smoothing": 1})
    ['stride_px: expected 16, found 32']
    """
    expected, there = options_of(wanted), options_of(found)
    names = [name for name in expected if name in there and expected[name] != there[name]]
    return [f"{name}: expected {expected[name]}, found {there[name]}" for name in names]
