"""Published encoders of pathology, from their weights on Hugging Face, in a release or in a local file."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .encoder import FeatureOptions
from .hub import downloaded, from_hub
from .presets import Preset
from .published_names import side_of_position_embedding, timm_names
from .timm_models import TimmEncoder, imported_timm
from .weights import load_weights_into, read_weights

__all__ = ["encoder_without_weights", "load_preset"]


def load_preset(preset: Preset, options: FeatureOptions | None = None, checkpoint_path: str | Path | None = None) -> TimmEncoder:
    """A published encoder with its weights.

    Args:
        preset: which one.
        options: which features are taken.
        checkpoint_path: a local file of its published weights, instead of the download.

    Raises:
        ModuleNotFoundError: if timm is missing; it names the remedy.
        ValueError: naming the file, if the weights are not those of this encoder.
        RuntimeError: if the weights cannot be had, among them those that access must be asked for; it names the remedy.
    """
    imported_timm(preset.name)
    path = Path(checkpoint_path) if checkpoint_path is not None else _published(preset)
    weights = timm_names(read_weights(path))
    encoder = encoder_without_weights(preset, options, weights)
    load_weights_into(encoder.network, weights, path)
    return encoder


def encoder_without_weights(
    preset: Preset, options: FeatureOptions | None = None, weights: Mapping[str, Tensor] | None = None
) -> TimmEncoder:
    """A published encoder whose network lies on the meta device: shapes without values, which compute nothing.

    Args:
        preset: which one.
        options: which features are taken.
        weights: those that it will have, which say of how many patches the position embeddings are; None for those of
            `Preset.input_size_px`.
    """
    timm = imported_timm(preset.name)
    arguments = {name: _layer(timm, value) for name, value in preset.arguments.items()}
    if preset.prefix_tokens:
        arguments |= {"dynamic_img_size": True, "img_size": _size_px(preset, weights or {})}
    with torch.device("meta"):
        network = timm.create_model(preset.architecture, pretrained=False, num_classes=0, **arguments)
    facts = preset.facts()
    if not preset.prefix_tokens and (options is None or options.tokens == "dense"):
        # A convolutional network has no fixed size except where tiles are embedded.
        facts = replace(facts, input_size_px=None)
    return TimmEncoder(facts, network, options, preset.embedding)


def _size_px(preset: Preset, weights: Mapping[str, Tensor]) -> int:
    """Side of the images that the position embeddings are of."""
    if "pos_embed" not in weights or "patch_embed.proj.weight" not in weights:
        return preset.input_size_px
    patches = side_of_position_embedding(weights["pos_embed"].shape[1], preset.prefix_tokens)
    return patches * weights["patch_embed.proj.weight"].shape[-1]


def _published(preset: Preset) -> Path:
    if preset.hub is not None:
        return from_hub(preset.name, preset.hub, preset.files)
    assert preset.url is not None
    return downloaded(preset.name, preset.url)


def _layer(timm: types.ModuleType, value: Any) -> Any:
    """A layer of timm or torch by its name; other values as they are."""
    return getattr(timm.layers, value, None) or getattr(nn, value) if isinstance(value, str) else value
