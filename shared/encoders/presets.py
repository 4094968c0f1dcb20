"""Encoders of pathology that others published: what timm needs to build them, and what their users must know.

Every entry says where its facts are from. `docs/encoders.md` has the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..networks.layers.pixel_normalization import IMAGENET_MEAN, IMAGENET_STD
from .encoder import EncoderFacts

__all__ = ["PRESETS", "Preset", "preset_of"]

HALVES = (0.5, 0.5, 0.5)
BIOPTIMUS_MEAN, BIOPTIMUS_STD = (0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517)
LUNIT_MEAN, LUNIT_STD = (0.70322989, 0.53606487, 0.66096631), (0.21716536, 0.26081574, 0.20723464)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
CC_BY_NC_ND = "CC-BY-NC-ND-4.0"
KAIKO_RELEASE = "https://github.com/kaiko-ai/towards_large_pathology_fms/releases/download/0.0.1"
LUNIT_RELEASE = "https://github.com/lunit-io/benchmark-ssl-pathology/releases/download/pretrained-weights"
# By these names `arguments` have layers of timm and torch.
SWIGLU = {"mlp_layer": "SwiGLUPacked", "act_layer": "SiLU"}


@dataclass(frozen=True)
class Preset:
    """A published encoder.

    Args:
        name: as given to `load_encoder`.
        architecture: of timm.
        arguments: of timm's ``create_model``. The size of the position embeddings comes from the weights.
        hub: the repository on Hugging Face that has the weights, in one of `files`; or else
        url: their address.
        embedding: the rule by which its authors make one feature of an image, see `TimmEncoder`.
        licence: of the weights.
        is_gated: whether access must be asked for.
        source: the model card or paper.
        mpp: micrometres per pixel that its authors recommend, or trained at.
        prefix_tokens: class and register tokens.
        aliases: its names in TRIDENT and STAMP, where they are others, but for case and separators.
    """

    name: str
    architecture: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    hub: str | None = None
    url: str | None = None
    files: Sequence[str] = ("model.safetensors", "pytorch_model.bin")
    mean: Sequence[float] = IMAGENET_MEAN
    std: Sequence[float] = IMAGENET_STD
    embedding: str | None = "class"
    licence: str | None = None
    is_gated: bool = False
    source: str = ""
    input_size_px: int = 224
    mpp: float | None = 0.5
    prefix_tokens: int = 1
    aliases: Sequence[str] = ()

    def facts(self) -> EncoderFacts:
        return EncoderFacts(
            self.name, self.mean, self.std, self.mpp, self.input_size_px, self.licence, self.is_gated, self.aliases
        )


def _of_mahmood(name: str, architecture: str, hub: str, **facts: Any) -> Preset:
    files, source = ("pytorch_model.bin",), f"https://huggingface.co/{hub}"
    return Preset(name, architecture, hub=hub, files=files, licence=CC_BY_NC_ND, is_gated=True, source=source, **facts)


def _of_paige(name: str, hub: str, licence: str, registers: int, aliases: Sequence[str] = ()) -> Preset:
    arguments = {"init_values": 1e-5, "mlp_ratio": 5.3375, "reg_tokens": registers, **SWIGLU}
    return Preset(
        name,
        "vit_huge_patch14_224",
        arguments,
        hub=hub,
        embedding="class+mean",
        licence=licence,
        is_gated=True,
        source=f"https://huggingface.co/{hub}",
        prefix_tokens=1 + registers,
        aliases=aliases,
    )


def _of_bioptimus(name: str, architecture: str, hub: str, licence: str, **arguments: Any) -> Preset:
    return Preset(
        name,
        architecture,
        arguments,
        hub=hub,
        mean=BIOPTIMUS_MEAN,
        std=BIOPTIMUS_STD,
        licence=licence,
        is_gated=True,
        source=f"https://huggingface.co/{hub}",
        prefix_tokens=5,
    )


def _of_kaiko(name: str, architecture: str, prefix_tokens: int = 1) -> Preset:
    return Preset(
        f"kaiko-{name}",
        architecture,
        url=f"{KAIKO_RELEASE}/{name}.pth",
        mean=HALVES,
        std=HALVES,
        licence="Kaiko Non-Commercial Public License",
        source="https://github.com/kaiko-ai/towards_large_pathology_fms",
        prefix_tokens=prefix_tokens,
    )


def _of_lunit(name: str, architecture: str, file: str, embedding: str = "class") -> Preset:
    return Preset(
        f"lunit-{name}",
        architecture,
        url=f"{LUNIT_RELEASE}/{file}",
        mean=LUNIT_MEAN,
        std=LUNIT_STD,
        embedding=embedding,
        licence="Lunit public licence, not for commercial use",
        source="https://github.com/lunit-io/benchmark-ssl-pathology",
        prefix_tokens=0 if embedding == "pooled" else 1,
    )


GIANT = {"embed_dim": 1536, "depth": 40, "num_heads": 24, "mlp_ratio": 5.33334, "init_values": 1e-5}
UNI2 = {
    "patch_size": 14,
    "depth": 24,
    "num_heads": 24,
    "embed_dim": 1536,
    "mlp_ratio": 2.66667 * 2,
    "init_values": 1e-5,
    "no_embed_class": True,
    "reg_tokens": 8,
    **SWIGLU,
}

_ALL = (
    _of_mahmood(
        "uni", "vit_large_patch16_224", "MahmoodLab/UNI", arguments={"init_values": 1e-5}, aliases=("uni_v1", "mahmood-uni")
    ),
    _of_mahmood(
        "uni2-h", "vit_giant_patch14_224", "MahmoodLab/UNI2-h", arguments=UNI2, prefix_tokens=9, aliases=("uni_v2", "uni2")
    ),
    # Its own embedding is attention pooling after the transformer, which is no part of it here.
    _of_mahmood(
        "conch",
        "vit_base_patch16_224",
        "MahmoodLab/CONCH",
        aliases=("conch_v1", "mahmood-conch"),
        mean=CLIP_MEAN,
        std=CLIP_STD,
        input_size_px=448,
        embedding=None,
    ),
    _of_paige("virchow", "paige-ai/Virchow", "Apache-2.0", registers=0, aliases=("virchow-full",)),
    _of_paige("virchow2", "paige-ai/Virchow2", CC_BY_NC_ND, registers=4),
    _of_bioptimus("h-optimus-0", "vit_giant_patch14_reg4_dinov2", "bioptimus/H-optimus-0", "Apache-2.0", init_values=1e-5),
    _of_bioptimus("h-optimus-1", "vit_giant_patch14_reg4_dinov2", "bioptimus/H-optimus-1", CC_BY_NC_ND, init_values=1e-5),
    _of_bioptimus(
        "h0-mini",
        "vit_base_patch14_reg4_dinov2",
        "bioptimus/H0-mini",
        CC_BY_NC_ND,
        init_values=1e-5,
        mlp_ratio=5.33334,
        **SWIGLU,
    ),
    Preset(
        "phikon-v2",
        "vit_large_patch16_224",
        {"init_values": 1e-5},
        hub="owkin/phikon-v2",
        files=("model.safetensors",),
        licence="Owkin non-commercial licence",
        source="https://huggingface.co/owkin/phikon-v2",
    ),
    Preset(
        "prov-gigapath",
        "vit_giant_patch14_dinov2",
        {"patch_size": 16, **GIANT},
        hub="prov-gigapath/prov-gigapath",
        files=("pytorch_model.bin",),
        aliases=("gigapath",),
        licence="Prov-GigaPath terms, research use only",
        is_gated=True,
        source="https://huggingface.co/prov-gigapath/prov-gigapath",
    ),
    Preset(
        "midnight-12k",
        "vit_giant_patch14_dinov2",
        GIANT,
        hub="kaiko-ai/midnight",
        files=("model.safetensors",),
        mean=HALVES,
        std=HALVES,
        embedding="class+mean",
        licence="MIT",
        source="https://huggingface.co/kaiko-ai/midnight",
    ),
    _of_kaiko("vits16", "vit_small_patch16_224"),
    _of_kaiko("vits8", "vit_small_patch8_224"),
    _of_kaiko("vitb16", "vit_base_patch16_224"),
    _of_kaiko("vitb8", "vit_base_patch8_224"),
    _of_kaiko("vitl14", "vit_large_patch14_reg4_dinov2", prefix_tokens=5),
    _of_lunit("resnet50-bt", "resnet50", "bt_rn50_ep200.torch", embedding="pooled"),
    _of_lunit("resnet50-mocov2", "resnet50", "mocov2_rn50_ep200.torch", embedding="pooled"),
    _of_lunit("resnet50-swav", "resnet50", "swav_rn50_ep200.torch", embedding="pooled"),
    _of_lunit("vits16", "vit_small_patch16_224", "dino_vit_small_patch16_ep200.torch"),
    _of_lunit("vits8", "vit_small_patch8_224", "dino_vit_small_patch8_ep200.torch"),
)
PRESETS = {preset.name: preset for preset in _ALL}


def preset_of(source: str) -> Preset | None:
    """The preset of this name, or of this repository (``hf-hub:OWNER/NAME``); None where there is none."""
    repository = source.replace("hf_hub:", "hf-hub:").removeprefix("hf-hub:").lower()
    of_repository = {preset.hub.lower(): preset for preset in _ALL if preset.hub is not None}
    return PRESETS.get(source) or (of_repository.get(repository) if ":" in source else None)
