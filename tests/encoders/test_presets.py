"""Published encoders of pathology: their architectures take state dicts of the published names and shapes."""

import math
from pathlib import Path

import pytest
import torch

from shared.encoders import FeatureOptions, load_encoder
from shared.encoders.presets import PRESETS, preset_of

timm = pytest.importorskip("timm", reason="requirements-encoders.txt is not installed")

from shared.encoders.preset_models import encoder_without_weights  # noqa: E402

# Width, depth, patch, hidden channels of the MLP, gated MLP, layer scale, registers, position embeddings, millions of parameters.
# From model cards, papers and the loaders of TRIDENT, eva and STAMP; the numbers of parameters are those that their authors name.
TRANSFORMERS = {
    "uni": (1024, 24, 16, 4096, False, True, 0, 197, 303),
    "uni2-h": (1536, 24, 14, 8192, True, True, 8, 256, 681),
    "conch": (768, 12, 16, 3072, False, False, 0, 785, 86),
    "virchow": (1280, 32, 14, 6832, True, True, 0, 257, 631),
    "virchow2": (1280, 32, 14, 6832, True, True, 4, 261, 631),
    "h-optimus-0": (1536, 40, 14, 8192, True, True, 4, 256, 1135),
    "h-optimus-1": (1536, 40, 14, 8192, True, True, 4, 256, 1135),
    "h0-mini": (768, 12, 14, 4096, True, True, 4, 256, 86),
    "phikon-v2": (1024, 24, 16, 4096, False, True, 0, 197, 303),
    "prov-gigapath": (1536, 40, 16, 8192, True, True, 0, 197, 1135),
    "midnight-12k": (1536, 40, 14, 8192, True, True, 0, 257, 1135),
    "kaiko-vits16": (384, 12, 16, 1536, False, False, 0, 197, 22),
    "kaiko-vits8": (384, 12, 8, 1536, False, False, 0, 785, 22),
    "kaiko-vitb16": (768, 12, 16, 3072, False, False, 0, 197, 86),
    "kaiko-vitb8": (768, 12, 8, 3072, False, False, 0, 785, 86),
    "kaiko-vitl14": (1024, 24, 14, 4096, False, True, 4, 1369, 304),
    "lunit-vits16": (384, 12, 16, 1536, False, False, 0, 197, 22),
    "lunit-vits8": (384, 12, 8, 1536, False, False, 0, 785, 22),
}
# Which are published under other names than timm's.
STYLES = {"phikon-v2": "transformers", "midnight-12k": "transformers", "kaiko-vitl14": "dinov2", "conch": "tower"}


