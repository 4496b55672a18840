"""What was written, as a tree, and the caches of its tokens.

Every token written is a node. An open end attends to its ancestors, which a mask names, so two
beams with a common beginning share its keys and values and nothing is copied when beams change
places. Nodes that no open end descends from any more are dropped when the memory is full.

Dimensions: `rows`, `n` open ends of a row, `nodes` tokens of a row in the caches.
"""

from copy import copy
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin

from consilience.encoding.bert import padding_bias

_ROOM = 32
"""Nodes that there is room for at first, and beyond what is needed later."""


class Tree:
    """Who descends from whom.

    Args:
        rows: How many rows; each begins with one node, its start.
        device: Where the caches live.

    Attributes:
        ancestors: Whether an open end descends from a node, or is it, `[rows, n, nodes]`.
        depths: How many tokens stand before a node, `[rows, nodes]`.
        depth: The same of the open ends.
        places: Which of the `rows * n` open ends are there, `[m]`; None while all are.
        capacity: How many nodes the caches have room for.
    """

    def __init__(self, rows: int, device: torch.device) -> None:
        self.ancestors = torch.ones(rows, 1, 1, dtype=torch.bool, device=device)
        self.depths = torch.zeros(rows, 1, dtype=torch.long, device=device)
        self.depth = 0
        self.places: Tensor | None = None
        self.capacity = _ROOM

    @property
    def ends(self) -> int:
        """How many open ends a row has."""
        return self.ancestors.shape[1]

    @property
    def nodes(self) -> int:
        """How many nodes of a row the caches hold."""
        return self.ancestors.shape[2]

    @property
    def bias(self) -> Tensor:
        """What is added to the scores of attention, `[rows, 1, n, nodes]`."""
        return padding_bias(self.ancestors.flatten(0, 1)).view(-1, 1, self.ends, self.nodes)

    def extend(self, parents: Tensor, there: Tensor | None = None) -> Tensor | None:
        """New open ends, each after one of the old.

        Args:
            parents: `[rows, n]`.
            there: Which of them there are, `[rows, n]`; None for all.

        Returns:
            The nodes that the caches must keep, in their new order, `[rows, kept]`; None while
            there is room for all.
        """
        rows, n = parents.shape
        inherited = self.ancestors.gather(1, parents[..., None].expand(-1, -1, self.nodes))
        kept = None
        if self.nodes + n > self.capacity:
            kept = _living(inherited)
            inherited = inherited.gather(2, kept[:, None].expand(-1, n, -1))
            self.depths = self.depths.gather(1, kept)
            self.capacity = 2 * (kept.shape[1] + n) + _ROOM
        own = torch.eye(n, dtype=torch.bool, device=parents.device).expand(rows, -1, -1)
        self.ancestors = torch.cat([inherited, own], dim=2)
        self.depth += 1
        self.places = None if there is None else there.flatten().nonzero()[:, 0]
        self.depths = torch.cat([self.depths, torch.full_like(parents, self.depth)], dim=1)
        return kept

    def by_rows(self, states: Tensor) -> Tensor:
        """One token of every open end that is there, side by side, `[rows, heads, n, size]`.

        Args:
            states: `[m, heads, 1, size]`.
        """
        rows, n = self.ancestors.shape[:2]
        if self.places is not None:
            spread = states.new_zeros(rows * n, *states.shape[1:])
            states = spread.index_copy_(0, self.places, states)
        _, heads, _, size = states.shape
        return states.view(rows, n, heads, size).transpose(1, 2)

    def apart(self, states: Tensor) -> Tensor:
        """`[rows, heads, n, size]` as one text for every open end that is there.

        Returns:
            `[m, 1, heads, size]`.
        """
        ends = states.transpose(1, 2).flatten(0, 1)[:, None]
        return ends if self.places is None else ends[self.places]

    def only(self, rows: Tensor) -> "Tree":
        """The trees of some rows."""
        tree = copy(self)
        tree.ancestors, tree.depths = self.ancestors[rows], self.depths[rows]
        return tree


def _living(ancestors: Tensor) -> Tensor:
    """The nodes that an open end descends from, oldest first; as many for each row."""
    alive = ancestors.any(1)
    width = int(alive.sum(1).max())
    return alive.byte().argsort(dim=1, descending=True, stable=True)[:, :width]


class Branches(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """Keys and values of a layer's nodes, `[rows, heads, capacity, size]`."""

    keys: Tensor
    values: Tensor

    def __init__(self, tree: Tree) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tree = tree

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Make room."""
        _, heads, _, size = key_states.shape
        room = (self.tree.ancestors.shape[0], heads, self.tree.capacity, size)
        self.keys, self.values = key_states.new_empty(room), value_states.new_empty(room)
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Take the newest nodes in, `[m, heads, 1, size]`; returns all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        n, nodes = self.tree.ends, self.tree.nodes
        for kept, new in ((self.keys, key_states), (self.values, value_states)):
            kept[:, :, nodes - n : nodes] = self.tree.by_rows(new)
        return self.keys[:, :, :nodes], self.values[:, :, :nodes]

    def keep(self, nodes: Tensor) -> None:
        """Drop all but these nodes, `[rows, kept]`, and make room for more."""
        self.keys = _packed(self.keys, nodes, self.tree.capacity)
        self.values = _packed(self.values, nodes, self.tree.capacity)

    def only(self, rows: Tensor, tree: Tree) -> "Branches":
        """Those of some rows, whose tree is given."""
        kept = Branches(tree)
        kept.keys, kept.values = self.keys[rows], self.values[rows]
        kept.is_initialized = True
        return kept

    def get_seq_length(self) -> int:
        """How many tokens stand before the open ends; the library counts positions from it."""
        return self.tree.depth

    def get_mask_sizes(self, *_: Any) -> tuple[int, int]:
        """Keys that a mask must cover, and from which on."""
        return self.tree.nodes, 0

    def get_max_length(self) -> int:
        """Unbounded."""
        return -1


def _packed(states: Tensor, nodes: Tensor, capacity: int) -> Tensor:
    """Nodes of `[rows, heads, any, size]` in a new order, with room for `capacity`."""
    rows, heads, _, size = states.shape
    index = nodes[:, None, :, None].expand(-1, heads, -1, size)
    packed = states.new_empty(rows, heads, capacity, size)
    packed[:, :, : nodes.shape[1]] = states.gather(2, index)
    return packed


class Held(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """Keys and values of what was read, `[rows, heads, length, size]`: made once, then shared."""

    keys: Tensor
    values: Tensor

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Keep them in one piece of memory, as every step reads all of it."""
        self.keys, self.values = key_states.contiguous(), value_states.contiguous()
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Take them in, once."""
        self.lazy_initialization(key_states, value_states)
        return self.keys, self.values

    def only(self, rows: Tensor) -> "Held":
        """Those of some rows."""
        kept = Held()
        kept.lazy_initialization(self.keys[rows], self.values[rows])
        return kept

    def get_seq_length(self) -> int:
        """How long what was read is; none as long as nothing was."""
        return self.keys.shape[2] if self.is_initialized else 0

    def get_mask_sizes(self, *_: Any) -> tuple[int, int]:
        """Keys that a mask must cover, and from which on."""
        return self.get_seq_length(), 0

    def get_max_length(self) -> int:
        """Unbounded."""
        return -1
