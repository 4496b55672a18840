"""The model that ships, from a folder of open data sets to packed weights: one command.

    python recipes/shipped_model/ship.py DATA RUN --schedule cpu --dry-run
    python recipes/shipped_model/ship.py DATA RUN --schedule cpu

It may be ended at any moment, by SIGKILL too: the same command goes on. `RUN/state.json` says which
stage stands where; stages that learn keep their own checkpoints.

    vocabulary   the tokens, first embeddings of new characters, the model to begin with
    pretrain     masked words and sentences with their surroundings, on plain text
    questions    self-made questions over plain text
    knowledge    every paragraph in one store, with vectors
    supervised   people's questions in both languages: over their own passage, over found and
                 misleading ones, without an answer, across languages
    joint        the sum over retrieved passages, the store's vectors made anew now and then
    tasks        classes and summaries as questions, readings among them
    pack         matrices in eight bits
    settings     thresholds of the support, what the confidence is made of and weights of the
                 hybrid, on questions kept back
"""

import argparse
import json
import random
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from mixture import (
    Pair,
    Reading,
    cloze_readings,
    pairs,
    plain_pairs,
    plain_texts,
    readings,
)
from pack import pack
from passages import (
    fill,
    found_readings,
    hard_pairs,
    joint_questions,
    replayed,
    task_questions,
)
from schedule import LEARNING, SCHEDULES, Schedule, schedule_named
from settings import confidence, searching, thresholds
from state import State, write_whole
from tables import table_readings
from train import (
    Example,
    Parts,
    Stage,
    Stream,
    further,
    initial,
    pair_stream,
    plain_stream,
    reading_loss,
    reading_stream,
)
from vocabulary import write_vocabulary

from consilience.encoding import load_encoder
from consilience.encoding.folder import write_folder
from consilience.encoding.tokenizer import SPECIAL, SubwordTokenizer, build_tokenizer
from consilience.generation.reading import Row
from consilience.model import Rag
from consilience.questions import Question
from consilience.questions.write import write_questions
from consilience.store import Store

Facts = dict[str, Any]

CUT_ANEW = 2
"""How often the passages of a person's question are cut: each time elsewhere around the answer."""


@dataclass(frozen=True, slots=True)
class Run:
    """What every stage is told.

    Attributes:
        data: The folder of data sets.
        place: The run's folder.
        out: Where the packed weights go.
        schedule: How much.
    """

    data: Path
    place: Path
    out: Path
    schedule: Schedule

    @property
    def words(self) -> SubwordTokenizer:
        """The tokenizer of the run."""
        return SubwordTokenizer.load(self.place / "tokenizer.json")

    def before(self, stage: str) -> Path:
        """The model that a stage begins with: that of the last one before it that learns."""
        order = list(STAGES)
        earlier = [name for name in self.schedule.stages if order.index(name) < order.index(stage)]
        return self.place / (earlier[-1] if earlier else "vocabulary") / "model"


def vocabulary(run: Run) -> Facts:
    """Tokens of both languages, and the model before its first step."""
    tokens = write_vocabulary(run.data, run.place, run.schedule)
    model, tokenizer = initial(run.place, run.schedule), run.place / "tokenizer.json"
    told = tokenizer.read_text(encoding="utf-8")
    write_folder(run.before("pretrain"), model.config, model.state_dict(), told)
    return {"tokens": tokens}


def pretrain(run: Run) -> Facts:
    """Masked words, and sentences with what stands around them."""
    texts, words, budget = plain_texts(run.data, run.schedule.plain), run.words, run.schedule.batch
    streams = {"masked": plain_stream(texts, words, budget=budget, seed=400, share=0.7)}
    return learned(run, "pretrain", streams | surroundings(run, texts))


def questions(run: Run) -> Facts:
    """Questions that are made from plain text, kept in a file, and answered."""
    made, path = cloze_readings(run.data, run.schedule.plain), run.place / "made.jsonl"
    lines = (json.dumps(asdict(one), ensure_ascii=False) for one in made)
    write_whole(path, "".join(f"{line}\n" for line in lines))
    texts, words, budget = plain_texts(run.data, run.schedule.plain), run.words, run.schedule.batch
    streams = {"made": reading_stream(made, words, budget=budget, seed=200, share=0.7)}
    return learned(run, "questions", streams | surroundings(run, texts))


def surroundings(run: Run, texts: list[str]) -> dict[str, Stream]:
    """Sentences with what stands around them, where the retriever is taught."""
    if not run.schedule.teaches_finding:
        return {}
    words, budget = run.words, run.schedule.batch
    return {"pairs": pair_stream(plain_pairs(texts), words, budget=budget, seed=500, share=0.3)}


