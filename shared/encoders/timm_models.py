"""Any model of timm as an encoder: convolutional networks by their maps, vision transformers by their tokens."""

from __future__ import annotations

import inspect
import json
import types
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .encoder import GIVEN_FACTS, Encoder, EncoderFacts, FeatureOptions, completed_facts
from .hub import explained_hub_errors
from .published_names import side_of_position_embedding, timm_names
from .weights import load_weights_into, read_weights

__all__ = ["TimmEncoder", "imported_timm", "load_timm"]

INSTALL = "pip install -r requirements-encoders.txt"
# Of what torch says of weights that do not fit, in characters: it may name every parameter.
LONGEST_PROBLEM = 400


class TimmEncoder(Encoder):
    """Features of a timm model.

    The last map of a convolutional network is what its ``forward_features`` returns, the finer ones are the last of their
    stride. Tokens of a transformer are those after its last norm, without registers; its position embeddings are interpolated
    to the size of the image.

    Args:
        facts: what is known of the encoder.
        network: made with ``num_classes=0``.
        options: which features are taken. Tokens "embedding" give one feature of each tile of `EncoderFacts.input_size_px`.
        embedding: rule of tokens "embedding": "class", "class+mean" (the class token and the mean of the patch tokens), or
            "pooled", as timm pools; None where the published rule needs more than the network.

    Raises:
        ValueError: if the network has no such strides or tokens.
    """

    def __init__(
        self,
        facts: EncoderFacts,
        network: Any,
        options: FeatureOptions | None = None,
        embedding: str | None = "pooled",
    ) -> None:
        options = options or FeatureOptions()
        prefix_tokens = getattr(network, "num_prefix_tokens", None)
        kinds = ["dense"]
        if prefix_tokens:
            kinds += ["class", "dense+class"]
        if embedding is not None and facts.input_size_px is not None:
            kinds.append("embedding")
        super().__init__(facts, _channels_of_stride(facts, network, options.tokens, embedding), options, kinds)
        self.network: Any = network
        self.embedding, self.prefix_tokens = embedding, prefix_tokens
        self.is_channels_last = getattr(network, "output_fmt", "NCHW") == "NHWC"

    def _settings(self) -> dict[str, Any]:
        rule = {"embedding": self.embedding} if self.tokens == "embedding" else {}
        return {**super()._settings(), **rule}

    def native_features(self, images: Tensor) -> list[Tensor]:
        if self.tokens == "embedding":
            return [self._embeddings(images)]
        if self.prefix_tokens is not None:
            return [self._token_grid(images)]
        return self._maps(images)

    def _maps(self, images: Tensor) -> list[Tensor]:
        reductions = [stage["reduction"] for stage in self.network.feature_info]
        is_to_the_end = self.native_stride_px == max(reductions)
        if self.native_strides_px == (max(reductions),):
            return [self._map(self.network.forward_features(images))]
        last_of_stride = {reduction: index for index, reduction in enumerate(reductions)}
        indices = [last_of_stride[stride] for stride in self.native_strides_px]
        if not is_to_the_end:
            return self.network.forward_intermediates(images, indices=indices, intermediates_only=True, stop_early=True)
        last, maps = self.network.forward_intermediates(images, indices=indices)
        return [*maps[:-1], self._map(last)]

    def _map(self, features: Tensor) -> Tensor:
        return features.permute(0, 3, 1, 2) if self.is_channels_last else features

    def _token_grid(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2] // self.native_stride_px, images.shape[-1] // self.native_stride_px
        tokens = self.network.forward_features(images)
        patches = tokens[:, self.prefix_tokens :].transpose(1, 2).unflatten(2, (height, width))
        if self.tokens == "dense":
            return patches
        of_class = tokens[:, 0, :, None, None].expand(-1, -1, height, width)
        return of_class if self.tokens == "class" else torch.cat([patches, of_class], dim=1)

    def _embeddings(self, images: Tensor) -> Tensor:
        side = self.native_stride_px
        batch, rows, columns = images.shape[0], images.shape[-2] // side, images.shape[-1] // side
        tiles = images.unflatten(3, (columns, side)).unflatten(2, (rows, side)).permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
        features = self.network.forward_features(tiles)
        if self.embedding == "pooled":
            embedded = self.network.forward_head(features, pre_logits=True)
        elif self.embedding == "class":
            embedded = features[:, 0]
        else:
            embedded = torch.cat([features[:, 0], features[:, self.prefix_tokens :].mean(dim=1)], dim=1)
        return embedded.unflatten(0, (batch, rows, columns)).permute(0, 3, 1, 2)


