"""Where encoders come from: one name for each source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from .efficientnet_lite import load_efficientnet_lite0
from .encoder import Encoder, FeatureOptions, completed_facts
from .host_memory import keep_freed_memory
from .presets import PRESETS, preset_of

__all__ = ["load_encoder"]

IMAGENET_BACKBONES = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "vgg16", "vgg16_bn")
FILES = (".pt", ".ts", ".pt2")
TIMM_SOURCES = ("timm/", "hf-hub:", "hf_hub:", "local-dir:")


def load_encoder(
    source: str,
    stride_px: int | None = None,
    smoothing: int = 1,
    strides_px: Sequence[int] | None = None,
    tokens: str = "dense",
    checkpoint_path: str | Path | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    mpp: float | None = None,
    input_size_px: int | None = None,
    licence: str | None = None,
    max_stride_px: int | None = None,
    num_strides: int | None = None,
) -> Encoder:
    """An encoder with trained weights, in eval mode and frozen.

    Where there is no CUDA device, the process keeps freed memory from then on, see `keep_freed_memory`.

    Args:
        source: "efficientnet_lite0", or one of `IMAGENET_BACKBONES`, MONAI's ResNets and VGG-16 with
            torchvision's weights; a published encoder of pathology (`shared.encoders.presets.PRESETS`); any model of timm
            (``timm/NAME``, ``hf-hub:OWNER/NAME``, ``local-dir:FOLDER``); the path of a TorchScript (``.pt``, ``.ts``) or
            torch.export file (``.pt2``).
        stride_px: see `FeatureOptions`.
        smoothing: the same.
        strides_px: the same.
        tokens: the same.
        checkpoint_path: a local file of the encoder's weights, instead of those that are installed or downloaded.
        mean: of red, green and blue as shares of 255, where the source does not state it: of a TorchScript or torch.export file
            (see `load_exported`), and of a state dict in `checkpoint_path`, but for that of a published encoder of pathology. A
            warning says which one is used where it is not given.
        std: the same.
        mpp: the same, and of all models of timm.
        input_size_px: the same as `mean`; position embeddings state it.
        licence: the same as `mean`, and of models of timm that do not state it; None where it is not known.
        max_stride_px: see `FeatureOptions`.
        num_strides: the same.

    Raises:
        ValueError: if there is no such source, an option does not fit it, weights do not, or a fact is given that it states.
        ModuleNotFoundError: if a package is missing that the source needs; it names the remedy.
        RuntimeError: if weights cannot be had: it never starts from random values instead.
    """
    if not torch.cuda.is_available():
        keep_freed_memory()
    options = FeatureOptions(stride_px, smoothing, strides_px, tokens, max_stride_px, num_strides)
    facts = {"mean": mean, "std": std, "mpp": mpp, "input_size_px": input_size_px, "licence": licence}
    given = {name: value for name, value in facts.items() if value is not None}
    if source.endswith(FILES):
        if checkpoint_path is not None:
            raise ValueError(f"{source} contains its own weights; got checkpoint_path={str(checkpoint_path)!r}")
        # Here, for only those who have such a file need it.
        from .exported import load_exported

        return load_exported(source, options, **given).eval().requires_grad_(False)  # type: ignore[arg-type]
    return _load(source, options, checkpoint_path, given).eval().requires_grad_(False)


def _load(source: str, options: FeatureOptions, checkpoint_path: str | Path | None, given: Mapping[str, Any]) -> Encoder:
    if source == "efficientnet_lite0":
        return load_efficientnet_lite0(options, checkpoint_path, given)
    if source in IMAGENET_BACKBONES:
        # Here, for it loads MONAI.
        from .imagenet_backbones import load_imagenet_backbone

        return load_imagenet_backbone(source, options, checkpoint_path, given)
    if preset := preset_of(source):
        from .preset_models import load_preset

        # A file of its weights is that of the published ones.
        completed_facts(preset.facts(), given)
        return load_preset(preset, options, checkpoint_path)
    if source.startswith(TIMM_SOURCES):
        from .timm_models import load_timm

        return load_timm(source, options, checkpoint_path, given)
    raise ValueError(
        f"there is no encoder {source!r}: expected efficientnet_lite0, {', '.join(IMAGENET_BACKBONES)}; a published one, "
        f"{', '.join(PRESETS)}; a model of timm, timm/NAME, hf-hub:OWNER/NAME or local-dir:FOLDER; or a file of "
        "TorchScript (.pt) or torch.export (.pt2)"
    )
