"""Decoder-only models of transformers (GPT-2, Llama, Qwen2, Qwen3) as `TrainableGenerator`.

Each passage is a row of its own: a prompt with the passage and the question, which the answer
follows. What is remembered of a row are the keys and values of every prompt token but the last; the
last one opens the answer, as the start token does in an encoder-decoder. So the first token of an
answer is written like every other, and whatever is added to the inputs of the answer (`augment`)
reaches it too.

The keys and values of a prompt are computed once and read by all open ends of its row, as several
queries of one attention. Only the few tokens of the answers have keys and values per open end. The
attention of a step has two blocks of scores under one softmax:

    softmax([q K_prompt' | q K_own']) [V_prompt; V_own]

For this the layers need an attention function of their own. The model that was handed in keeps the
one it has: the generator works on a twin, other modules over the same parameters, so training
either trains both and each is used as it was before.

Rows are padded on the right and attention is causal, so no token ever sees padding and positions
count from zero: a row's numbers do not depend on the rows beside it.

It knows nothing of priors and sums, and nothing of Fusion-in-Decoder, which needs a decoder that
attends to an encoder.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from consilience.errors import UsageError
from consilience.generation.base import Augment, NextToken, Pair, SomeRows, Stretch, TokenRows
from consilience.generation.families import head_of, twin_of
from consilience.generation.finding import find_text
from consilience.generation.heads import Head, Scratch, next_token, score_targets
from consilience.generation.prompts import Prompt, Wording, prompt_named
from consilience.text import language_of

FAMILIES = ("gpt2", "llama", "qwen2", "qwen3")
"""Values of `config.model_type` whose layers hand extra arguments on to their attention."""

ATTENTION = "consilience-shared-prompt"
ANSWER_ROOM = 128
"""Positions kept free for the answer when no window is given; a quarter of a short model's."""


@dataclass(frozen=True, slots=True)
class Heads:
    """One layer's queries, keys and values of the tokens that are being read or written.

    Attributes:
        query: `[rows, heads, tokens, size]`.
        key: `[rows, groups, tokens, size]`; a group of heads shares its keys and values.
        value: As `key`.
        scale: What scores are multiplied with.
        dropout: Share of the attention that is dropped; above zero only in training.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    scale: float
    dropout: float


class Attending(Protocol):
    """How a layer's new tokens attend to what there is."""

    def attend(self, layer: int, heads: Heads) -> Tensor:
        """Mixed values, `[rows, heads, tokens, size]`."""
        ...


@dataclass(slots=True)
class CausalMemory:
    """What was read.

    Attributes:
        keys: Of the prompts without their last token, per layer `[rows, groups, length, size]`.
        values: Alike.
        lengths: How many of the `length` places are tokens of the row, `[rows]`.
        longest: The greatest of them.
        last: The last token of each prompt, `[rows]`.
        augment: Applied to the input embeddings of the last prompt token and of the answer,
            `[rows, n or t, h]` to the same shape; None leaves them as they are.
        pairs: What was read, when it was text.
    """

    keys: list[Tensor]
    values: list[Tensor]
    lengths: Tensor
    longest: int
    last: Tensor
    augment: Augment | None = None
    pairs: tuple[Pair, ...] = ()

    def bias(self) -> Tensor:
        """Added to scores: minus infinity beyond a row's tokens, `[rows, 1, 1, length]`."""
        places = torch.arange(self.keys[0].shape[2], device=self.lengths.device)
        beyond = places >= self.lengths[:, None]
        return torch.zeros(beyond.shape, device=beyond.device).masked_fill_(beyond, float("-inf"))[
            :, None, None, :
        ]


