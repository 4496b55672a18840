"""What is learned from a batch: the objectives of a run, over one model and one index.

A `Work` computes whatever the objectives of a batch need, each thing at most once: vectors of
questions, proposals and their scores, the generator's log probabilities. `OBJECTIVES` says by name
what is made of it. The learner is a module, so that whoever distributes modules can wrap it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from consilience.errors import UsageError
from consilience.generation import Pair, TokenRows, TrainableGenerator
from consilience.model.batch import spread
from consilience.model.fusion import exact, log_prior
from consilience.model.rag_model import RagModel
from consilience.questions import Context
from consilience.store.embedding import embedding_text
from consilience.training.collapse import Retrieved, retrieved
from consilience.training.config import ObjectiveName
from consilience.training.examples import Example
from consilience.training.objectives import (
    Mixed,
    Mixture,
    Tower,
    attention_distillation,
    cached_gradients,
    emdr2,
    false_negative_mask,
    info_nce,
    leave_one_out,
    marginal_likelihood,
    perplexity_distillation,
    support_likelihood,
    without_each,
)
from consilience.training.objectives.joint import Alignment
from consilience.training.proposals import PassageIndex, Proposals

ABSENT = float("-inf")

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
        moving: Whether the passage encoder learns.
        temperature: Of the contrastive scores.
        alignment: Of the distillations from generator to retriever.
        lexical: Proposes passages by words instead of by vectors, as places in the index; None for
            by vectors.
    """

    objectives: Mapping[ObjectiveName, float]
    k: int = 5
    over: int = 1
    moving: bool = False
    temperature: float = 0.05
    alignment: Alignment = ALIGNMENT
    lexical: Callable[[Sequence[str], int], Tensor] | None = None


class Learner(nn.Module):
    """The model of a run with its objectives.

    Args:
        model: With encoders where the objectives need them.
        texts: Of the encoders.
        index: Which passages there are; None when no objective proposes any.
        options: How it learns.

    Attributes:
        retrieved: What the last batch retrieved, for the collapse monitor; None if it did not.
    """

    def __init__(
        self,
        model: RagModel,
        texts: EncoderTexts | None,
        *,
        index: PassageIndex | None,
        options: LearnerOptions,
    ) -> None:
        super().__init__()
        self.model, self.texts, self.index, self.options = model, texts, index, options
        self.mixture = Mixture({str(k): v for k, v in options.objectives.items()})
        self.retrieved: Retrieved | None = None

    def forward(self, batch: Sequence[Example]) -> dict[str, Any]:
        """The loss of a batch under `loss`, and what it is made of under `parts`."""
        work = Work(self, batch)
        mixed = self.mixed(work)
        self.retrieved = work.retrieved()
        return {"loss": mixed.loss, "parts": mixed.parts}

    def mixed(self, work: "Work") -> Mixed:
        """The objectives of a batch whose parts may be wanted for more."""
        return self.mixture({name: partial(make, work) for name, make in OBJECTIVES.items()})