def load_timm(
    source: str,
    options: FeatureOptions | None = None,
    checkpoint_path: str | Path | None = None,
    given: Mapping[str, Any] | None = None,
) -> TimmEncoder:
    """A timm model with its pretrained weights.

    Args:
        source: ``timm/NAME``, ``hf-hub:OWNER/NAME`` or ``local-dir:FOLDER``, the latter two with a ``config.json`` of timm.
        options: which features are taken.
        checkpoint_path: a local state dict, instead of the pretrained weights.
        given: facts that are not stated, see `completed_facts`: of a state dict all but the input size, which its position
            embeddings state; of pretrained weights what timm or their ``config.json`` does not have.

    Raises:
        ModuleNotFoundError: if timm is missing; it names the remedy.
        ValueError: if timm has no such model, it gives no features of images of any size, the weights do not fit, or a fact is
            given that is stated.
        RuntimeError: if the weights cannot be had.
    """
    timm = imported_timm(source)
    model = source.removeprefix("timm/")
    with explained_hub_errors(source):
        config = _configuration(source)
        twin, arguments = _without_weights(timm, model)
        if checkpoint_path is None and not any(twin.pretrained_cfg.get(place) for place in ("url", "file", "hf_hub_id")):
            raise ValueError(f"timm has no weights for {model}: name their file as checkpoint_path, or a model that has some")
    facts, unstated = _facts(source, twin, options or FeatureOptions()), _unstated(twin, config)
    # Of a configuration timm completes what is missing.
    whose = "timm where nothing is stated" if "mean" in unstated else source
    if checkpoint_path is None:
        facts = completed_facts(facts, given or {}, unstated, source, whose)
        with explained_hub_errors(source):
            network = _pretrained(timm, source, twin.pretrained_cfg["num_classes"], **arguments)
    else:
        # Position embeddings state the size of the images.
        own = set(GIVEN_FACTS) - ({"input_size_px"} if hasattr(twin, "num_prefix_tokens") else set())
        facts = completed_facts(replace(facts, licence=None), given or {}, own, str(checkpoint_path), whose)
        weights = timm_names(read_weights(checkpoint_path))
        with explained_hub_errors(source):
            if size_px := _other_size_px(twin, weights):
                facts = replace(facts, input_size_px=size_px)
                twin, arguments = _without_weights(timm, model, img_size=size_px)
            network = _created(timm, model, pretrained=False, num_classes=0, **arguments)
        classifiers = _classifiers(network)
        load_weights_into(network, {n: v for n, v in weights.items() if not n.startswith(classifiers)}, checkpoint_path)
    _check_any_size(TimmEncoder(facts, twin, options))
    return TimmEncoder(facts, network, options)


def imported_timm(source: str) -> types.ModuleType:
    try:
        import timm
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"the encoder {source} needs timm, which is not installed: {INSTALL}") from error
    return timm


