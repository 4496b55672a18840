"""What the objectives of a batch need, each thing computed at most once.

Vectors of questions, proposals and their scores, the generator's log probabilities, and the same of
a teacher where there is one. It knows neither the objectives nor how they are weighed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from consilience.errors import UsageError
from consilience.generation import Pair, TokenRows, TrainableGenerator
from consilience.model.attention_fusion import let_look
from consilience.model.batch import spread
from consilience.model.fusion import (
    Fusion,
    answer_posterior,
    exact,
    log_prior,
    marginal,
    smoothing,
    step_weights,
)
from consilience.model.rag_model import RagModel
from consilience.model.reading import joined
from consilience.questions import Context
from consilience.store.embedding import embedding_text
from consilience.training.collapse import Retrieved, retrieved
from consilience.training.examples import Example
from consilience.training.hybrid import ByWords, Candidates, depth_of, united
from consilience.training.names import ObjectiveName
from consilience.training.objectives.joint import Alignment
from consilience.training.proposals import PassageIndex, Proposals, with_positives

if TYPE_CHECKING:
    from consilience.training.learner import Learner

ABSENT = float("-inf")

LEAST = torch.finfo(torch.float32).min / 4
"""Stands for minus infinity in a log weight, where that would make a gradient NaN."""

ALIGNMENT = Alignment(score_temperature=0.1, target_temperature=0.1)
"""Atlas's 0.01 is for inner products divided by the root of their size; unit vectors are closer."""


