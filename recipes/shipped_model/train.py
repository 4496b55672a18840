"""The loop of the first three learning stages: generator and retriever over shared embeddings.

Every step takes one batch of one stream: masked words of plain text, readings (a question over a
passage), or pairs with the other pairs of the batch as negatives (InfoNCE). A stage is counted in
ids, and goes on from its last checkpoint by itself: every draw depends on the number of the step
alone, so that a run that was killed ends where one that was not would have.
"""

import json
import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from mixture import Pair, Reading, minilm_folder
from safetensors.torch import load_file
from schedule import Schedule
from torch import Tensor, nn
from torch.nn import functional

from consilience.encoding.bert import Embeddings, EncoderStack, mean_pool
from consilience.encoding.compact import shape_of
from consilience.encoding.folder import ModelConfig, open_folder, write_folder
from consilience.encoding.tokenizer import SPECIAL, SubwordTokenizer
from consilience.generation.base import TokenRows
from consilience.generation.copying import CopyDecoder, Source
from consilience.generation.reading import Row, collate, join, mark
from consilience.training.objectives.masking import IGNORED, Words, mask_tokens

RATES = {"embeddings": 2e-4, "retriever": 6e-5, "reader": 1.5e-4, "decoder": 5e-4}
TEMPERATURE = 0.05
WINDOW = 320
"""Ids of a row."""


class Parts(nn.Module):
    """All that is trained, under the names of a model folder.

    Attributes:
        config: Sizes.
        mixed: Whether matrix products are in bfloat16; a processor without it is faster without.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        shape = shape_of(config)
        self.config, self.mixed = config, False
        self.embeddings = Embeddings(shape)
        self.retriever = EncoderStack(shape, config.encoder_layers)
        self.reader = EncoderStack(shape, config.encoder_layers)
        self.decoder = CopyDecoder(shape, config.decoder_layers)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embeddings.word_embeddings.weight.device

    def in_precision(self) -> torch.autocast:
        """Matrix products as they are wanted."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed)


def initial(run: Path, schedule: Schedule) -> Parts:
    """The model before its first step."""
    if schedule.begun is not None:
        return further(schedule.begun)
    words = SubwordTokenizer.load(run / "tokenizer.json")
    torch.manual_seed(3)
    model = Parts(schedule.config(len(words)))
    if schedule.start == "minilm":
        _start_from_minilm(model, load_file(run / "embeddings.safetensors")["word_embeddings"])
    else:
        nn.init.normal_(model.embeddings.word_embeddings.weight, std=0.02)
    return model


def _start_from_minilm(model: Parts, words: Tensor) -> None:
    """Both encoders as MiniLM's, the decoder's blocks as its upper layers, new embeddings."""
    old = load_file(minilm_folder() / "model.safetensors")
    layers = {k.removeprefix("encoder."): v for k, v in old.items() if k.startswith("encoder.")}
    tables = {
        k.removeprefix("embeddings."): v
        for k, v in old.items()
        if k.startswith("embeddings.") and not k.endswith("position_ids")
    }
    model.embeddings.load_state_dict(tables | {"word_embeddings.weight": words})
    model.retriever.load_state_dict(layers)
    model.reader.load_state_dict(layers)
    _start_decoder(model.decoder, layers)


def further(folder: Path) -> Parts:
    """The parts of a model folder, to be trained on."""
    found = open_folder(folder)
    model, tensors = Parts(found.config), found.tensors()
    model.load_state_dict({name: tensors[name].float() for name in model.state_dict()})
    return model


def _start_decoder(decoder: nn.Module, layers: dict[str, Tensor]) -> None:
    state = decoder.state_dict()
    for name in state:
        part = name.replace("crossattention", "attention").split(".")
        if part[0] == "layer":
            source = ".".join(["layer", str(2 * int(part[1]) + 1), *part[2:]])
            state[name] = layers[source].clone()
    decoder.load_state_dict(state)


@dataclass(frozen=True, slots=True)
class Example:
    """A tokenised reading: its row and the ids to write, the end included."""

    row: Row
    target: list[int]


