"""The weights that `monai.bundle.load` is about to copy into a configuration's network: all of them must be the network's."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from monai.bundle import ConfigParser, load

NETWORK = "network_def"
# Names in an error.
_MOST_NAMES = 4


@dataclass(frozen=True)
class LoadedWeights:
    """Weights, and the file that they are from."""

    path: str
    state: Mapping[str, Any]


def weights_to_load() -> LoadedWeights | None:
    """The weights that `monai.bundle.load` has read if it creates the workflow, otherwise None.

    MONAI hands it to no configuration, so it is looked up on the call stack.
    """
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code is load.__code__:
            found, key = frame.f_locals, frame.f_locals.get("key_in_ckpt")
            state = found["model_dict"] if key is None else found["model_dict"][key]
            return LoadedWeights(str(found["full_path"]), state)
        frame = frame.f_back
    return None


def check_loaded_weights(loaded: LoadedWeights, parser: ConfigParser) -> None:
    """Compare names and shapes of weights with those of a configuration's network: MONAI would leave the others random.

    Args:
        loaded: the weights.
        parser: of the configuration.

    Raises:
        ValueError: naming the file, and weights that are missing, left over or of another shape.
    """
    network = parser.get_parsed_content(NETWORK)
    wanted = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in loaded.state.items()}
    wrong = [name for name in (*wanted, *found) if wanted.get(name) != found.get(name)]
    wrong = list(dict.fromkeys(wrong))
    if wrong:
        shown = "; ".join(
            f"{name}: expected {_shape_text(wanted, name)}, found {_shape_text(found, name)}" for name in wrong[:_MOST_NAMES]
        )
        more = f"; and {len(wrong) - _MOST_NAMES} more" if len(wrong) > _MOST_NAMES else ""
        raise ValueError(
            f"{loaded.path} does not contain the weights of the {type(network).__name__} that the configuration describes "
            f"({shown}{more}). monai.bundle.load accepts no overlays: give those of the training to "
            "monai.bundle.create_workflow, with inference.json and the checkpoint, and take its network_def"
        )


def _shape_text(shapes: Mapping[str, tuple[int, ...]], name: str) -> str:
    return " x ".join(map(str, shapes[name])) or "a number" if name in shapes else "none"
