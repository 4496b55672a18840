import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tokenizers import processors
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from consilience.errors import UsageError
from consilience.generation import Asked, Asking, Ends, NextToken, Pair, Stretch, TokenRows
from consilience.generation.attention import NAME
from consilience.generation.seq2seq import Seq2SeqGenerator, Seq2SeqMemory
from consilience.model.decoding import DecodingOptions, decode
from tests.generation import library
from tests.generation.library import FAMILIES, after_start, byte_tokenizer

ROWS, LENGTH, STEPS = 4, 9, 6
TARGETS = torch.randint(3, 61, (ROWS, STEPS), generator=torch.Generator().manual_seed(1))


def ragged() -> TokenRows:
    """Rows of 7, 4, 1 and 5 tokens, in nine columns."""
    ids = torch.randint(3, 61, (ROWS, LENGTH), generator=torch.Generator().manual_seed(2))
    mask = torch.arange(LENGTH) < torch.tensor([7, 4, 1, 5])[:, None]
    return TokenRows(ids.masked_fill(~mask, library.PAD), mask)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def model(request: pytest.FixtureRequest) -> Any:
    return FAMILIES[request.param]()


@pytest.fixture(scope="module")
def generator(model: Any) -> Seq2SeqGenerator:
    return Seq2SeqGenerator(model)


def library_logits(model: Any, rows: TokenRows, targets: Tensor, start: int) -> Tensor:
    out = model(
        input_ids=rows.ids,
        attention_mask=rows.mask.long(),
        decoder_input_ids=after_start(targets, start),
    )
    return out.logits  # type: ignore[no-any-return]


