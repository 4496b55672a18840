"""Tiny models of transformers, with random weights far enough from zero to tell layers apart."""

from collections.abc import Callable
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertLMHeadModel,
    BertModel,
    EncoderDecoderModel,
    GPT2Config,
    GPT2LMHeadModel,
    MBartConfig,
    MBartForConditionalGeneration,
    MT5Config,
    MT5ForConditionalGeneration,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

VOCABULARY = 61
START, PAD, END = 0, 1, 2

_BART = {
    "vocab_size": VOCABULARY,
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "max_position_embeddings": 64,
}
_T5 = {
    "vocab_size": VOCABULARY,
    "d_model": 16,
    "d_kv": 6,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "num_heads": 2,
    "d_ff": 24,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 12,
    "decoder_start_token_id": 0,
}
_BERT = {
    "vocab_size": VOCABULARY,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 64,
}


def _stirred(model: Any, seed: int = 0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            noise = torch.randn(tensor.shape, generator=generator)
            tensor.data.copy_(0.3 * noise + (1.0 if tensor.dim() == 1 else 0.0))
    return model.eval()


def bart() -> Any:
    return _stirred(BartForConditionalGeneration(BartConfig(**_BART, scale_embedding=True)))


def mbart() -> Any:
    return _stirred(MBartForConditionalGeneration(MBartConfig(**_BART, decoder_start_token_id=END)))


def t5() -> Any:
    return _stirred(T5ForConditionalGeneration(T5Config(**_T5)))


def mt5() -> Any:
    return _stirred(MT5ForConditionalGeneration(MT5Config(**_T5, tie_word_embeddings=False)))


def _pair(decoder: Any, hidden: int) -> Any:
    encoder = BertModel(BertConfig(**_BERT, hidden_size=hidden), add_pooling_layer=False)
    joined = EncoderDecoderModel(encoder=encoder, decoder=decoder)
    joined.config.decoder_start_token_id = START
    joined.config.eos_token_id = END
    joined.config.pad_token_id = PAD
    return _stirred(joined)


def bert2bert() -> Any:
    config = BertConfig(**_BERT, hidden_size=16, is_decoder=True, add_cross_attention=True)
    return _pair(BertLMHeadModel(config), hidden=16)


def bert2gpt2() -> Any:
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=16,
        n_layer=3,
        n_head=2,
        n_positions=64,
        add_cross_attention=True,
    )
    # Another size than the decoder's: the library then projects what was encoded.
    return _pair(GPT2LMHeadModel(config), hidden=20)


FAMILIES: dict[str, Callable[[], Any]] = {
    "bart": bart,
    "mbart": mbart,
    "t5": t5,
    "mt5": mt5,
    "bert2bert": bert2bert,
    "bert2gpt2": bert2gpt2,
}


def after_start(targets: Tensor, start: int) -> Tensor:
    """What a decoder reads to predict targets."""
    return torch.cat([torch.full_like(targets[:, :1], start), targets[:, :-1]], dim=1)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, after four special ones; `<s>` before a text and `</s>` after it."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    signs = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    bytes_only = Tokenizer(models.BPE({sign: place for place, sign in enumerate(signs)}, []))
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bytes_only.decoder = decoders.ByteLevel()
    bytes_only.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", START), ("</s>", END)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bytes_only,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
    )
