"""Three parties with documents of their own, and one store that holds all of them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from consilience.documents import Document
from consilience.encoding import load_encoder
from consilience.encoding.folder import write_folder
from consilience.federation.assembling import resident
from consilience.federation.config import PartyConfig
from consilience.federation.party import ResidentParty
from consilience.store import Store
from consilience.training.settings import parse_settings
from tests.tiny import tiny_config, tiny_tensors, tiny_tokenizer

DOCUMENTS: Mapping[str, tuple[str, ...]] = {
    "hospital": (
        "the visit hours of the ward are from 14:30 to 20:00. children come with an adult.",
        "the exam fee is 19 yuan. bring the card to the ward.",
        "门诊时间是上午。医院费用多少？考试费用是有的。",
    ),
    "bank": (
        "a new card is 40 yuan. the bank card fee is 7 yuan a year.",
        "the bank hours are from 9:00 to 17:00. who is late waits.",
        "银行贷款是有费用的。卡是大的。",
        "what is lost is found at the bank.",
    ),
    "university": (
        "the exam is in june. the exam hours are from 8:00 to 12:00.",
        "考试时间是上午。中国大的学院在上。",
    ),
}

QUESTIONS = (
    "what is the fee",
    "who is in the ward",
    "what are the hours of the bank",
    "费用是多少？",
    "考试时间是什么？",
)


@dataclass(frozen=True)
class Town:
    """Where everything is."""

    folder: Path
    model: Path
    whole: Path

    def party(self, name: str, tells: str = "answer", **values: Any) -> ResidentParty:
        """A party as its file would describe it."""
        return resident(self.config(name, tells, **values))

    def config(self, name: str, tells: str = "answer", **values: Any) -> PartyConfig:
        asking = {"tells": tells, **values.pop("asking", {})}
        settings = {
            "name": name,
            "state": str(self.folder / "states" / name),
            "store": str(self.folder / name),
            "model": str(self.model),
            "asking": asking,
            **values,
        }
        return parse_settings(PartyConfig, settings, source="test", verb="federate")


def write_town(folder: Path, seed: int = 2, least: float = 0.0) -> Town:
    """Stores by party, one of all documents, and the model of all."""
    model = write_sharp_model(folder / "model", seed, least)
    town = Town(folder, model, folder / "whole")
    for name, texts in DOCUMENTS.items():
        fill(folder / name, model, name, texts)
        fill(town.whole, model, name, texts)
    return town


def write_sharp_model(folder: Path, seed: int, least: float = 0.0) -> Path:
    """Random weights that differ more, so that answers, supports and shares do."""
    words = tiny_tokenizer()
    thresholds = dict.fromkeys(("zh", "en", "other"), least)
    config = replace(
        tiny_config(words),
        prior_temperature=0.1,
        support_thresholds=thresholds,
        confidence={"bias": 0.2, "support": 0.8, "likelihood": 0.5},
    )
    tensors = {
        name: 3 * value if name.startswith(("decoder", "reader")) and value.dim() > 1 else value
        for name, value in tiny_tensors(config, seed).items()
    }
    tensors["decoder.bias"] = tensors["decoder.bias"].clone()
    tensors["decoder.bias"][words.none] += 5
    folder.mkdir(parents=True)
    write_folder(folder, config, tensors, words.to_json())
    return folder


def fill(place: Path, model: Path, name: str, texts: tuple[str, ...]) -> None:
    """Documents of a party in a store; the source says whose they are."""
    store = Store.open(place, encoder=load_encoder(model))
    for number, text in enumerate(texts):
        store.add(Document(text, source=f"{name}-{number}.txt", title=name))
    store.close()
