"""Programs written for transformers, with one import changed, end to end on tiny checkpoints."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers import DPRQuestionEncoder, EncoderDecoderModel, Trainer, TrainingArguments

from consilience.compat.transformers import (
    PassageIndex,
    RagConfig,
    RagGenerateOutput,
    RagModel,
    RagRetriever,
    RagSequenceForGeneration,
    RagTokenForGeneration,
    RagTokenizer,
)
from consilience.errors import UsageError
from tests.compat.theirs import their_retriever
from tests.compat.tiny_rag import (
    QUESTIONS,
    batch,
    generator_config,
    pair,
    passages,
    rag_config,
    tokenizer,
    write_tokenizers,
)

KINDS = ["bart", "t5", "bert2gpt2"]
CLASSES = [RagTokenForGeneration, RagSequenceForGeneration]


@pytest.fixture(params=KINDS)
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Written by transformers, with passages of ours beside it."""
    torch.manual_seed(0)
    settings = {"bos_token_id": 3} if request.param == "t5" else {}
    config = rag_config(request.param, n_docs=2, **settings)
    transformers.RagTokenForGeneration(config).save_pretrained(tmp_path)
    write_tokenizers(tmp_path, request.param)
    PassageIndex.of(passages()).save(tmp_path / "passages")
    return tmp_path


def test_a_question_is_answered(checkpoint: Path) -> None:
    tokenizer = RagTokenizer.from_pretrained(checkpoint)
    retriever = RagRetriever.from_pretrained(checkpoint, index_name="custom")
    model = RagTokenForGeneration.from_pretrained(checkpoint, retriever=retriever)
    inputs = tokenizer("what is the fee", return_tensors="pt")
    generated = model.generate(input_ids=inputs["input_ids"], max_length=8)
    texts = tokenizer.batch_decode(generated, skip_special_tokens=True)
    assert len(texts) == 1
    assert set(texts[0].split()) <= {*tokenizer.generator.get_vocab()}


@pytest.mark.parametrize("kind", CLASSES)
def test_three_answers_are_returned(checkpoint: Path, kind: Any) -> None:
    tokenizer = RagTokenizer.from_pretrained(checkpoint)
    retriever = RagRetriever.from_pretrained(checkpoint)
    model = kind.from_pretrained(checkpoint, retriever=retriever)
    inputs = tokenizer(QUESTIONS, padding=True, return_tensors="pt")
    generated = model.generate(**inputs, num_beams=3, num_return_sequences=3, max_length=8)
    assert generated.shape[0] == 6
    assert len({tuple(row) for row in generated[:3].tolist()}) == 3


