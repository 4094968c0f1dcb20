"""Attention-based multiple instance learning on features: a slide's logit from all of them, and a map of what it rests on."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..layers.gated_attention import GatedAttention, attention_pooling
from .encoded_network import EncodedNetwork
from .heads import HEAD_STD

__all__ = ["MAPS", "AttentionMIL"]

MAPS = ("product", "attention", "instance")


class AttentionMIL(EncodedNetwork):
    """A slide's tumour logit is that of the mean of its instances, each weighted by its attention.

    Bags are what it learns from; of images it makes maps. The classifier is linear, so a slide's logit is the mean, by attention,
    of what the classifier says of each instance alone. A map shows, at each feature, by `map_shows`:

    - "attention": how much attention it gets. Before the softmax, which is of one slide, attention can be compared between
      slides; its mean and deviation over the training's bags are brought to 0 and 1. Features that speak *against* tumour get
      attention too;
    - "instance": what the classifier says of the feature, whether or not it is attended to;
    - "product": the product of the two as probabilities: what speaks for tumour and is attended to.

    All have the same parameters and load each other's checkpoints.

    Not `monai.networks.nets.MILModel`, whose attention has no gate and 2048 channels, and which tells a bag's logit alone and no
    attention, so that it makes no map. Without the gate and with 2048 channels this network is that one in its mode "att".

    Args:
        encoder: see `EncodedNetwork`.
        map_shows: "product", "attention" or "instance".
        attention_channels: see `GatedAttention`.
        is_gated: the same.
        hidden_channels: None for attention on the features themselves; else a linear layer with so many channels and ReLU comes
            before it.
        dropout: share of the hidden channels, and of those of the attention, that is left out in training.
        instance_classifiers: whether there is one for each class of slides, which `AttentionMILLoss` with an `instance_loss`
            needs.
        finetune: see `EncodedNetwork`.

    Raises:
        ValueError: for another map.

    Reference:
        Ilse et al., Attention-based deep multiple instance learning, ICML 2018; `instance_classifiers`: Lu et al., CLAM, Nature
        Biomedical Engineering 5, 2021, which has 512 hidden channels, 256 of attention and a dropout of 0.25.
    """

    def __init__(
        self,
        encoder: nn.Module,
        map_shows: str = "product",
        attention_channels: int = 128,
        is_gated: bool = True,
        hidden_channels: int | None = None,
        dropout: float = 0.0,
        instance_classifiers: bool = False,
        finetune: bool = False,
    ) -> None:
        super().__init__(encoder, finetune)
        if map_shows not in MAPS:
            raise ValueError(f"map_shows must be one of {', '.join(MAPS)}, got {map_shows!r}")
        self.map_shows = map_shows
        width = hidden_channels or self.channels
        self.embedding: nn.Module = nn.Identity()
        if hidden_channels is not None:
            self.embedding = nn.Sequential(nn.Linear(self.channels, width), nn.ReLU(), nn.Dropout(dropout))
        self.attention = GatedAttention(width, attention_channels, is_gated, dropout)
        self.attention_scale = nn.BatchNorm1d(1, affine=False)
        self.classifier = nn.Linear(width, 1)
        nn.init.normal_(self.classifier.weight, std=HEAD_STD)
        nn.init.zeros_(self.classifier.bias)
        self.instance_classifiers = nn.Linear(width, 4) if instance_classifiers else None

    def forward(self, inputs: Tensor) -> Tensor:
        """Bags or images, float32 out.

        Args:
            inputs: bags of RGB tiles ``(B, n, 3, H, W)``, 0 to 255, or of features ``(B, n, C, h, w)``, of which each place is
                an instance; or images ``(B, 3, H, W)`` or their features ``(B, C, h, w)``.

        Returns:
            of bags, of ``N = n * h * w`` instances each, a dictionary: ``slide_logits (B,)``, ``attention_logits (B, N)``; in
            eval mode ``map_logits (B, N)``, as maps have them; with `instance_classifiers` ``instance_scores (B, N, 2, 2)``, see
            `shared.losses.attention_instance_loss`. Of images the map's logits ``(B, 1, h, w)``.
        """
        if not torch.jit.is_scripting() and inputs.ndim == 5:
            return self.bags(inputs)  # type: ignore[return-value]
        instances = self.embedding(self.features(inputs).permute(0, 2, 3, 1))
        return self._map(self.attention(instances), self.classifier(instances)[..., 0].float())[:, None]

    def bags(self, inputs: Tensor) -> dict[str, Tensor]:
        """See `forward`."""
        features = self.features(inputs.flatten(0, 1)).flatten(2).transpose(1, 2)
        instances = self.embedding(features.reshape(len(inputs), -1, self.channels))
        attention = self.attention(instances)
        # The classifier of the mean is the mean of the classifier's logits.
        logits = self.classifier(instances)[..., 0].float()
        found = {"slide_logits": attention_pooling(logits, attention), "attention_logits": attention}
        if self.training:
            self.attention_scale(attention.detach().reshape(-1, 1))
        else:
            found["map_logits"] = self._map(attention, logits)
        if self.instance_classifiers is not None:
            found["instance_scores"] = self.instance_classifiers(instances).float().unflatten(-1, [2, 2])
        return found

    def _map(self, attention: Tensor, logits: Tensor) -> Tensor:
        if self.map_shows == "instance":
            return logits
        mean, variance = self.attention_scale.running_mean, self.attention_scale.running_var
        attention = F.batch_norm(attention.reshape(-1, 1), mean, variance).reshape(attention.shape)
        if self.map_shows == "attention":
            return attention
        # Of sigmoid(a) * sigmoid(b), without a loss of digits where both are near 1.
        return -torch.stack([-attention, -logits, -attention - logits]).logsumexp(dim=0)