class Work:
    """What the objectives of one batch share.

    Dimensions: `b` questions, `k` proposals, `t` tokens of the longest answer, `p` passages of the
    whole batch.

    Args:
        learner: Whose model and index.
        batch: At least one example.
    """

    def __init__(self, learner: Learner, batch: Sequence[Example]) -> None:
        self.learner, self.batch = learner, batch
        self.model, self.options = learner.model, learner.options

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
        """`[passages, size]`, float32, with gradient where the passage encoder learns."""
        encoder = _needed(self.model.passage_encoder, "passage_encoder")
        texts = [embedding_text(one.title, one.text) for one in passages]
        with torch.set_grad_enabled(self.options.moving and torch.is_grad_enabled()):
            return exact(encoder(*self._ids(texts)))

    def _ids(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        ids, mask = _needed(self.learner.texts, "encoder").token_rows(texts)
        device = self.generator.device
        return ids.to(device), mask.to(device)

    @cached_property
    def proposals(self) -> Proposals:
        """Of every question."""
        index = _needed(self.learner.index, "index")
        wide = self.options.k * self.options.over
        if self.options.lexical is not None:
            asked = [example.question for example in self.batch]
            found = index.at(self.options.lexical(asked, wide))
        else:
            found = index.propose(self.question_vectors, wide)
        return found if self.options.over == 1 else self._looked_at_anew(index, found)

    def _looked_at_anew(self, index: PassageIndex, found: Proposals) -> Proposals:
        """The best `k` of more by vectors of the encoder as it is now; the index keeps those."""
        places = sorted(set(found.places[found.present].tolist()))
        with torch.no_grad():
            index.replace(torch.tensor(places), self.passage_vectors(self._contexts(places)))
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
        """`<q(x), d>`, `[b, k]`, minus infinity where there is no passage."""
        if not self.options.moving:
            return self._scores(self.proposals.vectors, self.proposals.present)
        present = self.proposals.present.to(self.generator.device)
        return self._scores(spread(self.passage_vectors(self.proposed), present), present)

    def _scores(self, vectors: Tensor, present: Tensor) -> Tensor:
        device = self.generator.device
        scores = (self.question_vectors[:, None] * vectors.to(device)).sum(-1)
        return scores.masked_fill(~present.to(device), ABSENT)

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
    def memory(self) -> Any:
        """The generator's, of every question over every passage it proposed."""
        counts = self.proposals.present.sum(1).tolist()
        asked = [e.question for e, n in zip(self.batch, counts, strict=True) for _ in range(n)]
        return self.read(asked, self.proposed)

    def read(self, asked: Sequence[str], passages: Sequence[Context]) -> Any:
        """The generator's memory of rows, each a question over a passage."""
        pairs = [Pair(q, d.title, d.text) for q, d in zip(asked, passages, strict=True)]
        rows = self.generator.rows(pairs)
        device = self.generator.device
        return self.generator.memorise(TokenRows(rows.ids.to(device), rows.mask.to(device)))

    @cached_property
    def log_probs(self) -> Tensor:
        """Log p of the answers' tokens given each passage alone, `[b, k, t]`."""
        present = self.proposals.present.to(self.generator.device)
        targets = self.targets.masked_fill(~self.mask, self.generator.end)
        rows = targets[:, None].expand(-1, present.shape[1], -1)[present]
        return spread(self.generator.target_log_probs(self.memory, rows), present)

    def answered(self, memory: Any) -> Tensor:
        """Log p of the answers given one row a question, `[b]`."""
        targets = self.targets.masked_fill(~self.mask, self.generator.end)
        return (exact(self.generator.target_log_probs(memory, targets)) * self.mask).sum(-1)

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

    def retrieved(self) -> Retrieved | None:
        """What the batch retrieved, if an objective asked for it."""
        if "scores" not in self.__dict__:
            return None
        prior = log_prior(self.scores.detach(), self.model.temperature.detach())
        return retrieved(self.proposals.places.tolist(), prior)


@dataclass(frozen=True, slots=True)
class Contrast:
    """The texts of a contrastive batch.

    Attributes:
        questions: Those whose passage is known, `b` of them.
        passages: The right one of each, then everybody's wrong ones.
    """

    questions: list[str]
    passages: list[Context]

    @classmethod
    def of(cls, batch: Sequence[Example]) -> "Contrast":
        """What of a batch can be contrasted."""
        known = [example for example in batch if example.passage is not None]
        right = [example.passage for example in known if example.passage is not None]
        wrong = [passage for example in known for passage in example.negatives]
        return cls([example.question for example in known], [*right, *wrong])

    def loss(self, questions: Tensor, passages: Tensor, *, temperature: float) -> Tensor:
        """`info_nce` of vectors, `[b, size]` and `[p, size]`; a text is no negative of itself."""
        scores = questions @ passages.T
        positives = torch.arange(len(self.questions), device=scores.device)
        places = {text: i for i, text in enumerate(dict.fromkeys(d.text for d in self.passages))}
        groups = torch.tensor([places[d.text] for d in self.passages], device=scores.device)
        masked = false_negative_mask(groups, positives)
        return info_nce(scores, positives, temperature=temperature, masked=masked)


def contrast(work: Work) -> Tensor:
    """`info_nce` of the questions whose passage is known, against everything in the batch."""
    found = Contrast.of(work.batch)
    if not found.questions:
        return work.question_vectors.sum() * 0.0
    known = torch.tensor([example.passage is not None for example in work.batch])
    questions = work.question_vectors[known.to(work.question_vectors.device)]
    return found.loss(
        questions, work.passage_vectors(found.passages), temperature=work.options.temperature
    )


def contrast_in_chunks(
    learner: Learner, batch: Sequence[Example], *, chunk: int, scale: float
) -> dict[str, Any]:
    """As a learner with the objective `info_nce`, gradients added, in the memory of `chunk` texts.

    Args:
        learner: Whose encoders.
        batch: Of any size.
        chunk: Texts encoded at once with a graph.
        scale: What the loss is multiplied by before it is differentiated.

    Returns:
        `loss`, without a graph, and `parts`, as `Learner.forward`.
    """
    found, work = Contrast.of(batch), Work(learner, batch)
    if not found.questions:
        return {"loss": torch.zeros((), device=work.generator.device), "parts": {"info_nce": 0.0}}
    asked = Tower(work.vectors_of, _chunks(found.questions, chunk))
    told = Tower(work.passage_vectors, _chunks(found.passages, chunk))
    towers = [asked, told] if learner.options.moving else [asked]
    fixed = None if learner.options.moving else work.passage_vectors(found.passages)
    parts: dict[str, float] = {}

    def mixed(questions: Tensor, passages: Tensor | None = fixed) -> Tensor:
        assert passages is not None
        temperature = learner.options.temperature
        told = partial(found.loss, questions, passages, temperature=temperature)
        made = learner.mixture({"info_nce": told})
        parts.update(made.parts)
        return made.loss

    return {"loss": cached_gradients(towers, mixed, scale=scale), "parts": parts}


def _chunks(items: Sequence[Any], size: int) -> list[Any]:
    return [items[at : at + size] for at in range(0, len(items), size)]


def reader(work: Work) -> Tensor:
    """-log p(y | x, d) of the passage that is known to hold the answer, in nats an answer."""
    known = [example for example in work.batch if example.passage is not None]
    if not known:
        return work.model.log_temperature * 0.0
    part = Work(work.learner, known)
    passages = [example.passage for example in known if example.passage is not None]
    return -part.answered(part.read([one.question for one in known], passages)).mean()


def fid(work: Work) -> Tensor:
    """-log p(y | x, all passages): Fusion-in-Decoder, in nats an answer."""
    return -work.answered(work.joined).mean()


def attended(work: Work) -> Tensor:
    """ADist: the prior is drawn to where a Fusion-in-Decoder generator looked."""
    joined = work.joined  # made with its graph, which other objectives may want
    with torch.no_grad():
        shares = attention_shares(work.generator, joined, work.targets)
    return attention_distillation(
        work.scores,
        shares.clamp_min(1e-9).log(),
        alignment=Alignment(
            score_temperature=work.options.alignment.score_temperature, target_temperature=1.0
        ),
    )


def attention_shares(generator: TrainableGenerator, joined: Any, targets: Tensor) -> Tensor:
    """How much of its attention the generator gave each passage while it wrote the targets.

    Args:
        generator: Whose states tell the shares.
        joined: Of `together`, `b` rows.
        targets: Padded with -100, `[b, t]`.

    Returns:
        The mean over the tokens, `[b, k]`.

    Raises:
        UsageError: This kind of generator does not tell.
    """
    mask = targets != -100
    ids = targets.masked_fill(~mask, generator.end)
    state, _ = generator.begin(joined)
    total = None
    for step in range(targets.shape[1]):
        shares = getattr(state, "shares", None)
        if shares is None:
            raise UsageError(
                "this generator does not tell what it attends to",
                hint="take the objective perplexity in place of attention",
            )
        here = shares[:, 0] * mask[:, step, None]
        total = here if total is None else total + here
        generator.step(joined, state, ids[:, step, None], torch.zeros_like(ids[:, :1]))
    assert total is not None
    mean: Tensor = total / mask.sum(1, keepdim=True)
    return mean


def missed(work: Work) -> Tensor:
    """LOOP: the prior is drawn to the passages that the sum misses when they are gone."""
    without = without_each(work.prior.detach(), work.log_probs.detach(), work.mask)
    return leave_one_out(work.scores, without, work.mask, alignment=work.options.alignment)


def abstain(work: Work) -> Tensor:
    """Whether each passage says [NONE] exactly where it holds no answer."""
    none = work.generator.none
    if none is None:
        raise UsageError(
            "this generator has no token that says there is no answer",
            hint="leave the objective abstain out",
        )
    asked, passages, supports = [], [], []
    for example in work.batch:
        right = [] if example.passage is None else [example.passage]
        for passage in [*right, *example.negatives]:
            asked.append(example.question)
            passages.append(passage)
            supports.append(passage in right and not example.unanswerable)
    if not passages:
        return work.model.log_temperature * 0.0
    memory = work.read(asked, passages)
    target = torch.full((len(passages), 1), none, device=work.generator.device)
    said = work.generator.target_log_probs(memory, target)
    right_ones = torch.tensor(supports, device=said.device)[:, None]
    return support_likelihood(said, right_ones, torch.ones_like(right_ones))


OBJECTIVES: Mapping[ObjectiveName, Callable[[Work], Tensor]] = {
    "sequence": lambda work: marginal_likelihood(
        work.scores, work.log_probs, work.mask, temperature=work.model.temperature
    ),
    "token": lambda work: marginal_likelihood(
        work.scores,
        work.log_probs,
        work.mask,
        fusion="token",
        temperature=work.model.temperature,
    ),
    "emdr2": lambda work: emdr2(
        work.scores, work.log_probs, work.mask, temperature=work.model.temperature
    ),
    "perplexity": lambda work: perplexity_distillation(
        work.scores, work.log_probs, work.mask, alignment=work.options.alignment
    ),
    "attention": attended,
    "leave_one_out": missed,
    "fid": fid,
    "reader": reader,
    "info_nce": contrast,
    "abstain": abstain,
}
"""What is learned, by the name it has in a config."""


def _needed(part: Any, name: str) -> Any:
    if part is None:
        raise UsageError(
            f"an objective of this run needs the {name}, and this model has none",
            hint="take a model with an encoder, or objectives without retrieval: reader, abstain",
        )
    return part
