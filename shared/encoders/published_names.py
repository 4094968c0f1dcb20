"""Published state dicts of vision transformers, under whatever names, to the parameter names that timm gives them."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["side_of_position_embedding", "timm_names"]

# A vision tower inside a model of images and text; only what lies in it is taken.
TOWER = "visual.trunk."
# What trainings put before every name.
WRAPPERS = ("module.", "backbone.", "model.", "dinov2.")
# Of what they train beside the encoder, which then has a wrapper that these have not.
HEADS = ("head.", "dino_head.", "ibot_head.", "projection_head.", "classifier.", "fc.")
# Of Dinov2Model in transformers, but for what is joined.
OF_TRANSFORMERS = (
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.", ""),
    (r"^encoder\.layer\.", "blocks."),
    (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
    (r"\.mlp\.weights_in\.", ".mlp.fc1."),
    (r"\.mlp\.(weights_out|down_proj)\.", ".mlp.fc2."),
    (r"^layernorm\.", "norm."),
)
# Of earlier and of later versions of transformers.
JOINED = (
    (("attention.attention.query", "attention.attention.key", "attention.attention.value"), "attn.qkv"),
    (("attention.q_proj", "attention.k_proj", "attention.v_proj"), "attn.qkv"),
    (("mlp.gate_proj", "mlp.up_proj"), "mlp.fc1"),
)
# DINOv2 trains blocks in groups, and numbers them on from one to the next.
GROUPED = r"^blocks\.\d+\.(\d+)\."
OF_DINOV2 = ((r"\.mlp\.w12\.", ".mlp.fc1."), (r"\.mlp\.w3\.", ".mlp.fc2."), (r"^register_tokens$", "reg_token"))


def timm_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Parameters of a vision transformer by timm's names; those of timm itself, and of other networks, stay as they are.

    Args:
        weights: by timm's names, DINOv2's or those of transformers' Dinov2Model, with or without wrappers' prefixes and, beside
            a wrapper, the heads of its training, which are left out; or of a model of images and text with a timm transformer
            in ``visual.trunk``.
    """
    if any(name.startswith(TOWER) for name in weights):
        weights = {name.removeprefix(TOWER): value for name, value in weights.items() if name.startswith(TOWER)}
    while wrapper := next((wrapper for wrapper in WRAPPERS if _is_around(weights, wrapper)), None):
        weights = {name.removeprefix(wrapper): value for name, value in weights.items() if name.startswith(wrapper)}
    if "embeddings.cls_token" in weights:
        weights = _renamed(_joined(weights), OF_TRANSFORMERS)
    if _has_grouped_blocks(weights):
        weights = _renamed(weights, ((GROUPED, r"blocks.\1."),))
    # The mask's token serves in pretraining alone.
    has_registers = "register_tokens" in weights
    weights = {name: value for name, value in _renamed(weights, OF_DINOV2).items() if name != "mask_token"}
    return _position_of_class_moved(weights) if has_registers else weights


def side_of_position_embedding(positions: int, prefix_tokens: int) -> int:
    """Patches per side of the images to which these position embeddings belong.

    Args:
        positions: how many there are: of the patches, and of all prefix tokens, of one or of none.
        prefix_tokens: class and register tokens.

    Raises:
        ValueError: if the patches of no square image have so many.

    >>> side_of_position_embedding(197, 1), side_of_position_embedding(256, 5), side_of_position_embedding(261, 5)
    (14, 16, 16)
    """
    for count in (0, 1, prefix_tokens):
        side = round((positions - count) ** 0.5)
        if side * side == positions - count:
            return side
    raise ValueError(f"{positions} position embeddings do not form a square grid with {prefix_tokens} prefix tokens")


def _is_around(weights: Mapping[str, Tensor], wrapper: str) -> bool:
    inside = [name.startswith(wrapper) for name in weights if not name.startswith(HEADS)]
    return bool(inside) and all(inside)


def _has_grouped_blocks(weights: Mapping[str, Tensor]) -> bool:
    """Of a transformer: convolutional networks of timm have groups of blocks of their own."""
    blocks = [name for name in weights if name.startswith("blocks.")]
    return "cls_token" in weights and bool(blocks) and all(re.match(GROUPED, name) for name in blocks)


def _renamed(weights: Mapping[str, Tensor], rules: tuple[tuple[str, str], ...]) -> dict[str, Tensor]:
    renamed = {}
    for name, value in weights.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed


def _joined(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Parameters that other names have in parts, joined to one each."""
    joined = dict(weights)
    for parts, whole in JOINED:
        for name in weights:
            if f".{parts[0]}." in name:
                values = [joined.pop(name.replace(f".{parts[0]}.", f".{part}.")) for part in parts]
                joined[name.replace(f".{parts[0]}.", f".{whole}.")] = torch.cat(values)
    return joined


def _position_of_class_moved(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """DINOv2 with registers adds a position embedding to the class token; timm keeps the sum."""
    positions = weights["pos_embed"]
    return {**weights, "cls_token": weights["cls_token"] + positions[:, :1], "pos_embed": positions[:, 1:]}