def knowledge(run: Run) -> Facts:
    """The paragraphs that questions are asked of."""
    encoder = load_encoder(run.before("knowledge"))
    place = run.place / "knowledge"
    return {"passages": fill(run.data, place, most=run.schedule.paragraphs, encoder=encoder)}


def supervised(run: Run) -> Facts:
    """People's questions."""
    words, budget, read = run.words, run.schedule.batch, readings(run.data, times=CUT_ANEW)
    found, hard = searched(run, read)
    tables = table_readings(run.data)
    streams = {
        "reading": reading_stream(read, words, budget=budget, seed=100, share=0.45),
        "tables": reading_stream(tables, words, budget=budget, seed=120, share=0.15),
        "found": reading_stream(found, words, budget=budget, seed=150, share=0.1),
    }
    if run.schedule.teaches_finding:
        told = pairs(run.data)
        streams["pairs"] = pair_stream(told, words, budget=budget, seed=300, share=0.2)
        streams["hard"] = pair_stream(hard, words, budget=budget, seed=350, share=0.1)
    return learned(run, "supervised", streams)


def searched(run: Run, read: list[Reading]) -> tuple[list[Reading], list[Pair]]:
    """What a search finds for the questions: to be read, and to be told from what is right."""
    rng, most, each = random.Random(11), run.schedule.paragraphs, run.schedule.negatives
    with Store.open(run.place / "knowledge", create=False) as store:
        found = found_readings(store, read, most=most, rng=rng)
        if not run.schedule.teaches_finding:
            return found, []
        return found, hard_pairs(store, read, each=each, most=most, rng=rng)


def learned(run: Run, name: str, streams: Mapping[str, Stream]) -> Facts:
    """One stage of the loop in `train`."""
    tokens, tokenizer = run.schedule.tokens[name], run.place / "tokenizer.json"
    model = further(run.before(name))
    stage = Stage(run.place / name, model, streams, tokens=tokens, schedule=run.schedule)
    return dict(stage.run(tokenizer.read_text(encoding="utf-8")))


def joint(run: Run) -> Facts:
    """Retriever and generator together, by the likelihood of the answer summed over passages."""
    asked = joint_questions(run.data)
    told = {
        "store": str(run.place / "knowledge"),
        "objectives": {"sequence": 1.0, "info_nce": 0.2},
        "train": ["question_encoder", "passage_encoder", "generator", "temperature"],
        "refresh": {"mode": "synchronous", "every": run.schedule.refresh_every},
        "k": run.schedule.k,
    }
    return trained(run, "joint", asked, told, read=run.schedule.k + 2)


def tasks(run: Run) -> Facts:
    """Tasks other than reading; only the generator moves, so that vectors stay what they are."""
    asked = task_questions(run.data)
    asked += replayed(readings(run.data), len(asked), random.Random(12))
    told = {"objectives": {"reader": 1.0}, "train": ["generator"]}
    return trained(run, "tasks", asked, told, read=1)


