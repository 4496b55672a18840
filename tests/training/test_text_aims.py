"""What objectives of plain text ask and count, by hand: masks, marks, ends, padding, labels."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BertTokenizerFast

from consilience.generation import TokenRows
from consilience.model.rag import Rag
from consilience.model.rag_model import RagModel
from consilience.model.text_encoder import TextEncoder
from consilience.model.vectors import PooledEncoder
from consilience.training.examples import Example, PlainText
from consilience.training.heads import FollowHead, WordHead, fit_heads, sides_of
from consilience.training.learner import Learner
from consilience.training.objectives import Masking, corrupt_spans, mask_tokens, prefix_continuation
from consilience.training.objectives.masking import IGNORED
from consilience.training.plain_text import sentence_pairs, source_of
from consilience.training.spelling import pairs_of, rows_of, spelling_of_encoder
from consilience.training.text_aims import TEXT_OBJECTIVES, TextWork
from consilience.training.work import LearnerOptions
from tests.model.small import dpr, worded_gpt2
from tests.tiny import write_tiny_model

CPU = torch.device("cpu")
TEXTS = ["The fee of the bank is 3. The ward is open.", "A card. The exam of the ward is at nine."]


@pytest.fixture(scope="module")
def rag(tmp_path_factory: pytest.TempPathFactory) -> Rag:
    found = Rag.load(write_tiny_model(tmp_path_factory.mktemp("model") / "tiny", seed=2))
    found.model.float()
    return found


@pytest.fixture
def library(tmp_path: Path) -> TextEncoder:
    """The encoders of a library's model; both segments have vectors of their own."""
    questions, passages = dpr()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "fee", "##s", "bank", "of", "a"]
    (tmp_path / "vocab.txt").write_text("\n".join(words), "utf-8")
    tokenizer = BertTokenizerFast(vocab=str(tmp_path / "vocab.txt"))
    return TextEncoder(PooledEncoder(questions), PooledEncoder(passages), tokenizer)


def plain(*texts: str, draw: int = 0) -> list[Example]:
    return [
        Example("", "", plain=PlainText(text, "", document=text, draw=draw + place))
        for place, text in enumerate(texts)
    ]


def work_of(model: RagModel, texts: Any, *examples: Example, **options: Any) -> TextWork:
    objectives = dict.fromkeys(TEXT_OBJECTIVES, 1.0)
    learner = Learner(
        model.requires_grad_(True),
        texts,
        index=None,
        options=LearnerOptions(objectives, moving=True, **options),
    )
    fit_heads(learner)
    return TextWork(learner, examples)


def told(work: TextWork, name: Any) -> Tensor:
    found = TEXT_OBJECTIVES[name](work)
    assert found is not None
    return found.detach()


def nats_a_token(rag: Rag, rows: list[tuple[list[int], list[int]]]) -> Tensor:
    """The mean over all that is told, each row read and written alone, without padding."""
    generator: Any = rag.model.generator
    words = generator.tokens
    total = torch.zeros(())
    with torch.no_grad():
        for read, written in rows:
            ids = torch.tensor([[words.start, words.separator, *read, words.separator]])
            memory = generator.memorise(TokenRows(ids, torch.ones_like(ids, dtype=torch.bool)))
            total -= generator.target_log_probs(memory, torch.tensor([written])).sum()
    return total / sum(len(written) for _, written in rows)


class TestWriting:
    @pytest.mark.parametrize("limit", [None, 40])
    def test_how_a_text_goes_on(self, rag: Rag, limit: int | None) -> None:
        texts = [*TEXTS, "the fee " * 40]
        work = work_of(rag.model, rag.encoder, *plain(*texts))
        if limit is not None:  # less than the long text has
            work.of_generator = replace(work.of_generator, window=limit)
        room, end = work.of_generator.room, rag.model.generator.end
        rows = []
        for one, ids in zip(work.texts, work.of_generator.encode(texts), strict=True):
            cut = prefix_continuation(ids[:room], source_of(one, "continuation"))
            assert cut is not None
            rows.append((cut[0], [*cut[1], end]))
        assert len({len(written) for _, written in rows}) > 1
        torch.testing.assert_close(told(work, "continuation"), nats_a_token(rag, rows))

    @pytest.mark.parametrize(("share", "span"), [(0.15, 3.0), (0.4, 2.0)])
    def test_what_is_missing_and_its_marks(self, rag: Rag, share: float, span: float) -> None:
        work = work_of(rag.model, rag.encoder, *plain(*TEXTS), share=share, span=span)
        rows = []
        for one, ids in zip(work.texts, work.of_generator.encode(TEXTS), strict=True):
            found = corrupt_spans(
                ids,
                source_of(one, "span_corruption"),
                sentinels=work.of_generator.sentinels,
                end=rag.model.generator.end,
                share=share,
                length=span,
            )
            assert found is not None
            rows.append((found.inputs[:-1], found.targets))
        torch.testing.assert_close(told(work, "span_corruption"), nats_a_token(rag, rows))

    def test_a_long_text_loses_no_more_stretches_than_there_are_marks(self, rag: Rag) -> None:
        work = work_of(rag.model, rag.encoder, *plain("the fee " * 40), share=0.5, span=1.0)
        work.of_generator = replace(work.of_generator, sentinels=[4] * 12)
        assert told(work, "span_corruption") > 0


