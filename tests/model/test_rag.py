"""The way of a question through store, retriever, sum and citations, with a random tiny model."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from consilience import Document, Rag, Store
from consilience.errors import FingerprintError, MissingError, UsageError
from consilience.generation import Pair
from consilience.generation.endpoint import Endpoint
from consilience.generation.remote import Candidate, RemoteGenerator, Writing
from consilience.model import AskOptions, AttentionFusion, RagModel, RankWeights, Turn
from consilience.model.asking import standalone
from consilience.model.decoding import DecodingOptions, decode
from consilience.model.fusion import Fusion
from consilience.model.reading import read
from tests.model.small import worded_gpt2
from tests.tiny import write_tiny_model

DOCUMENTS = [
    Document("The fee of the card is 25.50. The bank is in the ward.", "card.txt", "Card"),
    Document("门诊的时间是上午9点。费用是100。", "门诊.txt", "门诊"),
    Document("Visit hours of the ward: 10 to 12.", "ward.txt", "Ward", access=("staff",)),
]


@pytest.fixture(scope="module")
def rag(tiny_model_folder: Path) -> Rag:
    return Rag.load(tiny_model_folder)


@pytest.fixture
def store(tmp_path: Path, rag: Rag) -> Iterator[Store]:
    with Store.open(tmp_path / "store", encoder=rag.encoder) as opened:
        opened.add(*DOCUMENTS)
        yield opened


@pytest.mark.parametrize("fusion", ["sequence", "token", "average", "fid", "concat"])
@pytest.mark.parametrize("beams", [1, 3])
def test_an_answer_carries_its_evidence(rag: Rag, store: Store, fusion: str, beams: int) -> None:
    options = AskOptions(fusion=fusion, beams=beams, max_new_tokens=6)  # type: ignore[arg-type]
    answer = rag.ask("what is the fee of the card?", store, options)
    assert not answer.abstained
    assert answer.citations
    assert sum(answer.posterior.values()) == pytest.approx(1.0, abs=1e-4)
    for citation in answer.citations:
        text = store.document(citation.passage.source).text
        assert text[citation.passage.start : citation.passage.end] == citation.passage.text
        for quote in citation.quotes:
            assert text[quote.start : quote.end] == quote.text
    for token in answer.tokens:
        assert sum(token.posterior.values()) == pytest.approx(1.0, abs=1e-3)
    shares = [citation.posterior for citation in answer.citations]
    assert shares == sorted(shares, reverse=True)


def test_the_json_form_has_the_keys_of_the_contract(rag: Rag, store: Store) -> None:
    answer = rag.ask("门诊时间", store, AskOptions(max_new_tokens=4))
    found = json.loads(json.dumps(answer.to_dict(explain=True)))
    assert found.keys() >= {
        "answer",
        "abstained",
        "confidence",
        "citations",
        "tokens",
        "timings_ms",
    }
    assert found["citations"][0].keys() >= {
        "passage_id",
        "source",
        "page",
        "start",
        "end",
        "text",
        "posterior",
    }
    assert "tokens" not in answer.to_dict()
    assert found["timings_ms"]["total"] > 0


def test_without_support_nothing_is_answered(rag: Rag, store: Store) -> None:
    strict = Rag(replace(rag.parts, settings=replace(rag.settings, support_thresholds={"en": 1.1})))
    answer = strict.ask("what is the fee?", store)
    assert answer.abstained
    assert answer.text == ""
    assert answer.citations == ()
    assert answer.posterior
    assert not strict.ask("what is the fee?", store, AskOptions(abstain=False)).abstained
    # The threshold is that of the question's language.
    assert not strict.ask("门诊时间是什么？", store).abstained


def test_an_empty_store_abstains(rag: Rag, tmp_path: Path) -> None:
    with Store.open(tmp_path / "empty", encoder=rag.encoder) as empty:
        answer = rag.ask("what is the fee?", empty)
    assert answer.abstained
    assert answer.confidence == 0.0


def test_a_removed_document_answers_no_more(rag: Rag, store: Store) -> None:
    rag.ask("what is the fee of the card?", store)
    store.remove("card.txt")
    answer = rag.ask("what is the fee of the card?", store)
    assert "card.txt" not in {citation.passage.source for citation in answer.citations}


def test_hidden_passages_take_no_part(rag: Rag, store: Store) -> None:
    hidden = {p.id for p in store.passages([1, 2, 3, 4]).values() if p.access}
    assert hidden
    visitor = rag.ask("visit hours of the ward", store, AskOptions(access=()))
    assert not hidden & set(visitor.posterior)
    staff = rag.ask("visit hours of the ward", store, AskOptions(access=("staff",)))
    assert hidden & set(staff.posterior)


def test_follow_up_questions_carry_what_they_follow() -> None:
    turns = [Turn("old", "older"), Turn("What is the fee?", "25.50")]
    assert standalone("And for two?", turns) == "What is the fee? 25.50 And for two?"
    assert standalone("And for two?", ()) == "And for two?"


def test_a_saved_model_answers_alike(rag: Rag, store: Store, tmp_path: Path) -> None:
    rag.save(tmp_path / "copy")
    copy = Rag.load(tmp_path / "copy")
    question = "what is the fee of the card?"
    assert copy.ask(question, store).text == rag.ask(question, store).text


def test_what_was_learned_is_saved(store: Store, tiny_model_folder: Path, tmp_path: Path) -> None:
    learned = Rag.load(tiny_model_folder)
    with torch.no_grad():
        learned.model.generator.decoder.bias.add_(3.0)
        learned.model.log_temperature.fill_(-1.0)
        learned.encoder.layers.layer[0].output.dense.weight.mul_(1.5)
    learned.save(tmp_path / "learned")
    loaded = Rag.load(tmp_path / "learned")
    torch.testing.assert_close(
        loaded.model.generator.decoder.bias, learned.model.generator.decoder.bias
    )
    assert float(loaded.model.temperature) == pytest.approx(math.exp(-1.0))
    assert loaded.encoder.fingerprint != learned.encoder.fingerprint


def test_retriever_and_generator_share_their_embeddings(rag: Rag) -> None:
    assert rag.model.generator.embeddings is rag.encoder.embeddings


def test_a_model_is_not_saved_over_itself(rag: Rag, tiny_model_folder: Path) -> None:
    with pytest.raises(UsageError, match="the model was loaded from"):
        rag.save(tiny_model_folder)


def test_a_store_of_another_encoder_is_refused(store: Store, tmp_path: Path) -> None:
    other = Rag.load(write_tiny_model(tmp_path / "other", seed=7))
    with pytest.raises(FingerprintError):
        other.ask("what is the fee?", store)


@pytest.mark.parametrize("question", ["", "  \n\t"])
def test_an_empty_question_is_refused(rag: Rag, store: Store, question: str) -> None:
    with pytest.raises(UsageError, match="the question is empty"):
        rag.ask(question, store)


def test_an_overlong_question_is_refused(rag: Rag, store: Store) -> None:
    with pytest.raises(UsageError, match="the question has 5000 characters; 4000 are read"):
        rag.ask("a" * 5000, store)


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no model folder"):
        Rag.load(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["k", "beams", "max_new_tokens"])
def test_numbers_below_one_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} must be at least 1, received 0"):
        AskOptions(**{name: 0})  # type: ignore[arg-type]


def test_an_unknown_fusion_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown fusion 'sum'"):
        AskOptions(fusion="sum")  # type: ignore[arg-type]


class TestAlternatives:
    def test_further_answers_come_best_first(self, rag: Rag, store: Store) -> None:
        question = "what is the fee of the card?"
        options = AskOptions(returned=3, max_new_tokens=5)
        answer = rag.ask(question, store, options)
        assert answer.text == rag.ask(question, store, AskOptions(max_new_tokens=5)).text
        assert len(answer.alternatives) == 2
        chances = [one.log_likelihood for one in answer.alternatives]
        assert chances == sorted(chances, reverse=True)
        found = answer.to_dict()["alternatives"]
        assert found[0].keys() == {"text", "log_likelihood"}
        assert "alternatives" not in rag.ask(question, store).to_dict()

    def test_samples_depend_on_their_seed_alone(self, rag: Rag, store: Store) -> None:
        def drawn(seed: int) -> list[str]:
            options = AskOptions(sample=True, seed=seed, returned=4, max_new_tokens=5)
            answer = rag.ask("what is the fee?", store, options)
            return [answer.text, *(one.text for one in answer.alternatives)]

        assert drawn(1) == drawn(1)
        assert drawn(1) != drawn(2)

    @pytest.mark.parametrize("search", ["thorough", "fast"])
    def test_the_searches_of_lewis_et_al(self, rag: Rag, store: Store, search: str) -> None:
        options = AskOptions(search=search, max_new_tokens=5)  # type: ignore[arg-type]
        answer = rag.ask("what is the fee?", store, options)
        assert sum(answer.posterior.values()) == pytest.approx(1.0, abs=1e-4)


class TestOptions:
    def test_every_option_of_decoding_is_handed_on(self) -> None:
        options = AskOptions(
            fusion="token",
            sample=True,
            temperature=0.7,
            top_k=5,
            top_p=0.9,
            seed=3,
            returned=2,
            min_new_tokens=1,
            max_new_tokens=9,
            repetition_penalty=1.2,
            stop=("x",),
        )
        found = options.decoding(DecodingOptions(no_repeat_ngram=2, groups=2, beams=2, diversity=1))
        assert found == DecodingOptions(
            fusion="token",
            sample=True,
            temperature=0.7,
            top_k=5,
            top_p=0.9,
            seed=3,
            returned=2,
            min_new_tokens=1,
            max_new_tokens=9,
            repetition_penalty=1.2,
            stop=("x",),
            no_repeat_ngram=2,
        )
        assert AskOptions(beams=2, returned=5).decoding().beams == 5
        assert AskOptions(fusion="fid").decoding().fusion == "sequence"
        assert AskOptions(search="fast").decoding().search == "fast"

    def test_what_would_do_nothing_is_refused(self) -> None:
        with pytest.raises(UsageError, match="temperature does nothing without sampling"):
            AskOptions(temperature=0.5)
        with pytest.raises(UsageError, match="search 'fast' is a search of the fusion 'sequence'"):
            AskOptions(fusion="fid", search="fast")


class TestStream:
    @pytest.mark.parametrize("fusion", ["sequence", "token", "average", "fid", "concat"])
    def test_the_last_piece_is_what_ask_answers(self, rag: Rag, store: Store, fusion: str) -> None:
        options = AskOptions(fusion=fusion, beams=1, max_new_tokens=6)  # type: ignore[arg-type]
        *pieces, last = rag.stream("what is the fee of the card?", store, options)
        answer = rag.ask("what is the fee of the card?", store, options)
        assert last.answer is not None
        assert (last.text, last.answer.tokens) == (answer.text, answer.tokens)
        assert last.posterior == answer.posterior
        assert len(pieces) == len(answer.tokens)
        assert all(piece.answer is None for piece in pieces)
        if fusion in ("fid", "concat"):
            assert all(piece.posterior == {} for piece in pieces)
        else:
            for piece, token in zip(pieces, answer.tokens, strict=True):
                assert piece.posterior == pytest.approx(token.posterior, abs=1e-5)

    def test_an_answer_that_is_withheld_is_not_shown_on_the_way(
        self, rag: Rag, store: Store
    ) -> None:
        settings = replace(rag.settings, support_thresholds={"en": 1.1})
        pieces = list(Rag(replace(rag.parts, settings=settings)).stream("what is it?", store))
        assert [piece.text for piece in pieces] == [""]
        assert pieces[0].answer is not None
        assert pieces[0].answer.abstained

    def test_an_empty_store_has_one_piece(self, rag: Rag, tmp_path: Path) -> None:
        with Store.open(tmp_path / "empty", encoder=rag.encoder) as empty:
            (piece,) = rag.stream("what is it?", empty)
        assert piece.answer is not None
        assert piece.answer.abstained


class TestShares:
    """Where no sum tells passages apart, each is asked alone."""

    @pytest.mark.parametrize("fusion", ["sequence", "token", "average"])
    def test_those_of_a_sum_cost_no_further_pass(
        self, rag: Rag, store: Store, fusion: Fusion, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise AssertionError("the generator was asked again")

        hits = rag.retriever(store).search("what is the fee?", k=3)
        reading = read(rag.model, "what is the fee?", hits, fusion=fusion, encoder=None)
        options = AskOptions(fusion=fusion, max_new_tokens=5, min_new_tokens=2).decoding()
        kind = type(reading.generator)
        monkeypatch.setattr(kind, "score", fail)
        (one,) = decode(reading.generator, reading.memory, reading.log_weights, options=options)[0]
        for name in ("read", "begin", "step"):
            monkeypatch.setattr(kind, name, fail)
        shares = reading.shares(one)
        torch.testing.assert_close(shares.whole.sum(), torch.tensor(1.0))
        assert shares.tokens.shape == (len(one.ids), 3)
        torch.testing.assert_close(shares.tokens.sum(-1), torch.ones(len(one.ids)))

    @pytest.mark.parametrize("fusion", ["fid", "concat"])
    def test_they_follow_bayes(self, rag: Rag, store: Store, fusion: Fusion) -> None:
        hits = rag.retriever(store).search("what is the fee?", k=3)
        reading = read(rag.model, "what is the fee?", hits, fusion=fusion, encoder=None)
        options = AskOptions(fusion=fusion, max_new_tokens=5).decoding()
        generator = reading.generator
        (one,) = decode(generator, reading.memory, reading.log_weights, options=options)[0]
        shares = reading.shares(one)
        alone = []
        for hit in hits:
            memory = generator.read([Pair("what is the fee?", hit.passage.title, hit.passage.text)])
            alone.append(generator.score(memory, torch.tensor([[*one.ids, generator.end]])).sum())
        expected = (reading.log_prior[0] + torch.stack(alone)).softmax(0)
        torch.testing.assert_close(shares.whole, expected, atol=1e-4, rtol=1e-3)
        assert shares.tokens.shape == (len(one.ids), 3)

    def test_concat_reads_all_passages_as_one(self, rag: Rag, store: Store) -> None:
        class Listening:
            def __init__(self) -> None:
                self.pairs: list[Pair] = []

            def __getattr__(self, name: str) -> object:
                return getattr(rag.model.generator, name)

            def read(self, pairs: list[Pair]) -> object:
                self.pairs += pairs
                return rag.model.generator.read(pairs)

        hits = rag.retriever(store).search("what is the fee?", k=2)
        listening = Listening()
        model = RagModel(listening)  # type: ignore[arg-type]
        reading = read(model, "what is the fee?", hits, fusion="concat", encoder=None)
        told = [f"{hit.passage.title}\n{hit.passage.text}" for hit in hits]
        assert listening.pairs[-1] == Pair("what is the fee?", "", "\n\n".join(told))
        assert reading.log_weights.shape == (1, 1)


class TestAttention:
    """Passages as vectors, with a decoder-only model and the encoder of a store."""

    @pytest.fixture
    def seeing(self, rag: Rag) -> Rag:
        assert rag.encoder is not None
        generator = worded_gpt2()
        torch.manual_seed(0)
        fusion = AttentionFusion(16, rag.encoder.dimension)
        torch.nn.init.normal_(fusion.project.weight)
        return Rag.of(RagModel(generator, attention=fusion), encoder=rag.encoder)

    def test_shares_are_the_attention_of_the_answer(self, seeing: Rag, store: Store) -> None:
        options = AskOptions(fusion="attention", max_new_tokens=4, min_new_tokens=2, beams=2)
        answer = seeing.ask("what is the fee?", store, options)
        assert sum(answer.posterior.values()) == pytest.approx(1.0, abs=1e-4)
        assert len(answer.tokens) >= 2
        means = {
            name: sum(token.posterior[name] for token in answer.tokens) / len(answer.tokens)
            for name in answer.posterior
        }
        assert answer.posterior == pytest.approx(means, abs=1e-4)
        assert len(set(answer.posterior.values())) > 1

    def test_a_token_is_shared_out_by_what_was_written_before_it(
        self, seeing: Rag, store: Store
    ) -> None:
        hits = seeing.retriever(store).search("what is the fee?", k=3)
        model, encoder = seeing.model, seeing.encoder
        reading = read(model, "what is it", hits, fusion="attention", encoder=encoder)
        options = AskOptions(fusion="attention", min_new_tokens=3, beams=1).decoding()
        (one,) = decode(reading.generator, reading.memory, reading.log_weights, options=options)[0]
        texts = [f"{hit.passage.title}\n{hit.passage.text}" for hit in hits]
        vectors = torch.from_numpy(encoder.encode_passages(texts))[None]
        before = torch.cat([reading.memory.last, torch.tensor(one.ids[:-1])])
        states = model.generator.embeddings(before)[None]
        expected = model.attention.shares(states, vectors, torch.ones(1, 3, dtype=torch.bool))[0]
        torch.testing.assert_close(reading.shares(one).tokens, expected, atol=1e-5, rtol=1e-4)

    def test_other_vectors_another_answer(self, seeing: Rag, store: Store) -> None:
        options = AskOptions(fusion="attention", max_new_tokens=3, k=1, beams=1)
        hits = seeing.retriever(store).search("what is the fee?", k=3)
        chances = set()
        for hit in hits:
            reading = read(
                seeing.model, "what is it", [hit], fusion="attention", encoder=seeing.encoder
            )
            told = decode(
                reading.generator, reading.memory, reading.log_weights, options=options.decoding()
            )
            chances.add(round(told[0][0].log_likelihood, 4))
        assert len(chances) == len(hits)

    def test_without_it_the_fusion_is_refused(self, rag: Rag, store: Store) -> None:
        with pytest.raises(UsageError, match="was not trained with attention over passage"):
            rag.ask("what is the fee?", store, AskOptions(fusion="attention"))

    def test_without_an_encoder_it_is_refused(self, seeing: Rag, store: Store) -> None:
        bare = Rag.of(seeing.model)
        assert bare.settings.mode == "bm25"
        with pytest.raises(UsageError, match="this model has no encoder"):
            bare.ask("what is the fee?", store, AskOptions(fusion="attention"))


def test_learned_weights_of_ranks_are_used(rag: Rag, store: Store) -> None:
    model = RagModel(rag.model.generator, ranks=RankWeights([98.0, 1.0, 1.0]))
    joined = Rag.of(model, encoder=rag.encoder)
    hits = joined.retriever(store).search("what is the fee?", k=3)
    reading = read(model, "what is the fee?", hits, fusion="average", encoder=None)
    torch.testing.assert_close(reading.log_weights.exp(), torch.tensor([[0.98, 0.01, 0.01]]))


class TestAfar:
    """A model behind an endpoint, played by a remote generator that is told what to answer."""

    class Told(RemoteGenerator):
        def __init__(self, *, scores: bool) -> None:
            super().__init__(Endpoint("http://127.0.0.1:9"), "none")
            self.told = scores

        def can_score(self) -> bool:
            return self.told

        def answers(
            self, pairs: Sequence[Pair], writing: Writing | None = None
        ) -> list[list[Candidate]]:
            self.writing = writing
            return [
                [Candidate("25.50" if "25.50" in pair.passage else "10", -1.0)] for pair in pairs
            ]

        def scores(self, pairs: Sequence[Pair], answers: Sequence[str]) -> list[list[float]]:
            return [[-0.1 if one in pair.passage else -5.0 for one in answers] for pair in pairs]

    def test_what_it_scores_is_summed(self, store: Store) -> None:
        rag = Rag.of(self.Told(scores=True), temperature=1e6)
        question = "what is the fee of the card, what are the hours of the ward?"
        answer = rag.ask(question, store, AskOptions(k=3))
        assert answer.text == "25.50"
        assert answer.citations[0].quotes[0].text == "25.50"
        assert sum(answer.posterior.values()) == pytest.approx(1.0, abs=1e-5)
        assert [one.text for one in answer.alternatives] == ["10"]

    def test_what_it_does_not_score_is_cited_nowhere(self, store: Store) -> None:
        rag = Rag.of(self.Told(scores=False))
        answer = rag.ask("what is the fee of the card?", store)
        assert (answer.text, answer.citations, answer.posterior) == ("25.50", (), {})
        (piece,) = rag.stream("what is the fee of the card?", store)
        assert piece.text == "25.50"

    def test_sampling_is_asked_for(self, store: Store) -> None:
        told = self.Told(scores=True)
        options = AskOptions(sample=True, temperature=0.5, seed=4, returned=3, max_new_tokens=7)
        Rag.of(told).ask("what is the fee of the card?", store, options)
        assert told.writing == Writing(n=3, max_new_tokens=7, temperature=0.5, seed=4)

    def test_other_fusions_are_refused(self, store: Store) -> None:
        rag = Rag.of(self.Told(scores=True))
        with pytest.raises(UsageError, match="the fusion fid needs a model that runs here"):
            rag.ask("what is the fee of the card?", store, AskOptions(fusion="fid"))
        with pytest.raises(UsageError, match="it has no weights here"):
            _ = rag.model