class TestAgainstTheLibrary:
    def test_logits(self, model: Any, generator: Seq2SeqGenerator) -> None:
        found = generator.next_logits(generator.memorise(ragged()), TARGETS)
        close(found, library_logits(model, ragged(), TARGETS, generator.start))

    def test_target_log_probs(self, model: Any, generator: Seq2SeqGenerator) -> None:
        full = library_logits(model, ragged(), TARGETS, generator.start).log_softmax(-1)
        expected = full.gather(-1, TARGETS[..., None])[..., 0]
        memory = generator.memorise(ragged())
        close(generator.target_log_probs(memory, TARGETS), expected)
        close(generator.score(memory, TARGETS), expected)
        mask = TARGETS > 20
        close(generator.target_log_probs(memory, TARGETS, mask=mask), expected * mask)

    def test_gradients(self, model: Any, generator: Seq2SeqGenerator) -> None:
        weights = torch.randn(ROWS, STEPS, generator=torch.Generator().manual_seed(3))

        def gradients(log_probs: Tensor) -> dict[str, Tensor]:
            model.zero_grad(set_to_none=True)
            (log_probs * weights).sum().backward()
            return {
                name: one.grad for name, one in model.named_parameters() if one.grad is not None
            }

        full = library_logits(model, ragged(), TARGETS, generator.start).log_softmax(-1)
        expected = gradients(full.gather(-1, TARGETS[..., None])[..., 0])
        memory = generator.memorise(ragged())
        found = gradients(generator.target_log_probs(memory, TARGETS))
        assert found.keys() == expected.keys()
        for name, one in expected.items():
            torch.testing.assert_close(found[name], one, atol=3e-4, rtol=1e-3, msg=name)

    def test_a_tree_of_open_ends(self, model: Any, generator: Seq2SeqGenerator) -> None:
        walk = torch.Generator().manual_seed(4)
        rows, memory = ragged(), generator.memorise(ragged())
        state, following = generator.begin(memory)
        written = torch.full((ROWS, 1, 1), generator.start)
        for n in (3, 3, 2, 5, 14, 14, 6, 1, 3):
            parents = torch.randint(0, written.shape[1], (ROWS, n), generator=walk)
            tokens = torch.randint(3, 61, (ROWS, n), generator=walk)
            following = generator.step(memory, state, tokens, parents)
            behind = written.gather(1, parents[..., None].expand(-1, -1, written.shape[2]))
            written = torch.cat([behind, tokens[..., None]], dim=2)
            whole = model(
                input_ids=rows.ids.repeat_interleave(n, 0),
                attention_mask=rows.mask.long().repeat_interleave(n, 0),
                decoder_input_ids=written.flatten(0, 1),
            ).logits[:, -1]
            close(following.log_probs(), whole.log_softmax(-1).view(ROWS, n, -1))
        assert state.tree.capacity < written.shape[2] * 14

    def test_tokens_asked_for_after_open_ends(self, generator: Seq2SeqGenerator) -> None:
        """Rows with none, one or several ends, beside a walk in which every row has all."""
        assert isinstance(generator, Asking)
        walk = torch.Generator().manual_seed(5)
        memory = generator.memorise(ragged())
        (asked_of, _), (whole, _) = generator.begin(memory), generator.begin(memory)
        before = torch.ones(ROWS, dtype=torch.long)
        for n in (3, 5, 14, 14, 2):
            parents = torch.randint(0, 60, (ROWS, n), generator=walk) % before[:, None]
            ids = torch.randint(3, 61, (ROWS, n), generator=walk)
            counts = torch.tensor([0, n, 1, n - 1])
            there = torch.arange(n) < counts[:, None]
            tokens = torch.randint(0, 61, (ROWS, 2 * n), generator=walk)
            ends = torch.arange(n).repeat(ROWS, 2)
            wanted = there.repeat(1, 2) & (tokens > 10)
            expected = generator.step(memory, whole, ids, parents).of(tokens, ends)
            asked = Asked(tokens, ends * wanted, wanted)
            found = generator.ask(memory, asked_of, Ends(ids, parents, there), asked)
            close(found, expected * wanted)
            assert torch.equal(found == 0, ~wanted)
            before = counts.clamp_min(1)

    def test_passages_together(self, model: Any, generator: Seq2SeqGenerator) -> None:
        rows, k = ragged(), 2
        states = model.get_encoder()(
            input_ids=rows.ids, attention_mask=rows.mask.long()
        ).last_hidden_state
        targets = TARGETS[: ROWS // k]
        expected = model(
            encoder_outputs=BaseModelOutput(states.reshape(ROWS // k, k * LENGTH, -1)),
            attention_mask=rows.mask.reshape(ROWS // k, -1).long(),
            decoder_input_ids=after_start(targets, generator.start),
        ).logits
        memory = generator.together(generator.memorise(rows), k)
        close(generator.next_logits(memory, targets), expected)
        for step, following in enumerate(written(generator, memory, targets)):
            close(following[:, 0], expected[:, step].log_softmax(-1))


def written(generator: Seq2SeqGenerator, memory: Seq2SeqMemory, targets: Tensor) -> list[Tensor]:
    """Log p at each step of writing targets, each `[rows, 1, v]`."""
    state, following = generator.begin(memory)
    found = [following.log_probs()]
    for step in range(targets.shape[1] - 1):
        ids = targets[:, step : step + 1]
        found.append(generator.step(memory, state, ids, torch.zeros_like(ids)).log_probs())
    return found


def test_answers_are_no_longer_than_there_are_positions(generator: Seq2SeqGenerator) -> None:
    """A limit beyond the positions is cut to them; T5 has none and goes as far as it is told."""
    options = DecodingOptions(max_new_tokens=70, min_new_tokens=70)
    memory = generator.memorise(ragged())
    found = decode(generator, memory, torch.zeros(ROWS, 1), options=options)
    longest = generator.longest_answer(memory)
    assert {len(answers[0].ids) for answers in found} == {longest or 70}
    assert longest in (None, 63)
    assert (longest is None) == (generator.model.config.model_type[-2:] == "t5")


class TestRows:
    def test_a_row_alone_is_what_it_is_among_others(self, generator: Seq2SeqGenerator) -> None:
        rows = ragged()
        among = generator.memorise(rows)
        for row in range(ROWS):
            only = slice(row, row + 1)
            alone = generator.memorise(TokenRows(rows.ids[only], rows.mask[only]))
            assert alone.states.shape[1] == int(rows.mask[row].sum())
            close(generator.score(alone, TARGETS[only]), generator.score(among, TARGETS)[only])
            pairs = zip(
                written(generator, alone, TARGETS[only]),
                written(generator, among, TARGETS),
                strict=True,
            )
            for found, expected in pairs:
                close(found, expected[only])

    def test_columns_of_padding_go(self, generator: Seq2SeqGenerator) -> None:
        assert generator.memorise(ragged()).states.shape[1] == 7

    def test_a_row_without_a_token_is_no_nan(self, generator: Seq2SeqGenerator) -> None:
        rows = ragged()
        rows.mask[1] = False
        memory = generator.memorise(rows)
        assert bool(generator.begin(memory)[1].log_probs().isfinite().all())
        empty = generator.memorise(TokenRows(rows.ids, torch.zeros_like(rows.mask)))
        assert empty.states.shape[1] == 1
        # It reads its first padding and no more, however long the rows beside it are.
        close(generator.score(empty, TARGETS)[1], generator.score(memory, TARGETS)[1])

    def test_two_answers_from_one_memory_keep_apart(self, generator: Seq2SeqGenerator) -> None:
        memory = generator.memorise(ragged())
        other = TARGETS.flip(1)
        expected = [written(generator, memory, one) for one in (TARGETS, other)]
        walks = [generator.begin(memory) for _ in range(2)]
        assert [len(memory.cross), memory.cross[0]] == [
            len(walks[0][0].branches),
            walks[1][0].cache.cross_attention_cache.layers[0],
        ]
        for step in range(STEPS - 1):
            following: list[NextToken] = []
            for (state, _), targets in zip(walks, (TARGETS, other), strict=True):
                ids = targets[:, step : step + 1]
                following.append(generator.step(memory, state, ids, torch.zeros_like(ids)))
            for found, whole in zip(following, expected, strict=True):
                close(found.log_probs(), whole[step + 1])


class TestShares:
    @pytest.mark.parametrize("name", ["bart", "t5", "bert2bert"])
    def test_are_the_attention_on_each_passage(self, name: str) -> None:
        model, k = FAMILIES[name](), 2
        generator = Seq2SeqGenerator(model)
        memory = generator.together(generator.memorise(ragged()), k)
        model.set_attn_implementation("eager")
        targets = TARGETS[: ROWS // k]
        attentions = model(
            encoder_outputs=BaseModelOutput(memory.states),
            attention_mask=memory.mask.long(),
            decoder_input_ids=after_start(targets, generator.start),
            output_attentions=True,
        ).cross_attentions
        layers = torch.stack(attentions).unflatten(-1, (k, -1)).sum(-1)
        expected = layers.mean(dim=(0, 2))
        state, _ = generator.begin(memory)
        close(state.shares, expected[:, :1])
        for step in range(3):
            ids = targets[:, step : step + 1].expand(-1, 2)
            generator.step(memory, state, ids, torch.zeros_like(ids))
            close(state.shares, expected[:, step + 1, None].expand(-1, 2, -1))

    def test_groups_may_be_put_together_again(self, generator: Seq2SeqGenerator) -> None:
        memory = generator.memorise(ragged())
        twice = generator.together(generator.together(memory, 2), 2)
        state, following = generator.begin(twice)
        once, expected = generator.begin(generator.together(memory, 4))
        close(following.log_probs(), expected.log_probs())
        assert state.shares is not None
        assert state.shares.shape == (1, 1, 4)
        close(state.shares, once.shares)

    def test_there_are_none_over_single_passages(self, generator: Seq2SeqGenerator) -> None:
        state, _ = generator.begin(generator.memorise(ragged()))
        assert state.shares is None


class TestAugment:
    def test_steps_and_whole_targets_agree(self, generator: Seq2SeqGenerator) -> None:
        memory = generator.memorise(ragged())
        plain = generator.score(memory, TARGETS)
        push = torch.randn(ROWS, 1, 16, generator=torch.Generator().manual_seed(5))
        memory.augment = lambda states: states + push
        full = generator.next_logits(memory, TARGETS).log_softmax(-1)
        assert float((generator.score(memory, TARGETS) - plain).abs().max()) > 0.01
        for step, following in enumerate(written(generator, memory, TARGETS)):
            close(following[:, 0], full[:, step])

    def test_is_added_to_the_decoders_input(self) -> None:
        model = library.t5()
        generator = Seq2SeqGenerator(model)
        memory = generator.memorise(ragged())
        push = torch.randn(ROWS, 1, 16, requires_grad=True)
        memory.augment = lambda states: states + push
        inputs = model.shared(after_start(TARGETS, generator.start)) + push
        expected = model(
            input_ids=ragged().ids,
            attention_mask=ragged().mask.long(),
            decoder_inputs_embeds=inputs,
        ).logits
        close(generator.next_logits(memory, TARGETS), expected)
        generator.target_log_probs(memory, TARGETS).sum().backward()
        assert push.grad is not None
        assert float(push.grad.abs().sum()) > 0


class TestTheModel:
    def test_keeps_its_attention_and_its_mode(self, tmp_path: Path) -> None:
        model = library.bart()
        before = library_logits(model, ragged(), TARGETS, 2)
        generator = Seq2SeqGenerator(model).train()
        generator.begin(generator.memorise(ragged()))
        assert not model.training
        assert {
            one.config._attn_implementation for one in model.modules() if hasattr(one, "config")
        } == {"sdpa"}
        assert torch.equal(library_logits(model, ragged(), TARGETS, 2), before)
        generator.model.save_pretrained(tmp_path)
        assert NAME not in json.dumps(json.loads((tmp_path / "config.json").read_text()))

    def test_shares_its_weights(self) -> None:
        model = library.t5()
        generator = Seq2SeqGenerator(model)
        mine, theirs = dict(generator.model.named_parameters()), dict(model.named_parameters())
        assert mine.keys() == theirs.keys()
        assert all(mine[name] is theirs[name] for name in mine)
        optimiser = torch.optim.SGD(generator.parameters(), lr=0.1)
        before = library_logits(model, ragged(), TARGETS, 0)
        (-generator.target_log_probs(generator.memorise(ragged()), TARGETS).mean()).backward()
        optimiser.step()
        assert (
            float((library_logits(model, ragged(), TARGETS, 0) - before).detach().abs().max())
            > 1e-3
        )
        close(
            generator.next_logits(generator.memorise(ragged()), TARGETS),
            library_logits(model, ragged(), TARGETS, 0),
        )

    def test_says_where_answers_begin_and_end(self) -> None:
        found = {
            name: (one.start, one.end, one.pad)
            for name, one in ((name, Seq2SeqGenerator(make())) for name, make in FAMILIES.items())
        }
        assert found["bart"] == (2, 2, 1)
        assert found["t5"] == (0, 1, 0)
        assert found["bert2bert"] == (library.START, library.END, library.PAD)

    def test_start_and_end_may_be_the_tokenizers(self) -> None:
        model = library.bert2bert()
        for place in (model.config, model.generation_config, model.config.decoder):
            for name in ("decoder_start_token_id", "bos_token_id", "eos_token_id", "pad_token_id"):
                setattr(place, name, None)
        with pytest.raises(UsageError, match="does not say its decoder_start_token_id") as raised:
            Seq2SeqGenerator(model)
        assert raised.value.hint == "set model.config.decoder_start_token_id"
        generator = Seq2SeqGenerator(model, byte_tokenizer())
        assert (generator.start, generator.end, generator.pad) == (0, 2, 1)

    def test_sizes(self, generator: Seq2SeqGenerator) -> None:
        assert generator.vocabulary_size == library.VOCABULARY
        assert generator.device == torch.device("cpu")
        assert generator.none is None

    def test_unknown_families_are_refused(self) -> None:
        with pytest.raises(UsageError, match="a model of type 'bert' is not one that can be read"):
            Seq2SeqGenerator(library.bert2bert().decoder)

    def test_windows(self) -> None:
        tokenizer = byte_tokenizer()
        assert Seq2SeqGenerator(library.bart(), tokenizer).window == 64
        assert Seq2SeqGenerator(library.t5(), tokenizer).window == 512
        tokenizer.model_max_length = 40
        assert Seq2SeqGenerator(library.bart(), tokenizer).window == 40
        assert Seq2SeqGenerator(library.bart(), tokenizer, window=30).window == 30


WIDE = {"vocab_size": 260, "max_position_embeddings": 256}


def reader(**settings: Any) -> Seq2SeqGenerator:
    from transformers import BartConfig, BartForConditionalGeneration

    sizes: dict[str, Any] = library._BART | WIDE
    torch.manual_seed(0)
    model = BartForConditionalGeneration(BartConfig(**sizes)).eval()
    return Seq2SeqGenerator(model, byte_tokenizer(), **settings)


PAIRS = [
    Pair("what is the fee?", "Fees", "The fee of the card is 25.50 in all."),
    Pair("费用是多少？", "", "费用为25.50元。"),
]


class TestText:
    def test_rows_are_what_the_tokenizer_makes_of_the_prompt(self) -> None:
        generator = reader()
        rows = generator.rows(PAIRS)
        texts = [
            "Fees / The fee of the card is 25.50 in all. // what is the fee?",
            " / 费用为25.50元。 // 费用是多少？",
        ]
        expected = generator.tokenizer(texts, padding=True, return_tensors="pt")
        assert torch.equal(rows.ids, expected["input_ids"])
        assert torch.equal(rows.mask, expected["attention_mask"].bool())

    @pytest.mark.parametrize("prompt", ["rag", "question-context"])
    def test_the_passage_is_cut_and_the_question_is_not(self, prompt: str) -> None:
        generator = reader(window=70, prompt=prompt)
        long = Pair(PAIRS[0].question, "Fees", "The fee, the fee. " * 40)
        rows = generator.rows([long, PAIRS[1]])
        assert rows.mask.sum(1).tolist()[0] == 70
        text = generator.decode(rows.ids[0].tolist())
        expected = {
            "rag": "Fees / The fee, the fee. The fee, the fee. The f // what is the fee?",
            "question-context": "question: what is the fee? context: "
            "The fee, the fee. The fee, the f",
        }
        assert text == expected[prompt]
        assert rows.ids[0, 0] == library.START
        assert rows.ids[0, -1] == library.END

    def test_a_question_longer_than_the_window_is_refused(self) -> None:
        with pytest.raises(UsageError, match="a question and a title make 29 tokens; 20 are") as e:
            reader(window=20).rows(PAIRS)
        assert e.value.hint == "ask a shorter question, or give the generator a larger window"

    def test_special_tokens_written_in_a_document_are_text(self) -> None:
        generator = reader()
        ids = generator.rows([Pair("q", "", "a </s> b")]).ids[0].tolist()
        assert ids.count(library.END) == 1
        assert generator.decode(ids) == "/ a </s> b // q"

    def test_a_prompt_may_be_a_function(self) -> None:
        from consilience.generation.prompts import Wording

        def shout(pair: Pair) -> Wording:
            return Wording("", pair.passage.upper(), pair.question)

        generator = reader(prompt=shout)
        assert generator.decode(generator.rows([Pair("q", "", "abc")]).ids[0].tolist()) == "ABCq"

    def test_reading_is_memorising_without_gradient(self) -> None:
        generator = reader()
        memory = generator.read(PAIRS)
        torch.testing.assert_close(memory.states, generator.memorise(generator.rows(PAIRS)).states)
        assert not memory.states.requires_grad
        assert memory.pairs == tuple(PAIRS)

    def test_where_an_answer_stands(self) -> None:
        generator = reader()
        memory = generator.read(PAIRS)

        def located(row: int, text: str) -> list[Stretch]:
            return generator.locate(memory, row, generator.tokenizer(text)["input_ids"])

        assert located(0, "THE  fee") == [Stretch(0, 7)]
        assert located(0, "25.50") == [Stretch(23, 28)]
        assert located(1, "25.50元") == [Stretch(3, 9)]
        assert located(1, "25.50") == [Stretch(3, 8)]
        assert located(0, "card fee") == []
        assert located(0, "") == []
        together = generator.together(memory, 2)
        assert generator.locate(together, 0, generator.tokenizer("fee")["input_ids"]) == []

    def test_an_answer_as_targets(self) -> None:
        generator = reader()
        plain = generator.tokenizer(
            "25 </s> 元", add_special_tokens=False, split_special_tokens=True
        )
        ids = plain["input_ids"]
        assert library.END not in ids
        assert generator.answer_ids("25 </s> 元") == [library.START, *ids, library.END]
        joined = Seq2SeqGenerator(library.bert2bert(), generator.tokenizer)
        assert joined.answer_ids("25 </s> 元") == [*ids, library.END]
        bare = byte_tokenizer()
        bare.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A")
        assert Seq2SeqGenerator(library.t5(), bare).answer_ids("25") == [
            *bare("25")["input_ids"],
            1,
        ]

    def test_words(self) -> None:
        generator = reader()
        assert generator.words(generator.tokenizer("ab c")["input_ids"][1:-1]) == [
            "a",
            "b",
            "",
            "c",
        ]

    @pytest.mark.parametrize(
        "call",
        [
            lambda generator: generator.read(PAIRS),
            lambda generator: generator.decode([3]),
            lambda generator: generator.words([3]),
        ],
    )
    def test_without_a_tokenizer_texts_are_refused(
        self, call: Callable[[Seq2SeqGenerator], Any]
    ) -> None:
        with pytest.raises(UsageError, match="has no tokenizer, so it reads and writes") as raised:
            call(Seq2SeqGenerator(library.bart()))
        assert raised.value.hint == "make it with Seq2SeqGenerator(model, tokenizer)"

    def test_a_tokenizer_without_offsets_is_refused(self) -> None:
        slow = SimpleNamespace(is_fast=False)
        with pytest.raises(UsageError, match="SimpleNamespace does not say where its tokens"):
            Seq2SeqGenerator(library.bart(), slow)
