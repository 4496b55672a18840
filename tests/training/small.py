"""A store, questions and a model small enough to train in a test."""

import json
from pathlib import Path
from typing import Any

import pytest

from consilience.documents import Document
from consilience.encoding import load_encoder
from consilience.model import Rag
from consilience.questions import read_questions
from consilience.store import Store
from consilience.training.config import TrainConfig
from consilience.training.run import train
from consilience.training.session import Session
from consilience.training.settings import parse_settings
from consilience.training.watching import JsonLog
from tests.compat.tiny_rag import PASSAGES, write_checkpoint
from tests.tiny import write_tiny_model

THINGS = ["bank", "ward", "card", "exam", "fee", "hours", "visit", "bus"]
"""What is asked about; the passage that names a thing has a number of its own."""


def number_of(place: int) -> str:
    return str((place * 7 + 3) % 10)


def write_world(folder: Path, *, things: int = 8) -> dict[str, Path]:
    """Passages `the fee is 3`, questions `what is the fee`: only retrieval has the answer."""
    model = write_tiny_model(folder / "start", seed=3)
    store = Store.open(folder / "store", encoder=load_encoder(model))
    lines = []
    for place, thing in enumerate(THINGS[:things]):
        store.add(Document(f"the {thing} is {number_of(place)}", source=f"{thing}.txt", title=""))
        (found,) = [one for one in _passages(store) if one.source == f"{thing}.txt"]
        record = {
            "question": f"what is the {thing}",
            "answers": [number_of(place)],
            "positive_ids": [found.id],
        }
        lines += [json.dumps(record)] * 4
    store.close()
    data = folder / "train.jsonl"
    data.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {"model": model, "store": folder / "store", "data": data}


def write_dpr_world(folder: Path) -> dict[str, Path]:
    """A checkpoint of transformers, whose two encoders share nothing, with questions of its own."""
    model = write_checkpoint(folder / "start")
    with Store.open(folder / "store", encoder=Rag.load(model).encoder) as store:
        store.add(
            *(Document(str(one["text"]), str(one["title"]), str(one["title"])) for one in PASSAGES)
        )
    answers = {"fee": "nine", "ward": "noon", "tower": "1889", "london": "old"}
    lines = [
        json.dumps({"question": f"what is the {thing}", "answers": [answer]})
        for thing, answer in answers.items()
    ]
    data = folder / "train.jsonl"
    data.write_text("".join(f"{line}\n" for line in lines * 4), encoding="utf-8")
    return {"model": model, "store": folder / "store", "data": data}


def _passages(store: Store) -> Any:
    with store.changes(0) as changes:
        numbers = [row.number for batch in changes.added for row in batch]
    return list(store.passages(numbers).values())


def config_of(world: dict[str, Path], output: Path, **values: Any) -> TrainConfig:
    """Settings that train in seconds."""
    settings: dict[str, Any] = {
        "output": str(output),
        "model": str(world["model"]),
        "store": str(world["store"]),
        "data": {"train": [str(world["data"])]},
        "steps": 6,
        "batch": 8,
        "k": 3,
        "learning_rate": 3e-3,
        "warmup": 0,
        "schedule": "constant",
        "log_every": 1,
        "save_every": 2,
        "report_to": [],
        **values,
    }
    return parse_settings(TrainConfig, settings, source="test")


def opened_session(config: TrainConfig) -> tuple[Session, Store]:
    """What a run opens: its session, and the store that the caller closes."""
    assert config.store is not None
    store = Store.open(config.store, create=False)
    sets = [read_questions(path) for path in config.data.train]
    dev = [one for path in config.data.dev for one in read_questions(path)]
    return Session(config, store, sets, dev), store


def logged(output: Path, name: str) -> list[float]:
    """A number of the log, step by step."""
    lines = [json.loads(line) for line in (output / "log.jsonl").open(encoding="utf-8")]
    return [line[name] for line in lines if name in line]


class StopError(BaseException):
    """Stands for a process that ends between two steps."""


def train_until(config: TrainConfig, step: int) -> None:
    """A run whose process ends once a step was logged."""
    real = JsonLog.on_log

    def stopping(self: JsonLog, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        real(self, args, state, control, **kwargs)
        if state.global_step == step:
            raise StopError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JsonLog, "on_log", stopping)
        with pytest.raises(StopError):
            train(config)
