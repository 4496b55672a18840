"""From hidden states to what the vocabulary says, without a logit more in memory than is needed.

The last layer of a small generator is its largest: fifty thousand rows that every open end meets at
every step. Both functions here walk over the vocabulary in tiles that stay in the processor's
cache, with the vocabulary as the first dimension: on processors this product is half as fast again
as the one with the vocabulary last. What a model does between its last hidden state and the product
is the model's own affair and comes as a `Head`.

Dimensions: `rows`, `n` open ends, `t` steps, `h` hidden, `v` vocabulary, `m` positions of all rows.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from consilience.generation.base import NextToken

_TILE = 2048
"""Vocabulary rows of a tile when the next token is asked for."""

_TILE_ELEMENTS = 2**22
"""Logits of a tile in training, 16 MB in float32."""

_LEAST_LOGIT = -85.0
"""Below the greatest logit; what is less is a denormal number after `exp`, and slow."""


@dataclass(frozen=True, slots=True)
class Head:
    """`logits = prepare(states) @ weight.T + bias`.

    Attributes:
        weight: `[v, h]`.
        bias: `[v]`, or None.
        prepare: What the model does to its last hidden states first, `[..., h]` to `[..., h]`.
    """

    weight: Tensor
    bias: Tensor | None = None
    prepare: Callable[[Tensor], Tensor] = lambda states: states

    def logits(self, states: Tensor) -> Tensor:
        """All logits of `[..., h]` states, `[..., v]`; with gradient."""
        return torch.nn.functional.linear(self.prepare(states), self.weight, self.bias)


@dataclass(slots=True)
class Scratch:
    """Memory that one step writes its distributions into and the next step writes over."""

    kept: Tensor | None = None

    def room(self, v: int, columns: int, device: torch.device) -> Tensor:
        """`[v, columns]`, float32, holding anything."""
        if self.kept is None or self.kept.numel() < v * columns or self.kept.device != device:
            self.kept = torch.empty(v * columns, device=device)
        return self.kept[: v * columns].view(v, columns)


@torch.no_grad()
def next_token(states: Tensor, head: Head, scratch: Scratch) -> NextToken:
    """`exp(logit - greatest)` of every token, and the totals.

    Args:
        states: Last hidden states of the open ends, `[rows, n, h]`.
        head: Of the model.
        scratch: Where the weights are written; they stand until it is handed in again.

    Returns:
        Weights `[rows, n, v]`, with the vocabulary as the slowest dimension in memory.
    """
    rows, n, _ = states.shape
    ready = head.prepare(states).flatten(0, 1).to(head.weight.dtype).t().contiguous()
    table = scratch.room(head.weight.shape[0], rows * n, states.device)
    tiles = [
        (table[tile], head.weight[tile], _of(head.bias, tile))
        for tile in _tiles(len(table), table.device)
    ]
    greatest = torch.full_like(table[0], float("-inf"))
    for out, weight, bias in tiles:
        _product(weight, bias, ready, out)
        torch.maximum(greatest, out.amax(0), out=greatest)
    totals = torch.zeros_like(greatest)
    for out, _, _ in tiles:
        totals += out.sub_(greatest).clamp_min_(_LEAST_LOGIT).exp_().sum(0)
    return NextToken(table.t().view(rows, n, -1), totals.view(rows, n))


def _tiles(v: int, device: torch.device) -> Iterator[slice]:
    """Tiles of a vocabulary; one on devices that want few large products."""
    return _slices(v, _TILE if device.type == "cpu" else v)


def _slices(v: int, size: int) -> Iterator[slice]:
    return (slice(low, min(low + size, v)) for low in range(0, v, size))


def _of(bias: Tensor | None, tile: slice) -> Tensor | None:
    return None if bias is None else bias[tile, None]


def _product(weight: Tensor, bias: Tensor | None, ready: Tensor, out: Tensor) -> None:
    """`out = weight @ ready + bias`: `[tile, h]`, `[tile, 1]`, `[h, m]` into `[tile, m]`."""
    _write_product(out, weight, ready)
    if bias is not None:
        out.add_(bias)


@torch.no_grad()
def log_probs_of(states: Tensor, after: Tensor, ids: Tensor, head: Head) -> Tensor:
    """Log p of some tokens, each after one of some states; several may follow the same state.

    The vocabulary is walked once a state for its log-sum-exp, and a tile's logits lie where those
    of the tile before lay; the logit of a token is a product of two vectors.

    Args:
        states: Last hidden states, `[m, h]`.
        after: Which of the states each token follows, `[p]`.
        ids: The tokens, `[p]`.
        head: Of the model.

    Returns:
        `[p]`, float32.
    """
    ready = head.prepare(states).to(head.weight.dtype)
    logits = (ready[after].float() * head.weight[ids].float()).sum(-1)
    if head.bias is not None:
        logits += head.bias[ids]
    return logits - _normaliser(ready, head)[after]


def _normaliser(ready: Tensor, head: Head) -> Tensor:
    """Log-sum-exp of the logits of `[m, h]` states, `[m]`, float32."""
    v, columns = head.weight.shape[0], ready.t().contiguous()
    tiles = list(_tiles(v, columns.device))
    room = columns.new_empty(tiles[0].stop, columns.shape[1], dtype=torch.float32)
    greatest = room.new_full((columns.shape[1],), float("-inf"))
    total = torch.zeros_like(greatest)
    for tile in tiles:
        out = room[: tile.stop - tile.start]
        _product(head.weight[tile], _of(head.bias, tile), columns, out)
        best = torch.maximum(greatest, out.amax(0))
        here = out.sub_(best).clamp_min_(_LEAST_LOGIT).exp_().sum(0)
        total = total * (greatest - best).exp() + here
        greatest = best
    return greatest + total.log()


@dataclass(frozen=True, slots=True)
class TargetScores:
    """What a target is worth, in nats.

    Attributes:
        log_probs: Of the target tokens, `[rows, t]`.
        sums: `sum over v of log p(v)` at each step, `[rows, t]`: what label smoothing adds up;
            None unless asked for.
    """

    log_probs: Tensor
    sums: Tensor | None = None


def score_targets(
    states: Tensor,
    targets: Tensor,
    head: Head,
    *,
    mask: Tensor | None = None,
    with_sums: bool = False,
) -> TargetScores:
    """`log softmax(logits)[target]` of every step, with gradient, and never all the logits.

    The logits of a tile are made, used and overwritten; the backward pass makes them again. That
    costs a third more products than keeping them, and saves `rows * t * v` numbers thrice.

    Args:
        states: Last hidden states, `[rows, t, h]`, of any floating type.
        targets: Tokens, `[rows, t]`.
        head: Of the model.
        mask: True where a score is wanted, `[rows, t]`; the others cost nothing and are 0.
        with_sums: Whether to give `sums`.

    Returns:
        Float32, or float64 for states of float64.
    """
    places = _wanted(targets, mask)
    wanted = _as_multiplied(head.prepare(states).flatten(0, 1)[places])
    scored = _TargetLogProbs.apply(  # type: ignore[no-untyped-call]
        wanted, head.weight, head.bias, targets.flatten()[places], with_sums
    )
    log_probs, sums = (
        None if one is None else _spread(one, places, targets.shape) for one in scored
    )
    assert log_probs is not None
    return TargetScores(log_probs, sums)


def _as_multiplied(states: Tensor) -> Tensor:
    """States in the type that products have here, which autocast says if it is on."""
    kind = states.device.type
    if not torch.is_autocast_enabled(kind) or states.dtype == torch.float64:
        return states
    return states.to(torch.get_autocast_dtype(kind))


def _wanted(targets: Tensor, mask: Tensor | None) -> Tensor:
    """Places of the wanted steps among all steps, `[m]`."""
    if mask is None:
        return torch.arange(targets.numel(), device=targets.device)
    return mask.flatten().nonzero()[:, 0]


def _spread(scores: Tensor, places: Tensor, shape: torch.Size) -> Tensor:
    """`[m]` scores back at their places, `[rows, t]`."""
    return scores.new_zeros(shape.numel()).index_put((places,), scores).view(shape)


class _TargetLogProbs(torch.autograd.Function):
    """`log p` of targets `[m]` given states `[m, h]`; two outputs, the second None unless asked.

    With `p = softmax(l)`, `g` and `s` the gradients of the two outputs,

        d/dl_v = g 1[v = y] + s - p_v (g + V s)
    """

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        with_sums: bool,
    ) -> tuple[Tensor, Tensor | None]:
        with torch.autocast(states.device.type, enabled=False):
            sweep = _sweep(states, weight, bias, targets)
        ctx.save_for_backward(states, weight, bias, targets, sweep.normaliser)
        log_probs = sweep.chosen - sweep.normaliser
        if not with_sums:
            return log_probs, None
        return log_probs, sweep.sums - weight.shape[0] * sweep.normaliser

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, to_log_probs: Tensor, to_sums: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        states, weight, bias, targets, normaliser = ctx.saved_tensors
        wanted = _Wanted(*ctx.needs_input_grad[:3])
        with torch.autocast(states.device.type, enabled=False):
            sums = torch.zeros_like(to_log_probs) if to_sums is None else to_sums
            logits = _Logits(states, weight, bias, targets)
            return *_gradients(logits, normaliser, to_log_probs, sums, wanted), None, None


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Which gradients are wanted."""

    states: bool
    weight: bool
    bias: bool