def shapes_of_timm(width, depth, patch, hidden, is_gated, has_scale, registers, positions):
    """Names and shapes of a vision transformer's parameters."""
    shapes = {"cls_token": (1, 1, width), "pos_embed": (1, positions, width)}
    if registers:
        shapes["reg_token"] = (1, registers, width)
    shapes |= {"patch_embed.proj.weight": (width, 3, patch, patch), "patch_embed.proj.bias": (width,)}
    for block in (f"blocks.{index}." for index in range(depth)):
        shapes |= {f"{block}norm{n}.{kind}": (width,) for n in (1, 2) for kind in ("weight", "bias")}
        shapes |= {f"{block}attn.qkv.weight": (3 * width, width), f"{block}attn.qkv.bias": (3 * width,)}
        shapes |= {f"{block}attn.proj.weight": (width, width), f"{block}attn.proj.bias": (width,)}
        shapes |= {f"{block}mlp.fc1.weight": (hidden, width), f"{block}mlp.fc1.bias": (hidden,)}
        shapes |= {f"{block}mlp.fc2.weight": (width, hidden // 2 if is_gated else hidden), f"{block}mlp.fc2.bias": (width,)}
        if has_scale:
            shapes |= {f"{block}ls{n}.gamma": (width,) for n in (1, 2)}
    return shapes | {"norm.weight": (width,), "norm.bias": (width,)}


def of_transformers(shapes, is_gated):
    """The names of transformers' Dinov2Model: query, key and value apart."""
    named = {"embeddings.mask_token": (1, shapes["cls_token"][2])}
    mlp = ("weights_in", "weights_out") if is_gated else ("fc1", "fc2")
    for name, shape in shapes.items():
        if ".attn.qkv." in name:
            block, kind = name.split(".attn.qkv.")
            parts = {f"{block}.attention.attention.{p}.{kind}": (shape[0] // 3, *shape[1:]) for p in ("query", "key", "value")}
            named |= {p.replace("blocks.", "encoder.layer."): s for p, s in parts.items()}
            continue
        name = name.replace("blocks.", "encoder.layer.").replace("attn.proj", "attention.output.dense")
        name = name.replace("mlp.fc1", f"mlp.{mlp[0]}").replace("mlp.fc2", f"mlp.{mlp[1]}")
        name = name.replace("ls1.gamma", "layer_scale1.lambda1").replace("ls2.gamma", "layer_scale2.lambda1")
        name = name.replace("patch_embed.proj", "embeddings.patch_embeddings.projection")
        name = {"pos_embed": "embeddings.position_embeddings", "cls_token": "embeddings.cls_token"}.get(name, name)
        named["layernorm" + name[4:] if name.startswith("norm.") else name] = shape
    return named


def published_shapes(name):
    *sizes, _ = TRANSFORMERS[name]
    shapes = shapes_of_timm(*sizes)
    if STYLES.get(name) == "transformers":
        return of_transformers(shapes, is_gated=sizes[4])
    if STYLES.get(name) == "dinov2":
        shapes = shapes | {"mask_token": (1, sizes[0]), "pos_embed": (1, sizes[7] + 1, sizes[0])}
        return {{"reg_token": "register_tokens"}.get(key, key): shape for key, shape in shapes.items()}
    if STYLES.get(name) == "tower":
        return {f"visual.trunk.{key}": shape for key, shape in shapes.items()} | {
            "logit_scale": (),
            "visual.ln_contrast.bias": (512,),
        }
    return shapes


def test_every_transformer_is_checked():
    assert {name for name, preset in PRESETS.items() if preset.prefix_tokens} == set(TRANSFORMERS)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_a_state_dict_of_the_published_shapes_is_taken(tmp_path, name):
    width, *_, registers, _, millions = TRANSFORMERS[name]
    # One number each, repeated: a file of a few kilobytes for a billion parameters.
    weights = {key: torch.full((1,) * len(shape), 0.5).expand(shape) for key, shape in published_shapes(name).items()}
    torch.save(weights, tmp_path / "weights.pth")
    encoder = load_encoder(name, checkpoint_path=tmp_path / "weights.pth")
    network = encoder.network
    assert round(sum(p.numel() for p in network.parameters()) / 1e6) == millions
    assert not [key for key, value in network.state_dict().items() if value.is_meta or value.dtype != torch.float32]
    assert encoder.channels == width
    assert (network.num_prefix_tokens, PRESETS[name].prefix_tokens) == (1 + registers, 1 + registers)
    torch.save({key: value for key, value in weights.items() if "norm1" not in key}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"weights.pth does not hold the weights of this encoder"):
        load_encoder(name, checkpoint_path=tmp_path / "weights.pth")


@pytest.mark.parametrize("name", ["lunit-resnet50-bt", "lunit-resnet50-swav"])
def test_resnets_of_lunit_take_the_names_of_torchvision(tmp_path, name):
    torchvision = pytest.importorskip("torchvision")
    network = torchvision.models.resnet50()
    del network.fc
    torch.save({key: value for key, value in network.state_dict().items() if "num_batches" not in key}, tmp_path / "weights.pth")
    encoder = load_encoder(name, strides_px=(8, 32), checkpoint_path=tmp_path / "weights.pth")
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    stem = torch.nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool, network.layer1, network.layer2)
    expected = stem.eval()(encoder.normalization(images))
    assert torch.equal(encoder(images)[:, : 512 * 16], torch.nn.functional.pixel_unshuffle(expected, 4))


@pytest.mark.parametrize("name", PRESETS)
def test_features_of_any_size(name):
    preset = PRESETS[name]
    kinds = ["dense"] if not preset.prefix_tokens else ["dense", "dense+class"]
    for tokens in kinds if preset.embedding is None else [*kinds, "embedding"]:
        encoder = encoder_without_weights(preset, FeatureOptions(tokens=tokens)).eval().to("meta")
        side = encoder.size_multiple_px
        # Transformers and authors' embeddings have tiles of the size that they were trained at; any size suits convolutions.
        is_any_size = not preset.prefix_tokens and tokens == "dense"
        own = (preset.input_size_px, 0)
        assert (encoder.slide_tile_px, encoder.slide_margin_px) == ((512, 64) if is_any_size else own)
        assert encoder(torch.zeros(1, 3, 2 * side, 3 * side, device="meta")).shape == (1, encoder.channels, 2, 3)
        assert side == (224 if tokens == "embedding" else 32 if preset.prefix_tokens == 0 else TRANSFORMERS[name][2])


def test_midnight_has_twice_as_many_values_as_trident_stores_of_it():
    options = (FeatureOptions(tokens=tokens) for tokens in ("class", "embedding"))
    assert [encoder_without_weights(PRESETS["midnight-12k"], each).channels for each in options] == [1536, 3072]


@pytest.mark.parametrize("name", PRESETS)
def test_what_its_users_must_know(name):
    preset = PRESETS[name]
    facts = preset.facts()
    assert preset.source.startswith("https://")
    assert facts.licence
    assert (preset.hub is None) != (preset.url is None)
    assert all(0 < value < 1 for value in (*facts.mean, *facts.std))
    assert math.isclose(facts.mpp, 0.5)


def test_a_preset_is_known_by_its_repository_too():
    assert (
        preset_of("hf-hub:MahmoodLab/UNI2-h") is preset_of("uni2-h") is preset_of("hf_hub:mahmoodlab/uni2-h") is PRESETS["uni2-h"]
    )
    assert preset_of("timm/resnet50") is None
    assert preset_of("MahmoodLab/UNI2-h") is None


def test_the_documentation_has_every_preset():
    page = (Path(__file__).parents[2] / "docs" / "encoders.md").read_text(encoding="utf-8")
    for preset in PRESETS.values():
        (row,) = [line for line in page.splitlines() if line.startswith(f"| [`{preset.name}`]({preset.source})")]
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        access = "ask" if preset.is_gated else "open"
        assert cells[1:4] == [preset.architecture, str(preset.input_size_px), str(preset.mpp)]
        assert cells[5:] == [preset.embedding or "-", preset.licence, access]