def tokenise_readings(found: list[Reading], words: SubwordTokenizer) -> list[Example]:
    """Rows and targets; a target inside the passage is the passage's own ids."""
    examples = []
    for start in range(0, len(found), 4096):
        part = found[start : start + 4096]
        columns = [
            words.encode([getattr(reading, key) for reading in part])
            for key in ("question", "title", "passage", "answer")
        ]
        for reading, question, title, passage, answer in zip(part, *columns, strict=True):
            row = join(question, title, passage, words=words, window=WINDOW)
            if reading.start >= 0:
                target = [
                    number
                    for number, (left, right) in zip(passage.ids, row.offsets, strict=False)
                    if left < reading.end and right > reading.start
                ]
            else:
                target = answer.ids or [words.none]
            if target and len(target) <= 48:
                examples.append(Example(row, [*target, words.separator]))
    return examples


def buckets(lengths: list[int], budget: int, rng: random.Random) -> list[list[int]]:
    """Shuffled batches of like length, each of at most `budget` ids with padding."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i] + 8 * rng.random())
    batches: list[list[int]] = []
    batch: list[int] = []
    for index in order:
        if batch and (len(batch) + 1) * max(lengths[index], lengths[batch[-1]]) > budget:
            batches.append(batch)
            batch = []
        batch.append(index)
    batches.append(batch)
    rng.shuffle(batches)
    return batches


def reading_loss(model: Parts, batch: list[Example], words: SubwordTokenizer) -> Tensor:
    """Mean negative log-likelihood of the answers' tokens, in nats."""
    found = collate([example.row for example in batch], words=words)
    rows = TokenRows(found.ids.to(model.device), found.mask.to(model.device))
    marks = mark(rows, words=words)
    targets = padded([example.target for example in batch], words).to(model.device)
    inputs = functional.pad(targets[:, :-1], (1, 0), value=words.start)
    embeddings, decoder = model.embeddings, model.decoder
    with model.in_precision():
        states = model.reader(embeddings(rows.ids, marks.segments), rows.mask)
        source = Source(states=states, mask=rows.mask, ids=rows.ids, copyable=marks.copyable)
        memory = decoder.remember(source, embeddings)
        written = decoder(inputs, memory, embeddings)
        log_probs = decoder.target_log_probs(written, targets, memory, embeddings)
    keep = targets != words.pad
    loss: Tensor = -(log_probs * keep).sum() / keep.sum()
    return loss


@dataclass(frozen=True, slots=True)
class PairIds:
    """A tokenised pair.

    Attributes:
        question, passage: The two sides.
        wrong: A passage that looks right and is not; empty where none is known.
    """

    question: list[int]
    passage: list[int]
    wrong: list[int]


def pair_loss(model: Parts, batch: list[PairIds], words: SubwordTokenizer) -> Tensor:
    """InfoNCE over the batch, both ways, in nats (Karpukhin et al., 2020, equation 2).

    Questions choose among the passages and the wrong ones, passages among the questions.
    """
    right = [pair.passage for pair in batch]
    told = right + [pair.wrong for pair in batch if pair.wrong]
    asked = _embed(model, [pair.question for pair in batch], words)
    scores = asked.float() @ _embed(model, told, words).float().T / TEMPERATURE
    target = torch.arange(len(batch), device=model.device)
    # A passage that stands in the batch twice is no negative of itself.
    same = torch.tensor([[a == b for b in told] for a in right], device=model.device)
    own = torch.eye(len(batch), len(told), dtype=torch.bool, device=model.device)
    scores = scores.masked_fill(same & ~own, -1e9)
    back = scores[:, : len(batch)].T
    both = functional.cross_entropy(scores, target) + functional.cross_entropy(back, target)
    return both / 2


def _embed(model: Parts, texts: list[list[int]], words: SubwordTokenizer) -> Tensor:
    ids = padded(texts, words).to(model.device)
    mask = ids != words.pad
    with model.in_precision():
        states = model.retriever(model.embeddings(ids, torch.zeros_like(ids)), mask)
    return mean_pool(states, mask)