@dataclass(frozen=True, slots=True)
class _Sweep:
    """What one walk over the vocabulary gathers, each `[m]`.

    Attributes:
        normaliser: log-sum-exp of the logits.
        chosen: The target's logit.
        sums: Of all logits.
    """

    normaliser: Tensor
    chosen: Tensor
    sums: Tensor


class _Logits:
    """The logits of `m` positions, tile by tile, in one piece of memory."""

    def __init__(
        self, states: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor
    ) -> None:
        self.states, self.weight, self.bias, self.targets = states, weight, bias, targets
        self.dtype = torch.float64 if states.dtype == torch.float64 else torch.float32
        self._ready = states.t().contiguous()
        self._size = max(256, _TILE_ELEMENTS // max(1, states.shape[0]))
        self._out = self._ready.new_empty(
            (min(self._size, weight.shape[0]), states.shape[0]), dtype=self.dtype
        )

    def tiles(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Tiles, their rows of the weight as they are multiplied, and their logits `[tile, m]`.

        The next tile overwrites the logits.
        """
        for tile in _slices(self.weight.shape[0], self._size):
            out = self._out[: tile.stop - tile.start]
            rows = self.weight[tile].to(self.states.dtype)
            _product(rows, _of(self.bias, tile), self._ready, out)
            yield tile, rows, out

    def inside(self, tile: slice) -> tuple[Tensor, Tensor]:
        """The targets that stand in a tile: their rows there, and their positions."""
        row = self.targets - tile.start
        position = ((row >= 0) & (self.targets < tile.stop)).nonzero()[:, 0]
        return row[position], position


@torch.no_grad()
def _sweep(states: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> _Sweep:
    logits = _Logits(states, weight, bias, targets)
    zeros = torch.zeros(targets.shape, dtype=logits.dtype, device=targets.device)
    greatest, total, chosen, sums = zeros - torch.inf, zeros, zeros.clone(), zeros.clone()
    for tile, _, values in logits.tiles():
        row, position = logits.inside(tile)
        chosen[position] = values[row, position]
        sums += values.sum(0)
        best = torch.maximum(greatest, values.amax(0))
        total = total * (greatest - best).exp() + values.sub_(best).exp_().sum(0)
        greatest = best
    return _Sweep(greatest + total.log(), chosen, sums)


def _gradients(
    logits: _Logits, normaliser: Tensor, to_log_probs: Tensor, to_sums: Tensor, wanted: _Wanted
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of states `[m, h]`, weight `[v, h]` and bias `[v]`, None where not wanted."""
    states, weight, bias = logits.states, logits.weight, logits.bias
    to_states = torch.zeros_like(states, dtype=logits.dtype) if wanted.states else None
    to_weight = torch.empty_like(weight) if wanted.weight else None
    to_bias = torch.empty_like(bias) if bias is not None and wanted.bias else None
    falling = -(to_log_probs + weight.shape[0] * to_sums)
    for tile, rows, values in logits.tiles():
        to_logits = values.sub_(normaliser).exp_().mul_(falling).add_(to_sums)
        row, position = logits.inside(tile)
        to_logits[row, position] += to_log_probs[position]
        if to_bias is not None:
            to_bias[tile] = to_logits.sum(1)
        rounded = to_logits.to(states.dtype)
        if to_weight is not None:
            _write_product(to_weight[tile], rounded, states)
        if to_states is not None:
            _add_product(to_states, rounded.t(), rows)
    return None if to_states is None else to_states.to(states.dtype), to_weight, to_bias


def _write_product(out: Tensor, left: Tensor, right: Tensor) -> None:
    """`out = left @ right`, in the type of `out`."""
    if out.dtype == left.dtype:
        torch.mm(left, right, out=out)
    else:
        out.copy_(left @ right)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """`total += left @ right`, in the wider type of `total`."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right
