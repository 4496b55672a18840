"""Tiny transformers models with random weights, over ids alone, for tests of the sum."""

import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    DPRConfig,
    DPRContextEncoder,
    DPRQuestionEncoder,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

from consilience.generation import CompactGenerator, TrainableGenerator
from consilience.generation.causal import CausalGenerator
from consilience.generation.seq2seq import Seq2SeqGenerator

WORDS = 40
SIZE = 8
"""Of the vectors of the encoders."""


def bart(seed: int = 0) -> Seq2SeqGenerator:
    torch.manual_seed(seed)
    config = BartConfig(
        vocab_size=WORDS,
        d_model=16,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_position_embeddings=64,
        dropout=0.0,
        init_std=0.3,
    )
    return Seq2SeqGenerator(BartForConditionalGeneration(config).eval())


def gpt2(seed: int = 0) -> CausalGenerator:
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=WORDS,
        n_positions=64,
        n_embd=16,
        n_layer=2,
        n_head=2,
        eos_token_id=2,
        bos_token_id=0,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        initializer_range=0.2,
    )
    return CausalGenerator(GPT2LMHeadModel(config).eval())


def worded_gpt2() -> CausalGenerator:
    """With a tokenizer that knows single characters."""
    letters = [chr(code) for code in range(32, 127)]
    vocabulary = {word: i for i, word in enumerate(["<s>", "<unk>", "</s>", *letters])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", eos_token="</s>", bos_token="<s>"
    )
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(vocabulary),
        n_positions=128,
        n_embd=16,
        n_layer=1,
        n_head=2,
        eos_token_id=2,
        bos_token_id=0,
        initializer_range=0.3,
    )
    return CausalGenerator(GPT2LMHeadModel(config).eval(), tokenizer)


def dpr(seed: int = 0) -> tuple[DPRQuestionEncoder, DPRContextEncoder]:
    torch.manual_seed(seed)
    sizes = {
        "vocab_size": WORDS,
        "hidden_size": SIZE,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.3,
    }
    config = DPRConfig(**BertConfig(**sizes).to_dict())
    return DPRQuestionEncoder(config).eval(), DPRContextEncoder(config).eval()


def compact() -> CompactGenerator:
    """The kind that ships, over the same ids."""
    from consilience.encoding.bert import Embeddings, EncoderStack
    from consilience.encoding.compact import shape_of
    from consilience.generation.copying import CopyDecoder
    from tests.tiny import tiny_config, tiny_tokenizer

    torch.manual_seed(0)
    words = tiny_tokenizer()
    config = tiny_config(words)
    shape = shape_of(config)
    return CompactGenerator(
        config,
        words,
        embeddings=Embeddings(shape),
        reader=EncoderStack(shape, 2),
        decoder=CopyDecoder(shape, 2),
    )


GENERATORS = {"bart": bart, "gpt2": gpt2, "compact": compact}


def some_rows(generator: TrainableGenerator, *, b: int = 2, k: int = 3) -> dict[str, torch.Tensor]:
    """Contexts of uneven length, those of question 1 all shorter, and labels, for a generator."""
    torch.manual_seed(5)
    most = min(generator.vocabulary_size, WORDS)
    context = torch.randint(6, most, (b, k, 9))
    mask = torch.arange(9) < torch.randint(5, 10, (b, k, 1))
    mask[0, 0] = True
    mask[1, :, 8:] = False
    if isinstance(generator, CompactGenerator):
        words = generator.tokens
        context[:, :, 0], context[:, :, 2] = words.start, words.separator
        context = context.masked_fill(~mask, words.pad)
    labels = torch.randint(6, most, (b, 4))
    labels[:, 3] = generator.end
    labels[1, 2], labels[1, 3] = generator.end, -100
    return {"context_ids": context, "context_mask": mask, "labels": labels}
