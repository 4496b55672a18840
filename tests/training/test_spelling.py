"""How plain text is spelled for encoders and generators, and what libraries' models make of it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertTokenizerFast

from consilience.encoding import load_encoder
from consilience.errors import UsageError
from consilience.generation.causal import CausalGenerator
from consilience.generation.seq2seq import Seq2SeqGenerator
from consilience.model.rag_model import RagModel
from consilience.model.text_encoder import TextEncoder
from consilience.model.vectors import PooledEncoder
from consilience.training.examples import Example, PlainText
from consilience.training.heads import fit_heads, keep_heads, sides_of
from consilience.training.learner import Learner
from consilience.training.spelling import (
    SENTINELS,
    pairs_of,
    rows_of,
    spelling_of_encoder,
    spelling_of_generator,
    token_rows_of,
)
from consilience.training.work import LearnerOptions
from tests.generation.library import byte_tokenizer
from tests.model.small import SIZE, bart, compact, dpr, worded_gpt2
from tests.tiny import write_tiny_model

CPU = torch.device("cpu")


@pytest.fixture
def encoder(tmp_path: Path) -> TextEncoder:
    questions, passages = dpr()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "fee", "##s", "bank", "of", "a"]
    (tmp_path / "vocab.txt").write_text("\n".join(words), "utf-8")
    tokenizer = BertTokenizerFast(vocab=str(tmp_path / "vocab.txt"))
    return TextEncoder(PooledEncoder(questions), PooledEncoder(passages), tokenizer)


class TestRows:
    def test_of_the_kind_that_ships(self, tmp_path: Path) -> None:
        own = load_encoder(write_tiny_model(tmp_path / "model"))
        spelling = spelling_of_encoder(own)
        rows = rows_of(spelling, ["the fee", "fees of"], CPU)
        ids, mask = own.token_rows(["the fee", "fees of"])
        assert torch.equal(rows.ids, ids)
        assert torch.equal(rows.mask, mask)
        assert rows.plain.sum(1).tolist() == (mask.sum(1) - 2).tolist()
        assert not rows.plain[:, 0].any()

    def test_pieces_of_a_word_are_one_group(self, encoder: TextEncoder) -> None:
        rows = rows_of(spelling_of_encoder(encoder), ["the fees of", "a"], CPU)
        assert rows.ids[0].tolist() == [2, 5, 6, 7, 9, 3]
        assert rows.groups[0].tolist() == [0, 1, 2, 2, 3, 4]
        assert rows.plain.tolist() == [
            [False, True, True, True, True, False],
            [False, True, False, False, False, False],
        ]

    def test_pairs_stand_in_one_row_with_their_segments(self, encoder: TextEncoder) -> None:
        rows = pairs_of(spelling_of_encoder(encoder), [("the fee", "a bank")], CPU)
        assert rows.ids.tolist() == encoder.tokenizer([("the fee", "a bank")])["input_ids"]
        assert rows.segments.tolist() == [[0, 0, 0, 0, 1, 1, 1]]

    def test_text_past_the_window_is_left_out(self, encoder: TextEncoder) -> None:
        spelling = spelling_of_encoder(encoder)
        assert rows_of(spelling, ["fee " * 9999], CPU).ids.shape == (1, spelling.window)
        found = pairs_of(spelling, [("fee " * 9999, "bank " * 9999)], CPU)
        assert found.ids.shape[1] <= spelling.window
        assert (found.ids == 8).sum() == (found.ids == 6).sum() > 200

    def test_a_mask_in_a_text_is_text(self, encoder: TextEncoder) -> None:
        assert 4 not in rows_of(spelling_of_encoder(encoder), ["the [MASK] fee"], CPU).ids[0]

    def test_generators_read_the_text_with_their_marks(self) -> None:
        own = compact()
        spelling = spelling_of_generator(own)
        ids = spelling.encode(["the fee"])
        words = own.tokens
        read = token_rows_of(spelling, ids, CPU).ids.tolist()
        assert read == [[words.start, words.separator, *ids[0], words.separator]]
        assert spelling.sentinels == [words.mask] * SENTINELS
        theirs = spelling_of_generator(Seq2SeqGenerator(wide_bart(), byte_tokenizer()))
        assert (theirs.opening, theirs.closing, theirs.sentinels) == ([0], [2], [])

    def test_a_generator_without_a_tokenizer(self) -> None:
        with pytest.raises(UsageError, match="has no tokenizer, so it cannot learn from plain"):
            spelling_of_generator(bart())

    def test_an_encoder_without_a_mask(self, encoder: TextEncoder) -> None:
        encoder.tokenizer.mask_token = None
        with pytest.raises(UsageError, match="has no mask"):
            spelling_of_encoder(encoder).replaceable()


def wide_bart() -> Any:
    from transformers import BartConfig, BartForConditionalGeneration

    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=300,
        d_model=16,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        max_position_embeddings=128,
        encoder_layers=2,
        decoder_layers=2,
    )
    return BartForConditionalGeneration(config).eval()


def marked_bart() -> Seq2SeqGenerator:
    tokenizer = byte_tokenizer()
    names = [f"<extra_id_{number}>" for number in range(20)]
    tokenizer.add_special_tokens({"additional_special_tokens": names})
    return Seq2SeqGenerator(wide_bart(), tokenizer)


TEXTS = ["The fee is 3. The bank is 4.", "A ward of 5 beds. A bank of the ward."]


def learner_of(model: RagModel, texts: TextEncoder | None, **objectives: float) -> Learner:
    options = LearnerOptions(objectives, moving=True, temperature=1.0)  # type: ignore[arg-type]
    return Learner(model, texts, index=None, options=options)


def batch() -> list[Example]:
    return [
        Example("", "", plain=PlainText(text, "", document=text, draw=place))
        for place, text in enumerate(TEXTS)
    ]


class TestModelsOfTheLibrary:
    @pytest.mark.parametrize("kind", ["marked", "causal"])
    def test_generators_learn_to_go_on(self, kind: str) -> None:
        generator = marked_bart() if kind == "marked" else worded_gpt2()
        learner = learner_of(RagModel(generator), None, continuation=1)
        steps = torch.optim.Adam(learner.parameters(), lr=1e-2)
        losses = []
        for _ in range(25):
            loss = learner(batch())["loss"]
            steps.zero_grad()
            loss.backward()
            steps.step()
            losses.append(float(loss.detach()))
        assert losses[-1] < 0.7 * losses[0]

    def test_missing_spans_have_the_marks_of_t5(self, monkeypatch: pytest.MonkeyPatch) -> None:
        generator = marked_bart()
        read: list[Any] = []
        real = generator.memorise
        monkeypatch.setattr(generator, "memorise", lambda rows: (read.append(rows), real(rows))[1])
        found = learner_of(RagModel(generator), None, span_corruption=1)(batch())
        assert found["loss"].requires_grad
        first = generator.tokenizer.convert_tokens_to_ids("<extra_id_0>")
        assert [(row == first).sum().item() for row in read[0].ids] == [1, 1]
        told = generator.tokenizer.decode(read[0].ids[0][read[0].mask[0]].tolist())
        assert told.startswith("<s>The") or "<extra_id_0>" in told[:20]

    def test_a_decoder_alone_has_no_mark_for_what_is_missing(self) -> None:
        generator: CausalGenerator = worded_gpt2()
        learner = learner_of(RagModel(generator), None, span_corruption=1)
        with pytest.raises(UsageError, match="no mark for what is missing") as caught:
            learner(batch())
        assert "continuation in place of span_corruption" in str(caught.value.hint)

    def test_both_encoders_of_a_pair_learn_with_a_head_each(
        self, encoder: TextEncoder, tmp_path: Path
    ) -> None:
        model = RagModel(
            worded_gpt2(), question_encoder=encoder.questions, passage_encoder=encoder.passages
        )
        learner = learner_of(model, encoder, mlm=1, nsp=1)
        learner.model.generator.requires_grad_(False)  # type: ignore[attr-defined]
        learner.options = LearnerOptions({"mlm": 1, "nsp": 1}, moving=True, share=0.5)
        fit_heads(learner)
        assert {side.name for side in sides_of(learner)} == {"question_encoder", "passage_encoder"}
        assert learner.heads["question_encoder-mlm"].dense.in_features == SIZE
        found = learner(batch())
        assert found["parts"].keys() == {"mlm", "nsp"}
        found["loss"].backward()
        for part in (encoder.questions, encoder.passages, learner.heads):
            assert any(w.grad is not None and bool(w.grad.any()) for w in part.parameters())
        assert keep_heads(learner, tmp_path).is_file()
