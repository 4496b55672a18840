"""Stage 2: one loop that teaches the generator to read and the retriever to find.

Every step takes one batch of one task: self-made cloze questions (first part only), supervised
reading, or retrieval with in-batch negatives (InfoNCE). Embeddings are shared by all. The schedule
is counted in tokens; the run resumes from its last checkpoint by itself.

    python recipes/shipped_model/train.py DATA RUN --tokens 14000000
"""

import argparse
import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from mixture import Pair, Reading, cloze_readings, minilm_folder, pairs, readings
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from consilience.encoding.bert import Embeddings, EncoderStack, TransformerShape, mean_pool
from consilience.encoding.tokenizer import SubwordTokenizer
from consilience.generation.copying import CopyDecoder, Source
from consilience.generation.reading import Row, collate, join, mark

RATES = {"embeddings": 2e-4, "retriever": 6e-5, "reader": 1.5e-4, "decoder": 5e-4}
TEMPERATURE = 0.05


class Parts(nn.Module):
    """All that is trained, under the names of a model folder.

    Attributes:
        mixed: Whether matrix products are in bfloat16; a processor without it is faster without.
    """

    def __init__(self, shape: TransformerShape) -> None:
        super().__init__()
        self.mixed = True
        self.embeddings = Embeddings(shape)
        self.retriever = EncoderStack(shape, 6)
        self.reader = EncoderStack(shape, 6)
        self.decoder = CopyDecoder(shape, 3)


def initial(run: Path) -> Parts:
    """Both encoders as MiniLM's, the decoder's blocks as its upper layers, new embeddings."""
    old = load_file(minilm_folder() / "model.safetensors")
    words = load_file(run / "embeddings.safetensors")["word_embeddings"]
    layers = {k.removeprefix("encoder."): v for k, v in old.items() if k.startswith("encoder.")}
    tables = {
        k.removeprefix("embeddings."): v
        for k, v in old.items()
        if k.startswith("embeddings.") and not k.endswith("position_ids")
    }
    model = Parts(TransformerShape(vocabulary_size=words.shape[0]))
    model.embeddings.load_state_dict(tables | {"word_embeddings.weight": words})
    model.retriever.load_state_dict(layers)
    model.reader.load_state_dict(layers)
    _start_decoder(model.decoder, layers)
    return model


def further(folder: Path) -> Parts:
    """The parts of a packed model, to be trained on; its vocabulary must be that of the run."""
    found = load_file(folder / "model.safetensors")
    words = found["embeddings.word_embeddings.weight"].shape[0]
    model = Parts(TransformerShape(vocabulary_size=words))
    own = model.state_dict().keys()
    model.load_state_dict({name: found[name].float() for name in own})
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
            row = join(question, title, passage, words=words, window=320)
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
    rows = collate([example.row for example in batch], words=words)
    marks = mark(rows, words=words)
    length = max(len(example.target) for example in batch)
    targets = torch.full((len(batch), length), words.pad)
    for index, example in enumerate(batch):
        targets[index, : len(example.target)] = torch.tensor(example.target)
    inputs = functional.pad(targets[:, :-1], (1, 0), value=words.start)
    embeddings, decoder = model.embeddings, model.decoder
    with torch.autocast("cpu", torch.bfloat16, enabled=model.mixed):
        states = model.reader(embeddings(rows.ids, marks.segments), rows.mask)
        source = Source(states=states, mask=rows.mask, ids=rows.ids, copyable=marks.copyable)
        memory = decoder.remember(source, embeddings)
        written = decoder(inputs, memory, embeddings)
        log_probs = decoder.target_log_probs(written, targets, memory, embeddings)
    keep = targets != words.pad
    loss: Tensor = -(log_probs * keep).sum() / keep.sum()
    return loss


def pair_loss(
    model: Parts, batch: list[tuple[list[int], list[int]]], words: SubwordTokenizer
) -> Tensor:
    """InfoNCE over the batch, both ways, in nats (Karpukhin et al., 2020, equation 2)."""
    sides = [_embed(model, [pair[side] for pair in batch], words) for side in (0, 1)]
    scores = sides[0] @ sides[1].T / TEMPERATURE
    target = torch.arange(len(batch))
    # A passage that stands in the batch twice is no negative of itself.
    same = torch.tensor([[a[1] == b[1] for b in batch] for a in batch])
    scores = scores.masked_fill(same & ~torch.eye(len(batch), dtype=torch.bool), -1e9)
    both = functional.cross_entropy(scores, target) + functional.cross_entropy(scores.T, target)
    return both / 2


def _embed(model: Parts, texts: list[list[int]], words: SubwordTokenizer) -> Tensor:
    length = max(map(len, texts))
    ids = torch.tensor([text + [words.pad] * (length - len(text)) for text in texts])
    mask = ids != words.pad
    with torch.autocast("cpu", torch.bfloat16, enabled=model.mixed):
        states = model.retriever(model.embeddings(ids, torch.zeros_like(ids)), mask)
    return mean_pool(states, mask)


