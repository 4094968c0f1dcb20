"""Whose encoders' weights are given on with a bundle, and what a packed one says of its encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from monai.bundle import ConfigParser

from shared.encoders.efficientnet_lite import FACTS
from shared.encoders.factory import IMAGENET_BACKBONES
from shared.encoders.imagenet_backbones import LICENCE
from shared.encoders.presets import preset_of

# Whoever has such weights may give them on.
PERMISSIVE = frozenset({"Apache-2.0", "BSD-3-Clause", "MIT"})
WEIGHTS, KEY = "encoder.", "encoder_key"


@dataclass(frozen=True)
class EncoderTerms:
    """An encoder, and on which terms its weights are had.

    Attributes:
        name: as `shared.encoders.load_encoder` takes it.
        licence: of the weights; None where it is not known.
        is_gated: whether they are only given to people who have accepted the terms.
    """

    name: str
    licence: str | None = None
    is_gated: bool = False

    @property
    def is_given_on(self) -> bool:
        """Whether the weights may be packed."""
        return self.licence in PERMISSIVE and not self.is_gated

    def __str__(self) -> str:
        access = ", access must be requested" if self.is_gated else ""
        return f"{self.name} (licence: {self.licence or 'not known'}{access})"

    def entry(self, key: str) -> dict[str, Any]:
        """The contents of ``models/encoder.json``; `key` is the key with which the weights were trained."""
        return asdict(self) | {"key": key, "is_packed": self.is_given_on}


def terms_of(config: Mapping[str, Any]) -> EncoderTerms:
    """Terms of a training's encoder, from the configuration that it recorded; nothing is loaded."""
    parser = ConfigParser(dict(config))
    source, file, licence = (
        parser.get_parsed_content(f"encoder_def::{name}", default=None) for name in ("source", "checkpoint_path", "licence")
    )
    source = str(source)
    if preset := preset_of(source):
        return EncoderTerms(source, preset.licence, preset.is_gated)
    of_imagenet = {FACTS.name: FACTS.licence} | dict.fromkeys(IMAGENET_BACKBONES, LICENCE)
    # Other weights of such a network may be anyone's.
    return EncoderTerms(source, of_imagenet[source] if source in of_imagenet and file is None else licence)
