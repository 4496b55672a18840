"""Settings of a training run that do not fit together, each told in a line.

Files and models are not opened here; those who open them check them.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from consilience.training.names import (
    CONTRASTIVE,
    JOINT,
    LIKELY,
    OF_ENCODERS,
    OWN,
    PARTS,
    PLAIN,
    PRIOR,
    RANKED,
    TAUGHT,
)

if TYPE_CHECKING:
    from consilience.training.config import TrainConfig


def contradictions(config: "TrainConfig") -> Iterator[str]:
    """Every pair of settings that contradict each other."""
    if not config.objectives or not any(config.objectives.values()):
        yield "objectives name nothing with a weight above 0"
    if config.joint and config.store is None:
        yield f"objectives {', '.join(config.objectives)} sum over passages, but store is none"
    yield from _without_teacher(config)
    yield from _without_new_vectors(config)
    yield from _without_hybrid(config)
    yield from _without_proposals(config)
    yield from _without_fusion(config)
    yield from _without_questions(config)
    yield from _without_text(config)
    yield from _without_ranking(config)
    if config.smoothing and not config.active(LIKELY):
        yield f"smoothing is for the objectives {', '.join(sorted(LIKELY))}, and none is there"
    if config.patience is not None and config.evaluate_every is None:
        yield "patience needs evaluate_every"
    if config.evaluate_every is not None and not (config.data.dev or config.text.measured):
        yield "evaluate_every needs data.dev, or text.dev or text.hold_out"
    active = {name for name, weight in config.objectives.items() if weight}
    alone = len(active) == 1 and active <= CONTRASTIVE
    if config.chunk is not None and not (alone and config.precision == "float32"):
        yield f"chunk is for one of {', '.join(sorted(CONTRASTIVE))} alone, in float32"
    if config.fsdp and config.precision == "float16":
        yield "fsdp is for float32 and bfloat16, and precision is float16"
    if not config.train:
        yield f"train names no part, allowed: {', '.join(PARTS)}"
    if config.refresh.mode != "never" and "passage_encoder" not in config.train:
        yield f"refresh.mode is {config.refresh.mode}, but passage_encoder is not in train"
    if "passage_encoder" in config.train and config.joint and config.refresh.mode == "never":
        yield "passage_encoder is in train, so refresh.mode must not be never"


def _without_questions(config: "TrainConfig") -> Iterator[str]:
    """What questions are needed for, and what they are not needed for."""
    if config.asking and not config.data.train:
        yield "data.train names no file"
    for name, found in (("data.train", config.data.train), ("data.dev", config.data.dev)):
        if found and config.active(PLAIN) and not config.asking:
            yield f"{name} is given, but no objective learns from questions"
    only_text = config.text.measured and not config.data.dev
    if config.evaluate_every is not None and only_text and config.metric != "loss":
        yield f"metric is {config.metric}, but plain text has a loss only"


def _without_text(config: "TrainConfig") -> Iterator[str]:
    """What plain text is needed for, and whom it teaches."""
    plain, text = config.active(PLAIN), config.text
    if plain and not text.train:
        yield f"objectives {', '.join(plain)} learn from plain text, but text.train names none"
    if not plain and (text.train or text.measured):
        yield f"text is given, but no objective of {', '.join(sorted(PLAIN))} learns from it"
    encoders = config.active(OF_ENCODERS)
    if encoders and not {"question_encoder", "passage_encoder"} & set(config.train):
        yield f"objectives {', '.join(encoders)} teach an encoder, but train names none"
    writers = config.active(PLAIN - OF_ENCODERS)
    if writers and "generator" not in config.train:
        yield f"objectives {', '.join(writers)} teach the generator, but train does not name it"
    apart = config.active(frozenset({"nsp", "crops", "inverse_cloze"}))
    if apart and config.batch < 2:
        yield f"objectives {', '.join(apart)} tell texts apart, but batch is 1"


def _without_ranking(config: "TrainConfig") -> Iterator[str]:
    """What a ranking teacher is needed for, and what it needs."""
    ranked, teacher = config.active(RANKED), config.ranking.teacher
    if ranked and teacher is None:
        yield f"objectives {', '.join(ranked)} learn a ranking, but ranking.teacher is none"
    if teacher is not None and not ranked:
        yield f"ranking.teacher teaches nothing: no objective of {', '.join(sorted(RANKED))}"
    if ranked and config.store is None:
        yield f"objectives {', '.join(ranked)} rank passages, but store is none"
    if ranked and not config.data.negatives:
        yield f"objectives {', '.join(ranked)} compare passages, but data.negatives is 0"
    if ranked and not {"question_encoder", "passage_encoder"} & set(config.train):
        yield f"objectives {', '.join(ranked)} teach an encoder, but train names none"


def _without_teacher(config: "TrainConfig") -> Iterator[str]:
    """What a teacher is needed for, and what a teacher is not needed for."""
    taught, distil = config.active(TAUGHT), config.distil
    if distil.teacher is None and taught:
        yield f"objectives {', '.join(taught)} learn from a teacher, but distil.teacher is none"
    if distil.teacher is None and (distil.cuts or distil.answers == "teacher"):
        yield "distil asks for a student or answers of a teacher, but distil.teacher is none"
    if distil.teacher is not None and not taught and distil.answers == "data":
        yield f"distil.teacher teaches nothing: no objective of {', '.join(sorted(TAUGHT))}"
    if distil.cuts and config.model is not None:
        yield "model names a student and distil asks to cut one"


def _without_hybrid(config: "TrainConfig") -> Iterator[str]:
    """What a share between the halves of hybrid search is learned from."""
    if "hybrid_weights" not in config.train:
        return
    if config.mode != "hybrid":
        yield f"hybrid_weights is in train, but mode is {config.mode}"
    if not config.active(PRIOR):
        yield f"hybrid_weights is in train, but no objective of {', '.join(sorted(PRIOR))}"
    if config.refresh.mode == "proposed":
        yield "hybrid_weights is in train, but refresh.mode proposed ranks by vectors alone"
    if config.distil.teacher is not None:
        yield "hybrid_weights is in train, but passages are those of distil.teacher"


def _without_proposals(config: "TrainConfig") -> Iterator[str]:
    """Among which passages the right one can be put, and to whom its place would mean something."""
    if not config.add_positive:
        return
    if not config.active(JOINT):
        yield "add_positive is on, but no objective sums over passages"
    for part in ("hybrid_weights", "ranks"):
        if part in config.train:
            yield f"{part} in train is learned from what search finds, but add_positive is on"


def _without_fusion(config: "TrainConfig") -> Iterator[str]:
    """Which objective teaches what a fusion has of its own."""
    for part, objective in OWN.items():
        if part in config.train and not config.objectives.get(objective):
            yield f"{part} is in train, but no objective {objective}"


def _without_new_vectors(config: "TrainConfig") -> Iterator[str]:
    """New words change how passages are read, and so their vectors."""
    if not config.vocabulary.tokens:
        if config.vocabulary.texts:
            yield "vocabulary.texts is given, but vocabulary.tokens is 0"
        return
    if config.joint and "passage_encoder" not in config.train:
        yield "vocabulary adds words, which changes vectors, but passage_encoder is not in train"
    if config.distil.teacher is not None:
        yield "vocabulary adds words, and a student must have its teacher's vocabulary"