def masked_loss(model: Parts, batch: list[list[int]], words: SubwordTokenizer, step: int) -> Tensor:
    """Masked words through the decoder's own head, in nats a word (Devlin et al., 2019).

    The two encoders take turns, so that both know the language before a question is asked.
    """
    ids = padded(batch, words)
    masked = mask_tokens(
        ids,
        ids >= len(SPECIAL),
        words=Words(words.mask, len(SPECIAL), len(words)),
        generator=torch.Generator().manual_seed(step),
    )
    read, labels = masked.ids.to(model.device), masked.labels.to(model.device)
    layers = model.reader if step % 2 else model.retriever
    with model.in_precision():
        states = layers(model.embeddings(read, torch.zeros_like(read)), read != words.pad)
        asked = labels != IGNORED
        logits = model.decoder.vocabulary_logits(states[asked], model.embeddings)
    if not bool(asked.any()):
        return logits.sum()
    return functional.cross_entropy(logits.float(), labels[asked])


def padded(rows: list[list[int]], words: SubwordTokenizer) -> Tensor:
    """`[rows, length]` ids, padded at the end."""
    length = max(map(len, rows))
    return torch.tensor([row + [words.pad] * (length - len(row)) for row in rows])


@dataclass(slots=True)
class Stream:
    """An endless stream of batches of one kind; its position is its number of batches taken.

    Attributes:
        lengths: Ids of each example.
        budget: Ids of a batch, its padding included.
        seed: Of the shuffles.
        share: How often it is drawn, beside the others' shares.
        loss: Of the examples with these numbers, at a step.
        taken: Batches taken so far.
    """

    lengths: list[int]
    budget: int
    seed: int
    share: float
    loss: Callable[[Parts, list[int], int], Tensor]
    taken: int = 0
    _batches: Iterator[list[int]] = field(default_factory=lambda: iter(()))
    _epoch: int = 0

    def next(self) -> list[int]:
        """Numbers of the next batch; a new shuffle every epoch."""
        batch = next(self._batches, None)
        while batch is None:
            rng = random.Random(self.seed + self._epoch)
            self._batches = iter(buckets(self.lengths, self.budget, rng))
            self._epoch += 1
            batch = next(self._batches, None)
        self.taken += 1
        return batch

    def skip(self, taken: int) -> None:
        """Go on where an interrupted run stopped."""
        while self.taken < taken:
            self.next()


def tokenise_pairs(found: list[Pair], words: SubwordTokenizer) -> list[PairIds]:
    """Ids of all sides with start and separator."""

    def rows(texts: list[str], most: int) -> list[list[int]]:
        ids = [tokens.ids[:most] for tokens in words.encode(texts)]
        return [[words.start, *one, words.separator] if one else [] for one in ids]

    questions = rows([pair.question for pair in found], 48)
    passages = rows([pair.passage for pair in found], 144)
    wrong = rows([pair.wrong for pair in found], 144)
    sides = zip(questions, passages, wrong, strict=True)
    return [PairIds(q, p, w) for q, p, w in sides if q and p]


def rate_at(done: float) -> float:
    """Share of the full rate: up over 4 %, then down to 2 % along a straight line."""
    return min(done / 0.04, 1.0) * max(0.02, (1.0 - done) / 0.96)


def tokenise_plain(texts: list[str], words: SubwordTokenizer) -> list[list[int]]:
    """Rows of plain text, a start before and a separator after each stretch of a window."""
    rows = []
    for tokens in words.encode(texts):
        for begin in range(0, len(tokens.ids), WINDOW - 2):
            stretch = tokens.ids[begin : begin + WINDOW - 2]
            rows.append([words.start, *stretch, words.separator])
    return rows


def reading_stream(
    found: list[Reading], words: SubwordTokenizer, *, budget: int, seed: int, share: float
) -> Stream:
    """Readings, to be answered."""
    examples = tokenise_readings(found, words)

    def loss(model: Parts, batch: list[int], _: int) -> Tensor:
        return reading_loss(model, [examples[i] for i in batch], words)

    return Stream([len(e.row.ids) for e in examples], budget, seed, share, loss)


def pair_stream(
    found: list[Pair], words: SubwordTokenizer, *, budget: int, seed: int, share: float
) -> Stream:
    """Pairs, to be found."""
    pairs = tokenise_pairs(found, words)

    def loss(model: Parts, batch: list[int], _: int) -> Tensor:
        return pair_loss(model, [pairs[i] for i in batch], words)

    lengths = [len(p.question) + len(p.passage) + len(p.wrong) for p in pairs]
    return Stream(lengths, 2 * budget, seed, share, loss)


