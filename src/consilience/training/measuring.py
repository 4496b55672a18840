"""How good a model is in the middle of its training, on what it does not learn from.

Fast and deterministic rather than thorough: greedy answers from the passages that the run's own
index proposes. `consilience evaluate` is for the figures that are told to others.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import get_args

import torch
from torch import Tensor

from consilience.evaluation import exact_match, f1
from consilience.model.decoding import DecodingOptions, decode
from consilience.model.decoding.options import Sum
from consilience.model.fusion import Fusion, log_prior
from consilience.text import language_of
from consilience.training.data import holds
from consilience.training.examples import Example
from consilience.training.learner import Learner
from consilience.training.plain_text import drawn
from consilience.training.work import Work

FUSION_OF: Mapping[str, Fusion] = {
    "sequence": "sequence",
    "token": "token",
    "fid": "fid",
    "average": "average",
    "attention_fusion": "attention",
    "concat": "concat",
}
"""The fusion that an objective teaches to answer with; the others teach none in particular."""

DEPTH = 5
"""Passages among which the right one counts as found."""


class Measurement:
    """Measures a learner.

    Args:
        learner: With its index, or without one: answers are then read from the right passages.
        examples: What it is asked, and plain texts, which have a loss only.
        batch: How many at once.
    """

    def __init__(self, learner: Learner, examples: Sequence[Example], *, batch: int) -> None:
        self.learner, self.batch = learner, batch
        self.fusion = fusion_taught(learner.mixture.weights)
        ordered = sorted(examples, key=lambda one: one.length)
        self.examples = [one for one in ordered if one.plain is None]
        # The same is asked of a text every time, or losses could not be compared.
        self.texts = [drawn(one, f"held out:{i}") for i, one in enumerate(ordered) if one.plain]

    def __call__(self) -> dict[str, float]:
        """`loss`; `recall@5` with an index; `exact_match` and `f1` of what has an answer.

        Plain texts add their loss to that of the questions, as they do in training, and tell that
        of each of their objectives.
        """
        asked = _means(map(self._batch, _batches(self.examples, self.batch)))
        told = _means(map(self._told, _batches(self.texts, self.batch)))
        if not told:
            return asked
        weights = self.learner.mixture.weights
        total = sum(weights[name] * value for name, value in told.items())
        losses = {f"loss_{name}": value for name, value in told.items()}
        return asked | losses | {"loss": total + asked.get("loss", 0.0)}

    def _told(self, batch: Sequence[Example]) -> dict[str, list[float]]:
        mixed = self.learner.mixed(Work(self.learner, []), batch)
        return {name: [value] * len(batch) for name, value in mixed.parts.items()}

    def _batch(self, batch: Sequence[Example]) -> dict[str, list[float]]:
        work = Work(self.learner, batch)
        found = {"loss": [float(self.learner.mixed(work).loss.detach())] * len(batch)}
        if self.learner.index is not None and self.learner.texts is not None:
            found["recall@5"] = self._recalls(work)
        asked = [one for one in batch if one.answers and self._readable(one)]
        if asked:
            same = len(asked) == len(batch)
            answers = self._answers(work if same else Work(self.learner, asked))
            pairs = list(zip(answers, asked, strict=True))
            found["exact_match"] = [_score(exact_match, *pair) for pair in pairs]
            found["f1"] = [_score(f1, *pair) for pair in pairs]
        return found

    def _readable(self, example: Example) -> bool:
        return self.learner.index is not None or example.passage is not None

    def _recalls(self, work: Work) -> list[float]:
        return [
            float(self._found(example, [place for place in row if place >= 0]))
            for example, row in zip(work.batch, work.found(DEPTH).tolist(), strict=True)
            if example.answers
        ]

    def _found(self, example: Example, places: Sequence[int]) -> bool:
        index = self.learner.index
        assert index is not None
        if example.passage is not None and index.place(example.passage.id) is not None:
            return index.place(example.passage.id) in places
        texts = [passage.text for passage in index.passages(places)]
        return any(holds(text, answer) for text in texts for answer in example.answers)

    def _answers(self, work: Work) -> list[str]:
        memory, weights = self._read(work)
        generator = self.learner.model.generator
        # Where one row is left of a question, every sum is the same.
        summed: Sum = next((one for one in get_args(Sum) if one == self.fusion), "sequence")
        options = DecodingOptions(max_new_tokens=32, fusion=summed)
        written = decode(generator, memory, weights, options=options)
        return [generator.decode(best[0].ids) if best else "" for best in written]

    def _read(self, work: Work) -> tuple[object, Tensor]:
        """The generator's memory of what each question is answered from, and the log prior."""
        if self.learner.index is not None and bool(work.proposals.present.all()):
            return self._proposed(work)
        passages = [one.passage for one in work.batch if one.passage is not None]
        memory = work.read([one.question for one in work.batch], passages)
        return memory, torch.zeros(len(work.batch), 1, device=work.generator.device)

    def _proposed(self, work: Work) -> tuple[object, Tensor]:
        """The same of the passages that were proposed, as the fusion joins them."""
        one_row = torch.zeros(len(work.batch), 1, device=work.generator.device)
        match self.fusion:
            case "average":
                return work.memory, work.rank_weights
            case "fid":
                return work.joined, one_row
            case "attention":
                return work.looking, one_row
            case "concat":
                return work.in_one_text, one_row
            case _:
                return work.memory, log_prior(work.scores, work.model.temperature)


def fusion_taught(weights: Mapping[str, float]) -> Fusion:
    """Where the sum stands in what weighs most among the objectives; `sequence` if none says."""
    told = {name: weight for name, weight in weights.items() if weight and name in FUSION_OF}
    return FUSION_OF[max(told, key=lambda name: told[name])] if told else "sequence"


def _batches(examples: Sequence[Example], size: int) -> Iterator[Sequence[Example]]:
    return (examples[at : at + size] for at in range(0, len(examples), size))


def _means(rows: Iterable[Mapping[str, Sequence[float]]]) -> dict[str, float]:
    """The mean of each name over all rows."""
    found: dict[str, list[float]] = {}
    for row in rows:
        for name, values in row.items():
            found.setdefault(name, []).extend(values)
    return {name: sum(values) / len(values) for name, values in found.items()}


def _score(measure: Callable[..., float], answer: str, example: Example) -> float:
    return float(measure(answer, example.answers, language=language_of(example.question)))
