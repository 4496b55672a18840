"""The known faults of transformers 5.23, each seen in transformers and put right here."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import DPRContextEncoder

from consilience.compat.transformers import (
    RagRetriever,
    RagSequenceForGeneration,
    RagTokenForGeneration,
)
from tests.compat.theirs import their_retriever
from tests.compat.tiny_rag import (
    QUESTIONS,
    batch,
    pair,
    passages,
    rag_config,
    tokenizer,
)

RIGHT = {"hf_compat": False}


def to_scores(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """The gradient of the loss with respect to the scores."""
    scores = inputs["doc_scores"].clone().requires_grad_()
    loss = model(**(inputs | {"doc_scores": scores})).loss.sum()
    return torch.autograd.grad(loss, scores)[0]


@pytest.mark.parametrize("answer", [[2, 7], [2, 7, 2], [2, 7, 8, 2]])
def test_1_answers_of_one_token_teach_the_retriever(answer: list[int]) -> None:
    theirs, ours = pair("sequence", rag_config(**RIGHT))
    inputs = batch(theirs.config, answers=[answer])
    if len(answer) == 2:
        assert float(to_scores(theirs, inputs).abs().max()) == 0.0
    # Prior minus posterior, whatever the answer's length.
    logits = theirs(**inputs).logits.log_softmax(-1)
    given = sum(logits[:, t, token] for t, token in enumerate(answer[1:]))
    prior = inputs["doc_scores"].softmax(-1)
    posterior = (inputs["doc_scores"].log_softmax(-1) + given).softmax(-1)
    torch.testing.assert_close(to_scores(ours, inputs), prior - posterior, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("settings", [{}, RIGHT])
def test_2_rag_sequence_has_a_loss_with_t5(settings: dict[str, Any]) -> None:
    theirs, ours = pair("sequence", rag_config("t5", **settings))
    inputs = batch(theirs.config, answers=[[0, 7, 8, 1], [0, 9, 1]])
    with pytest.raises(AttributeError, match="bos_token_id"):
        theirs(**inputs)
    assert bool((ours(**inputs).loss > 0).all())
    assert ours.generate(**(inputs | {"labels": None}), num_beams=2).shape[0] == 2


def test_3_the_loss_of_a_row_does_not_depend_on_other_rows() -> None:
    theirs, ours = pair("sequence", rag_config(**RIGHT))
    inputs = batch(theirs.config, answers=[[2, 0, 7, 8, 2], [2, 7, 8, 2]])
    alone = {"n_docs": 3, "exclude_bos_score": True}
    first = {name: value[: value.shape[0] // 2] for name, value in inputs.items()}
    apart, beside = (theirs(**each, **alone).loss[0] for each in (first, inputs))
    assert abs(float(apart - beside)) > 0.5
    apart, beside = (ours(**each, **alone).loss[0] for each in (first, inputs))
    torch.testing.assert_close(apart, beside)
    # The row that has a start token loses it; the row that has none loses nothing.
    whole, without = ours(**inputs).loss, ours(**inputs, exclude_bos_score=True).loss
    assert float(whole[0] - without[0]) > 0.5
    torch.testing.assert_close(without[1], whole[1])


def asked(model: Any) -> dict[str, torch.Tensor]:
    questions: Any = tokenizer("bert")(QUESTIONS, padding=True, return_tensors="pt")
    return {"input_ids": questions["input_ids"], "attention_mask": questions["attention_mask"]}


def test_4_no_more_passages_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, ours = pair("token", rag_config(n_docs=6, **RIGHT))
    theirs.set_retriever(their_retriever(theirs.config, monkeypatch))
    ours.set_retriever(
        RagRetriever(ours.config, tokenizer("bert"), tokenizer("bart"), passages=passages())
    )
    wrong = theirs(**asked(theirs), labels=torch.tensor([[2, 7, 2]] * 2), output_retrieved=True)
    assert wrong.retrieved_doc_ids[0].tolist().count(-1) == 2
    assert float(wrong.doc_scores[0, 4:].abs().max()) == 0.0
    right = ours(**asked(ours), labels=torch.tensor([[2, 7, 2]] * 2), output_retrieved=True)
    assert right.doc_scores.shape == (2, 4)
    assert sorted(right.retrieved_doc_ids[0].tolist()) == [0, 1, 2, 3]
    assert ours.generate(**asked(ours), num_beams=2).shape[0] == 2


class Half:
    """An index that has two passages for the first question and three for the others."""

    def __init__(self) -> None:
        retriever = RagRetriever(rag_config(), passages=passages())
        self.inner: Any = retriever.index

    def get_top_docs(self, question_hidden_states: Any, n_docs: int = 5) -> Any:
        numbers, vectors = self.inner.get_top_docs(question_hidden_states, n_docs)
        numbers[0, 2:] = -1
        return numbers, vectors

    def get_doc_dicts(self, doc_ids: Any) -> Any:
        return self.inner.get_doc_dicts(doc_ids)


@pytest.mark.parametrize("fusion", ["token", "sequence"])
def test_4_a_passage_that_is_not_there_has_no_weight(fusion: str) -> None:
    _, ours = pair(fusion, rag_config(**RIGHT))
    reading = (tokenizer("bert"), tokenizer("bart"))
    ours.set_retriever(RagRetriever(ours.config, *reading, index=Half()))
    labels = torch.tensor([[2, 7, 8, 2]] * 2)
    found = ours(**asked(ours), labels=labels, output_retrieved=True)
    assert found.doc_scores[0].tolist()[2] == float("-inf")
    two = ours(
        context_input_ids=found.context_input_ids[:2],
        context_attention_mask=found.context_attention_mask[:2],
        doc_scores=found.doc_scores[:1, :2],
        labels=labels[:1],
    )
    torch.testing.assert_close(found.loss[0], two.loss[0])
    grads = torch.autograd.grad(found.loss.sum(), list(ours.question_encoder.parameters())[:1])
    assert bool(grads[0].isfinite().all())
    answers = ours.generate(**asked(ours), num_beams=2, return_dict_in_generate=True)
    assert float(answers.doc_posteriors[0, 2]) == 0.0


@pytest.mark.parametrize("settings", [{}, RIGHT])
def test_5_scores_keep_their_order_in_bfloat16(settings: dict[str, Any]) -> None:
    config = rag_config(n_docs=4, retrieval_vector_size=2, **settings)
    vectors = [[75.03, 0.0], [74.50, 0.0], [74.08, 0.0], [74.03, 0.0]]
    docs = [one | {"embeddings": vector} for one, vector in zip(passages(), vectors, strict=True)]

    class Constant(torch.nn.Module):
        """Asks for the first component of a vector, as a model in bfloat16 does."""

        def forward(self, input_ids: torch.Tensor, **_: Any) -> Any:
            asked = torch.tensor([[1.0, 0.0]] * len(input_ids), dtype=torch.bfloat16)
            return transformers.utils.ModelOutput(pooler_output=asked)

    _, ours = pair("token", config)
    ours.rag.question_encoder = Constant()
    ours.set_retriever(RagRetriever(config, tokenizer("bert"), tokenizer("bart"), passages=docs))
    found: Any = ours.rag.contexts(ours._asked(**asked(ours)))
    coarse = torch.tensor([row[0] for row in vectors], dtype=torch.bfloat16)
    assert len(set(coarse.tolist())) < 4
    torch.testing.assert_close(found.scores[0], torch.tensor([row[0] for row in vectors]))
    assert found.scores.dtype == torch.float32


def test_6_states_of_the_question_encoder_are_given_back() -> None:
    _, ours = pair("token", rag_config())
    ours.set_retriever(
        RagRetriever(ours.config, tokenizer("bert"), tokenizer("bart"), passages=passages())
    )
    found = ours(**asked(ours), labels=torch.tensor([[2, 7, 2]] * 2), output_hidden_states=True)
    assert len(found.question_enc_hidden_states) == 2
    assert found.question_encoder_last_hidden_state.shape == (2, 8)


def test_7_passages_need_no_package_of_datasets() -> None:
    with pytest.raises(ImportError, match="datasets"):
        transformers.RagRetriever(rag_config(), tokenizer("bert"), tokenizer("bart"))
    assert RagRetriever(rag_config(), tokenizer("bert"), tokenizer("bart"), passages=passages())


class TestPassageEncoder:
    def model(self, config: Any, *, retriever: bool = True) -> RagTokenForGeneration:
        torch.manual_seed(0)
        model = RagTokenForGeneration(config).eval()
        if retriever:
            model.set_retriever(self.retriever(config))
        return model

    def retriever(self, config: Any) -> RagRetriever:
        made = RagRetriever(config, tokenizer("bert"), tokenizer("bart"), passages=passages())
        made.set_ctx_encoder_tokenizer(tokenizer("bert"))
        return made

    def test_8_it_is_loaded_again(self, tmp_path: Path) -> None:
        model = self.model(rag_config(**RIGHT))
        encoder = DPRContextEncoder(model.config.question_encoder).eval()
        model.set_context_encoder_for_training(encoder)
        labels = torch.tensor([[2, 7, 8, 2]] * 2)
        expected = model(**asked(model), labels=labels).loss
        model.save_pretrained(tmp_path)
        assert transformers.RagTokenForGeneration.from_pretrained(tmp_path).rag.ctx_encoder is None
        again = RagTokenForGeneration.from_pretrained(
            tmp_path, retriever=self.retriever(model.config)
        )
        torch.testing.assert_close(again(**asked(again), labels=labels).loss, expected)
        kept = RagTokenForGeneration.from_pretrained(tmp_path, hf_compat=True)
        assert kept.rag.ctx_encoder is not None
        assert not kept.rag.context_encoder_training

    def test_8_it_is_trained(self) -> None:
        model = self.model(rag_config(**RIGHT))
        encoder = DPRContextEncoder(model.config.question_encoder)
        model.set_context_encoder_for_training(encoder)
        model(**asked(model), labels=torch.tensor([[2, 7, 8, 2]] * 2)).loss.sum().backward()
        assert all(
            float(weight.grad.abs().max()) > 0
            for name, weight in encoder.named_parameters()
            if "word_embeddings" in name or ("dense.weight" in name and weight.grad is not None)
        )

    def test_8_its_loss_is_that_of_transformers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        theirs, ours = pair("token", rag_config())
        encoder = DPRContextEncoder(theirs.config.question_encoder).eval()
        retriever = their_retriever(theirs.config, monkeypatch)
        retriever.set_ctx_encoder_tokenizer(tokenizer("bert"))
        theirs.set_retriever(retriever)
        ours.set_retriever(self.retriever(ours.config))
        for model in (theirs, ours):
            model.set_context_encoder_for_training(encoder)
        how = {"labels": torch.tensor([[2, 7, 8, 2]] * 2)}
        expected, found = (model(**asked(model), **how) for model in (theirs, ours))
        torch.testing.assert_close(found.doc_scores, expected.doc_scores)
        torch.testing.assert_close(found.loss, expected.loss)

    def test_8_answers_are_scored_by_it(self) -> None:
        scores = []
        for settings in ({}, RIGHT):
            model = self.model(rag_config(**settings))
            stored = model.rag.contexts(model._asked(**asked(model))).scores
            torch.manual_seed(1)
            model.set_context_encoder_for_training(
                DPRContextEncoder(model.config.question_encoder).eval()
            )
            scores.append(torch.equal(model._source(**asked(model)).scores, stored))
        assert scores == [True, False]


def test_9_passages_are_saved_with_the_model(tmp_path: Path) -> None:
    model = RagSequenceForGeneration(rag_config(**RIGHT)).eval()
    retriever = RagRetriever(
        model.config, tokenizer("bert"), tokenizer("bart"), passages=passages()
    )
    model.set_retriever(retriever)
    expected = model.generate(**asked(model), num_beams=2)
    model.save_pretrained(tmp_path)
    retriever.save_pretrained(tmp_path)
    again = RagSequenceForGeneration.from_pretrained(
        tmp_path, retriever=RagRetriever.from_pretrained(tmp_path)
    )
    assert again.generate(**asked(again), num_beams=2).tolist() == expected.tolist()


def test_10_candidates_are_searched_without_padding() -> None:
    theirs, ours = pair("sequence", rag_config(n_docs=1, **RIGHT))
    inputs = batch(theirs.config, answers=[[0]])
    inputs.pop("labels")
    cut = int(inputs["context_attention_mask"].sum())
    without = {
        "context_input_ids": inputs["context_input_ids"][:, :cut],
        "context_attention_mask": inputs["context_attention_mask"][:, :cut],
        "doc_scores": inputs["doc_scores"],
    }
    assert cut < inputs["context_input_ids"].shape[1]
    assert theirs.generate(**inputs).tolist() != theirs.generate(**without).tolist()
    assert ours.generate(**inputs).tolist() == ours.generate(**without).tolist()
