"""What a teacher thinks of the passages of each question, asked once and kept in the run's folder.

The teacher is a reranker, or the generator that the run starts from, which says how likely a
passage makes the answer. It sees the right passage, where that is known, and the negatives.

    scores.jsonl    {"teacher": digest}, then one line [key, scores] for each question

A key is a digest of question, answer and passages, so a question whose passages have changed is
asked again. A teacher whose weights have changed is refused: half a run would have learned another
ranking.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from consilience.encoding.folder import digest_of
from consilience.errors import UsageError
from consilience.model.rag import Rag
from consilience.retrieval.reranking import Reranker, open_reranker
from consilience.training.examples import Example
from consilience.training.lines import Lines
from consilience.training.processes import are_several
from consilience.training.reranker_teacher import standardised, teacher_scores
from consilience.training.work import Work

if TYPE_CHECKING:
    from consilience.training.learner import Learner

FILE = "scores.jsonl"

GENERATOR = "generator"
"""The name, in a config, of the generator's own scores."""


@dataclass(frozen=True, slots=True)
class Judge:
    """Who scores passages.

    Attributes:
        digest: Of all that its scores depend on beside question, answer and passages.
        score: A number for each of an example's candidates, mean 0 and deviation 1.
    """

    digest: str
    score: Callable[[Example], list[float]]


def judge_of(name: str, learner: "Learner", rag: Rag) -> Judge:
    """The teacher that a config names.

    Args:
        name: `generator`, or a reranker as `open_reranker` knows it.
        learner: Before its first step.
        rag: Its model.

    Raises:
        UsageError, MissingError, DamagedError, DependencyError: As `open_reranker`.
    """
    if name == GENERATOR:
        return Judge(_digest_of_weights(rag), lambda one: _likelihoods(learner, one))
    reranker = open_reranker(name, encoder=rag.encoder)
    return Judge(_digest_of_reranker(name, rag), lambda one: _ranked(reranker, one))


def _ranked(reranker: Reranker, example: Example) -> list[float]:
    scores = teacher_scores(reranker, [example.question], [example.candidates])
    return [float(score) for score in scores[0]]


def _likelihoods(learner: "Learner", example: Example) -> list[float]:
    """Of each candidate `log p(y | x, d)` by the generator as it is, standardised."""
    work, passages = Work(learner, [example]), example.candidates
    training = learner.training
    learner.eval()
    with torch.no_grad():
        memory = work.read([example.question] * len(passages), passages)
        targets = work.targets.expand(len(passages), -1)
        found = work.generator.target_log_probs(memory, targets).sum(-1)
    learner.train(training)
    return [float(score) for score in standardised(found.float().cpu().numpy())]


def _digest_of_weights(rag: Rag) -> str:
    """Of the generator's weights, as they are."""
    digest = hashlib.sha256()
    weights: Iterable[torch.Tensor] = rag.model.generator.parameters()
    for weight in weights:
        digest.update(np.ascontiguousarray(weight.detach().float().cpu().numpy()).data)
    return digest.hexdigest()


def _digest_of_reranker(name: str, rag: Rag) -> str:
    kind, _, model = name.partition(":")
    digest = hashlib.sha256(kind.encode())
    if model:
        from consilience.retrieval.sentence_models import checked_folder

        folder = checked_folder(model)
        for path in sorted(one for one in folder.rglob("*") if one.is_file()):
            digest.update(f"{path.relative_to(folder).as_posix()}:{digest_of(path)}".encode())
    elif rag.encoder is not None:
        digest.update(rag.encoder.fingerprint.encode())
    return digest.hexdigest()


def taught(
    examples: Sequence[Example],
    judge: Judge,
    folder: Path,
    *,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> list[Example]:
    """Examples with the scores of a teacher; those with fewer than two candidates have none.

    Args:
        examples: With their negatives.
        judge: The teacher.
        folder: Of the run; scores that it keeps already are not asked for again.
        progress: Told how many are scored, and how many there are.

    Raises:
        UsageError: The folder keeps scores of another teacher, or several processes would write
            there at the same time.
    """
    lines, ranked = Lines(folder / FILE), [one for one in examples if len(one.candidates) > 1]
    known = _known(lines, judge.digest)
    missing = {key: one for one in ranked if (key := _key(one)) not in known}
    if missing and are_several():
        raise UsageError(
            "several processes cannot share a run in which a teacher scores passages first",
            hint="begin the run in one process; the others find its scores",
        )
    if missing and not lines.values:
        lines.add({"teacher": judge.digest})
    for done, (key, one) in enumerate(missing.items()):
        known[key] = judge.score(one)
        lines.add([key, known[key]])
        progress(done + 1, len(missing))
    return [replace(one, taught=tuple(known.get(_key(one), ()))) for one in examples]


def _key(example: Example) -> str:
    passages = [[one.title, one.text] for one in example.candidates]
    told = json.dumps([example.question, example.answer, passages])
    return hashlib.sha256(told.encode()).hexdigest()[:32]


def _known(lines: Lines, digest: str) -> dict[str, list[float]]:
    """Scores that are kept, by key."""
    if lines.values and lines.values[0] != {"teacher": digest}:
        raise UsageError(
            f"{lines.path} keeps the scores of another teacher than ranking.teacher is now",
            hint="choose another output folder, or put the teacher back",
        )
    return dict(lines.values[1:])