class EncoderTexts(Protocol):
    """How the texts of an encoder become ids."""

    def token_rows(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Ids and mask of texts, `[texts, length]` each."""
        ...


@dataclass(frozen=True, slots=True)
class LearnerOptions:
    """How a batch is learned from.

    Attributes:
        objectives: Weights by name.
        k: Passages that a question proposes.
        over: Passages that are looked at anew for each one that is kept; 1 for none.
        add_positive: Whether the passage that is known to hold the answer is always among them.
        moving: Whether the passage encoder learns.
        temperature: Of the contrastive scores.
        smoothing: Of the labels, where answers are made likely; 0 for none.
        alignment: Of the distillations from generator to retriever.
        lexical: Proposes passages by words instead of by vectors, as places in the index; None for
            by vectors.
        by_words: The lexical half of hybrid search, where the learner has shares of it.
        softening: Temperature of the distributions that a teacher tells.
        ranking: Temperature of the ranking that a teacher tells.
        share: Of the tokens of plain text that are masked or taken out.
        span: Mean length of what is taken out, in tokens.
    """

    objectives: Mapping[ObjectiveName, float]
    k: int = 5
    over: int = 1
    add_positive: bool = False
    moving: bool = False
    temperature: float = 0.05
    smoothing: float = 0.0
    alignment: Alignment = ALIGNMENT
    lexical: Callable[[Sequence[str], int], Tensor] | None = None
    by_words: ByWords | None = None
    softening: float = 2.0
    ranking: float = 1.0
    share: float = 0.15
    span: float = 3.0


class Work:
    """What the objectives of one batch share.

    Dimensions: `b` questions, `k` proposals, `t` tokens of the longest answer, `p` passages of the
    whole batch.

    Args:
        learner: Whose model and index.
        batch: At least one example.
    """

    def __init__(self, learner: "Learner", batch: Sequence[Example]) -> None:
        self.learner, self.batch = learner, batch
        self.model: RagModel = learner.model
        self.options: LearnerOptions = learner.options

    @property
    def generator(self) -> TrainableGenerator:
        """Of the model."""
        return self.model.generator

    @cached_property
    def question_vectors(self) -> Tensor:
        """`[b, size]`, float32."""
        return self.vectors_of([example.question for example in self.batch])

    def vectors_of(self, questions: Sequence[str]) -> Tensor:
        """`[questions, size]`, float32."""
        encoder = _needed(self.model.question_encoder, "question_encoder")
        return exact(encoder(*self._ids(questions)))

    def passage_vectors(self, passages: Sequence[Context]) -> Tensor:
        """`[passages, size]`, float32, with gradient where the passage encoder learns.

        Where it does not, those that the store holds are its own, as every search will compare
        them.
        """
        index = self.learner.index
        if self.options.moving or index is None:
            return self._encoded(passages)
        places = [index.place(one.id) for one in passages]
        new = [one for one, place in zip(passages, places, strict=True) if place is None]
        held = torch.tensor([place for place in places if place is not None], dtype=torch.long)
        there = torch.tensor([place is not None for place in places])
        found = index.vectors.new_empty(len(passages), index.vectors.shape[1])
        found[there] = index.vectors[held]
        if new:
            found[~there] = self._encoded(new).detach().to(found.device)
        return found.to(self.generator.device)

    def _encoded(self, passages: Sequence[Context]) -> Tensor:
        encoder = _needed(self.model.passage_encoder, "passage_encoder")
        texts = [embedding_text(one.title, one.text) for one in passages]
        with torch.set_grad_enabled(self.options.moving and torch.is_grad_enabled()):
            return exact(encoder(*self._ids(texts)))

    def _ids(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        ids, mask = _needed(self.learner.texts, "encoder").token_rows(texts)
        device = self.generator.device
        return ids.to(device), mask.to(device)

    @cached_property
    def teacher(self) -> "Work | None":
        """The same questions before the teacher, over the passages that the teacher proposes."""
        return next((Work(one, self.batch) for one in self.learner.teachers), None)

    @cached_property
    def proposals(self) -> Proposals:
        """Of every question; while it learns with its positive, where that is asked for."""
        if not (self.options.add_positive and self.learner.training):
            return self.searched
        index: PassageIndex = _needed(self.learner.index, "index")
        return index.at(with_positives(self.searched.places, [*map(index.right, self.batch)]))

    @cached_property
    def searched(self) -> Proposals:
        """What was found for every question."""
        index: PassageIndex = _needed(self.learner.index, "index")
        if self.teacher is not None:
            return index.at(self.teacher.proposals.places)
        if self.candidates is not None:
            return index.at(self.candidates.places(self.options.k))
        wide = self.options.k * self.options.over
        if self.options.lexical is not None:
            asked = [example.question for example in self.batch]
            found = index.at(self.options.lexical(asked, wide))
        else:
            found = index.propose(self.question_vectors, wide)
        return found if self.options.over == 1 else self._looked_at_anew(index, found)

    @cached_property
    def candidates(self) -> Candidates | None:
        """Of both halves of hybrid search; None where no share between them is learned."""
        if self.learner.shares is None:
            return None
        index: PassageIndex = _needed(self.learner.index, "index")
        asked = [example.question for example in self.batch]
        depth = depth_of(self.options.k)
        by_words = _needed(self.options.by_words, "lexical half")(asked, depth)
        near = index.propose(self.question_vectors, depth).places
        halves = united(by_words, near, least=self.options.k)
        products = self._products(index.at(halves.places).vectors)
        return Candidates(halves, products, self.learner.shares(asked))

    def found(self, depth: int) -> Tensor:
        """Places of the best passages as the retriever that learns finds them, `[b, depth]`."""
        if self.candidates is not None:
            return self.candidates.places(depth)
        index: PassageIndex = _needed(self.learner.index, "index")
        return index.propose(self.question_vectors, depth).places

    def _looked_at_anew(self, index: PassageIndex, found: Proposals) -> Proposals:
        """The best `k` of more by vectors of the encoder as it is now; the index keeps those."""
        places = sorted(set(found.places[found.present].tolist()))
        with torch.no_grad():
            index.replace(torch.tensor(places), self._encoded(self._contexts(places)))
        scores = self._scores(index.at(found.places).vectors, found.present)
        best = scores.topk(min(self.options.k, scores.shape[1]), dim=1).indices.cpu()
        return index.at(found.places.gather(1, best))

    def _contexts(self, places: Sequence[int]) -> list[Context]:
        found = _needed(self.learner.index, "index").passages(places)
        return [Context(one.id, one.title, one.text) for one in found]

    @cached_property
    def proposed(self) -> list[Context]:
        """The passages proposed, those of one question after those of the one before."""
        return self._contexts(self.proposals.places[self.proposals.present].tolist())

    @cached_property
    def scores(self) -> Tensor:
        """`<q(x), d>`, or the hybrid score where a share is learned, `[b, k]`.

        Minus infinity where there is no passage.
        """
        if self.candidates is not None:
            return self.candidates.scores(self.options.k, self._products_anew())
        if not self.options.moving:
            return self._scores(self.proposals.vectors, self.proposals.present)
        present = self.proposals.present.to(self.generator.device)
        return self._scores(spread(self.passage_vectors(self.proposed), present), present)

    def _scores(self, vectors: Tensor, present: Tensor) -> Tensor:
        return self._products(vectors).masked_fill(~present.to(self.generator.device), ABSENT)

    def _products(self, vectors: Tensor) -> Tensor:
        """`[b, n, size]` to `[b, n]`."""
        return (self.question_vectors[:, None] * vectors.to(self.generator.device)).sum(-1)

    def _products_anew(self) -> Tensor | None:
        """`<q(x), d>` of the proposals with the passage encoder as it is now, where it learns."""
        if not self.options.moving:
            return None
        present = self.proposals.present.to(self.generator.device)
        return self._products(spread(self.passage_vectors(self.proposed), present))

    @cached_property
    def targets(self) -> Tensor:
        """Ids of the answers, padded with -100, `[b, t]`."""
        return self._padded([self._answer(example) for example in self.batch])

    def _answer(self, example: Example) -> list[int]:
        """An answer's ids, its end included; [NONE] for what has no answer."""
        if not example.unanswerable:
            return self.generator.answer_ids(example.answer)
        if self.generator.none is None:
            raise UsageError(
                f"the question {example.question!r} is unanswerable, and this generator has no "
                "token that says so",
                hint="leave unanswerable questions out of data.train",
            )
        return [self.generator.none, self.generator.end]

    def _padded(self, answers: Sequence[Sequence[int]]) -> Tensor:
        length = max(map(len, answers))
        rows = [[*ids, *[-100] * (length - len(ids))] for ids in answers]
        return torch.tensor(rows, device=self.generator.device)

    @cached_property
    def mask(self) -> Tensor:
        """True at tokens of the answers, `[b, t]`."""
        return self.targets != -100

    @cached_property
    def prior(self) -> Tensor:
        """`log p(d | x)`, `[b, k]`."""
        return log_prior(self.scores, self.model.temperature)

    @cached_property
    def rows(self) -> TokenRows:
        """Every question over every passage it proposed, as the generator reads them."""
        counts = self.proposals.present.sum(1).tolist()
        asked = [e.question for e, n in zip(self.batch, counts, strict=True) for _ in range(n)]
        return self._rows(asked, self.proposed)

    @cached_property
    def memory(self) -> Any:
        """The generator's, of `rows`."""
        return self.generator.memorise(self.rows)

    def read(self, asked: Sequence[str], passages: Sequence[Context]) -> Any:
        """The generator's memory of rows, each a question over a passage."""
        return self.generator.memorise(self._rows(asked, passages))

    def _memory_of(self, pairs: Sequence[Pair]) -> Any:
        return self.generator.memorise(self._rows_of(pairs))

    def _rows(self, asked: Sequence[str], passages: Sequence[Context]) -> TokenRows:
        pairs = [Pair(q, d.title, d.text) for q, d in zip(asked, passages, strict=True)]
        return self._rows_of(pairs)

    def _rows_of(self, pairs: Sequence[Pair]) -> TokenRows:
        rows, device = self.generator.rows(pairs), self.generator.device
        return TokenRows(rows.ids.to(device), rows.mask.to(device))

    @cached_property
    def log_probs(self) -> Tensor:
        """Log p of the answers' tokens given each passage alone, `[b, k, t]`."""
        if self.options.smoothing or "distil" in self.learner.mixture.active:
            return self._given(self.words)
        present = self.proposals.present.to(self.generator.device)
        return spread(self.generator.target_log_probs(self.memory, self._rows_written()), present)

    def _given(self, words: Tensor) -> Tensor:
        """Of every word's log p `[b, k, t, v]` that of the answers' tokens, `[b, k, t]`."""
        chosen = self.targets.masked_fill(~self.mask, 0)[:, None, :, None]
        return words.gather(-1, chosen.expand(-1, words.shape[1], -1, -1))[..., 0]

    def _rows_written(self) -> Tensor:
        """Ids of the answers, once for each passage that is there, `[rows, t]`."""
        present = self.proposals.present.to(self.generator.device)
        targets = self.targets.masked_fill(~self.mask, self.generator.end)
        return targets[:, None].expand(-1, present.shape[1], -1)[present]

    @cached_property
    def words(self) -> Tensor:
        """Log p of every word at every step given each passage alone, `[b, k, t, v]`."""
        present = self.proposals.present.to(self.generator.device)
        logits = self.generator.next_logits(self.memory, self._rows_written())
        return spread(exact(logits).log_softmax(-1), present)

    @cached_property
    def summed_words(self) -> Tensor:
        """Log p of every word at every step of RAG-Sequence's sum, `[b, t, v]`."""
        words = self.words
        kept = self.log_probs.masked_fill(~self.mask[:, None, :], 0.0)
        prior = self.prior.clamp_min(LEAST)
        return marginal(step_weights(prior, kept, fusion="sequence"), words)

    @cached_property
    def posterior(self) -> Tensor:
        """`p(d | x, y)` under RAG-Sequence, `[b, k]`."""
        prior = self.prior.clamp_min(LEAST)
        return answer_posterior(prior, self.log_probs, self.mask, fusion="sequence")

    def smoothed(self, log_weights: Tensor, fusion: Fusion) -> Tensor:
        """What label smoothing adds to the loss of a sum with these weights `[b, k]`, in nats."""
        if not self.options.smoothing:
            return log_weights.new_zeros(())
        weights = log_weights.clamp_min(LEAST)
        found = smoothing(weights, self.log_probs, self.words, self.mask, fusion=fusion)
        return self.options.smoothing * found.mean()

    def unlikely(self, memory: Any) -> Tensor:
        """-log p of the answers given one row a question, labels smoothed, `[b]`."""
        targets = self.targets.masked_fill(~self.mask, self.generator.end)
        if not self.options.smoothing:
            given = exact(self.generator.target_log_probs(memory, targets))
            return -(given * self.mask).sum(-1)
        words = exact(self.generator.next_logits(memory, targets)).log_softmax(-1)[:, None]
        given = self._given(words)
        alone = given.new_zeros(len(given), 1)
        found = smoothing(alone, given, words, self.mask, fusion="token")
        return self.options.smoothing * found - (given[:, 0] * self.mask).sum(-1)

    @cached_property
    def joined(self) -> Any:
        """The memory of all of a question's passages end to end."""
        present = self.proposals.present
        if not bool(present.all()):
            raise UsageError(
                f"the store has {int(present.sum(1).min())} passages, k is {present.shape[1]}",
                hint="set k to at most the number of passages",
            )
        return self.generator.together(self.memory, present.shape[1])

    @cached_property
    def rank_weights(self) -> Tensor:
        """The logarithm of what each rank of the proposals counts, `[b, k]`."""
        present = self.proposals.present.to(self.generator.device)
        return self.model.rank_weights(present).clamp_min(LEAST)

    @cached_property
    def looking(self) -> Any:
        """The memory of the questions alone, with sight of the vectors of their proposals."""
        present = self.proposals.present.to(self.generator.device)
        vectors = self.proposals.vectors
        if self.options.moving:
            vectors = spread(self.passage_vectors(self.proposed), present)
        fusion = _needed(self.model.attention, "attention")
        memory = self._memory_of([Pair(example.question, "", "") for example in self.batch])
        let_look(memory, fusion.over(vectors.to(self.generator.device), present))
        return memory

    @cached_property
    def in_one_text(self) -> Any:
        """The memory of each question over one text of all its proposals."""
        proposed, counts = iter(self.proposed), self.proposals.present.sum(1).tolist()
        rows = zip(self.batch, counts, strict=True)
        return self._memory_of([joined(e.question, list(islice(proposed, n))) for e, n in rows])

    def retrieved(self) -> Retrieved | None:
        """What the batch retrieved, if an objective asked for it."""
        if "scores" not in self.__dict__:
            return None
        prior = log_prior(self.scores.detach(), self.model.temperature.detach())
        return retrieved(self.searched.places.tolist(), prior)


def _needed(part: Any, name: str) -> Any:
    if part is None:
        raise UsageError(
            f"an objective of this run needs the {name}, and this model has none",
            hint="take a model with an encoder, or objectives without retrieval: reader, abstain",
        )
    return part
