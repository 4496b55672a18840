"""transformers' encoder-decoder models as a generator.

Implements `TrainableGenerator` over BART, mBART, T5, mT5 and encoder-decoder pairs of BERT with
BERT or GPT-2. The layers and their weights are the library's own; what is ours is the way a step is
made: what was read is kept once a row, what was written is a tree (`branches`), the vocabulary is
walked in tiles (`heads`).

The generator works on a twin of the model: the same modules over the same parameters and buffers,
but with configurations of their own. So the attention it needs stands in no configuration that
someone else reads, two threads may use generator and model at once, and training either trains
both. Changes of shape made to the model afterwards (new tokens, adapters) do not reach the twin;
make them to `generator.model`.

It knows texts only through the tokenizer it is given; without one it takes ids.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.cache_utils import Cache, EncoderDecoderCache

from consilience.encoding.bert import padding_bias
from consilience.errors import UsageError
from consilience.generation.attention import NAME, Step, asking
from consilience.generation.base import (
    Asked,
    Augment,
    Ends,
    NextToken,
    Pair,
    SomeRows,
    Stretch,
    TokenRows,
)
from consilience.generation.branches import Branches, Held, Tree
from consilience.generation.families import head_of, parts_of, twin_of
from consilience.generation.finding import find_text
from consilience.generation.heads import Head, Scratch, log_probs_of, next_token, score_targets
from consilience.generation.prompts import Prompt, Wording, prompt_named


@dataclass(slots=True)
class Seq2SeqMemory:
    """What was read.

    Attributes:
        states: As the decoder attends to them, `[rows, length, h]`.
        mask: True at tokens, `[rows, length]`.
        k: How many passages stand end to end in a row.
        pairs: The texts of the rows; empty when ids were read.
        augment: What is done to the decoder's input embeddings, if anything.
        cross: Keys and values of `states`, of each layer, once a first step has made them.
    """

    states: Tensor
    mask: Tensor
    k: int = 1
    pairs: tuple[Pair, ...] = ()
    augment: Augment | None = None
    cross: list[Held] = field(default_factory=list)

    @property
    def bias(self) -> Tensor:
        """Added to the scores of attention, `[rows, 1, 1, length]`."""
        return padding_bias(self.mask)


@dataclass(slots=True)
class Seq2SeqState:
    """What was written.

    Attributes:
        tree: Of all open ends.
        branches: The caches of its tokens, of each layer.
        cache: The same beside the memory's, as the library wants them.
        scratch: What the last step's distributions are written in.
        shares: After Fusion-in-Decoder, how much of the last step's attention each passage got,
            averaged over layers and heads, `[b, n, k]`; None where rows hold one passage. These
            are shares of attention, not the posterior of Bayes' rule.
    """

    tree: Tree
    branches: list[Branches]
    cache: EncoderDecoderCache
    scratch: Scratch
    shares: Tensor | None = None

    def extend(self, parents: Tensor, there: Tensor | None = None) -> None:
        """Go on to new open ends; see `Tree.extend`."""
        kept = self.tree.extend(parents, there)
        if kept is not None:
            for branches in self.branches:
                branches.keep(kept)


class Seq2SeqGenerator(nn.Module):
    """Implements `TrainableGenerator` with an encoder-decoder model of transformers.

    Args:
        model: With a language-model head. Its parameters are shared, nothing of it is changed.
        tokenizer: Of the model; None when only ids are read and written.
        prompt: How question and passage are put into one text: a name of `PROMPTS`, or a function.
        window: Most tokens of a row; None for what model and tokenizer can take.

    Raises:
        UsageError: A family that is not in `families`, a tokenizer without offsets, a model that
            does not say which token begins or ends an answer.
    """

    none: int | None = None

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        *,
        prompt: str | Prompt = "rag",
        window: int | None = None,
    ) -> None:
        super().__init__()
        parts_of(model)
        self.tokenizer = tokenizer
        self.prompt = prompt_named(prompt) if isinstance(prompt, str) else prompt
        if tokenizer is not None and not tokenizer.is_fast:
            raise UsageError(
                f"{type(tokenizer).__name__} does not say where its tokens stand in a text",
                hint="load the tokenizer with AutoTokenizer, which picks the fast one",
            )
        self.model = twin_of(model, NAME)
        ids = _SpecialIds(self.model, tokenizer)
        self.start = ids.of("decoder_start_token_id", "bos_token_id", "cls_token_id")
        self.end = ids.of("eos_token_id", "sep_token_id")
        self.pad = ids.of("pad_token_id", "eos_token_id", "sep_token_id")
        self.window = window or _window(self.model, tokenizer)

    @property
    def head(self) -> Head:
        """From the decoder's last states to logits."""
        return head_of(self.model)

    @property
    def vocabulary_size(self) -> int:
        """How many ids there are."""
        return self.head.weight.shape[0]

    @property
    def device(self) -> torch.device:
        """Where the weights live."""
        return self.head.weight.device

    @property
    def input_size(self) -> int:
        """Numbers of an input embedding of the decoder, which an `augment` changes."""
        return int(parts_of(self.model).decoder.get_input_embeddings().embedding_dim)

    def longest_answer(self, memory: Seq2SeqMemory) -> int | None:
        """As many tokens as the decoder has learned positions after the start token's.

        None where positions are not learned one by one, as in T5.
        """
        del memory
        positions = getattr(parts_of(self.model).decoder.config, "max_position_embeddings", None)
        return None if positions is None else int(positions) - 1

    def rows(self, pairs: Sequence[Pair]) -> TokenRows:
        """Questions and passages as padded ids, one row each.

        Raises:
            UsageError: There is no tokenizer, or a question alone is longer than the window.
        """
        worded = [self.prompt(pair) for pair in pairs]
        encoded = self._texts()(
            [one.text() for one in worded],
            # A special token that is written out in a document is text like any other.
            split_special_tokens=True,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
            verbose=False,
        )
        tokens = map(
            _Encoded,
            encoded["input_ids"],
            encoded["offset_mapping"],
            encoded["special_tokens_mask"],
        )
        fitted = [_fitted(*row, self.window) for row in zip(tokens, worded, strict=True)]
        return _collate(fitted, pad=self.pad, device=self.device)

    def _texts(self) -> Any:
        if self.tokenizer is None:
            raise UsageError(
                "this generator has no tokenizer, so it reads and writes ids only",
                hint="make it with Seq2SeqGenerator(model, tokenizer)",
            )
        return self.tokenizer

    def answer_ids(self, text: str) -> list[int]:
        """An answer as the tokenizer writes targets, up to its end.

        BART's targets open with `<s>`, which is not its start token and is learned like any other.
        """
        found = self._texts()(text_target=text, split_special_tokens=True)["input_ids"]
        ids = list(found[1:] if self.start != self.end and found[:1] == [self.start] else found)
        return [*ids[: ids.index(self.end) if self.end in ids else None], self.end]

    def memorise(self, rows: TokenRows) -> Seq2SeqMemory:
        """Encoder states of rows; differentiable. Columns that are padding everywhere go."""
        length = int(rows.mask.any(0).nonzero().amax()) + 1 if bool(rows.mask.any()) else 1
        mask = rows.mask[:, :length].clone()
        # A row without a token attends to its first padding: anything but a mean over nothing.
        mask[:, 0] |= ~mask.any(1)
        parts = parts_of(self.model)
        encoded = parts.encoder(
            input_ids=rows.ids[:, :length], attention_mask=padding_bias(mask)
        ).last_hidden_state
        return Seq2SeqMemory(parts.project(encoded), mask)

    @torch.inference_mode()
    def read(self, pairs: Sequence[Pair]) -> Seq2SeqMemory:
        """Read questions over passages."""
        return replace(self.memorise(self.rows(pairs)), pairs=tuple(pairs))

    def together(self, memory: Seq2SeqMemory, k: int) -> Seq2SeqMemory:
        """Every `k` rows as one whose decoder attends to all of them (Izacard and Grave, 2021).

        The texts stay with the memory of the single rows: `locate` asks that one.
        """
        rows, length, hidden = memory.states.shape
        states = memory.states.reshape(rows // k, k * length, hidden)
        return Seq2SeqMemory(states, memory.mask.reshape(rows // k, k * length), k * memory.k)

    def join(self, memories: Sequence[Seq2SeqMemory]) -> Seq2SeqMemory:
        """The rows of several readings, one after another; none has an `augment`."""
        assert all(one.augment is None for one in memories)
        length = max(one.mask.shape[1] for one in memories)
        return Seq2SeqMemory(
            torch.cat([_longer(one.states, length) for one in memories]),
            torch.cat([_longer(one.mask, length) for one in memories]),
            k=memories[0].k,
            pairs=tuple(pair for one in memories for pair in one.pairs),
        )

    @torch.inference_mode()
    def keep(
        self, memory: Seq2SeqMemory, state: Seq2SeqState, rows: Tensor
    ) -> tuple[Seq2SeqMemory, Seq2SeqState]:
        """Memory and state of some rows."""
        cross, tree = [held.only(rows) for held in memory.cross], state.tree.only(rows)
        branches = [one.only(rows, tree) for one in state.branches]
        cache = EncoderDecoderCache(Cache(layers=[*branches]), Cache(layers=[*cross]))
        augment, among = memory.augment, memory.mask.shape[0]
        kept = replace(
            memory,
            states=memory.states[rows],
            mask=memory.mask[rows],
            pairs=tuple(memory.pairs[row] for row in rows.tolist()) if memory.pairs else (),
            augment=None if augment is None else SomeRows(augment, rows, among),
            cross=cross,
        )
        return kept, Seq2SeqState(tree, branches, cache, state.scratch)

    @torch.inference_mode()
    def begin(self, memory: Seq2SeqMemory) -> tuple[Seq2SeqState, NextToken]:
        """The start token written, and what may follow it."""
        rows, layers = memory.states.shape[0], parts_of(self.model).layers
        tree = Tree(rows, self.device)
        branches = [Branches(tree) for _ in range(layers)]
        cross = memory.cross or [Held() for _ in range(layers)]
        cache = EncoderDecoderCache(Cache(layers=[*branches]), Cache(layers=[*cross]))
        state = Seq2SeqState(tree, branches, cache, Scratch())
        first = self._next(memory, state, torch.full((rows, 1), self.start, device=self.device))
        memory.cross = cross
        return state, first

    @torch.inference_mode()
    def step(
        self, memory: Seq2SeqMemory, state: Seq2SeqState, ids: Tensor, parents: Tensor
    ) -> NextToken:
        """`[rows, n]` ids after `[rows, n]` parents to what may follow each."""
        state.extend(parents)
        return self._next(memory, state, ids)

    @torch.inference_mode()
    def ask(self, memory: Seq2SeqMemory, state: Seq2SeqState, ends: Ends, asked: Asked) -> Tensor:
        """Log p of some tokens after new open ends, `[rows, m]`."""
        state.extend(ends.parents, ends.there)
        states = self._states(memory, state, ends.ids)
        place = ends.there.flatten().cumsum(0).view_as(ends.there) - 1
        after = place.gather(1, asked.ends)[asked.wanted]
        found = log_probs_of(states, after, asked.ids[asked.wanted], self.head)
        return found.new_zeros(asked.ids.shape).masked_scatter_(asked.wanted, found)

    def _next(self, memory: Seq2SeqMemory, state: Seq2SeqState, ids: Tensor) -> NextToken:
        states = self._states(memory, state, ids)
        return next_token(states.view(*ids.shape, -1), self.head, state.scratch)

    def _states(self, memory: Seq2SeqMemory, state: Seq2SeqState, ids: Tensor) -> Tensor:
        """Last hidden states of the open ends that are there, `[m, h]`."""
        step = Step(state.tree, memory.k)
        embedded, places = self._embedded(memory, ids).flatten(0, 1), state.tree.places
        with asking(step):
            states = self._decoded(
                memory,
                (embedded if places is None else embedded[places])[:, None],
                attention_mask=state.tree.bias,
                past_key_values=state.cache,
                use_cache=True,
            )
        state.shares = torch.stack(step.shares).mean(0).float() if step.shares else None
        return states[:, 0]

    def _embedded(self, memory: Seq2SeqMemory, ids: Tensor) -> Tensor:
        """The decoder's input, `[rows, n or t, h]`."""
        embedded: Tensor = parts_of(self.model).decoder.get_input_embeddings()(ids)
        return embedded if memory.augment is None else memory.augment(embedded)

    def _decoded(self, memory: Seq2SeqMemory, embedded: Tensor, **kwargs: Any) -> Tensor:
        decoder = parts_of(self.model).decoder
        states: Tensor = decoder(
            inputs_embeds=embedded,
            encoder_hidden_states=memory.states,
            encoder_attention_mask=memory.bias,
            **kwargs,
        ).last_hidden_state
        return states

    def target_states(self, memory: Seq2SeqMemory, targets: Tensor) -> Tensor:
        """Last hidden states before each token of `[rows, t]` targets, `[rows, t, h]`.

        What `heads.score_targets` makes scores of; for losses that want more than those of
        `target_log_probs`.
        """
        inputs = functional.pad(targets[:, :-1], (1, 0), value=self.start)
        return self._decoded(memory, self._embedded(memory, inputs), use_cache=False)

    def target_log_probs(
        self, memory: Seq2SeqMemory, targets: Tensor, *, mask: Tensor | None = None
    ) -> Tensor:
        """Log p of targets, `[rows, t]`, with gradient.

        Args:
            memory: Of `memorise`.
            targets: Ids without the start token, `[rows, t]`.
            mask: True at the steps that matter, `[rows, t]`; the others are 0 and cost no head.
        """
        states = self.target_states(memory, targets)
        return score_targets(states, targets, self.head, mask=mask).log_probs

    def next_logits(self, memory: Seq2SeqMemory, targets: Tensor) -> Tensor:
        """Logits of every token at each step, `[rows, t, v]`, with gradient."""
        return self.head.logits(self.target_states(memory, targets))

    @torch.inference_mode()
    def score(self, memory: Seq2SeqMemory, targets: Tensor) -> Tensor:
        """Log p of given answers, `[rows, t]`, float32."""
        return self.target_log_probs(memory, targets)

    def decode(self, ids: Sequence[int]) -> str:
        """Text without special tokens."""
        return str(self._texts().decode(list(ids), skip_special_tokens=True)).strip()

    def words(self, ids: Sequence[int]) -> list[str]:
        """The text of each id by itself."""
        texts = self._texts()
        return [str(texts.decode([one])).strip().removeprefix("##") for one in ids]

    def locate(self, memory: Seq2SeqMemory, row: int, ids: Sequence[int]) -> list[Stretch]:
        """Where the row's passage has the answer's words, first; nothing if it has them nowhere."""
        return find_text(self.decode(ids), memory.pairs[row].passage) if memory.pairs else []


def _longer(rows: Tensor, length: int) -> Tensor:
    """`[rows, any, …]` with zeros up to `[rows, length, …]`."""
    beyond = rows.new_zeros(rows.shape[0], length - rows.shape[1], *rows.shape[2:])
    return torch.cat([rows, beyond], dim=1)


class _SpecialIds:
    """Where a model and its tokenizer say which tokens begin, end and pad an answer."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        config = model.config
        generation = getattr(model, "generation_config", None)
        self._places = [config, generation, getattr(config, "decoder", None), tokenizer]

    def of(self, *names: str) -> int:
        """The first of these that is set anywhere.

        Raises:
            UsageError: None is.
        """
        for name in names:
            for place in self._places:
                found = getattr(place, name, None)
                if found is not None:
                    return int(found[0] if isinstance(found, list) else found)
        raise UsageError(
            f"the model does not say its {names[0]}", hint=f"set model.config.{names[0]}"
        )


def _window(model: Any, tokenizer: Any) -> int:
    """Most tokens that the encoder has positions for and the tokenizer was made for."""
    encoder = parts_of(model).encoder.config
    limits = [
        getattr(encoder, "max_position_embeddings", None),
        getattr(tokenizer, "model_max_length", None),
    ]
    return min([limit for limit in limits if limit is not None and limit < 10**6], default=512)


@dataclass(frozen=True, slots=True)
class _Encoded:
    """A tokenised text: ids, the characters of each, and which were added by the tokenizer."""

    ids: list[int]
    offsets: list[tuple[int, int]]
    special: list[int]


def _fitted(encoded: _Encoded, worded: Wording, window: int) -> list[int]:
    """The ids of a row, with as much cut from the passage's end as the window asks.

    Raises:
        UsageError: The rest alone is longer than the window.
    """
    excess = len(encoded.ids) - window
    if excess <= 0:
        return encoded.ids
    passage = _passage(encoded, worded)
    if excess > len(passage):
        raise UsageError(
            f"a question and a title make {len(encoded.ids) - len(passage)} tokens; {window} are "
            "read at most",
            hint="ask a shorter question, or give the generator a larger window",
        )
    cut = set(passage[len(passage) - excess :])
    return [one for place, one in enumerate(encoded.ids) if place not in cut]


def _passage(encoded: _Encoded, worded: Wording) -> list[int]:
    """The places of the passage's tokens: those that end within it."""
    start = len(worded.before)
    end = start + len(worded.passage)
    return [
        place
        for place, (_, until) in enumerate(encoded.offsets)
        if start < until <= end and not encoded.special[place]
    ]


def _collate(rows: Sequence[list[int]], *, pad: int, device: torch.device) -> TokenRows:
    lengths = torch.tensor([len(row) for row in rows])
    ids = nn.utils.rnn.pad_sequence(
        [torch.tensor(row) for row in rows], batch_first=True, padding_value=pad
    )
    mask = torch.arange(ids.shape[1]) < lengths[:, None]
    return TokenRows(ids.to(device), mask.to(device))
