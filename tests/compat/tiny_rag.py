"""RAG checkpoints of a few thousand random weights, with tokenizers that know a few words."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    DPRConfig,
    DPRContextEncoder,
    DPRQuestionEncoder,
    EncoderDecoderConfig,
    GenerationConfig,
    GPT2Config,
    PreTrainedTokenizerFast,
    RagConfig,
    T5Config,
)

from consilience.compat import transformers as compat
from consilience.model.checkpoints import TransformersRag, save_transformers_rag

TEXT = (
    "the a fee is nine ten ward opens at noon who what when where bank card visit hours london "
    "paris river tower tall old new in of was built by king queen 9 10 1889 ; question: context:"
)
WORDS = TEXT.split()
PASSAGES = [
    {"title": '"fee"', "text": "the fee is nine", "embeddings": None},
    {"title": "ward", "text": "the ward opens at noon", "embeddings": None},
    {"title": "tower", "text": "the tower was built in 1889", "embeddings": None},
    {"title": "london", "text": "london is old", "embeddings": None},
]
QUESTIONS = ["what is the fee", "when was the old tower built by the king"]


def tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """`bert`, `bart` or `t5`: which special tokens there are and where they go."""
    first, template, names = {
        "bert": (
            ["[PAD]", "[UNK]", "[CLS]", "[SEP]"],
            "[CLS] $A [SEP]",
            {
                "pad_token": "[PAD]",
                "unk_token": "[UNK]",
                "sep_token": "[SEP]",
                "cls_token": "[CLS]",
            },
        ),
        "bart": (
            ["<s>", "<pad>", "</s>", "<unk>"],
            "<s> $A </s>",
            {"pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "</s>", "bos_token": "<s>"},
        ),
        "t5": (
            ["<pad>", "</s>", "<unk>"],
            "$A </s>",
            {"pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "</s>"},
        ),
    }[kind]
    vocabulary = {word: i for i, word in enumerate([*first, "/", "//", *WORDS])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token=names["unk_token"]))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(" +"), "removed")
    special = [(token, vocabulary[token]) for token in template.split() if token in vocabulary]
    inner.post_processor = processors.TemplateProcessing(
        single=template, pair=template.replace("$A", "$A $B"), special_tokens=special
    )
    return PreTrainedTokenizerFast(tokenizer_object=inner, **names)


def generator_config(kind: str) -> Any:
    """`bart`, `t5` or `bert2gpt2`, with room for the words."""
    size = 4 + 2 + len(WORDS)
    if kind == "bart":
        return BartConfig(
            vocab_size=size,
            d_model=16,
            encoder_layers=1,
            decoder_layers=2,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=16,
            decoder_ffn_dim=16,
            max_position_embeddings=64,
            init_std=1.0,
            dropout=0.0,
        )
    if kind == "t5":
        return T5Config(
            vocab_size=size,
            d_model=16,
            d_kv=8,
            d_ff=16,
            num_layers=2,
            num_decoder_layers=2,
            num_heads=2,
            dropout_rate=0.0,
            decoder_start_token_id=0,
            initializer_factor=2.0,
        )
    return _bert_and_gpt2(size)


def _bert_and_gpt2(size: int) -> EncoderDecoderConfig:
    both = EncoderDecoderConfig.from_encoder_decoder_configs(
        BertConfig(
            vocab_size=size,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=16,
            initializer_range=1.0,
        ),
        GPT2Config(
            vocab_size=size, n_embd=16, n_layer=2, n_head=2, n_positions=64, initializer_range=1.0
        ),
    )
    both.decoder_start_token_id = both.decoder.bos_token_id = both.bos_token_id = 0
    both.pad_token_id = both.decoder.pad_token_id = 1
    both.eos_token_id = both.decoder.eos_token_id = 2
    return both


def rag_config(kind: str = "bart", **settings: Any) -> RagConfig:
    """A DPR question encoder and a generator of one kind."""
    question = DPRConfig(
        vocab_size=4 + 2 + len(WORDS),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        initializer_range=0.5,
    )
    fixed = {"n_docs": 3, "max_combined_length": 20, "retrieval_vector_size": 8}
    return RagConfig.from_question_encoder_generator_configs(
        question, generator_config(kind), **(fixed | settings)
    )


def passages(seed: int = 0, dimension: int = 8) -> list[dict[str, Any]]:
    """The passages with random vectors."""
    torch.manual_seed(seed)
    vectors = torch.randn(len(PASSAGES), dimension).numpy()
    return [one | {"embeddings": vector} for one, vector in zip(PASSAGES, vectors, strict=True)]


def batch(
    config: RagConfig, *, answers: Sequence[Sequence[int]], length: int = 7, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Random contexts, ragged, with scores and the answers as labels."""
    torch.manual_seed(seed)
    rows, pad = len(answers) * config.n_docs, config.generator.pad_token_id
    context = torch.randint(5, 4 + 2 + len(WORDS), (rows, length))
    mask = torch.arange(length) < torch.randint(3, length + 1, (rows, 1))
    width = max(map(len, answers))
    return {
        "context_input_ids": context.masked_fill(~mask, pad),
        "context_attention_mask": mask.long(),
        "doc_scores": torch.randn(len(answers), config.n_docs),
        "labels": torch.tensor([[*ids, *[pad] * (width - len(ids))] for ids in answers]),
    }


def write_tokenizers(path: Path, kind: str = "bart") -> None:
    """As `RagTokenizer.save_pretrained` lays them out."""
    tokenizer("bert").save_pretrained(path / "question_encoder_tokenizer")
    inner = "t5" if kind == "t5" else "bart"
    tokenizer(inner).save_pretrained(path / "generator_tokenizer")


def pair(fusion: str, config: RagConfig, seed: int = 0) -> tuple[Any, Any]:
    """A model of transformers and one of ours over the same modules."""
    torch.manual_seed(seed)
    name = {"token": "RagTokenForGeneration", "sequence": "RagSequenceForGeneration"}[fusion]
    theirs = getattr(transformers, name)(config).eval()
    ours = getattr(compat, name)(config, theirs.question_encoder, theirs.generator).eval()
    return theirs, ours


def write_checkpoint(path: Path, *, passages: bool = True) -> Path:
    """BART with DPR encoders, those of passages being left out on request, and all tokenizers."""
    torch.manual_seed(0)
    config = rag_config("bart")
    save_transformers_rag(
        TransformersRag(
            config=config,
            question_encoder=DPRQuestionEncoder(config.question_encoder),
            generator_model=BartForConditionalGeneration(config.generator),
            question_tokenizer=tokenizer("bert"),
            generator_tokenizer=tokenizer("bart"),
            passage_encoder=DPRContextEncoder(config.question_encoder) if passages else None,
            generation=GenerationConfig(
                num_beams=2, no_repeat_ngram_size=3, decoder_start_token_id=2, eos_token_id=2
            ),
        ),
        path,
    )
    return path
