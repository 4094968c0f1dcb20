"""Weights under the names of transformers and of DINOv2 compute in timm what they compute there."""

import pytest
import torch
from torch.testing import assert_close

from shared.encoders.published_names import side_of_position_embedding, timm_names


def dinov2_weights(is_gated=False):
    """Of one layer of width 4 and two heads, in the order of transformers' Dinov2Model."""
    names = {
        "embeddings.cls_token": (1, 1, 4),
        "embeddings.mask_token": (1, 4),
        "embeddings.position_embeddings": (1, 5, 4),
        "embeddings.patch_embeddings.projection.weight": (4, 3, 2, 2),
        "embeddings.patch_embeddings.projection.bias": (4,),
        "layernorm.weight": (4,),
        "layernorm.bias": (4,),
    }
    layer = {"norm1.weight": (4,), "layer_scale1.lambda1": (4,), "attention.output.dense.weight": (4, 4)}
    layer |= {f"attention.attention.{part}.weight": (4, 4) for part in ("query", "key", "value")}
    layer |= {f"attention.attention.{part}.bias": (4,) for part in ("query", "key", "value")}
    layer |= {"mlp.weights_in.weight": (6, 4), "mlp.weights_out.weight": (4, 3)} if is_gated else {"mlp.fc1.weight": (8, 4)}
    names |= {f"encoder.layer.0.{name}": shape for name, shape in layer.items()}
    torch.manual_seed(0)
    return {name: torch.randn(shape) for name, shape in names.items()}


LATER_NAMES = {"attention.query": "q_proj", "attention.key": "k_proj", "attention.value": "v_proj", "output.dense": "o_proj"}


@pytest.mark.parametrize(("prefix", "renamed"), [("", {}), ("module.", {}), ("dinov2.", {}), ("", LATER_NAMES)])
def test_names_of_transformers(prefix, renamed):
    weights = dinov2_weights(is_gated=True)
    published = {prefix + name: value for name, value in weights.items()}
    for old, new in renamed.items():
        published = {name.replace(f"attention.{old}.", f"attention.{new}."): value for name, value in published.items()}
    found = timm_names(published)
    assert set(found) == {
        "cls_token",
        "pos_embed",
        "patch_embed.proj.weight",
        "patch_embed.proj.bias",
        "norm.weight",
        "norm.bias",
        "blocks.0.norm1.weight",
        "blocks.0.ls1.gamma",
        "blocks.0.attn.proj.weight",
        "blocks.0.attn.qkv.weight",
        "blocks.0.attn.qkv.bias",
        "blocks.0.mlp.fc1.weight",
        "blocks.0.mlp.fc2.weight",
    }
    parts = [weights[f"encoder.layer.0.attention.attention.{part}.weight"] for part in ("query", "key", "value")]
    assert torch.equal(found["blocks.0.attn.qkv.weight"], torch.cat(parts))


def test_registers_of_dinov2():
    """A class token with its position embedding is one parameter in timm."""
    published = {"cls_token": torch.ones(1, 1, 4), "pos_embed": torch.arange(20.0).reshape(1, 5, 4)}
    published |= {
        "register_tokens": torch.zeros(1, 4, 4),
        "mask_token": torch.zeros(1, 4),
        "blocks.0.mlp.w12.bias": torch.zeros(6),
    }
    found = timm_names(published)
    assert_close(found["cls_token"], torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]))
    assert_close(found["pos_embed"], torch.arange(4.0, 20).reshape(1, 4, 4))
    assert {"reg_token", "blocks.0.mlp.fc1.bias"} < set(found)
    assert "mask_token" not in found


def test_a_tower_is_taken_out_of_a_model_of_images_and_text():
    weights = {"visual.trunk.cls_token": torch.zeros(1), "visual.proj": torch.ones(1), "text.cls": torch.ones(1)}
    assert timm_names(weights) == {"cls_token": torch.zeros(1)}


def test_names_of_timm_stay():
    weights = {"cls_token": torch.zeros(1), "conv1.weight": torch.zeros(1)}
    assert timm_names(weights) == weights


PLAIN = {"cls_token": torch.zeros(1, 1, 4), "blocks.0.norm1.weight": torch.ones(4), "blocks.5.norm1.weight": torch.zeros(4)}
TRAININGS = {
    "DINO, in several processes": ("module.backbone.", ["module.head.mlp.0.weight", "module.head.last_layer.weight_g"]),
    "DINOv2's teacher": ("backbone.", ["dino_head.mlp.0.weight", "ibot_head.last_layer.weight_v"]),
    "Lightning": ("model.backbone.", ["model.projection_head.layers.0.weight"]),
    "wrapped thrice": ("model.module.backbone.", []),
    "a classifier": ("backbone.", ["fc.weight", "fc.bias"]),
}


@pytest.mark.parametrize(("prefix", "heads"), TRAININGS.values(), ids=TRAININGS)
def test_wrappers_and_heads_of_trainings_are_taken_off(prefix, heads):
    published = {prefix + name: value for name, value in PLAIN.items()} | {name: torch.ones(1) for name in heads}
    found = timm_names(published)
    assert found.keys() == PLAIN.keys()
    assert all(found[name] is value for name, value in PLAIN.items())


@pytest.mark.parametrize("other", ["student.cls_token", "norm.weight", "ema.cls_token", "header.weight"])
def test_other_names_beside_a_wrapper_stay(other):
    """They show where weights are loaded: nothing but a head is left out."""
    published = {f"backbone.{name}": value for name, value in PLAIN.items()} | {other: torch.ones(1)}
    assert timm_names(published) == published


def test_a_classifier_without_a_wrapper_stays():
    assert timm_names(PLAIN | {"head.weight": torch.ones(1)}).keys() == {*PLAIN, "head.weight"}


def test_groups_of_blocks_of_dinov2():
    """It numbers blocks on from one group to the next; timm's convolutional networks begin again."""
    grouped = {"cls_token": torch.zeros(1), "blocks.0.0.norm1.weight": torch.ones(1), "blocks.3.9.norm1.weight": torch.zeros(1)}
    found = timm_names({f"backbone.{name}": value for name, value in grouped.items()})
    assert list(found) == ["cls_token", "blocks.0.norm1.weight", "blocks.9.norm1.weight"]
    of_efficientnet = {"conv_stem.weight": torch.ones(1), "blocks.0.0.bn1.weight": torch.ones(1)}
    assert timm_names(of_efficientnet) == of_efficientnet


def test_position_embeddings_of_no_square():
    with pytest.raises(ValueError, match="200 position embeddings do not form a square grid with 1 prefix tokens"):
        side_of_position_embedding(200, 1)


@pytest.mark.parametrize("is_gated", [False, True])
def test_features_are_those_of_transformers(is_gated):
    timm = pytest.importorskip("timm", reason="requirements-encoders.txt is not installed")
    transformers = pytest.importorskip("transformers", reason="only for this comparison")
    sizes = {"hidden_size": 192, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 64, "patch_size": 16}
    network = transformers.Dinov2Model(transformers.Dinov2Config(**sizes, use_swiglu_ffn=is_gated)).eval()
    torch.manual_seed(0)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    gated = {"mlp_ratio": 1024 / 192, "mlp_layer": timm.layers.SwiGLUPacked, "act_layer": torch.nn.SiLU} if is_gated else {}
    same = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=2, num_classes=0, init_values=1, **gated).eval()
    same.load_state_dict(timm_names(network.state_dict()))
    images = torch.randn(1, 3, 64, 64)
    assert_close(same.forward_features(images), network(images).last_hidden_state, rtol=1e-4, atol=1e-4)