def trained(run: Run, name: str, asked: list[Question], told: Facts, *, read: int) -> Facts:
    """One stage of the package's own trainer, which goes on by itself.

    Args:
        run: The run.
        name: The stage.
        asked: What it learns from.
        told: Its settings beyond those that every stage has.
        read: Passages that a question costs.
    """
    from consilience.training.config import TrainConfig
    from consilience.training.run import train
    from consilience.training.settings import parse_settings

    schedule, place = run.schedule, run.place / f"{name}.jsonl"
    write_questions(place, asked)
    cost = schedule.joint_batch * read * mean_ids(asked, run.words)
    steps = max(1, round(schedule.tokens[name] / cost))
    values = {
        "output": str(run.place / name),
        "model": str(run.before(name)),
        "data": {"train": [str(place)], "negatives": 1},
        "steps": steps,
        "warmup": min(100, steps // 10),
        "batch": schedule.joint_batch,
        "save_every": min(schedule.save_every, steps),
        "precision": schedule.precision,
        "report_to": [],
        **told,
    }
    done = train(parse_settings(TrainConfig, values, source=name))
    return {"ids": round(done.steps * cost), "steps": done.steps}


def mean_ids(asked: Sequence[Question], words: SubwordTokenizer) -> float:
    """Ids of a question with its passage, the mean over some."""
    some = asked[:: max(1, len(asked) // 256)]
    found = words.encode([f"{one.question} {one.context}" for one in some])
    return sum(len(tokens.ids) for tokens in found) / len(some)


def packed(run: Run) -> Facts:
    """Eight bits a weight."""
    pack(run.before("pack"), run.place / "packed", {})
    size = sum(path.stat().st_size for path in (run.place / "packed").iterdir())
    return {"bytes": size}


def chosen(run: Run) -> Facts:
    """The settings, measured on the packed weights; and the packed weights with them."""
    rag, found = Rag.load(run.place / "packed"), Facts()
    place = run.place / "joint" if run.schedule.tokens["joint"] else run.place
    with Store.open(place / "knowledge", create=False) as store:
        assert rag.encoder is not None
        store.re_embed(rag.encoder)
        if run.schedule.vectors_move:
            found |= searching(rag, store, run.data, most=600)
        pack(run.before("settings"), run.out, found)
        rag = Rag.load(run.out)
        found["support_thresholds"] = thresholds(rag, store, run.data, most=300)
        found["confidence"] = confidence(rag, store, run.data, most=100)
    pack(run.before("settings"), run.out, found)
    return found


STAGES: dict[str, Callable[[Run], Facts]] = {
    "vocabulary": vocabulary,
    "pretrain": pretrain,
    "questions": questions,
    "knowledge": knowledge,
    "supervised": supervised,
    "joint": joint,
    "tasks": tasks,
    "pack": packed,
    "settings": chosen,
}


def ship(run: Run) -> State:
    """Run every stage that is not done."""
    run.place.mkdir(parents=True, exist_ok=True)
    state = State(run.place, run.schedule)
    for name, work in STAGES.items():
        left_out = name in LEARNING and name not in run.schedule.stages
        if not left_out and not state.is_done(name):
            print(f"{name} …", flush=True)
            state.begin(name)
            begun = time.monotonic()
            facts = work(run)
            state.end(name, seconds=round(time.monotonic() - begun, 1), **facts)
        # Three times the weights, and of no use once the next stage can start from the model.
        (run.place / name / "checkpoint.pt").unlink(missing_ok=True)
        for old in (run.place / name).glob("checkpoint-*"):
            shutil.rmtree(old)
    return state


def measured_rate(schedule: Schedule, *, steps: int = 3) -> float:
    """Ids a second of this machine, learning to read with a model of these sizes."""
    size = int(schedule.sizes.get("vocabulary_size", 32_000))
    words = build_tokenizer(
        {t: i for i, t in enumerate([*SPECIAL, *(f"w{i}" for i in range(size))])}
    )
    model = Parts(schedule.config(len(words))).to(schedule.device)
    model.mixed = schedule.precision == "bfloat16"
    optimiser = torch.optim.AdamW(model.parameters())
    row = [words.start, *range(6, 16), words.separator, *range(16, 16 + 146), words.separator]
    ids = [one % len(words) for one in row]
    batch = [Example(Row(ids, 12, []), [20, words.separator])] * max(1, schedule.batch // len(ids))
    begun = 0.0
    for step in range(steps + 1):
        if step == 1:
            begun = time.perf_counter()
        torch.autograd.backward(reading_loss(model, batch, words))
        optimiser.step()
        optimiser.zero_grad()
        if schedule.device == "cuda":
            torch.cuda.synchronize()
    return steps * len(batch) * len(ids) / (time.perf_counter() - begun)


def plan(schedule: Schedule, state: State | None, rate: float) -> str:
    """What would be run, with the hours that learning takes at a rate."""
    lines = [f"{'stage':12} {'state':8} {'ids':>15} {'hours':>8}"]
    for name in STAGES:
        stands = state.stage(name)["state"] if state else "waiting"
        ids = schedule.tokens.get(name, 0)
        told = f"{ids:,}" if ids else ""
        hours = f"{ids / rate / 3600:8.2f}" if name in LEARNING else ""
        lines.append(f"{name:12} {stands:8} {told:>15} {hours}".rstrip())
    total = sum(schedule.tokens.values())
    lines.append(f"{'together':21} {total:>15,} {total / rate / 3600:8.2f}")
    lines.append(f"at {rate:,.0f} ids a second")
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> None:
    """Run the recipe, or say what it would do."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--schedule", default="cpu", help=f"{', '.join(SCHEDULES)} or a JSON file")
    parser.add_argument("--out", type=Path, help="where the weights go; RUN/model if left out")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and do nothing")
    parser.add_argument("--rate", type=float, help="ids a second, instead of measuring")
    args = parser.parse_args(words)
    schedule = schedule_named(args.schedule)
    torch.set_num_threads(schedule.threads)
    if args.dry_run:
        begun = State(args.run, schedule) if (args.run / "state.json").is_file() else None
        print(plan(schedule, begun, args.rate or measured_rate(schedule)))
        return
    out = args.out or args.run / "model"
    ship(Run(args.data, args.run, out, schedule))
    print(out)


if __name__ == "__main__":
    main()