def plain_stream(
    texts: list[str], words: SubwordTokenizer, *, budget: int, seed: int, share: float
) -> Stream:
    """Plain texts, with words masked."""
    rows = tokenise_plain(texts, words)

    def loss(model: Parts, batch: list[int], step: int) -> Tensor:
        return masked_loss(model, [rows[i] for i in batch], words, step)

    return Stream([len(row) for row in rows], budget, seed, share, loss)


@dataclass(slots=True)
class Position:
    """How far a stage is.

    Attributes:
        seen: Ids read.
        step: Steps taken.
    """

    seen: int = 0
    step: int = 0


class Stage:
    """One learning stage in its own folder.

    Args:
        place: The folder: `checkpoint.pt` while it learns, `model/` once it is done.
        model: Where it starts from.
        streams: What it learns from, by name.
        tokens: Ids to read.
        schedule: How it computes and how often it saves.
    """

    def __init__(
        self,
        place: Path,
        model: Parts,
        streams: Mapping[str, Stream],
        *,
        tokens: int,
        schedule: Schedule,
    ) -> None:
        self.place, self.tokens, self.schedule = place, tokens, schedule
        self.model = model.to(schedule.device)
        self.model.mixed = schedule.precision == "bfloat16"
        for part in set(RATES) - set(schedule.parts):
            getattr(self.model, part).requires_grad_(False)
        self.streams = {name: stream for name, stream in streams.items() if stream.lengths}
        if not self.streams:
            raise SystemExit(f"the stage {place.name} found nothing to learn from in the data")
        self.at = Position()
        self.optimiser = torch.optim.AdamW(
            [
                {"params": list(getattr(model, part).parameters()), "lr": rate, "base": rate}
                for part, rate in RATES.items()
                if part in schedule.parts
            ],
            betas=(0.9, 0.98),
            weight_decay=0.01,
            fused=True,
        )
        self.log: dict[str, list[float]] = {}

    def run(self, tokenizer: str) -> dict[str, float]:
        """Learn to the end, from the checkpoint where there is one, and write the model."""
        self.place.mkdir(parents=True, exist_ok=True)
        self._resume()
        begun, before = time.monotonic(), self.at.seen
        while self.at.seen < self.tokens:
            self._step()
            if self.at.step % self.schedule.save_every == 0:
                self._tell((self.at.seen - before) / (time.monotonic() - begun))
                self._save()
        self._save()
        weights = {name: value.cpu() for name, value in self.model.state_dict().items()}
        write_folder(self.place / "model", self.model.config, weights, tokenizer)
        return {"ids": self.at.seen, "steps": self.at.step}

    def _step(self) -> None:
        done, names = self.at.seen / self.tokens, list(self.streams)
        draw = random.Random(f"{self.place.name} {self.at.step}")
        shares = [self.streams[name].share for name in names]
        (name,) = draw.choices(names, shares)
        stream = self.streams[name]
        batch = stream.next()
        loss = stream.loss(self.model, batch, self.at.step)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for group in self.optimiser.param_groups:
            group["lr"] = group["base"] * rate_at(done)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.at.seen += sum(stream.lengths[i] for i in batch)
        self.at.step += 1
        self.log.setdefault(name, []).append(loss.item())

    def _tell(self, rate: float) -> None:
        line = {name: round(sum(all_) / len(all_), 4) for name, all_ in self.log.items()}
        told = {"step": self.at.step, "seen": self.at.seen, "rate": round(rate), **line}
        with (self.place / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(told) + "\n")
        self.log.clear()

    def _save(self) -> None:
        """A checkpoint, all or nothing."""
        part = self.place / "checkpoint.part"
        held = {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "taken": {name: stream.taken for name, stream in self.streams.items()},
            "seen": self.at.seen,
            "step": self.at.step,
        }
        torch.save(held, part)
        part.replace(self.place / "checkpoint.pt")

    def _resume(self) -> None:
        # A folder of a model without its manifest is torn: its checkpoint is still there.
        shutil.rmtree(self.place / "model", ignore_errors=True)
        path = self.place / "checkpoint.pt"
        if not path.is_file():
            return
        held = torch.load(path, weights_only=True, map_location=self.model.device)
        self.model.load_state_dict(held["model"])
        self.optimiser.load_state_dict(held["optimiser"])
        self.at = Position(held["seen"], held["step"])
        for name, taken in held["taken"].items():
            self.streams[name].skip(taken)
