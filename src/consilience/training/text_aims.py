"""What is learned from plain text: every such objective by the name that it has in a config.

Each is a function of a `TextWork` and gives None where a batch holds nothing that it could learn
from. Objectives that a text can put as questions are those of `aims` over these questions; what
stands here in full are those that take ids apart.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from consilience.encoding.compact import CompactEncoder
from consilience.errors import UsageError
from consilience.model.fusion import exact
from consilience.model.text_encoder import TextEncoder
from consilience.training.aims import reader
from consilience.training.contrasting import contrast
from consilience.training.examples import Example, PlainText
from consilience.training.heads import Side, sides_of
from consilience.training.names import ObjectiveName
from consilience.training.objectives import (
    Corrupted,
    Masking,
    corrupt_spans,
    mask_tokens,
    masked_language_loss,
    prefix_continuation,
)
from consilience.training.objectives.masking import IGNORED
from consilience.training.plain_text import made_from, sentence_pairs, source_of
from consilience.training.spelling import (
    Spelling,
    pairs_of,
    rows_of,
    spelling_of_encoder,
    spelling_of_generator,
    token_rows_of,
)
from consilience.training.work import Work

if TYPE_CHECKING:
    from consilience.training.learner import Learner


class TextWork:
    """The plain texts of a batch, and what their objectives share.

    Args:
        learner: Whose model and heads.
        batch: Examples that are texts, at least one.
    """

    def __init__(self, learner: "Learner", batch: Sequence[Example]) -> None:
        self.learner, self.batch = learner, batch
        self.texts: list[PlainText] = [one.plain for one in batch if one.plain is not None]
        self.share, self.span = learner.options.share, learner.options.span

    def asked(self, name: ObjectiveName) -> Work | None:
        """The questions that the texts put for an objective; None where they put none."""
        made = made_from(self.batch, name)
        return Work(self.learner, made) if made else None

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return self.learner.model.generator.device

    @cached_property
    def sides(self) -> list[Side]:
        """The encoders that learn."""
        return sides_of(self.learner)

    @cached_property
    def of_encoder(self) -> Spelling:
        """How texts are spelled for the encoders."""
        texts = self.learner.texts
        if not isinstance(texts, CompactEncoder | TextEncoder):
            raise UsageError(
                "the encoder of this model does not say how it reads ids",
                hint="leave the objectives mlm and nsp out",
            )
        return spelling_of_encoder(texts)

    @cached_property
    def of_generator(self) -> Spelling:
        """How texts are spelled for the generator."""
        return spelling_of_generator(self.learner.model.generator)

    def seeded(self, name: str) -> torch.Generator:
        """Randomness of an objective over the whole batch; it depends on the draws alone."""
        told = f"{name}:{[text.draw for text in self.texts]}"
        digest = hashlib.sha256(told.encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:6], "big"))

    def written(self, read: Sequence[Sequence[int]], told: Sequence[Sequence[int]]) -> Tensor:
        """-log p(told | read) of rows of ids, in nats a token."""
        generator = self.learner.model.generator
        memory = generator.memorise(token_rows_of(self.of_generator, read, self.device))
        length = max(map(len, told))
        targets = torch.full((len(told), length), generator.end, device=self.device)
        mask = torch.zeros(len(told), length, dtype=torch.bool, device=self.device)
        for row, ids in enumerate(told):
            targets[row, : len(ids)] = torch.tensor(ids, device=self.device)
            mask[row, : len(ids)] = True
        log_probs = exact(generator.target_log_probs(memory, targets))
        return -(log_probs * mask).sum() / mask.sum()


def _told_apart(name: ObjectiveName) -> Callable[[TextWork], Tensor | None]:
    """`info_nce` over pairs that the texts give; one pair has nothing to be told from."""

    def aim(work: TextWork) -> Tensor | None:
        found = work.asked(name)
        return None if found is None or len(found.batch) < 2 else contrast(found)

    return aim


def _read_out(name: ObjectiveName) -> Callable[[TextWork], Tensor | None]:
    """-log p(answer | cloze, text), in nats an answer."""

    def aim(work: TextWork) -> Tensor | None:
        found = work.asked(name)
        return None if found is None else reader(found)

    return aim


def masked_words(work: TextWork) -> Tensor | None:
    """Masked language modelling, the mean over the encoders that learn, in nats a token."""
    spelling = work.of_encoder
    rows = rows_of(spelling, [text.text for text in work.texts], work.device)
    masked = mask_tokens(
        rows.ids,
        rows.plain,
        words=spelling.replaceable(),
        generator=work.seeded("mlm"),
        masking=Masking(share=work.share),
        groups=rows.groups,
    )
    asked = masked.labels != IGNORED
    if not bool(asked.any()):
        return None
    losses = [
        masked_language_loss(
            work.learner.heads[f"{side.name}-mlm"](
                side.states(masked.ids, rows)[asked], side.words
            ),
            masked.labels[asked],
        )
        for side in work.sides
    ]
    return torch.stack(losses).mean()


def sentences_that_follow(work: TextWork) -> Tensor | None:
    """Next sentence prediction, the mean over the encoders that learn, in nats a pair."""
    pairs = sentence_pairs(work.texts)
    if not pairs:
        return None
    rows = pairs_of(work.of_encoder, [(one.first, one.second) for one in pairs], work.device)
    right = torch.tensor([one.follows for one in pairs], device=work.device).long()
    losses = [
        functional.cross_entropy(
            exact(work.learner.heads[f"{side.name}-nsp"](side.states(rows.ids, rows))), right
        )
        for side in work.sides
    ]
    return torch.stack(losses).mean()


def corrupted_spans(work: TextWork) -> Tensor | None:
    """Span corruption, in nats a token of what is missing and its marks."""
    spelling = work.of_generator
    if not spelling.sentinels:
        raise UsageError(
            "the vocabulary of this generator has no mark for what is missing",
            hint="take the objective continuation in place of span_corruption",
        )
    room = min(spelling.room, int((len(spelling.sentinels) - 2) * work.span / work.share))
    made = [_corrupted(work, text, ids[:room]) for text, ids in _spelled(work)]
    found = [one for one in made if one is not None]
    if not found:
        return None
    # The rows end as every row of this generator does, not as T5's do.
    return work.written([one.inputs[:-1] for one in found], [one.targets for one in found])


def _corrupted(work: TextWork, text: PlainText, ids: list[int]) -> Corrupted | None:
    return corrupt_spans(
        ids,
        source_of(text, "span_corruption"),
        sentinels=work.of_generator.sentinels,
        end=work.learner.model.generator.end,
        share=work.share,
        length=work.span,
    )


def continued(work: TextWork) -> Tensor | None:
    """How a text goes on after its beginning, in nats a token."""
    room, end = work.of_generator.room, work.learner.model.generator.end
    cut = [
        prefix_continuation(ids[:room], source_of(text, "continuation"))
        for text, ids in _spelled(work)
    ]
    found = [one for one in cut if one is not None]
    if not found:
        return None
    return work.written([first for first, _ in found], [[*rest, end] for _, rest in found])


def _spelled(work: TextWork) -> list[tuple[PlainText, list[int]]]:
    """Each text with the ids that the generator reads it as."""
    encoded = work.of_generator.encode([text.text for text in work.texts])
    return list(zip(work.texts, encoded, strict=True))


TEXT_OBJECTIVES: Mapping[ObjectiveName, Callable[[TextWork], Tensor | None]] = {
    "inverse_cloze": _told_apart("inverse_cloze"),
    "crops": _told_apart("crops"),
    "mlm": masked_words,
    "nsp": sentences_that_follow,
    "span_corruption": corrupted_spans,
    "continuation": continued,
    "recurring_spans": _read_out("recurring_spans"),
    "salient_spans": _read_out("salient_spans"),
}
"""What is learned from plain text, by the name it has in a config."""