@dataclass(slots=True)
class CausalState:
    """What was written.

    Attributes:
        keys: Of the answers' tokens, per layer `[rows, n, groups, depth, size]`.
        values: Alike.
        depth: How many tokens every open end has, the last prompt token among them.
        scratch: Where distributions are written; those of one step stand until the next.
    """

    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    depth: int = 0
    scratch: Scratch = field(default_factory=Scratch)

    def only(self, rows: Tensor) -> "CausalState":
        """What was written for some rows."""
        keys, values = ([part[rows] for part in parts] for parts in (self.keys, self.values))
        return CausalState(keys, values, self.depth, self.scratch)

    def follow(self, parents: Tensor) -> None:
        """Open end `i` of each row goes on from `parents[row, i]` of the step before."""
        row = torch.arange(parents.shape[0], device=parents.device)[:, None]
        self.keys = [keys[row, parents] for keys in self.keys]
        self.values = [values[row, parents] for values in self.values]

    def grow(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """One more token of every open end, `[rows, groups, n, size]`; returns all of them."""
        keys, values = (new.transpose(1, 2)[:, :, :, None] for new in (keys, values))
        if layer == len(self.keys):
            self.keys.append(keys)
            self.values.append(values)
        else:
            self.keys[layer] = torch.cat([self.keys[layer], keys], dim=3)
            self.values[layer] = torch.cat([self.values[layer], values], dim=3)
        return self.keys[layer], self.values[layer]


@dataclass(slots=True)
class _Reading:
    """Causal attention within the prompts, which keeps the keys and values it meets."""

    keys: dict[int, Tensor] = field(default_factory=dict)
    values: dict[int, Tensor] = field(default_factory=dict)

    def attend(self, layer: int, heads: Heads) -> Tensor:
        # By layer and not appended: gradient checkpointing runs a layer twice. In one piece, for
        # every step multiplies with all of it, and views would keep a layer's queries alive too.
        self.keys[layer], self.values[layer] = heads.key.contiguous(), heads.value.contiguous()
        return functional.scaled_dot_product_attention(
            heads.query,
            heads.key,
            heads.value,
            is_causal=True,
            scale=heads.scale,
            dropout_p=heads.dropout,
            enable_gqa=heads.query.shape[1] != heads.key.shape[1],
        )


@dataclass(frozen=True, slots=True)
class _Scoring:
    """A whole answer after the prompt, one for each row."""

    memory: CausalMemory
    bias: Tensor

    def attend(self, layer: int, heads: Heads) -> Tensor:
        query = _grouped(heads)
        t = query.shape[3]
        own = _against(query, heads.key)
        later = torch.ones(t, t, dtype=torch.bool, device=own.device).triu(1)
        own = own.masked_fill(later, float("-inf"))
        prompt = _against(query, self.memory.keys[layer]) + self.bias[:, :, None]
        of_prompt, of_own = _shares(prompt, own, heads)
        mixed = _mixed(of_prompt, self.memory.values[layer]) + _mixed(of_own, heads.value)
        return mixed.flatten(1, 2)


@dataclass(frozen=True, slots=True)
class _Writing:
    """One more token of every open end: the prompt is shared, what was written is not."""

    memory: CausalMemory
    bias: Tensor
    state: CausalState

    def attend(self, layer: int, heads: Heads) -> Tensor:
        query = _grouped(heads)
        keys, values = self.state.grow(layer, heads.key, heads.value)
        own = torch.einsum("rghns,rngts->rghnt", query, keys)
        prompt = _against(query, self.memory.keys[layer]) + self.bias[:, :, None]
        of_prompt, of_own = _shares(prompt, own, heads)
        mixed = _mixed(of_prompt, self.memory.values[layer])
        mixed = mixed + torch.einsum("rghnt,rngts->rghns", of_own, values)
        return mixed.flatten(1, 2)


def _grouped(heads: Heads) -> Tensor:
    """Scaled queries beside the keys they share, `[rows, groups, heads of a group, t, size]`."""
    rows, _, t, size = heads.query.shape
    return (heads.query * heads.scale).reshape(rows, heads.key.shape[1], -1, t, size)


def _against(query: Tensor, keys: Tensor) -> Tensor:
    """Scores of `[rows, g, h, t, size]` against `[rows, g, l, size]`: `[rows, g, h, t, l]`."""
    scores = query.flatten(2, 3) @ keys.transpose(2, 3)
    return scores.view(*query.shape[:4], -1)


def _mixed(shares: Tensor, values: Tensor) -> Tensor:
    """`[rows, g, h, t, l]` shares of `[rows, g, l, size]` values: `[rows, g, h, t, size]`."""
    return (shares.flatten(2, 3) @ values).view(*shares.shape[:4], -1)


def _shares(prompt: Tensor, own: Tensor, heads: Heads) -> tuple[Tensor, Tensor]:
    """One softmax over both blocks of scores, in float32, taken apart again."""
    scores = torch.cat([prompt.float(), own.float()], dim=-1)
    shares = functional.dropout(scores.softmax(-1).to(heads.value.dtype), heads.dropout)
    length = prompt.shape[-1]
    return shares[..., :length], shares[..., length:]


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    attending: Attending | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **rest: Any,
) -> tuple[Tensor, Tensor | None]:
    """What transformers calls for every layer; without `attending` it is the library's own."""
    if attending is None:
        library = ALL_ATTENTION_FUNCTIONS["sdpa"]
        return cast(
            "tuple[Tensor, Tensor | None]",
            library(
                module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **rest
            ),
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    heads = Heads(query, key, value, scale, dropout)
    layer = cast("int", module.layer_idx)
    return attending.attend(layer, heads).transpose(1, 2).contiguous(), None


ALL_ATTENTION_FUNCTIONS.register(ATTENTION, _attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(ATTENTION, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])


class CausalGenerator(nn.Module):
    """Implements `TrainableGenerator` with a decoder-only model of transformers.

    Args:
        model: A model with a language-model head whose `config.model_type` is in `FAMILIES`. Its
            parameters are shared; its settings are left alone.
        tokenizer: Its tokenizer; None for work with tensors only.
        prompt: A name of `PROMPTS`, or a function; `chat` stands in the model's own chat template.
        window: The most tokens of a prompt; None for what the model has positions for, less some
            for the answer.
        end: The id that ends an answer; None for the tokenizer's, else the model's.

    Raises:
        UsageError: A model of another family, with attention that slides or positions that depend
            on the length, no end token, or a prompt that the tokenizer has no template for.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        prompt: str | Prompt = "plain",
        window: int | None = None,
        end: int | None = None,
    ) -> None:
        super().__init__()
        _require_family(model)
        self.model = twin_of(model, ATTENTION)
        self.tokenizer = tokenizer
        self.prompt = prompt_named(prompt) if isinstance(prompt, str) else prompt
        self._framed = prompt == "chat"
        self.window = _window(self.positions) if window is None else _within(window, self.positions)
        self.end = _end(model, tokenizer) if end is None else end
        self.none: int | None = None
        self.pad = self.end
        if self._framed and tokenizer is not None:
            _require_template(tokenizer)

    @property
    def vocabulary_size(self) -> int:
        """How many ids there are."""
        return int(self.head.weight.shape[0])

    @property
    def input_size(self) -> int:
        """Numbers of an input embedding, which an `augment` changes."""
        return int(self.embeddings.embedding_dim)

    @property
    def device(self) -> torch.device:
        """Where the weights live."""
        return self.embeddings.weight.device

    @property
    def positions(self) -> int:
        """How many tokens a prompt and its answer may have together."""
        return int(self.model.config.max_position_embeddings)

    def longest_answer(self, memory: CausalMemory) -> int:
        """As many tokens as there are positions behind the longest prompt."""
        return max(1, self.positions - memory.longest - 1)

    @property
    def embeddings(self) -> nn.Embedding:
        """The input embeddings."""
        return cast("nn.Embedding", self.model.get_input_embeddings())

    @property
    def head(self) -> Head:
        """States to logits."""
        return head_of(self.model)

    def rows(self, pairs: Sequence[Pair]) -> TokenRows:
        """Prompts as ids, padded on the right; a passage that is too long loses its end.

        Raises:
            UsageError: No tokenizer, or a question that alone is longer than the window.
        """
        fitted = [self._fitted(self.prompt(pair)) for pair in pairs]
        return _padded(fitted, self.pad, self.device)

    def answer_ids(self, text: str) -> list[int]:
        """An answer's ids with the end; after the plain prompt it begins with a space."""
        spaced = text if self._framed or language_of(text) == "zh" else f" {text}"
        encoded = self._words()(spaced, add_special_tokens=False, split_special_tokens=True)
        return [*encoded["input_ids"], self.end]

    def memorise(self, rows: TokenRows, *, augment: Augment | None = None) -> CausalMemory:
        """Read rows of ids; differentiable.

        Args:
            rows: Padded on either side; every row has a token.
            augment: Applied to the input embeddings of the prompt, and kept in the memory for
                those of the answer.
        """
        ids, lengths = _to_the_left(rows)
        longest = int(lengths.max()) - 1
        # A row of one token has nothing before its last; one masked column keeps shapes whole.
        read = ids[:, : max(1, longest)]
        states = self._embedded(read, augment)
        reading = _Reading()
        self._run(states, torch.arange(read.shape[1], device=ids.device)[None], reading)
        return CausalMemory(
            keys=[reading.keys[layer] for layer in sorted(reading.keys)],
            values=[reading.values[layer] for layer in sorted(reading.values)],
            lengths=lengths - 1,
            longest=longest,
            last=ids.gather(1, lengths[:, None] - 1)[:, 0],
            augment=augment,
        )

    @torch.inference_mode()
    def read(self, pairs: Sequence[Pair]) -> CausalMemory:
        """Read questions over passages."""
        return replace(self.memorise(self.rows(pairs)), pairs=tuple(pairs))

    def together(self, memory: CausalMemory, k: int) -> CausalMemory:
        """Refused: a decoder-only model has no attention over what an encoder read.

        Raises:
            UsageError: Always.
        """
        raise UsageError(
            "a decoder-only model cannot attend to passages that were read apart, so it has no "
            f"Fusion-in-Decoder; {memory.last.shape[0]} rows were to be joined, {k} a question",
            hint='choose the fusion "concat", "sequence" or "token"',
        )

    def join(self, memories: Sequence[CausalMemory]) -> CausalMemory:
        """The rows of several readings, one after another; none has an `augment`."""
        assert all(one.augment is None for one in memories)
        layers = range(len(memories[0].keys))
        return CausalMemory(
            keys=[_below([one.keys[layer] for one in memories]) for layer in layers],
            values=[_below([one.values[layer] for one in memories]) for layer in layers],
            lengths=torch.cat([one.lengths for one in memories]),
            longest=max(one.longest for one in memories),
            last=torch.cat([one.last for one in memories]),
            pairs=tuple(pair for one in memories for pair in one.pairs),
        )

    @torch.inference_mode()
    def keep(
        self, memory: CausalMemory, state: CausalState, rows: Tensor
    ) -> tuple[CausalMemory, CausalState]:
        """Memory and state of some rows."""
        augment, among = memory.augment, len(memory.last)
        kept = CausalMemory(
            keys=[keys[rows] for keys in memory.keys],
            values=[values[rows] for values in memory.values],
            lengths=memory.lengths[rows],
            longest=memory.longest,
            last=memory.last[rows],
            augment=None if augment is None else SomeRows(augment, rows, among),
            pairs=tuple(memory.pairs[row] for row in rows.tolist()) if memory.pairs else (),
        )
        return kept, state.only(rows)

    @torch.inference_mode()
    def begin(self, memory: CausalMemory) -> tuple[CausalState, NextToken]:
        """The last prompt token of each row written, and what may follow it."""
        state = CausalState()
        return state, self._next(memory, state, memory.last[:, None])

    @torch.inference_mode()
    def step(
        self, memory: CausalMemory, state: CausalState, ids: Tensor, parents: Tensor
    ) -> NextToken:
        """`[rows, n]` ids after `[rows, n]` parents to what may follow each."""
        state.follow(parents)
        return self._next(memory, state, ids)

    def _next(self, memory: CausalMemory, state: CausalState, ids: Tensor) -> NextToken:
        self._require_room(memory, state.depth + 1)
        positions = (memory.lengths + state.depth)[:, None].expand_as(ids)
        writing = _Writing(memory, memory.bias(), state)
        states = self._run(self._embedded(ids, memory.augment), positions, writing)
        state.depth += 1
        return next_token(states, self.head, state.scratch)

    def target_states(self, memory: CausalMemory, targets: Tensor) -> Tensor:
        """The state from which each target token is told, `[rows, steps, h]`, with gradient.

        What `heads.score_targets` makes scores of; for losses that want more than those of
        `target_log_probs`.
        """
        steps = targets.shape[1]
        self._require_room(memory, steps)
        inputs = torch.cat([memory.last[:, None], targets[:, :-1]], dim=1)
        positions = memory.lengths[:, None] + torch.arange(steps, device=targets.device)
        scoring = _Scoring(memory, memory.bias())
        return self._run(self._embedded(inputs, memory.augment), positions, scoring)

    def target_log_probs(
        self, memory: CausalMemory, targets: Tensor, *, mask: Tensor | None = None
    ) -> Tensor:
        """Log p of targets, `[rows, steps]`, float32, with gradient.

        Args:
            memory: Of `memorise`.
            targets: Ids, `[rows, steps]`.
            mask: True at the steps that matter, `[rows, steps]`; the others are 0 and cost no head.
        """
        states = self.target_states(memory, targets)
        return score_targets(states, targets, self.head, mask=mask).log_probs

    def next_logits(self, memory: CausalMemory, targets: Tensor) -> Tensor:
        """Logits of every token at each step given the target before it, `[rows, steps, v]`."""
        return self.head.logits(self.target_states(memory, targets)).float()

    @torch.inference_mode()
    def score(self, memory: CausalMemory, targets: Tensor) -> Tensor:
        """Log p of given answers, `[rows, steps]`, float32."""
        return self.target_log_probs(memory, targets)

    def decode(self, ids: Sequence[int]) -> str:
        """Ids as text, without special tokens and without spaces around it."""
        return str(self._words().decode(list(ids), skip_special_tokens=True)).strip()

    def words(self, ids: Sequence[int]) -> list[str]:
        """The text of each id by itself; half a character is shown as the replacement sign."""
        return [str(self._words().decode([one])) for one in ids]

    def locate(self, memory: CausalMemory, row: int, ids: Sequence[int]) -> list[Stretch]:
        """Where the answer's text stands in the passage; nothing was copied token by token."""
        return find_text(self.decode(ids), memory.pairs[row].passage)

    def _embedded(self, ids: Tensor, augment: Augment | None) -> Tensor:
        """Input embeddings, `[rows, tokens, h]`."""
        states: Tensor = self.embeddings(ids)
        return states if augment is None else augment(states)

    def _run(self, states: Tensor, positions: Tensor, attending: Attending) -> Tensor:
        """Through all layers, `[rows, tokens, h]` to the same."""
        out = self.model.base_model(
            inputs_embeds=states,
            position_ids=positions,
            # A mask of four dimensions is handed on as it is; `attending` knows what may be seen.
            attention_mask=torch.zeros(1, 1, 1, 1, dtype=states.dtype, device=states.device),
            use_cache=False,
            attending=attending,
        )
        return cast("Tensor", out.last_hidden_state)

    def _require_room(self, memory: CausalMemory, steps: int) -> None:
        if memory.longest + steps > self.positions:
            raise UsageError(
                f"a prompt of {memory.longest + 1} tokens and {steps} tokens of an answer are more "
                f"than the {self.positions} positions of the model",
                hint="ask for fewer new tokens, or give the generator a smaller window",
            )

    def _words(self) -> PreTrainedTokenizerBase:
        if self.tokenizer is None:
            raise UsageError(
                "this generator has no tokenizer, so it can neither read nor write text",
                hint="make it with CausalGenerator(model, tokenizer)",
            )
        return self.tokenizer

    def _fitted(self, worded: Wording) -> list[int]:
        """Ids with as much of the passage as fits the window."""
        ids = self._ids(worded.text())
        if len(ids) <= self.window:
            return ids
        kept, beyond, ids = 0, len(worded.passage), self._ids(worded.text(0))
        if len(ids) > self.window:
            raise UsageError(
                f"the question alone makes a prompt of {len(ids)} tokens; {self.window} are read "
                "at most",
                hint="ask a shorter question; add long text as a document",
            )
        while beyond - kept > 1:
            middle = (kept + beyond) // 2
            tried = self._ids(worded.text(middle))
            if len(tried) <= self.window:
                kept, ids = middle, tried
            else:
                beyond = middle
        return ids

    def _ids(self, text: str) -> list[int]:
        """A prompt's ids; special tokens written out in a document are text like any other."""
        tokenizer = self._words()
        if not self._framed:
            ids = list(tokenizer(text, split_special_tokens=True)["input_ids"])
            return ids[:-1] if ids[-1:] == [self.end] else ids
        before, after = _chat_frame(tokenizer)
        told = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return [*before, *told, *after]


_HOLE = "\ue000"


def _chat_frame(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """What the chat template puts before and after what the user says.

    The template is filled with a mark in place of the text, so nothing that a document holds is
    ever read as part of the template.
    """
    filled = tokenizer.apply_chat_template(
        [{"role": "user", "content": _HOLE}],
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=False,
    )
    before, _, after = str(filled).partition(_HOLE)
    return tuple(  # type: ignore[return-value]
        list(tokenizer(part, add_special_tokens=False)["input_ids"]) for part in (before, after)
    )


def _require_template(tokenizer: PreTrainedTokenizerBase) -> None:
    if not tokenizer.chat_template:
        raise UsageError(
            "the tokenizer has no chat template", hint='choose the prompt "plain" for this model'
        )


def _require_family(model: PreTrainedModel) -> None:
    config = model.config
    if config.model_type not in FAMILIES or not hasattr(model, "lm_head"):
        raise UsageError(
            f"{type(model).__name__} (model type {config.model_type!r}) is no decoder-only model "
            "with a language-model head that is known here",
            hint=f"known model types: {', '.join(FAMILIES)}",
        )
    if getattr(config, "add_cross_attention", False):
        raise UsageError(
            "the model attends to an encoder, which a decoder-only generator does not have",
            hint="load it with add_cross_attention=False",
        )
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"}:
        raise UsageError(
            f"the model has layers of the kinds {', '.join(sorted(kinds))}; attention that slides "
            "over a window loses sight of the prompt",
            hint="load it with use_sliding_window=False",
        )
    turning = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if turning in ("dynamic", "longrope"):
        raise UsageError(
            f"the model's positions (rope type {turning!r}) depend on the longest row of a batch",
            hint='load it with another rope type, such as "yarn" or "linear"',
        )


def _window(positions: int) -> int:
    return positions - min(ANSWER_ROOM, positions // 4)


def _within(window: int, positions: int) -> int:
    if not 1 <= window < positions:
        raise UsageError(
            f"a window of {window} tokens; the model has {positions} positions",
            hint=f"choose from 1 to {positions - 1}, leaving room for the answer",
        )
    return window


def _end(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> int:
    """The end token of the tokenizer, else of the model."""
    generation = getattr(model, "generation_config", None)
    told = (
        getattr(tokenizer, "eos_token_id", None),
        getattr(generation, "eos_token_id", None),
        getattr(model.config, "eos_token_id", None),
    )
    for one in told:
        if one is not None:
            return int(one[0] if isinstance(one, list) else one)
    raise UsageError(
        "neither the tokenizer nor the model names an end token",
        hint="name it: CausalGenerator(model, tokenizer, end=ID)",
    )


def _below(parts: Sequence[Tensor]) -> Tensor:
    """`[rows, groups, any, size]` below each other, zeros behind what is shorter."""
    longest = max(part.shape[2] for part in parts)
    return torch.cat([functional.pad(part, (0, 0, 0, longest - part.shape[2])) for part in parts])


def _padded(fitted: Sequence[Sequence[int]], pad: int, device: torch.device) -> TokenRows:
    """Rows of ids as tensors, padded on the right; the mask alone says what is padding."""
    length = max(map(len, fitted))
    ids = [[*row, *[pad] * (length - len(row))] for row in fitted]
    mask = [[True] * len(row) + [False] * (length - len(row)) for row in fitted]
    return TokenRows(torch.tensor(ids, device=device), torch.tensor(mask, device=device))


def _to_the_left(rows: TokenRows) -> tuple[Tensor, Tensor]:
    """Ids with the padding of every row behind its tokens, and how many tokens each has."""
    mask = rows.mask.bool()
    order = (~mask).long().argsort(dim=1, stable=True)
    lengths = mask.sum(1)
    if bool((lengths == 0).any()):
        raise UsageError(
            f"row {int((lengths == 0).nonzero()[0])} has no token",
            hint="give every row at least one",
        )
    return rows.ids.gather(1, order), lengths
