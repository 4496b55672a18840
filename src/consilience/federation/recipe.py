"""A recipe as one place trains by it, and what places compare before they train together.

A recipe is a config of `consilience train` as it was written. Whoever trains by it puts data,
store, model and output of its own in; what one place alone can decide, such as when to measure, is
taken out. It opens no store and reads no question.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from consilience.errors import UsageError
from consilience.federation.config import FederationConfig
from consilience.federation.travelling import has_adapters
from consilience.model.rag import Rag
from consilience.training.config import DataSettings, TrainConfig
from consilience.training.preparing import merged_adapters
from consilience.training.settings import as_json, merged, parse_settings


@dataclass(frozen=True, slots=True)
class Own:
    """What a place puts into a recipe.

    Attributes:
        model: The model that it starts from; None for the one that ships.
        store: Its knowledge base.
        data: Its questions.
        output: Where training writes.
    """

    model: str | None
    store: Path | None
    data: DataSettings
    output: Path


def settings_of(
    recipe: Mapping[str, Any], config: FederationConfig, own: Own, *, source: str
) -> TrainConfig:
    """The settings of one place.

    The rate is constant and begins at once, since a round is short and its optimiser is fresh,
    unless the recipe says otherwise. The seed is the federation's.

    Args:
        recipe: As it was written.
        config: Of the federation.
        own: What is put in.
        source: Where the recipe comes from, for people.

    Raises:
        UsageError: Mistakes in it, or something that one place alone would know.
    """
    values = merged({"schedule": "constant", "warmup": 0, **recipe}, _put_in(recipe, config, own))
    found = parse_settings(TrainConfig, values, source=source)
    if alone := list(_alone(found, config)):
        raise UsageError(
            "a recipe that parties cannot share: " + "; ".join(alone),
            hint="leave it out; new words and teachers are for consilience train, from whose model "
            "a federation can begin",
        )
    return found


def _put_in(recipe: Mapping[str, Any], config: FederationConfig, own: Own) -> dict[str, Any]:
    adapter = recipe.get("adapter") or {}
    lacks = has_adapters(config.travel.kind) and adapter.get("kind", "none") == "none"
    return {
        "output": str(own.output),
        "model": own.model,
        "store": None if own.store is None else str(own.store),
        "data": as_json(own.data),
        "seed": config.seed,
        "report_to": [],
        "evaluate_every": None,
        "patience": None,
        **({"adapter.kind": "lora"} if lacks else {}),
    }


def _alone(found: TrainConfig, config: FederationConfig) -> Iterator[str]:
    if found.vocabulary.tokens:
        yield "vocabulary adds the words of one party's own texts"
    if found.distil.teacher is not None:
        yield "distil asks a teacher over one party's own passages"
    if found.text.train or found.ranking.teacher is not None:
        yield "text and ranking name files of one party"
    if found.fsdp:
        yield "fsdp shares weights out among processes, and a party trains in one"
    if "hybrid_weights" in found.train:
        yield "hybrid_weights learns shares that do not travel"
    if config.privacy.epsilon is not None:
        yield from _not_private(found)


def _not_private(found: TrainConfig) -> Iterator[str]:
    """What noisy steps, which all have one size, would leave out."""
    if found.encoder_rate is not None:
        yield "encoder_rate is a second rate, and privacy takes steps of one"
    if found.schedule != "constant" or found.warmup:
        yield "privacy takes steps of one rate, so schedule must be constant and warmup 0"


def tokenizer_fingerprint(rag: Rag) -> str:
    """Digest of all tokenizers of a model, 32 hexadecimal digits."""
    digest = hashlib.sha256()
    for part in (rag.encoder, rag.model.generator):
        for name in ("words", "tokens", "tokenizer"):
            digest.update(_spelled(getattr(part, name, None)).encode(errors="replace"))
    return digest.hexdigest()[:32]


def _spelled(tokenizer: Any) -> str:
    """Everything that a tokenizer does, as text; empty for None."""
    if hasattr(tokenizer, "to_json"):
        return str(tokenizer.to_json())
    if tokenizer is None or not hasattr(tokenizer, "backend_tokenizer"):
        return ""
    found = json.loads(tokenizer.backend_tokenizer.to_str())
    # How the last text was cut and padded, which is no part of it.
    return json.dumps(found | {"truncation": None, "padding": None}, sort_keys=True)


def save_whole(rag: Rag, place: Path) -> str:
    """Write a model with its adapters merged, there whole or not at all; returns where."""
    part = place.with_name(f".{place.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    with merged_adapters(rag.model):
        rag.save(part)
    shutil.rmtree(place, ignore_errors=True)
    part.rename(place)
    return str(place)