def _configuration(source: str) -> dict[str, Any] | None:
    """The ``config.json`` of a source; None for timm's own models.

    Raises:
        ValueError: if it is not one of timm.
    """
    if source.startswith("timm/"):
        return None
    place = source.split(":", 1)[1]
    if source.startswith("local-dir:"):
        path = Path(place, "config.json")
        if not path.is_file():
            raise ValueError(
                f"{place} is not a timm model: expected its config.json there, next to model.safetensors or pytorch_model.bin"
            )
    else:
        from huggingface_hub import hf_hub_download

        repository, _, revision = place.partition("@")
        path = Path(hf_hub_download(repository, "config.json", revision=revision or None))
    config = _json(path)
    if isinstance(config, dict) and "architecture" in config:
        return config
    of_transformers = config.get("model_type") or config.get("architectures") if isinstance(config, dict) else None
    found = f"that of a model for transformers, {of_transformers}" if of_transformers else "none"
    raise ValueError(
        f'{source} is not a timm model: expected a config.json with "architecture", its name in timm; found {found}. Export the '
        "network to a file of torch.export (.pt2) or TorchScript (.pt) as docs/encoders.md describes and give that file, or give "
        "one of the published encoders there by its name"
    )


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error


def _without_weights(timm: types.ModuleType, model: str, **arguments: Any) -> tuple[Any, dict[str, Any]]:
    """A network on the meta device, where it takes no memory, and the arguments with which it accepts images of any size."""
    with torch.device("meta"):
        network = _created(timm, model, pretrained=False, num_classes=0, **arguments)
        known = inspect.signature(type(network).__init__).parameters
        if "dynamic_img_size" in known:
            arguments["dynamic_img_size"] = True
        if "strict_img_size" in known:
            arguments["strict_img_size"] = False
        return _created(timm, model, pretrained=False, num_classes=0, **arguments).eval(), arguments


def _pretrained(timm: types.ModuleType, source: str, num_classes: int, **arguments: Any) -> Any:
    """A network with its pretrained weights, all of them, and without its classifier.

    timm loads weights strictly only into a network of as many classes as they have: into any other, what is missing stays random
    and what is left over is dropped, which it only logs. So the classifier is loaded too, and is then taken off. Architectures
    whose weights timm itself declares to be partial (such as DLA, FCMAE's ConvNeXt) are loaded as it does it.

    Raises:
        ValueError: if the weights are not those of the network.
    """
    model = source.removeprefix("timm/")
    try:
        network = _created(timm, model, pretrained=True, num_classes=num_classes, **arguments)
    except RuntimeError as error:
        if not _is_of_weights(error):
            raise
        try:
            # Weights without the classifier that their configuration promises.
            without = {"num_classes": 0, "pretrained_cfg_overlay": {"num_classes": 0}}
            return _created(timm, model, pretrained=True, **without, **arguments)
        except RuntimeError as again:
            if not _is_of_weights(again):
                raise
        problems = " ".join(str(error).split())
        described, remedy = _description(source)
        raise ValueError(
            f"the weights of {source} are not those of the network that {described} describes: expected every parameter of it "
            f"and no other, found: {problems[:LONGEST_PROBLEM]}{' ...' if len(problems) > LONGEST_PROBLEM else ''}. {remedy}"
        ) from error
    if hasattr(network, "reset_classifier"):
        network.reset_classifier(0)
    return network


def _description(source: str) -> tuple[str, str]:
    """What describes the network of a source, and what to do where that is not the network of its weights."""
    if source.startswith("timm/"):
        return "timm", "Get the weights again"
    folder = "" if source.startswith("local-dir:") else "Download both into a folder and give local-dir:FOLDER. "
    return "its config.json", f"{folder}Correct architecture, model_args and num_classes in config.json, or give other weights"


def _is_of_weights(error: RuntimeError) -> bool:
    return "loading state_dict" in str(error)


def _created(timm: types.ModuleType, model: str, pretrained: bool, **arguments: Any) -> Any:
    try:
        return timm.create_model(model, pretrained=pretrained, **arguments)
    except RuntimeError as error:
        if "Unknown model" not in str(error) and "Invalid pretrained tag" not in str(error):
            raise
        near = timm.list_models(f"{model.split('.')[0].split('_')[0]}*", pretrained=True)[:5]
        raise ValueError(
            f"timm {timm.__version__} has no model {model!r}; similar names are {', '.join(near) or 'none'}"
        ) from error


