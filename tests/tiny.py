"""A model folder of random weights, a few thousand parameters, for tests of every room."""

from pathlib import Path

import torch
from torch import Tensor

from consilience.encoding.bert import Embeddings, EncoderStack
from consilience.encoding.compact import shape_of
from consilience.encoding.folder import ModelConfig, write_folder
from consilience.encoding.tokenizer import SPECIAL, SubwordTokenizer, build_tokenizer
from consilience.generation.copying import CopyDecoder

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,:;?!()'\"-%$/"
WORDS = ["the", "is", "of", "what", "who", "visit", "hours", "ward", "fee", "bank", "card", "exam"]
HAN = "的是在有不了人我大这中国上个年和时到学医院银行门诊费用多少什么谁哪间时间卡考试贷款。，？！"


def tiny_tokenizer() -> SubwordTokenizer:
    """Letters, a few words, a few Chinese characters."""
    tokens = [*SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS), *WORDS, *HAN]
    return build_tokenizer({token: i for i, token in enumerate(dict.fromkeys(tokens))})


def tiny_config(words: SubwordTokenizer) -> ModelConfig:
    """Sizes that train in milliseconds."""
    return ModelConfig(
        vocabulary_size=len(words),
        hidden_size=16,
        heads=2,
        intermediate_size=32,
        encoder_layers=2,
        decoder_layers=2,
    )


def tiny_tensors(config: ModelConfig, seed: int = 0) -> dict[str, Tensor]:
    """Random weights under the names of a model folder, as exact as those that ship."""
    torch.manual_seed(seed)
    shape = shape_of(config)
    parts = {
        "embeddings": Embeddings(shape),
        "retriever": EncoderStack(shape, config.encoder_layers),
        "reader": EncoderStack(shape, config.encoder_layers),
        "decoder": CopyDecoder(shape, config.decoder_layers),
    }
    return {
        f"{part}.{name}": value.detach().to(torch.bfloat16)
        for part, module in parts.items()
        for name, value in module.state_dict().items()
    }


def write_tiny_model(path: Path, seed: int = 0) -> Path:
    """Write the folder and return it."""
    words = tiny_tokenizer()
    config = tiny_config(words)
    text = words.to_json()
    write_folder(path, config, tiny_tensors(config, seed), text)
    return path
