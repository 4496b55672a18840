"""The transformer layers under the shipped model: BERT's encoder, in plain torch.

It computes what transformers' `BertModel` computes (tested against it) under the same parameter
names, so weights travel both ways; it is written out here because importing transformers costs
three seconds, which an answer from the command line should not wait for. It knows shapes and
numbers only: no text, no files.

Source: Devlin et al., 2019, "BERT: Pre-training of Deep Bidirectional Transformers".
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from consilience.encoding.narrow import Linear, Narrowable

PACKED_TOKENS = 2048
"""Tokens that go through all layers together when nothing is padded; what they need stays near the
processor."""


@dataclass(frozen=True, slots=True)
class TransformerShape:
    """The sizes of the layers; heads must divide hidden_size."""

    vocabulary_size: int
    hidden_size: int = 384
    heads: int = 12
    intermediate_size: int = 1536
    positions: int = 512
    layer_norm_eps: float = 1e-12


class Embeddings(Narrowable):
    """Word, position and segment vectors, summed and normalised."""

    def __init__(self, shape: TransformerShape) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(shape.vocabulary_size, shape.hidden_size)
        self.position_embeddings = nn.Embedding(shape.positions, shape.hidden_size)
        self.token_type_embeddings = nn.Embedding(2, shape.hidden_size)
        self.LayerNorm = nn.LayerNorm(shape.hidden_size, eps=shape.layer_norm_eps)

    def forward(self, ids: Tensor, segments: Tensor, first_position: int = 0) -> Tensor:
        """`[rows, length]` ids and segments to `[rows, length, hidden]`."""
        positions = torch.arange(first_position, first_position + ids.shape[1], device=ids.device)
        embedded = (
            self.word_embeddings(ids)
            + self.token_type_embeddings(segments)
            + self.position_embeddings(positions)
        )
        normalised: Tensor = self.LayerNorm(embedded)
        return normalised

    def matrix(self) -> tuple[Tensor, None]:
        """The word vectors: their products with states are logits over the vocabulary."""
        return self.word_embeddings.weight, None


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    """Scaled dot-product attention, written out.

    On processors this trains faster in bfloat16 than the fused kernel does.

    Args:
        query: `[rows, heads, queries, size]`.
        key: `[rows, heads, keys, size]`.
        value: `[rows, heads, keys, size]`.
        bias: Added to the scores, broadcastable to `[rows, heads, queries, keys]`.

    Returns:
        `[rows, queries, heads * size]`.
    """
    scores = (query * (1.0 / math.sqrt(query.shape[-1]))) @ key.transpose(-1, -2)
    if bias is not None:
        scores = scores + bias.to(scores.dtype)
    mixed = scores.softmax(-1, dtype=scores.dtype) @ value
    return mixed.transpose(1, 2).flatten(2)


def padding_bias(mask: Tensor) -> Tensor:
    """`[rows, length]` mask (true = a token) to an additive `[rows, 1, 1, length]` bias."""
    bias = torch.zeros(mask.shape, dtype=torch.float32, device=mask.device)
    return bias.masked_fill(~mask.bool(), -1e9)[:, None, None, :]


def attend_packed(query: Tensor, key: Tensor, value: Tensor, lengths: Sequence[int]) -> Tensor:
    """The attention of texts that stand end to end, each to itself.

    In float32, and without gradients, the fused kernel is a third faster on processors than
    `attend`; text by text it needs neither padding nor a mask.

    Args:
        query: `[tokens, heads, size]`.
        key: `[tokens, heads, size]`.
        value: `[tokens, heads, size]`.
        lengths: Tokens of each text.

    Returns:
        `[tokens, heads * size]`.
    """
    mixed = torch.empty_like(query)
    for end, length in zip(accumulate(lengths), lengths, strict=True):
        text = slice(end - length, end)
        q, k, v = (part[text].transpose(0, 1)[None] for part in (query, key, value))
        mixed[text] = functional.scaled_dot_product_attention(q, k, v)[0].transpose(0, 1)
    return mixed.flatten(1)


class Projections(nn.Module):
    """The query, key and value projections of one attention."""

    def __init__(self, shape: TransformerShape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.query = Linear(shape.hidden_size, shape.hidden_size)
        self.key = Linear(shape.hidden_size, shape.hidden_size)
        self.value = Linear(shape.hidden_size, shape.hidden_size)

    def split(self, projected: Tensor) -> Tensor:
        """`[rows, length, hidden]` to `[rows, heads, length, size]`."""
        rows, length, _ = projected.shape
        return projected.view(rows, length, self.heads, -1).transpose(1, 2)

    def keys_values(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of `[rows, length, hidden]`, each `[rows, heads, length, size]`."""
        return self.split(self.key(states)), self.split(self.value(states))