def _facts(source: str, network: Any, options: FeatureOptions) -> EncoderFacts:
    known = network.pretrained_cfg
    name = f"local-dir:{Path(source).name}" if source.startswith("local-dir:") else source
    # A convolutional network has no fixed size except where tiles are embedded.
    has_size = hasattr(network, "num_prefix_tokens") or options.tokens == "embedding"
    size = known["input_size"][-1] if has_size else None
    return EncoderFacts(name, known["mean"], known["std"], input_size_px=size, licence=known.get("license"))


def _unstated(network: Any, config: Mapping[str, Any] | None) -> set[str]:
    """Facts that neither timm nor the configuration of pretrained weights states: none states a pixel size."""
    # Of timm's own models; it completes those of a configuration by usual values.
    stated = network.pretrained_cfg if config is None else config.get("pretrained_cfg", config)
    names = {"mean": "mean", "std": "std", "input_size_px": "input_size", "licence": "license"}
    missing = {fact for fact, name in names.items() if stated.get(name) is None}
    return {"mpp", *missing, *(("mean", "std") if missing & {"mean", "std"} else ())}


def _other_size_px(network: Any, weights: Mapping[str, Tensor]) -> int | None:
    """Side of the images that the position embeddings of `weights` are of; None where the network's own are as many."""
    own, found = getattr(network, "pos_embed", None), weights.get("pos_embed")
    if own is None or found is None or found.shape == own.shape or found.ndim != 3:
        return None
    if "img_size" not in inspect.signature(type(network).__init__).parameters or not hasattr(network, "num_prefix_tokens"):
        return None
    try:
        patches = side_of_position_embedding(found.shape[1], network.num_prefix_tokens)
    except ValueError:
        # That they do not fit is said where they are loaded, with the file's name.
        return None
    side = network.patch_embed.patch_size
    return patches * (side if isinstance(side, int) else side[0])


def _channels_of_stride(facts: EncoderFacts, network: Any, tokens: str, embedding: str | None) -> Mapping[int, int]:
    width = network.num_features
    if tokens == "embedding":
        return {facts.input_size_px or 1: 2 * width if embedding == "class+mean" else width}
    if getattr(network, "num_prefix_tokens", None) is not None:
        side = network.patch_embed.patch_size
        side = side if isinstance(side, int) else side[0]
        return {side: 2 * width if tokens == "dense+class" else width}
    channels = {stage["reduction"]: stage["num_chs"] for stage in network.feature_info}
    return {**channels, max(channels): width}


def _classifiers(network: Any) -> tuple[str, ...]:
    names = network.pretrained_cfg.get("classifier") or ()
    return tuple(f"{name}." for name in ([names] if isinstance(names, str) else names))


def _check_any_size(twin: TimmEncoder) -> None:
    """Raise a ValueError unless the features of images of two sizes have the shapes that they should have."""
    twin = twin.to("meta").eval()
    multiple, usual = twin.size_multiple_px, twin.input_size_px or 224
    height = -(-usual // multiple) * multiple
    for size in [(height, height), (height, height + 2 * multiple)]:
        expected = (1, twin.channels, size[0] // twin.stride_px, size[1] // twin.stride_px)
        try:
            with torch.no_grad():
                found = tuple(twin(torch.zeros(1, 3, *size, device="meta")).shape)
        except Exception as error:  # each architecture has its own
            raise ValueError(
                f"{twin.name} gives no {twin.tokens} features of images of {size[0]} x {size[1]} px: {error}"
            ) from error
        if found != expected:
            raise ValueError(f"{twin.name} must give features {expected} of images of {size[0]} x {size[1]} px; found {found}")
