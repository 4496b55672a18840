"""A small decoder that writes answers and may copy from the passage it reads.

Each step mixes two distributions: one over the vocabulary, one that points into the source,

    p(y_t = v) = (1 - g_t) softmax(W h_t)_v + g_t * sum over i with x_i = v of a_{t,i}

so names and numbers that the vocabulary has hardly met are written exactly. The pointer's keys also
hold the embedding of the source token before: "copy what followed the token just written" is then
one inner product away, and is learned from few examples.

Source: See et al., 2017, "Get To The Point: Summarization with Pointer-Generator Networks"
(equations 8 and 9), on a transformer decoder.

The module knows tensors only. Caches are plain tensors in `DecoderCache`; the keys and values of
the source are computed once and shared by all beams of a row.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from consilience.encoding.bert import (
    Attention,
    Embeddings,
    FeedForward,
    Residual,
    TransformerShape,
    padding_bias,
)


@dataclass(slots=True)
class Source:
    """What the decoder reads: one row per question and passage.

    Attributes:
        states: Encoder states, `[rows, length, hidden]`.
        mask: True at tokens, `[rows, length]`.
        ids: Token ids, `[rows, length]`.
        copyable: True where the pointer may stand, `[rows, length]`.
    """

    states: Tensor
    mask: Tensor
    ids: Tensor
    copyable: Tensor


@dataclass(slots=True)
class SourceMemory:
    """Keys and values of a `Source`, computed once for a generation.

    Attributes:
        keys: Per layer, `[rows, heads, length, size]`.
        values: Per layer, the same shape.
        bias: Padding bias, `[rows, 1, 1, length]`.
        pointers: Keys of the pointer, `[rows, length, copy]`.
        pointer_bias: Zero where copying is allowed, `[rows, 1, length]`.
        ids: Token ids, `[rows, length]`.
        k: How many passages stand end to end in a row.
    """

    keys: list[Tensor]
    values: list[Tensor]
    bias: Tensor
    pointers: Tensor
    pointer_bias: Tensor
    ids: Tensor
    k: int = 1

    def together(self, k: int) -> "SourceMemory":
        """Every `k` rows as one source, end to end."""
        return SourceMemory(
            keys=[_end_to_end(keys, k) for keys in self.keys],
            values=[_end_to_end(values, k) for values in self.values],
            bias=_end_to_end(self.bias.transpose(2, 3), k).transpose(2, 3),
            pointers=_end_to_end(self.pointers[:, None], k)[:, 0],
            pointer_bias=_end_to_end(self.pointer_bias[..., None], k)[..., 0],
            ids=self.ids.reshape(-1, k * self.ids.shape[1]),
            k=k * self.k,
        )

    def only(self, rows: Tensor | slice) -> "SourceMemory":
        """Some rows; a tensor of them may name a row more than once."""
        return SourceMemory(
            keys=[keys[rows] for keys in self.keys],
            values=[values[rows] for values in self.values],
            bias=self.bias[rows],
            pointers=self.pointers[rows],
            pointer_bias=self.pointer_bias[rows],
            ids=self.ids[rows],
            k=self.k,
        )

    @classmethod
    def join(cls, memories: Sequence["SourceMemory"]) -> "SourceMemory":
        """The rows of several, one after another, padded to one length; all of the same `k`."""
        layers = range(len(memories[0].keys))
        return cls(
            keys=[below([one.keys[layer] for one in memories], dim=2) for layer in layers],
            values=[below([one.values[layer] for one in memories], dim=2) for layer in layers],
            bias=below([one.bias for one in memories], dim=3, value=_PADDING),
            pointers=below([one.pointers for one in memories], dim=1),
            pointer_bias=below([one.pointer_bias for one in memories], dim=2, value=_PADDING),
            ids=below([one.ids for one in memories], dim=1),
            k=memories[0].k,
        )


_PADDING = -1e9
"""As in `padding_bias`."""


def below(parts: Sequence[Tensor], *, dim: int, value: float = 0.0) -> Tensor:
    """Tensors below each other along the rows, padded along `dim` to the longest."""
    longest = max(part.shape[dim] for part in parts)
    after = 2 * (parts[0].dim() - 1 - dim)  # `pad` counts from the last dimension, in pairs
    return torch.cat(
        [
            functional.pad(part, (*[0] * after, 0, longest - part.shape[dim]), value=value)
            for part in parts
        ]
    )


def _end_to_end(rows: Tensor, k: int) -> Tensor:
    """`[b * k, heads, length, size]` to `[b, heads, k * length, size]`."""
    _, heads, length, size = rows.shape
    apart = rows.reshape(-1, k, heads, length, size)
    return apart.transpose(1, 2).reshape(-1, heads, k * length, size)


@dataclass(slots=True)
class DecoderCache:
    """What was written.

    Attributes:
        keys: Per layer, `[rows * beams, heads, steps, size]`.
        values: Per layer, the same shape.
        steps: How many tokens.
        shares: After Fusion-in-Decoder, how much of the last step's attention each passage got,
            averaged over layers and heads, `[b, beams, k]`; None where rows hold one passage.
            These are shares of attention, not the posterior of Bayes' rule.
    """

    keys: list[Tensor]
    values: list[Tensor]
    steps: int = 0
    shares: Tensor | None = None

    def follow(self, parents: Tensor) -> None:
        """Open end `i` of each row goes on from `parents[row, i]` of the step before."""
        rows = parents.shape[0]
        width = self.keys[0].shape[0] // rows
        first = torch.arange(rows, device=parents.device)[:, None] * width
        flat = (first + parents).reshape(-1)
        self.keys = [keys[flat] for keys in self.keys]
        self.values = [values[flat] for values in self.values]

    def only(self, rows: Tensor, among: int) -> "DecoderCache":
        """What was written for some of `among` rows."""
        beams = torch.arange(self.keys[0].shape[0], device=rows.device).view(among, -1)
        flat = beams[rows].reshape(-1)
        keys, values = ([part[flat] for part in parts] for parts in (self.keys, self.values))
        return DecoderCache(keys, values, self.steps)


class DecoderLayer(nn.Module):
    """Causal self-attention, attention to the source, feed-forward."""

    def __init__(self, shape: TransformerShape) -> None:
        super().__init__()
        self.attention = Attention(shape)
        self.crossattention = Attention(shape)
        self.intermediate = FeedForward(shape)
        self.output = Residual(shape.intermediate_size, shape.hidden_size, shape.layer_norm_eps)

    def finish(self, states: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        """What follows self-attention: the source and the feed-forward."""
        attended = self.crossattention(states, keys, values, bias)
        out: Tensor = self.output(self.intermediate(attended), attended)
        return out


class CopyDecoder(nn.Module):
    """Decoder layers, a tied vocabulary head, a pointer and the gate between them.

    Args:
        shape: Sizes of the layers.
        layers: How many.
        copy_size: The size of the pointer's keys.
    """

    def __init__(self, shape: TransformerShape, layers: int, copy_size: int = 128) -> None:
        super().__init__()
        self.layer = nn.ModuleList(DecoderLayer(shape) for _ in range(layers))
        self.pointer_query = nn.Linear(shape.hidden_size, copy_size)
        self.pointer_key = nn.Linear(shape.hidden_size, copy_size)
        self.pointer_previous = nn.Linear(shape.hidden_size, copy_size, bias=False)
        self.gate = nn.Linear(shape.hidden_size, 1)
        self.transform = Residual(shape.hidden_size, shape.hidden_size, shape.layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(shape.vocabulary_size))

    @property
    def layers(self) -> list[DecoderLayer]:
        """The layers, by their type."""
        return [layer for layer in self.layer if isinstance(layer, DecoderLayer)]

    def remember(self, source: Source, embeddings: Embeddings) -> SourceMemory:
        """Everything of the source that every step needs."""
        pairs = [layer.crossattention.self.keys_values(source.states) for layer in self.layers]
        before = functional.pad(source.ids[:, :-1], (1, 0))
        pointers = self.pointer_key(source.states)
        pointers = pointers + self.pointer_previous(embeddings.word_embeddings(before))
        return SourceMemory(
            # In one piece each, since every step multiplies with all of it.
            keys=[keys.contiguous() for keys, _ in pairs],
            values=[values.contiguous() for _, values in pairs],
            bias=padding_bias(source.mask),
            pointers=pointers,
            pointer_bias=padding_bias(source.copyable)[:, 0],
            ids=source.ids,
        )

    def forward(self, ids: Tensor, memory: SourceMemory, embeddings: Embeddings) -> Tensor:
        """States of a whole target at once (training, re-scoring).

        Args:
            ids: Decoder input, `[rows, steps]`, beginning with the start token.
            memory: Of the source, with the same rows.
            embeddings: The embeddings shared with the encoder.

        Returns:
            `[rows, steps, hidden]`.
        """
        states: Tensor = embeddings(ids, torch.zeros_like(ids))
        steps = ids.shape[1]
        causal = torch.full((steps, steps), -1e9, device=ids.device).triu(1)
        for layer, keys, values in zip(self.layers, memory.keys, memory.values, strict=True):
            own_keys, own_values = layer.attention.self.keys_values(states)
            states = layer.attention(states, own_keys, own_values, causal)
            states = layer.finish(states, keys, values, memory.bias)
        return states

    def step(
        self, ids: Tensor, memory: SourceMemory, cache: DecoderCache, embeddings: Embeddings
    ) -> Tensor:
        """States of the next position of every beam; the cache grows by one step.

        The beams of a row stand side by side as queries of one attention over its source, so the
        source is never copied per beam.

        Args:
            ids: The tokens just written, `[rows, beams]`.
            memory: Of the source, `rows` rows.
            cache: Of what was written before.
            embeddings: The embeddings shared with the encoder.

        Returns:
            `[rows, beams, hidden]`.
        """
        rows, beams = ids.shape
        flat = ids.reshape(rows * beams, 1)
        states: Tensor = embeddings(flat, torch.zeros_like(flat), first_position=cache.steps)
        shares = []
        for index, layer in enumerate(self.layers):
            keys, values = self._grow(cache, index, *layer.attention.self.keys_values(states))
            own = layer.attention(states, keys, values, None).view(rows, beams, -1)
            if memory.k > 1:
                shares.append(_shares(layer, own, memory.keys[index], memory))
            out = layer.finish(own, memory.keys[index], memory.values[index], memory.bias)
            states = out.view(rows * beams, 1, -1)
        cache.steps += 1
        cache.shares = torch.stack(shares).mean(0) if shares else None
        return states.view(rows, beams, -1)

    @staticmethod
    def _grow(
        cache: DecoderCache, index: int, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor]:
        if index < len(cache.keys):
            keys = torch.cat([cache.keys[index], keys], dim=2)
            values = torch.cat([cache.values[index], values], dim=2)
            cache.keys[index], cache.values[index] = keys, values
        else:
            cache.keys.append(keys)
            cache.values.append(values)
        return keys, values

    def vocabulary_logits(self, states: Tensor, embeddings: Embeddings) -> Tensor:
        """Logits over the vocabulary, tied to the embeddings, `[..., vocabulary]`, float32."""
        transformed: Tensor = self.transform(functional.gelu(states), states)
        logits = embeddings.product(transformed)
        return logits.float().add_(self.bias.float())

    def pointer_logits(self, states: Tensor, memory: SourceMemory) -> Tensor:
        """Where the pointer stands, `[rows, steps, length]`, float32, before the softmax."""
        query = self.pointer_query(states)
        scores = (query @ memory.pointers.transpose(-1, -2)).float()
        pointed: Tensor = scores / math.sqrt(query.shape[-1]) + memory.pointer_bias
        return pointed

    def probs(self, states: Tensor, memory: SourceMemory, embeddings: Embeddings) -> Tensor:
        """P over the vocabulary, `[rows, steps, vocabulary]`, float32."""
        gate = self.gate(states).float().sigmoid()
        written = self.vocabulary_logits(states, embeddings).softmax(-1)
        pointed = self.pointer_logits(states, memory).softmax(-1) * gate
        index = memory.ids[:, None, :].expand_as(pointed)
        mixed: Tensor
        if torch.is_grad_enabled():
            mixed = (written * (1.0 - gate)).scatter_add(-1, index, pointed)
        else:
            # The vocabulary of every open end is the largest thing of a step: not to be copied.
            mixed = written.mul_(1.0 - gate).scatter_add_(-1, index, pointed)
        return mixed

    def target_log_probs(
        self, states: Tensor, targets: Tensor, memory: SourceMemory, embeddings: Embeddings
    ) -> Tensor:
        """Log p of given tokens only, `[rows, steps]`: the training loss without the full mixture.

        Args:
            states: `[rows, steps, hidden]`.
            targets: The token at each step, `[rows, steps]`.
            memory: Of the source.
            embeddings: The embeddings shared with the encoder.
        """
        gate = self.gate(states).float()[..., 0]
        logits = self.vocabulary_logits(states, embeddings)
        written = logits.gather(-1, targets[..., None])[..., 0] - logits.logsumexp(-1)
        places = memory.ids[:, None, :] == targets[..., None]
        pointed = self.pointer_logits(states, memory).log_softmax(-1)
        pointed = pointed.masked_fill(~places, -1e9).logsumexp(-1)
        return torch.logaddexp(
            written + functional.logsigmoid(-gate), pointed + functional.logsigmoid(gate)
        )


def _shares(layer: DecoderLayer, states: Tensor, keys: Tensor, memory: SourceMemory) -> Tensor:
    """How much of a layer's attention each passage gets, averaged over heads, `[b, n, k]`."""
    projections = layer.crossattention.self
    query = projections.split(projections.query(states))
    scores = (query @ keys.transpose(-1, -2)).float() / math.sqrt(query.shape[-1]) + memory.bias
    b, heads, n, _ = scores.shape
    return scores.softmax(-1).view(b, heads, n, memory.k, -1).sum(-1).mean(1)
