"""A BERT-shaped encoder with fewer layers and a smaller vocabulary than the model it starts from.

Vaswani et al., "Attention is all you need", 2017; Devlin et al., "BERT", 2019; Wang et al., "MiniLM", 2020.
The layers that are kept are the lowest ones: dropping from the top costs a fine-tuned model least (Sajjad et
al., "On the effect of dropping layers of pre-trained transformer models", 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

WIDTH = 384
HEADS = 12
INNER = 1536
POSITIONS = 128
EPSILON = 1e-12
OUTPUTS = 2  # attack, and which of the two kinds of attack


@dataclass(frozen=True)
class Shape:
    """How large the network is."""

    vocabulary: int
    layers: int = 4
    width: int = WIDTH
    heads: int = HEADS
    inner: int = INNER
    positions: int = POSITIONS
    dropout: float = 0.1


def dropped(values: Tensor, share: float) -> Tensor:
    """Dropout with one mask for all tokens of a text (Gal and Ghahramani, 2016); cheap to draw."""
    batch, _, width = values.shape
    keep = (torch.rand(batch, 1, width) >= share).to(values.dtype) / (1 - share)
    return values * keep


class Layer(nn.Module):
    """Self-attention and a feed-forward block, each with a residual and a normalisation after it."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.dropout = shape.dropout
        self.attend = nn.Linear(shape.width, 3 * shape.width)
        self.attended = nn.Linear(shape.width, shape.width)
        self.attended_norm = nn.LayerNorm(shape.width, eps=EPSILON)
        self.widen = nn.Linear(shape.width, shape.inner)
        self.narrow = nn.Linear(shape.inner, shape.width)
        self.narrow_norm = nn.LayerNorm(shape.width, eps=EPSILON)

    def forward(self, hidden: Tensor, bias: Tensor | None) -> Tensor:
        """`hidden` is (batch, tokens, width), `bias` (batch, 1, 1, tokens), far below 0 for padding."""
        batch, tokens, width = hidden.shape
        split = self.attend(hidden).view(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)
        # By hand: for short texts on a CPU it is faster than the fused form.
        weights = query @ key.transpose(-1, -2) * (width // self.heads) ** -0.5
        if bias is not None:
            weights = weights + bias
        mixed = weights.softmax(-1).to(value.dtype) @ value
        mixed = self.attended(mixed.transpose(1, 2).reshape(batch, tokens, width))
        hidden = self.attended_norm(hidden + self._dropped(mixed))
        inner = self.narrow(functional.gelu(self.widen(hidden)))
        return self.narrow_norm(hidden + self._dropped(inner))

    def _dropped(self, values: Tensor) -> Tensor:
        return dropped(values, self.dropout) if self.training else values


class Network(nn.Module):
    """Tokens to two logits: attack, and jailbreak rather than injection if it is one.

    What is read off is the mean and the maximum over the tokens: the mean as the model it starts from was
    trained, the maximum because one sentence of a document is enough.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.words = nn.Embedding(shape.vocabulary, shape.width)
        self.places = nn.Embedding(shape.positions, shape.width)
        self.embedded_norm = nn.LayerNorm(shape.width, eps=EPSILON)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.read = nn.Linear(2 * shape.width, shape.width)
        self.decide = nn.Linear(shape.width, OUTPUTS)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """`tokens` is (batch, tokens) of ids, `mask` the same shape, True where a token is; (batch, 2)."""
        places = self.places.weight[: tokens.shape[1]]
        hidden = self.embedded_norm(self.words(tokens) + places)
        if self.training:
            hidden = dropped(hidden, self.shape.dropout)
        bias = None if mask is None else (~mask[:, None, None, :]).to(torch.bfloat16) * -1e4
        for layer in self.layers:
            hidden = layer(hidden, bias)
        pooled = functional.dropout(self._pooled(hidden, mask), self.shape.dropout, self.training)
        return self.decide(torch.tanh(self.read(pooled)))

    def _pooled(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        if mask is None:
            return torch.cat([hidden.mean(1), hidden.amax(1)], dim=1)
        chosen = mask[:, :, None]
        mean = (hidden * chosen).sum(1) / chosen.sum(1)
        return torch.cat([mean, hidden.masked_fill(~chosen, -1e4).amax(1)], dim=1)


def started_from(folder: Path, kept: Sequence[int], shape: Shape) -> Network:
    """A network with the weights of the packaged model in `folder`; `kept` are old ids in new order."""
    weights = load_file(folder / "model.safetensors")
    network = Network(shape)
    state = network.state_dict()
    kind = weights["embeddings.token_type_embeddings.weight"][0]
    state["words.weight"] = weights["embeddings.word_embeddings.weight"][torch.tensor(kept)]
    state["places.weight"] = weights["embeddings.position_embeddings.weight"][: shape.positions] + kind
    for part in ("weight", "bias"):
        state[f"embedded_norm.{part}"] = weights[f"embeddings.LayerNorm.{part}"]
        for number in range(shape.layers):
            old, new = f"encoder.layer.{number}", f"layers.{number}"
            attention = [weights[f"{old}.attention.self.{name}.{part}"] for name in ("query", "key", "value")]
            state[f"{new}.attend.{part}"] = torch.cat(attention)
            for ours, theirs in _NAMES.items():
                state[f"{new}.{ours}.{part}"] = weights[f"{old}.{theirs}.{part}"]
    network.load_state_dict(state)
    return network


_NAMES = {
    "attended": "attention.output.dense",
    "attended_norm": "attention.output.LayerNorm",
    "widen": "intermediate.dense",
    "narrow": "output.dense",
    "narrow_norm": "output.LayerNorm",
}
