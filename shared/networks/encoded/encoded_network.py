"""An encoder and the head that learns on its features, as one network."""

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["EncodedNetwork"]

_ENCODER = "encoder."
_KEY = "encoder_key"
_SMALLEST_STD = 1e-3
# Of features that a head is given at once, 4 MiB in float32. A CPU's caches hold them, and the allocator has them ready,
# whereas the memory of large tensors is fetched again from the system each time: all that is done to them then takes five times
# as long.
_VALUES_AT_ONCE = 2**20


class EncodedNetwork(nn.Module):
    """Takes images, which it encodes, or features that the same encoder has made of them before.

    What has three channels is an image. The encoder always runs in eval mode. Unless it is fine-tuned it does not learn, and
    its weights are not part of the state dict: a checkpoint holds the head, a few hundred kilobytes, and the encoder's key,
    without which weights would fit features of another encoder and answer nonsense.

    Features are standardised by the mean and deviation of the training data, see `standardise`, which a checkpoint carries.

    Args:
        encoder: see `shared.encoders.Encoder`: RGB ``(B, 3, H, W)``, 0 to 255, to features ``(B, C, H / stride, W / stride)``.
        finetune: whether the encoder learns too, a copy of the one that is given. The running statistics of its batch
            normalisation stay.

    Raises:
        ValueError: for an encoder with three channels, whose features could not be told from images.

    Attributes:
        kernel_size: side of the square of features that the head sees for one answer: 1 unless a subclass says otherwise.
    """

    # TorchScript compiles properties unless they are named here.
    __jit_unused_properties__ = ("frozen_key",)

    mean: Tensor
    std: Tensor
    encoder_key: Tensor

    def __init__(self, encoder: nn.Module, finetune: bool = False) -> None:
        super().__init__()
        # A copy: other users of the encoder keeps the one that does not learn.
        self.encoder = copy.deepcopy(encoder).requires_grad_(True) if finetune else encoder.requires_grad_(False)
        self.channels: int = int(encoder.channels)  # type: ignore[arg-type]
        if self.channels == 3:
            name = getattr(encoder, "name", type(encoder).__name__)
            raise ValueError(
                f"the encoder {name} gives features of 3 channels, which cannot be told from images: expected any other number. "
                "Give another encoder, or export this one with a fourth channel"
            )
        self.stride_px: int = int(encoder.stride_px)  # type: ignore[arg-type]
        self.kernel_size: int = 1
        self.saves_encoder = finetune
        self.register_buffer("mean", torch.zeros(1, self.channels, 1, 1))
        self.register_buffer("std", torch.ones(1, self.channels, 1, 1))
        self.register_buffer(_KEY, torch.tensor(list(bytes.fromhex(str(encoder.key))), dtype=torch.uint8))
        self.register_state_dict_post_hook(_leave_the_encoder_out)
        self.register_load_state_dict_pre_hook(_take_the_encoder_as_it_is)

    @property
    def frozen_key(self) -> str | None:
        """The key of the encoder, by which features are known; None of one that learns."""
        return None if self.saves_encoder else _hex(self.encoder_key)

    def train(self, mode: bool = True) -> "EncodedNetwork":
        """Set the mode as for any network, except that the encoder stays in eval mode."""
        self.training = mode
        for name, part in self.named_children():
            if name != "encoder":
                part.train(mode)
        # It has many layers, and a step changes the mode twice.
        if any(part.training for part in self.encoder.modules()):
            self.encoder.eval()
        return self

    def encode(self, inputs: Tensor) -> Tensor:
        """RGB images ``(B, 3, H, W)``, 0 to 255, or features ``(B, C, h, w)``, to features."""
        if inputs.shape[1] == 3:
            return self.encoder(inputs)
        if inputs.shape[1] != self.channels:
            raise ValueError(f"features must have {self.channels} channels, as those of the encoder; found {inputs.shape[1]}")
        if self.saves_encoder:
            raise ValueError("an encoder that is trained needs images: stored features were made by the encoder as it was before")
        return inputs

    def features(self, inputs: Tensor) -> Tensor:
        """RGB images ``(B, 3, H, W)`` or features to standardised features ``(B, C, h, w)``, float32."""
        return self._standardised(self.encode(inputs))

    def _standardised(self, features: Tensor) -> Tensor:
        copied = features.float()
        # Of features in half precision that is a copy already; those of an encoder are somebody else's.
        centred = copied - self.mean if features.dtype == copied.dtype else copied.sub_(self.mean)
        return centred.div_(self.std)

    @torch.jit.unused
    def answers(self, head: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        """The output of a head for the standardised features, computed image by image: ``head(features(inputs))``, and on a CPU
        in less time.

        Args:
            head: features ``(B, C, h, w)`` to ``(B, ...)``.
            inputs: RGB images ``(B, 3, H, W)`` or features ``(B, C, h, w)``.
        """
        features = self.encode(inputs)
        if inputs.shape[1] == 3 or features.device.type != "cpu":
            return head(self._standardised(features))
        return torch.cat([head(self._standardised(part)) for part in _parts(features)])

    @torch.no_grad()
    def standardise(self, batches: Iterable[Tensor], add_up: Callable[[Tensor], Tensor] | None = None) -> None:
        """Take the mean and deviation of every channel from training data, before the first step.

        Args:
            batches: images ``(B, 3, H, W)`` or features ``(B, C, h, w)``; leading axes may be more.
            add_up: where several processes have their own batches, what makes the sum of all processes' tensors of one; it is
                given a tensor on the network's device.
        """
        total = torch.zeros(3, self.channels, dtype=torch.float64)
        for batch in batches:
            for part in _parts(self.encode(batch.flatten(0, -4))):
                values = part.double()
                count = torch.full_like(values[0, :, 0, 0], values[:, 0].numel())
                total += torch.stack([values.sum((0, 2, 3)), values.square().sum((0, 2, 3)), count]).cpu()
        if add_up is not None:
            total = add_up(total.to(self.mean.device)).cpu()
        mean = total[0] / total[2]
        deviation = (total[1] / total[2] - mean.square()).clamp(min=0).sqrt()
        self.mean.copy_(mean.reshape(self.mean.shape))
        # Channels that are always the same would otherwise be divided by nothing.
        self.std.copy_(deviation.clamp(min=_SMALLEST_STD).reshape(self.std.shape))

    def to_pixels(self, maps: Tensor, inputs: Tensor) -> Tensor:
        """Maps with a value for each feature, ``(B, K, h, w)``, to the pixels of the images that they are of, bilinear."""
        return F.interpolate(maps, size=self.image_size(inputs), mode="bilinear", align_corners=False)

    def image_size(self, inputs: Tensor) -> list[int]:
        """Height and width of the given images, or of those of the features, whose sides are multiples of the stride."""
        if inputs.shape[1] == 3:
            return [inputs.shape[2], inputs.shape[3]]
        return [inputs.shape[2] * self.stride_px, inputs.shape[3] * self.stride_px]

    def rate_groups(self, lr: float, encoder_lr: float) -> list[dict[str, Any]]:
        """Parameters for an optimizer: the head learns at `lr`, the encoder at `encoder_lr`."""
        return [
            {"params": list(self._head_parameters()), "lr": lr},
            {"params": list(self.encoder.parameters()), "lr": encoder_lr},
        ]

    def _head_parameters(self) -> Iterator[nn.Parameter]:
        return (parameter for name, parameter in self.named_parameters() if not name.startswith(_ENCODER))


def _parts(features: Tensor) -> tuple[Tensor, ...]:
    """A few images each."""
    return features.split(max(1, _VALUES_AT_ONCE // features.shape[1:].numel()))


def _leave_the_encoder_out(module: EncodedNetwork, state: dict[str, Any], prefix: str, _: Any) -> None:
    if not module.saves_encoder:
        for name in [name for name in state if name.startswith(prefix + _ENCODER)]:
            del state[name]


def _take_the_encoder_as_it_is(
    module: EncodedNetwork, state: dict[str, Any], prefix: str, _: Any, __: bool, ___: Any, ____: Any, problems: list[str]
) -> None:
    if not any(name.startswith(prefix + _ENCODER) for name in state):
        for name, values in module.encoder.state_dict().items():
            state[prefix + _ENCODER + name] = values
    elif not module.saves_encoder:
        # It may belong to other networks too, and features may be stored of it.
        problems.append(
            "they contain a fine-tuned encoder, but the encoder of this network is frozen: give finetune.json, as in the "
            "training (finetune: true)"
        )
    found, own = state.get(prefix + _KEY), module.encoder_key
    if found is not None and found.tolist() != own.tolist():
        problems.append(
            f"they were trained on features of another encoder: expected the key {_hex(own)} of {module.encoder.name}, found "
            f"{_hex(found)}. Give the encoder, stride_px and smoothing of the training, or train again"
        )


def _hex(key: Tensor) -> str:
    return bytes(key.tolist()).hex()