class Residual(nn.Module):
    """A projection added to its input and normalised: the tail of every BERT block."""

    def __init__(self, size_in: int, size_out: int, eps: float) -> None:
        super().__init__()
        self.dense = Linear(size_in, size_out)
        self.LayerNorm = nn.LayerNorm(size_out, eps=eps)

    def forward(self, states: Tensor, skip: Tensor) -> Tensor:
        """`LayerNorm(skip + dense(states))`."""
        normalised: Tensor = self.LayerNorm(skip + self.dense(states))
        return normalised


class Attention(nn.Module):
    """Attention with its output projection; self-attention or attention over a memory."""

    def __init__(self, shape: TransformerShape) -> None:
        super().__init__()
        self.self = Projections(shape)
        self.output = Residual(shape.hidden_size, shape.hidden_size, shape.layer_norm_eps)

    def forward(self, states: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
        """`[rows, queries, hidden]` attending to given keys and values."""
        mixed = attend(self.self.split(self.self.query(states)), keys, values, bias)
        attended: Tensor = self.output(mixed, states)
        return attended

    def packed(self, states: Tensor, lengths: Sequence[int]) -> Tensor:
        """`[tokens, hidden]` of texts end to end, each attending to itself."""
        own = self.self
        parts = (own.query(states), own.key(states), own.value(states))
        shape = (len(states), own.heads, states.shape[1] // own.heads)
        query, key, value = (part.view(shape) for part in parts)
        attended: Tensor = self.output(attend_packed(query, key, value, lengths), states)
        return attended


class FeedForward(nn.Module):
    """The expansion to `intermediate_size` with a GELU."""

    def __init__(self, shape: TransformerShape) -> None:
        super().__init__()
        self.dense = Linear(shape.hidden_size, shape.intermediate_size)

    def forward(self, states: Tensor) -> Tensor:
        """`[..., hidden]` to `[..., intermediate]`."""
        return functional.gelu(self.dense(states))


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, normalised after each."""

    def __init__(self, shape: TransformerShape) -> None:
        super().__init__()
        self.attention = Attention(shape)
        self.intermediate = FeedForward(shape)
        self.output = Residual(shape.intermediate_size, shape.hidden_size, shape.layer_norm_eps)

    def forward(self, states: Tensor, bias: Tensor) -> Tensor:
        """`[rows, length, hidden]` to the same."""
        keys, values = self.attention.self.keys_values(states)
        attended = self.attention(states, keys, values, bias)
        out: Tensor = self.output(self.intermediate(attended), attended)
        return out

    def packed(self, states: Tensor, lengths: Sequence[int]) -> Tensor:
        """`[tokens, hidden]` of texts end to end to the same."""
        attended = self.attention.packed(states, lengths)
        out: Tensor = self.output(self.intermediate(attended), attended)
        return out


class EncoderStack(nn.Module):
    """The layers of one encoder, without the embeddings, which encoders may share.

    On a processor, in float32 and in inference mode, texts go through them end to end, so that
    padding costs nothing; a text's numbers are then those it has alone, whatever stands beside it.
    Training computes every number in one way, whether or not it wants a gradient of it.

    Attributes:
        checkpointing: While training, keep the input of each layer only and compute the rest again
            on the way back.
    """

    def __init__(self, shape: TransformerShape, layers: int) -> None:
        super().__init__()
        self.checkpointing = False
        self.layer = nn.ModuleList(EncoderLayer(shape) for _ in range(layers))

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """`[rows, length, hidden]` with `[rows, length]` mask to contextual states."""
        if _can_pack(states):
            return self._packed(states, mask.bool())
        bias = padding_bias(mask)
        for layer in self.layer:
            if self.checkpointing and self.training:
                states = checkpoint(layer, states, bias, use_reentrant=False)
            else:
                states = layer(states, bias)
        return states

    def _packed(self, states: Tensor, mask: Tensor) -> Tensor:
        """As `forward`; zero where there is padding."""
        lengths = mask.sum(1).tolist()
        done = []
        for rows in _runs(lengths):
            packed = states[rows][mask[rows]]
            for layer in self.layer:
                assert isinstance(layer, EncoderLayer)
                packed = layer.packed(packed, lengths[rows])
            done.append(packed)
        out = torch.zeros_like(states)
        out[mask] = torch.cat(done)
        return out


def _can_pack(states: Tensor) -> bool:
    plain = states.device.type == "cpu" and states.dtype == torch.float32
    return plain and torch.is_inference_mode_enabled() and not torch.is_autocast_enabled("cpu")


def _runs(lengths: Sequence[int]) -> Iterator[slice]:
    """Neighbouring rows of at most `PACKED_TOKENS` tokens together, one row at least."""
    start, tokens = 0, 0
    for row, length in enumerate(lengths):
        if row > start and tokens + length > PACKED_TOKENS:
            yield slice(start, row)
            start, tokens = row, 0
        tokens += length
    yield slice(start, len(lengths))


def mean_pool(states: Tensor, mask: Tensor) -> Tensor:
    """The mean of the token states, of length one, in float32: `[rows, hidden]`."""
    weights = mask.float()[..., None]
    total = (states.float() * weights).sum(1) / weights.sum(1).clamp_min(1.0)
    return functional.normalize(total, dim=-1)
