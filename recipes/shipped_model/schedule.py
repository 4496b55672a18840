"""How much each stage reads and how large the model is: plain numbers, from a name or from a file.

Tokens are ids of the model's vocabulary, padding left out. `cpu` fits an evening on two cores and
`gpu` a day on one card; a JSON file with the same keys as `Schedule` may say otherwise.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from consilience.encoding.folder import ModelConfig

LEARNING = ("pretrain", "questions", "supervised", "joint", "tasks")
"""The stages that move weights, in their order."""
PARTS = ("embeddings", "retriever", "reader", "decoder")
"""What the first three of them can move."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """One run of the recipe.

    Attributes:
        tokens: Ids that each learning stage reads; a stage that reads none is left out.
        sizes: Settings of `ModelConfig` that are not its defaults; `vocabulary_size` is used with
            random weights only.
        start: MiniLM's weights and vocabulary (`minilm`), random weights over a vocabulary of the
            texts (`random`), or the folder of a model that is taught further.
        parts: What the first three learning stages move. While `embeddings` and `retriever` stay,
            so do vectors and the settings of search.
        batch: Ids of a step.
        plain: Plain texts of each language.
        paragraphs: Passages of the knowledge base that questions are asked of.
        negatives: Look-alikes that BM25 finds for a question.
        joint_batch: Questions of a step of the last two learning stages.
        k: Passages that joint training sums over.
        refresh_every: Steps after which joint training gives the knowledge base new vectors.
        save_every: Steps between two checkpoints.
        device: What computes the first three learning stages; the others take a graphics card
            where there is one.
        precision: Of matrix products while learning.
        threads: Of the processor.
    """

    tokens: Mapping[str, int]
    sizes: Mapping[str, Any] = field(default_factory=dict)
    start: str = "minilm"
    parts: Sequence[str] = PARTS
    batch: int = 4000
    plain: int = 9000
    paragraphs: int = 20_000
    negatives: int = 2
    joint_batch: int = 4
    k: int = 4
    refresh_every: int = 500
    save_every: int = 200
    device: Literal["cpu", "cuda"] = "cpu"
    precision: Literal["bfloat16", "float32"] = "float32"
    threads: int = 2

    def __post_init__(self) -> None:
        if set(self.tokens) != set(LEARNING) or min(self.tokens.values()) < 0:
            raise SystemExit(f"tokens must give each of {', '.join(LEARNING)} a number, 0 or more")
        if not any(self.tokens.values()):
            raise SystemExit("tokens are 0 everywhere: there is nothing to learn")
        if not self.parts or set(self.parts) - set(PARTS):
            raise SystemExit(f"parts must be some of {', '.join(PARTS)}, not {list(self.parts)}")
        if self.begun is not None and not self.begun.is_dir():
            raise SystemExit(f"start must be minilm, random or a model folder, not {self.start!r}")

    @property
    def begun(self) -> Path | None:
        """The folder of the model that is taught further; None for one that starts anew."""
        return None if self.start in ("minilm", "random") else Path(self.start)

    @property
    def stages(self) -> tuple[str, ...]:
        """The learning stages that read something."""
        return tuple(name for name in LEARNING if self.tokens[name])

    @property
    def teaches_finding(self) -> bool:
        """Whether the first three learning stages move what vectors are made with."""
        return not {"embeddings", "retriever"}.isdisjoint(self.parts)

    @property
    def vectors_move(self) -> bool:
        """Whether any stage does."""
        return self.teaches_finding or bool(self.tokens["joint"])

    def config(self, words: int) -> ModelConfig:
        """The sizes of a model with so many words."""
        return replace(ModelConfig(words), **dict(self.sizes) | {"vocabulary_size": words})

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        found: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return found


SCHEDULES: Mapping[str, Schedule] = {
    "cpu": Schedule(
        tokens={
            "pretrain": 4_000_000,
            "questions": 3_000_000,
            "supervised": 8_000_000,
            "joint": 2_000_000,
            "tasks": 1_000_000,
        }
    ),
    "gpu": Schedule(
        tokens={
            "pretrain": 1_500_000_000,
            "questions": 150_000_000,
            "supervised": 400_000_000,
            "joint": 100_000_000,
            "tasks": 50_000_000,
        },
        batch=64_000,
        plain=24_000,
        paragraphs=100_000,
        negatives=4,
        joint_batch=32,
        k=8,
        save_every=500,
        device="cuda",
        precision="bfloat16",
        threads=8,
    ),
}


def schedule_named(name: str) -> Schedule:
    """One of the two, or that of a JSON file."""
    if name in SCHEDULES:
        return SCHEDULES[name]
    path = Path(name)
    if not path.is_file():
        raise SystemExit(f"no schedule {name!r}: cpu, gpu, or a JSON file")
    found = json.loads(path.read_text(encoding="utf-8"))
    unknown = set(found) - set(Schedule.__dataclass_fields__)
    if unknown:
        raise SystemExit(f"{path} has unknown keys: {', '.join(sorted(unknown))}")
    return Schedule(**found)
