"""The attention of transformers' models, so that what a row read is never copied for its open ends.

One function is registered with the library under the name `consilience`. Outside a step it is the
library's own fused attention. Within a step (`asking`) the decoder is handed one token of each of
the open ends of every row, as many short texts, while keys and values are `[rows, ...]`: the
queries are then gathered by row and answered together. Which of the two holds travels in a context
variable, for some layers hand no other argument on.

The name stands in the configuration of a model's twin only (see `seq2seq`), so a model that is also
used directly keeps the attention that it came with.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from consilience.generation.branches import Tree

NAME = "consilience"

_SMALL = 400
"""Scores of a head under which plain products beat the fused kernel on processors."""


@dataclass(frozen=True, slots=True)
class Step:
    """What attention must know of the step that is being made.

    Attributes:
        tree: Of all open ends.
        k: How many passages stand end to end in what was read.
        shares: Filled while the step is made, if k > 1: of each layer, the mass on each passage,
            averaged over its heads, `[rows, n, k]`.
    """

    tree: Tree
    k: int = 1
    shares: list[Tensor] = field(default_factory=list)


_STEP: ContextVar[Step | None] = ContextVar("consilience_step", default=None)


@contextmanager
def asking(step: Step) -> Iterator[None]:
    """Within it, `attend` answers the open ends of a step."""
    token = _STEP.set(step)
    try:
        yield
    finally:
        _STEP.reset(token)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    position_bias: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it.

    Args:
        module: The attention layer; `is_causal` is False where it attends to what was read.
        query: `[batch, heads, queries, size]`.
        key: `[batch, heads, keys, size]`; in a step, `[rows, ...]` where the batch is open ends.
        value: As `key`.
        attention_mask: Boolean or additive, broadcastable to the scores.
        position_bias: T5's, added to the scores.
        kwargs: `scaling` and `dropout`; what else a layer hands on changes nothing here.

    Returns:
        `[batch, queries, heads, size]`, and None for the weights.
    """
    reading = not module.is_causal
    if attention_mask is not None and attention_mask.is_floating_point():
        attention_mask = attention_mask.to(query.dtype)
    if reading and getattr(module, "is_decoder", False):
        # T5 has no positions across texts and hands zeros on, which would cost a mask per head.
        position_bias = None
    step = _STEP.get()
    if step is None:
        if _written_out(query):
            out = _attended_out(module, query, key, value, attention_mask, position_bias, kwargs)
            return out, None
        out, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, position_bias=position_bias, **kwargs
        )
        return out, None
    if position_bias is not None:
        bias = _by_depth(position_bias, step.tree.depths)
        attention_mask = bias if attention_mask is None else attention_mask + bias
    queries, scale = step.tree.by_rows(query), kwargs["scaling"]
    if reading and step.k > 1:
        weights = _weights(queries, key, attention_mask, scale)
        step.shares.append(_by_passage(weights, step.k))
        out = weights @ value
    else:
        out = _attended(queries, key, value, attention_mask, scale)
    return step.tree.apart(out), None


def _written_out(query: Tensor) -> bool:
    """Whether products, written out, learn faster than the fused kernel.

    On processors its way back in half precision takes five times as long: 40 rows of 128 tokens,
    12 heads of 32, one thread: 207 ms fused, 44 written out, 91 and 87 in float32.
    """
    half = query.dtype in (torch.bfloat16, torch.float16)
    return half and query.device.type == "cpu" and query.requires_grad and torch.is_grad_enabled()


def _attended_out(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    position_bias: Tensor | None,
    how: Mapping[str, Any],
) -> Tensor:
    """What the library's fused attention gives, `[batch, queries, heads, size]`."""
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (one.repeat_interleave(groups, 1) for one in (key, value))
    bias = _added(query, key, mask, causal=bool(module.is_causal))
    if position_bias is not None:
        bias = position_bias if bias is None else bias + position_bias
    scale = how.get("scaling") or query.shape[-1] ** -0.5
    weights = _weights(query, key, None if bias is None else bias.to(query.dtype), scale)
    dropped = functional.dropout(weights, how.get("dropout", 0.0), training=module.training)
    return (dropped @ value).transpose(1, 2)


def _added(query: Tensor, key: Tensor, mask: Tensor | None, *, causal: bool) -> Tensor | None:
    """What is added to the scores for a mask, or for the order of tokens where there is none."""
    queries, keys = query.shape[2], key.shape[2]
    if mask is None and causal and queries > 1:
        mask = torch.ones(queries, keys, dtype=torch.bool, device=query.device).tril()
    if mask is None or mask.is_floating_point():
        return mask
    least = torch.finfo(query.dtype).min
    return torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, least)


def _by_depth(position_bias: Tensor, depths: Tensor) -> Tensor:
    """The bias of places `[1, heads, 1, places]` for nodes at `[rows, nodes]` depths."""
    return position_bias[0, :, 0][:, depths].transpose(0, 1)[:, :, None]


def _by_passage(weights: Tensor, k: int) -> Tensor:
    """The mass on each passage, `[rows, heads, n, k * length]` to `[rows, n, k]`."""
    rows, heads, n, _ = weights.shape
    return weights.view(rows, heads, n, k, -1).sum(-1).mean(1)


def _attended(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float
) -> Tensor:
    """`[rows, heads, n, size]`, by whichever way is faster."""
    if query.device.type == "cpu" and query.shape[2] * key.shape[2] < _SMALL:
        return _weights(query, key, bias, scale) @ value
    return functional.scaled_dot_product_attention(query, key, value, bias, scale=scale)


def _weights(query: Tensor, key: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    """Softmax of the scores, `[rows, heads, n, keys]`."""
    scores = (query * scale) @ key.transpose(2, 3)
    return (scores if bias is None else scores + bias).softmax(-1)


ALL_ATTENTION_FUNCTIONS.register(NAME, attend)
ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, sdpa_mask)