class TestMaskedWords:
    def test_the_words_that_are_asked_for(self, library: TextEncoder) -> None:
        model = model_of(library)
        texts = ["the fees of the bank", "a fee", "fees of a bank of the fees"]
        work = work_of(model, library, *plain(*texts), share=0.5)
        spelling = spelling_of_encoder(library)
        rows = rows_of(spelling, texts, CPU)
        masked = mask_tokens(
            rows.ids,
            rows.plain,
            words=spelling.replaceable(),
            generator=work.seeded("mlm"),
            masking=Masking(share=0.5),
            groups=rows.groups,
        )
        asked = masked.labels != IGNORED
        pieces = (rows.ids == 7).nonzero().tolist()  # ##s, asked for with its fee or not at all
        assert all(bool(asked[row, at]) == bool(asked[row, at - 1]) for row, at in pieces)
        assert not asked[:, 0].any()
        losses = []
        for side in work.sides:
            logits = work.learner.heads[f"{side.name}-mlm"](
                side.states(masked.ids, rows), side.words
            )
            log_probs = logits.log_softmax(-1)
            losses += [
                -log_probs[row, at, rows.ids[row, at]] for row, at in asked.nonzero().tolist()
            ]
        torch.testing.assert_close(told(work, "mlm"), torch.stack(losses).mean().detach())

    def test_draws_depend_on_the_objective_and_on_the_draws_of_the_texts(self, rag: Rag) -> None:
        first, second = (work_of(rag.model, rag.encoder, *plain(*TEXTS, draw=d)) for d in (0, 9))
        seeds = [first.seeded("mlm"), first.seeded("nsp"), second.seeded("mlm")]
        assert len({seed.initial_seed() for seed in seeds}) == 3
        assert first.seeded("mlm").initial_seed() == seeds[0].initial_seed()

    def test_a_random_word_is_no_mark(self, rag: Rag) -> None:
        words = work_of(rag.model, rag.encoder, *plain(*TEXTS)).of_encoder.replaceable()
        encoder: Any = rag.encoder
        names = encoder.words.words(list(range(words.first + 1)))
        assert names[words.mask] == "[MASK]"
        assert all(name.startswith("[") for name in names[:-1])
        assert not names[-1].startswith("[")
        assert words.size == len(encoder.words)


class TestSentencesThatFollow:
    def test_the_second_logit_says_that_they_do(self, rag: Rag) -> None:
        work = work_of(
            rag.model,
            rag.encoder,
            *plain(*TEXTS, "The bus stops. The card is new. The fee is 3. Visit."),
        )
        (side,) = work.sides
        head = work.learner.heads[f"{side.name}-nsp"]
        head.dense.weight.data.zero_()
        head.dense.bias.data.copy_(torch.tensor([0.0, 20.0]))
        follows = [one.follows for one in sentence_pairs(work.texts)]
        assert 0 < sum(follows) < len(follows) != 2 * sum(follows)
        wrong = follows.count(False) / len(follows)
        torch.testing.assert_close(told(work, "nsp"), torch.tensor(20.0 * wrong))

    def test_its_head_reads_the_first_state(self) -> None:
        head, states = FollowHead(4), torch.randn(2, 3, 4)
        torch.testing.assert_close(
            head(states), states[:, 0] @ head.dense.weight.T + head.dense.bias
        )


def test_one_text_has_nothing_to_be_told_from(rag: Rag) -> None:
    alone, together = (work_of(rag.model, rag.encoder, *plain(*TEXTS[:n])) for n in (1, 2))
    for name in ("crops", "inverse_cloze"):
        assert TEXT_OBJECTIVES[name](alone) is None  # type: ignore[index]
        assert told(together, name) > 0


def test_a_word_head_adds_its_bias() -> None:
    head, states, words = WordHead(4, 3), torch.randn(2, 4), torch.randn(3, 4)
    before = head(states, words)
    head.bias.data.copy_(torch.tensor([1.0, -2.0, 0.5]))
    torch.testing.assert_close(head(states, words) - before, head.bias.data.expand(2, 3))


def model_of(library: TextEncoder) -> RagModel:
    return RagModel(
        worded_gpt2(), question_encoder=library.questions, passage_encoder=library.passages
    )


class TestStates:
    @pytest.fixture(params=["ships", "library"])
    def work(self, request: pytest.FixtureRequest, rag: Rag, library: TextEncoder) -> TextWork:
        if request.param == "ships":
            return work_of(rag.model, rag.encoder, *plain(*TEXTS))
        return work_of(model_of(library), library, *plain(*TEXTS))

    def test_padding_changes_no_state(self, work: TextWork) -> None:
        both, alone = (
            rows_of(work.of_encoder, some, CPU) for some in (["a", "of the fee a"], ["a"])
        )
        for side in work.sides:
            found = side.states(both.ids, both)[0, :3]
            torch.testing.assert_close(
                found, side.states(alone.ids, alone)[0], atol=1e-5, rtol=1e-5
            )

    def test_the_second_of_a_pair_is_told_from_the_first(self, work: TextWork) -> None:
        rows = pairs_of(work.of_encoder, [("a bank", "the fee")], CPU)
        single = replace(rows, segments=torch.zeros_like(rows.segments))
        for side in work.sides:
            found, plain_ = side.states(rows.ids, rows), side.states(rows.ids, single)
            assert not torch.allclose(found, plain_, atol=1e-3)

    def test_encoders_that_share_their_layers_are_one_side(self, rag: Rag) -> None:
        work = work_of(rag.model, rag.encoder, *plain(*TEXTS))
        assert [side.name for side in sides_of(work.learner)] == ["passage_encoder"]
