"""Learners over the small store of the training tests, with the shipped kind and with others."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from consilience.model.rag import Rag
from consilience.model.rag_model import RagModel
from consilience.questions import Context, read_questions
from consilience.store import Store
from consilience.training.examples import Example, make_examples
from consilience.training.learner import Learner
from consilience.training.preparing import prepare
from consilience.training.proposals import PassageIndex
from consilience.training.work import LearnerOptions
from tests.training.small import config_of, write_world


@dataclass
class World:
    """What a party has.

    Attributes:
        folder: Where it lies.
        index: Of its store.
        examples: Eight questions, four times each.
    """

    folder: Path
    paths: dict[str, Path]
    index: PassageIndex
    examples: list[Example]

    def distinct(self) -> list[Example]:
        return self.examples[::4]


@contextmanager
def opened_world(folder: Path) -> Iterator[World]:
    paths = write_world(folder)
    with Store.open(paths["store"], create=False) as store:
        index = PassageIndex(store)

        def look_up(name: str) -> Context | None:
            place = index.place(name)
            if place is None:
                return None
            (found,) = index.passages([place])
            return Context(found.id, found.title, found.text)

        examples = make_examples(read_questions(paths["data"]), look_up=look_up, negatives=0)
        yield World(folder, paths, index, examples)


def compact(world: World, *, k: int = 3, moving: bool = False, **objectives: float) -> Learner:
    """Adapters beside the model that ships."""
    settings: dict[str, Any] = {"train": ["question_encoder", "generator", "temperature"]}
    if moving:
        settings = {
            "train": ["question_encoder", "passage_encoder", "generator"],
            "refresh": {"mode": "synchronous"},
        }
    adapter = {"kind": "lora", "rank": 2}
    config = config_of(world.paths, world.folder / "run", adapter=adapter, **settings)
    torch.manual_seed(7)
    rag = Rag.load(world.paths["model"])
    prepare(rag, config)
    learner = _learner(world, rag.model, rag, LearnerOptions(objectives or SUM, k=k, moving=moving))  # type: ignore[arg-type]
    with torch.no_grad():
        for name, weight in learner.named_parameters():
            if "lora_B" in name:  # zero at the start, so that its partner would have no gradient
                weight.normal_(std=0.3)
    return learner


SUM = {"sequence": 1.0}


def other(world: World, kind: str, *, k: int = 3, **objectives: float) -> Learner:
    """A generator of transformers beside the encoders of the model that ships."""
    rag = Rag.load(world.paths["model"])
    model = RagModel(
        _generator(kind),
        question_encoder=rag.model.question_encoder,
        passage_encoder=rag.model.passage_encoder,
    )
    model.float().requires_grad_(False)
    for name, weight in model.named_parameters():
        weight.requires_grad_(name.endswith(_MOVING))
    return _learner(world, model, rag, LearnerOptions(objectives or SUM, k=k))  # type: ignore[arg-type]


_MOVING = (
    "v_proj.weight",
    "c_attn.weight",
    "SelfAttention.v.weight",
    "value.weight",
    "log_temperature",
)


def moving_of(learner: Learner) -> dict[str, nn.Parameter]:
    found = {name: one for name, one in learner.named_parameters() if one.requires_grad}
    assert len(found) > 3
    return found


def _learner(world: World, model: RagModel, rag: Rag, options: LearnerOptions) -> Learner:
    texts: Any = rag.encoder
    return Learner(model, texts, index=world.index, options=options).eval()


def _generator(kind: str) -> Any:
    from transformers import (
        BartConfig,
        BartForConditionalGeneration,
        GPT2Config,
        GPT2LMHeadModel,
        T5Config,
        T5ForConditionalGeneration,
    )

    from consilience.generation.causal import CausalGenerator
    from consilience.generation.seq2seq import Seq2SeqGenerator
    from tests.generation.library import byte_tokenizer

    torch.manual_seed(1)
    words = byte_tokenizer()
    if kind == "gpt2":
        config = GPT2Config(
            vocab_size=len(words),
            n_positions=256,
            n_embd=16,
            n_layer=2,
            n_head=2,
            bos_token_id=0,
            eos_token_id=2,
        )
        causal: Any = GPT2LMHeadModel(config)
        return CausalGenerator(causal.eval(), words)
    if kind == "t5":
        settings: dict[str, Any] = {
            "d_model": 16,
            "d_kv": 8,
            "num_layers": 2,
            "num_heads": 2,
            "d_ff": 32,
            "decoder_start_token_id": 1,
            "pad_token_id": 1,
            "eos_token_id": 2,
        }
        made: Any = T5ForConditionalGeneration(T5Config(vocab_size=len(words), **settings))
        return Seq2SeqGenerator(made.eval(), words)
    bart = BartConfig(
        vocab_size=len(words),
        d_model=16,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_position_embeddings=256,
        init_std=0.3,
    )
    model: Any = BartForConditionalGeneration(bart)
    return Seq2SeqGenerator(model.eval(), words)