class Task:
    """An endless stream of batches of one kind; its position is its number of batches taken."""

    def __init__(self, name: str, lengths: list[int], budget: int, seed: int) -> None:
        self.name, self.lengths, self.budget, self.seed = name, lengths, budget, seed
        self.taken = 0
        self._batches: Iterator[list[int]] = iter(())
        self._epoch = 0

    def next(self) -> list[int]:
        """Indices of the next batch; a new shuffle every epoch."""
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


def tokenise_pairs(found: list[Pair], words: SubwordTokenizer) -> list[tuple[list[int], list[int]]]:
    """Ids of both sides with start and separator."""
    left = words.encode([pair.question for pair in found])
    right = words.encode([pair.passage for pair in found])
    return [
        (
            [words.start, *q.ids[:48], words.separator],
            [words.start, *p.ids[:144], words.separator],
        )
        for q, p in zip(left, right, strict=True)
    ]


def rate_at(done: float) -> float:
    """Share of the full rate: up over 4 %, then down to 2 % along a straight line."""
    return min(done / 0.04, 1.0) * max(0.02, (1.0 - done) / 0.96)


def save(
    run: Path, model: Parts, optimiser: torch.optim.Optimizer, state: dict[str, object]
) -> None:
    """A checkpoint, all or nothing."""
    part = run / "checkpoint.part"
    torch.save({"model": model.state_dict(), "optimiser": optimiser.state_dict(), **state}, part)
    part.replace(run / "checkpoint.pt")


def main() -> None:
    """Train, or go on training, until `--tokens` ids have been read."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--tokens", type=int, default=14_000_000)
    parser.add_argument("--cloze", type=int, default=9000, help="plain texts per language")
    parser.add_argument("--batch", type=int, default=4000, help="ids per step")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=1e9, help="stop here; resumable")
    parser.add_argument("--start", type=Path, help="a packed model to train on from")
    parser.add_argument("--precision", choices=("bfloat16", "float32"), default="bfloat16")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(3)
    words = SubwordTokenizer.load(args.run / "tokenizer.json")
    supervised = tokenise_readings(readings(args.data), words)
    made = tokenise_readings(cloze_readings(args.data, args.cloze), words)
    paired = tokenise_pairs(pairs(args.data), words)
    print(f"{len(supervised)} readings, {len(made)} cloze, {len(paired)} pairs", flush=True)
    tasks = {
        "reading": Task("reading", [len(e.row.ids) for e in supervised], args.batch, 100),
        "cloze": Task("cloze", [len(e.row.ids) for e in made], args.batch, 200),
        "pairs": Task("pairs", [len(q) + len(p) for q, p in paired], args.batch * 2, 300),
    }
    model = initial(args.run) if args.start is None else further(args.start)
    model.mixed = args.precision == "bfloat16"
    groups = [
        {"params": list(getattr(model, part).parameters()), "lr": rate, "base": rate}
        for part, rate in RATES.items()
    ]
    optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    seen, step, begun = 0, 0, time.monotonic()
    if (args.run / "checkpoint.pt").exists():
        old = torch.load(args.run / "checkpoint.pt", weights_only=True)
        model.load_state_dict(old["model"])
        optimiser.load_state_dict(old["optimiser"])
        seen, step = old["seen"], old["step"]
        for name, taken in old["taken"].items():
            tasks[name].skip(taken)
    log = (args.run / "train.jsonl").open("a", buffering=1)
    sums: dict[str, list[float]] = {}
    while seen < args.tokens and time.monotonic() - begun < 60 * args.minutes:
        done = seen / args.tokens
        rng = random.Random(step)
        name = (
            "pairs"
            if rng.random() < 0.3
            else "cloze"
            if rng.random() < 1.2 - 6 * done
            else "reading"
        )
        batch = tasks[name].next()
        if name == "pairs":
            loss = pair_loss(model, [paired[i] for i in batch], words)
            seen += sum(tasks[name].lengths[i] for i in batch)
        else:
            source = supervised if name == "reading" else made
            loss = reading_loss(model, [source[i] for i in batch], words)
            seen += sum(tasks[name].lengths[i] for i in batch)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimiser.param_groups:
            group["lr"] = group["base"] * rate_at(done)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        step += 1
        sums.setdefault(name, []).append(loss.item())
        if step % 50 == 0:
            line = {k: round(sum(v) / len(v), 4) for k, v in sums.items()}
            rate = seen / (time.monotonic() - begun)
            log.write(json.dumps({"step": step, "seen": seen, "rate": round(rate), **line}) + "\n")
            sums.clear()
        if step % 200 == 0:
            taken = {key: task.taken for key, task in tasks.items()}
            save(args.run, model, optimiser, {"seen": seen, "step": step, "taken": taken})
    taken = {key: task.taken for key, task in tasks.items()}
    save(args.run, model, optimiser, {"seen": seen, "step": step, "taken": taken})


if __name__ == "__main__":
    main()