@pytest.mark.parametrize("n_docs", [2, 6])
@pytest.mark.parametrize("fusion", ["token", "sequence"])
def test_retrieved_answers_are_those_of_transformers(
    fusion: str, n_docs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, ours = pair(fusion, rag_config(n_docs=n_docs))
    theirs.set_retriever(their_retriever(theirs.config, monkeypatch))
    ours.set_retriever(
        RagRetriever(ours.config, tokenizer("bert"), tokenizer("bart"), passages=passages())
    )
    asked: Any = tokenizer("bert")(QUESTIONS, padding=True, return_tensors="pt")
    inputs = {name: asked[name] for name in ("input_ids", "attention_mask")}
    labels = torch.tensor([[2, 7, 8, 2], [2, 9, 2, 1]])
    expected, found = (model(**inputs, labels=labels) for model in (theirs, ours))
    torch.testing.assert_close(found.loss, expected.loss)
    torch.testing.assert_close(found.doc_scores, expected.doc_scores)
    for beams in (1, 3):
        wanted = theirs.generate(**inputs, num_beams=beams)
        assert ours.generate(**inputs, num_beams=beams).tolist() == wanted.tolist()


def test_retrieval_by_hand_before_a_model_of_ones_own(checkpoint: Path) -> None:
    retriever = RagRetriever.from_pretrained(checkpoint)
    question = "what is the fee"
    _, numbers, docs = retriever.retrieve(np.ones((1, 8), np.float32), 2)
    assert numbers.shape == (1, 2)
    text = f"question: {question} context: {' '.join(docs[0]['text'])}"
    writer = transformers.AutoModelForSeq2SeqLM.from_config(generator_config("bart")).eval()
    reading = retriever.generator_tokenizer
    assert reading is not None
    ids = reading(text, return_tensors="pt")["input_ids"]
    assert writer.generate(ids, max_length=5).shape[0] == 1


def test_the_steps_of_the_documentation(checkpoint: Path) -> None:
    tokenizer = RagTokenizer.from_pretrained(checkpoint)
    retriever = RagRetriever.from_pretrained(checkpoint)
    model = RagTokenForGeneration.from_pretrained(checkpoint, retriever=retriever)
    inputs = tokenizer("what is the fee", return_tensors="pt")
    labels = tokenizer(text_target="nine", return_tensors="pt")["input_ids"]
    at_once = model(input_ids=inputs["input_ids"], labels=labels, output_retrieved=True)
    hidden = model.question_encoder(inputs["input_ids"])[0]
    docs = retriever(inputs["input_ids"].numpy(), hidden.detach().numpy(), return_tensors="pt")
    scores = torch.bmm(
        hidden.unsqueeze(1), docs["retrieved_doc_embeds"].float().transpose(1, 2)
    ).squeeze(1)
    contexts = {
        "context_input_ids": docs["context_input_ids"],
        "context_attention_mask": docs["context_attention_mask"],
        "doc_scores": scores,
    }
    step_by_step = model(**contexts, labels=labels)
    torch.testing.assert_close(step_by_step.loss, at_once.loss)
    assert torch.equal(at_once.retrieved_doc_ids, docs["doc_ids"])
    assert model(**contexts, decoder_input_ids=labels).loss is None
    generated = model.generate(**contexts, max_length=6)
    expected = model.generate(input_ids=inputs["input_ids"], max_length=6)
    assert generated.tolist() == expected.tolist()


def test_two_pretrained_parts_are_joined(tmp_path: Path) -> None:
    config = rag_config()
    DPRQuestionEncoder(config.question_encoder).save_pretrained(tmp_path / "question")
    transformers.BartForConditionalGeneration(config.generator).save_pretrained(tmp_path / "bart")
    model = RagSequenceForGeneration.from_pretrained_question_encoder_generator(
        tmp_path / "question", tmp_path / "bart", n_docs=2, hf_compat=False
    )
    assert (model.config.n_docs, model.hf_compat) == (2, False)
    model.save_pretrained(tmp_path / "rag")
    theirs = transformers.RagSequenceForGeneration.from_pretrained(tmp_path / "rag")
    assert torch.equal(theirs.generator.lm_head.weight, model.generator.lm_head.weight)
    with pytest.raises(UsageError, match="received only one name"):
        RagModel.from_pretrained_question_encoder_generator(tmp_path / "question")


def test_a_bert_and_a_gpt2_are_the_generator(tmp_path: Path) -> None:
    both = generator_config("bert2gpt2")
    transformers.BertModel(both.encoder).save_pretrained(tmp_path / "bert")
    transformers.GPT2LMHeadModel(both.decoder).save_pretrained(tmp_path / "gpt2")
    generator = EncoderDecoderModel.from_encoder_decoder_pretrained(
        str(tmp_path / "bert"), str(tmp_path / "gpt2")
    )
    generator.config.decoder_start_token_id, generator.config.eos_token_id = 0, 2
    generator.config.pad_token_id = 1
    model = RagTokenForGeneration(
        question_encoder=DPRQuestionEncoder(rag_config().question_encoder),
        generator=generator,
        n_docs=3,
    ).eval()
    inputs = batch(model.config, answers=[[0, 7, 8, 2], [0, 9, 2]])
    model(**inputs).loss.sum().backward()
    name = "decoder.transformer.h.0.crossattention.c_attn.weight"
    assert float(dict(generator.named_parameters())[name].grad.abs().max()) > 0
    inputs.pop("labels")
    assert model.generate(**inputs, num_beams=2, max_length=6).shape[0] == 2


class Batches(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Questions with contexts, one a row."""

    def __init__(self, config: RagConfig) -> None:
        self.rows = [
            {
                name: value if name.startswith("context") else value[0]
                for name, value in batch(config, answers=[[2, 7, 8, 2]], seed=seed).items()
            }
            for seed in range(4)
        ]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return self.rows[index]


def collate(rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {
        name: torch.cat([row[name] for row in rows])
        if name.startswith("context")
        else torch.stack([row[name] for row in rows])
        for name in rows[0]
    }


@pytest.mark.parametrize("kind", CLASSES)
def test_the_trainer_of_transformers_trains_it(kind: Any, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    torch.manual_seed(0)
    model = kind(rag_config(reduce_loss=True, output_logits=False))
    before = model.generator.lm_head.weight.detach().clone()
    how = TrainingArguments(
        str(tmp_path), max_steps=2, per_device_train_batch_size=2, report_to=[], use_cpu=True
    )
    data = Batches(model.config)
    Trainer(model, how, train_dataset=data, data_collator=collate).train()
    assert not torch.equal(model.generator.lm_head.weight, before)
    again = kind.from_pretrained(tmp_path / "checkpoint-2")
    assert torch.equal(again.generator.lm_head.weight, model.generator.lm_head.weight)


class TestModels:
    def test_weights_come_in_the_type_asked_for(self, checkpoint: Path) -> None:
        assert RagModel.from_pretrained(checkpoint, dtype=torch.float16).dtype == torch.float16
        old = RagModel.from_pretrained(checkpoint, torch_dtype=torch.float16, device_map="cpu")
        assert (old.dtype, old.device.type) == (torch.float16, "cpu")

    def test_it_is_ready_to_answer(self, checkpoint: Path) -> None:
        model = RagTokenForGeneration.from_pretrained(checkpoint, n_docs=1)
        assert not any(module.training for module in model.modules())
        assert model.config.n_docs == 1
        assert model.get_input_embeddings() is model.generator.get_input_embeddings()

    def test_saved_and_loaded(self, checkpoint: Path, tmp_path: Path) -> None:
        model = RagTokenForGeneration.from_pretrained(checkpoint)
        model.generation_config.num_beams = 2
        model.save_pretrained(tmp_path / "again")
        again = RagTokenForGeneration.from_pretrained(tmp_path / "again")
        assert again.generation_config.num_beams == 2
        assert again.state_dict().keys() == model.state_dict().keys()
        for name, value in again.state_dict().items():
            assert torch.equal(value, model.state_dict()[name]), name

    def test_its_embeddings_grow(self) -> None:
        _, ours = pair("token", rag_config())
        ours.resize_token_embeddings(50)
        inputs = batch(ours.config, answers=[[2, 49, 2]])
        assert ours(**inputs).logits.shape[-1] == 50
        inputs.pop("labels")
        assert ours.generate(**inputs, max_length=4).shape[0] == 1

    def test_an_unknown_setting(self, checkpoint: Path) -> None:
        with pytest.raises(UsageError, match="unknown setting 'cache_dir'"):
            RagModel.from_pretrained(checkpoint, cache_dir="x")

    def test_neither_a_configuration_nor_parts(self) -> None:
        with pytest.raises(UsageError, match="neither a configuration nor both"):
            RagModel()

    def test_nothing_to_read(self) -> None:
        _, ours = pair("token", rag_config())
        with pytest.raises(UsageError, match="doc_scores not given, and the model has no retr"):
            ours(context_input_ids=torch.zeros(3, 2, dtype=torch.long))
        with pytest.raises(UsageError, match="context_input_ids and doc_scores not given"):
            ours.generate(input_ids=torch.zeros(1, 2, dtype=torch.long))

    def test_without_a_mask_padding_is_not_read(self) -> None:
        _, ours = pair("token", rag_config())
        inputs = batch(ours.config, answers=[[2, 7, 8, 2]])
        expected = ours(**inputs).loss
        inputs.pop("context_attention_mask")
        torch.testing.assert_close(ours(**inputs).loss, expected)

    def test_no_question(self) -> None:
        _, ours = pair("token", rag_config())
        reading = (tokenizer("bert"), tokenizer("bart"))
        ours.set_retriever(RagRetriever(ours.config, *reading, passages=passages()))
        with pytest.raises(UsageError, match="received no input_ids"):
            ours.generate()

    def test_contexts_and_scores_that_do_not_fit(self) -> None:
        _, ours = pair("token", rag_config())
        inputs = batch(ours.config, answers=[[2, 7, 2]] * 2)
        inputs["doc_scores"] = inputs["doc_scores"][:, :2]
        with pytest.raises(UsageError, match=r"has 6 rows, doc_scores is \[2, 2\]"):
            ours(**inputs)

    def test_encoder_outputs_alone(self) -> None:
        _, ours = pair("token", rag_config())
        with pytest.raises(UsageError, match="encoder_outputs without doc_scores"):
            ours(encoder_outputs=(torch.zeros(3, 2, 16),))

    def test_a_generator_without_padding(self) -> None:
        _, ours = pair("token", rag_config())
        inputs = batch(ours.config, answers=[[2, 7, 2]])
        ours.config.generator.pad_token_id = None
        with pytest.raises(UsageError, match="the bart generator has no pad_token_id"):
            ours(**inputs)

    def test_a_passage_encoder_without_a_tokenizer(self) -> None:
        _, ours = pair("token", rag_config())
        reading = (tokenizer("bert"), tokenizer("bart"))
        ours.set_retriever(RagRetriever(ours.config, *reading, passages=passages()))
        ours.set_context_encoder_for_training(ours.question_encoder)
        asked = tokenizer("bert")(QUESTIONS, padding=True, return_tensors="pt")["input_ids"]
        with pytest.raises(UsageError, match="and the retriever makes none") as raised:
            ours(asked, labels=torch.tensor([[2, 7, 2]] * 2))
        assert raised.value.hint == "retriever.set_ctx_encoder_tokenizer(tokenizer)"


class TestGenerate:
    def inputs(self, model: Any) -> dict[str, torch.Tensor]:
        found = batch(model.config, answers=[[0]] * 2)
        found.pop("labels")
        return found

    def test_the_number_of_new_tokens_is_heeded(self) -> None:
        theirs, ours = pair("token", rag_config())
        inputs = self.inputs(ours)
        # transformers writes 20 tokens whatever is asked.
        assert theirs.generate(**inputs, max_new_tokens=5).shape[1] == 20
        assert ours.generate(**inputs, max_new_tokens=5).shape[1] == 6

    @pytest.mark.parametrize("settings", [{}, {"hf_compat": False}])
    def test_fewer_passages_than_the_configuration_says(self, settings: dict[str, Any]) -> None:
        theirs, ours = pair("sequence", rag_config(**settings))
        inputs = self.inputs(ours)
        rows = inputs["context_input_ids"].view(2, 3, -1)[:, :2].flatten(0, 1)
        mask = inputs["context_attention_mask"].view(2, 3, -1)[:, :2].flatten(0, 1)
        fewer = {
            "context_input_ids": rows,
            "context_attention_mask": mask,
            "doc_scores": inputs["doc_scores"][:, :2],
        }
        with pytest.raises((RuntimeError, AssertionError)):
            theirs.generate(**fewer, n_docs=2)
        assert ours.generate(**fewer, n_docs=2).shape[0] == 2

    @pytest.mark.parametrize("settings", [{}, {"hf_compat": False}])
    def test_more_answers_than_there_are_candidates(self, settings: dict[str, Any]) -> None:
        theirs, ours = pair("sequence", rag_config(n_docs=1, **settings))
        inputs = self.inputs(ours)
        with pytest.raises(RuntimeError, match="out of range"):
            theirs.generate(**inputs, num_return_sequences=3)
        found = ours.generate(**inputs, num_return_sequences=3, return_dict_in_generate=True)
        assert found.sequences.shape[0] == 6
        assert found.sequences[1, 1:].unique().tolist() == [1]
        assert found.sequences_scores.isfinite().tolist() == [True, False, False] * 2

    def test_equal_candidates_may_be_kept(self) -> None:
        for settings in ({}, {"hf_compat": False}):
            theirs, ours = pair("sequence", rag_config(**settings))
            inputs = self.inputs(ours)
            for name in ("context_input_ids", "context_attention_mask"):
                inputs[name] = inputs[name].view(2, 3, -1)[:, :1].expand(2, 3, -1).flatten(0, 1)
            how = {"do_deduplication": False, "num_return_sequences": 2}
            found = ours.generate(**inputs, **how)
            assert found[0].tolist() == found[1].tolist()
            if not settings:
                assert found.tolist() == theirs.generate(**inputs, **how).tolist()

    @pytest.mark.parametrize("settings", [{}, {"hf_compat": False}])
    @pytest.mark.parametrize("fusion", ["token", "sequence"])
    def test_scores_and_posteriors(self, fusion: str, settings: dict[str, Any]) -> None:
        _, ours = pair(fusion, rag_config(**settings))
        how = {"num_beams": 3, "num_return_sequences": 2, "return_dict_in_generate": True}
        found = ours.generate(**self.inputs(ours), **how)
        assert isinstance(found, RagGenerateOutput)
        assert found.sequences.shape[0] == len(found.sequences_scores) == 4
        assert bool((found.sequences_scores.view(2, 2).diff() <= 0).all())
        torch.testing.assert_close(found.doc_posteriors.sum(-1), torch.ones(4))

    def test_the_best_answer_has_the_least_loss(self) -> None:
        _, ours = pair("sequence", rag_config(hf_compat=False))
        inputs = self.inputs(ours)
        how = {"num_beams": 3, "num_return_sequences": 4, "return_dict_in_generate": True}
        found = ours.generate(**inputs, **how)
        for q in range(2):
            one = {
                "context_input_ids": inputs["context_input_ids"][3 * q : 3 * q + 3],
                "context_attention_mask": inputs["context_attention_mask"][3 * q : 3 * q + 3],
                "doc_scores": inputs["doc_scores"][q : q + 1],
            }
            losses = [
                float(ours(**one, labels=row[None]).loss) for row in found.sequences[4 * q :][:4]
            ]
            assert losses == sorted(losses)
            torch.testing.assert_close(
                -torch.tensor(losses), found.sequences_scores[4 * q :][:4], atol=1e-4, rtol=1e-4
            )

    @pytest.mark.parametrize("settings", [{}, {"hf_compat": False}])
    @pytest.mark.parametrize("fusion", ["token", "sequence"])
    def test_samples_follow_the_seed(self, fusion: str, settings: dict[str, Any]) -> None:
        _, ours = pair(fusion, rag_config(**settings))
        inputs = self.inputs(ours)
        how = {"do_sample": True, "top_k": 0, "temperature": 3.0}
        first, again, other = (
            ours.generate(**inputs, **how, seed=seed).tolist() for seed in (1, 1, 2)
        )
        assert first == again != other
        drawn = []
        for _ in range(2):
            torch.manual_seed(5)
            drawn.append(ours.generate(**inputs, **how).tolist())
        assert drawn[0] == drawn[1]

    def test_answers_can_be_labels(self) -> None:
        _, ours = pair("token", rag_config())
        inputs = self.inputs(ours)
        ours(**inputs, labels=ours.generate(**inputs)).loss.sum().backward()

    @pytest.mark.parametrize("name", ["logits_processor", "prefix_allowed_tokens_fn"])
    def test_what_the_search_does_not_have(self, name: str) -> None:
        _, ours = pair("token", rag_config())
        with pytest.raises(UsageError, match=f"generate does not take {name} with the sum"):
            ours.generate(**self.inputs(ours), **{name: [1]})

    def test_a_setting_that_does_not_exist(self) -> None:
        _, ours = pair("sequence", rag_config())
        with pytest.raises(UsageError, match="generate does not take num_breams"):
            ours.generate(**self.inputs(ours), num_breams=4)

    def test_no_start_token(self) -> None:
        _, ours = pair("token", rag_config())
        ours.generation_config.decoder_start_token_id = None
        ours.generation_config.bos_token_id = None
        with pytest.raises(UsageError, match="the generation config has no decoder_start_token_id"):
            ours.generate(**self.inputs(ours))

    def test_a_configuration_of_ones_own(self) -> None:
        _, ours = pair("token", rag_config())
        inputs = self.inputs(ours)
        config = transformers.GenerationConfig(
            decoder_start_token_id=2, eos_token_id=2, pad_token_id=1, num_beams=2, max_length=5
        )
        assert ours.generate(**inputs, generation_config=config).shape[1] == 5
        assert config.num_return_sequences is None
