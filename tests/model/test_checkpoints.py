"""Checkpoints of transformers' RAG classes: ours read theirs, theirs read ours, and what is wrong
with one is said."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import DPRContextEncoder

from consilience.errors import DamagedError, MissingError, UsageError
from consilience.model.checkpoints import (
    ARCHITECTURES,
    Architecture,
    load_transformers_rag,
    save_transformers_rag,
)
from tests.compat.tiny_rag import batch, rag_config, tokenizer, write_tokenizers

KINDS = ["bart", "t5", "bert2gpt2"]


def theirs(architecture: Architecture = "token", kind: str = "bart", seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return getattr(transformers, ARCHITECTURES[architecture])(rag_config(kind)).eval()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Of RAG-Token with BART, tokenizers included."""
    theirs().save_pretrained(tmp_path / "rag")
    write_tokenizers(tmp_path / "rag")
    return tmp_path / "rag"


def assert_equal(one: torch.nn.Module, other: torch.nn.Module) -> None:
    expected = other.state_dict()
    assert one.state_dict().keys() == expected.keys()
    for name, value in one.state_dict().items():
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_transformers_writes_is_read(
    architecture: Architecture, kind: str, tmp_path: Path
) -> None:
    model = theirs(architecture, kind)
    model.save_pretrained(tmp_path)
    found = load_transformers_rag(tmp_path)
    assert found.architecture == architecture
    assert_equal(found.question_encoder, model.question_encoder)
    assert_equal(found.generator_model, model.generator)
    assert found.passage_encoder is None
    assert found.question_tokenizer is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_is_written_is_read_by_transformers(
    architecture: Architecture, kind: str, tmp_path: Path
) -> None:
    model = theirs(architecture, kind)
    model.save_pretrained(tmp_path / "theirs")
    save_transformers_rag(load_transformers_rag(tmp_path / "theirs"), tmp_path / "ours")
    again, report = type(model).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(report.values())
    assert_equal(again, model)
    assert again.config.n_docs == 3
    assert again.config.architectures == [ARCHITECTURES[architecture]]


def test_a_model_read_by_both_says_the_same(tmp_path: Path) -> None:
    model = theirs("sequence")
    model.save_pretrained(tmp_path / "a")
    save_transformers_rag(load_transformers_rag(tmp_path / "a"), tmp_path / "b")
    again = transformers.RagSequenceForGeneration.from_pretrained(tmp_path / "b")
    inputs = batch(model.config, answers=[[0, 7, 8, 2], [0, 9, 2]])
    assert torch.equal(again(**inputs).loss, model(**inputs).loss)


def test_tokenizers_and_generation_settings_come_along(checkpoint: Path, tmp_path: Path) -> None:
    settings = json.loads((checkpoint / "generation_config.json").read_text())
    (checkpoint / "generation_config.json").write_text(json.dumps(settings | {"num_beams": 7}))
    save_transformers_rag(load_transformers_rag(checkpoint), tmp_path / "again")
    found = load_transformers_rag(tmp_path / "again")
    assert found.generation is not None
    assert found.generation.num_beams == 7
    assert found.question_tokenizer is not None
    assert found.generator_tokenizer is not None
    text = "the fee is nine"
    assert found.generator_tokenizer(text)["input_ids"] == tokenizer("bart")(text)["input_ids"]
    assert found.question_tokenizer(text)["input_ids"] == tokenizer("bert")(text)["input_ids"]


@pytest.mark.parametrize("legacy", [False, True])
def test_old_files_of_weights_are_read(checkpoint: Path, legacy: bool) -> None:
    expected = load_transformers_rag(checkpoint)
    state = load_file(checkpoint / "model.safetensors")
    state["rag.question_encoder.question_encoder.bert_model.embeddings.position_ids"] = torch.ones(
        1
    )
    state["rag.generator.model.encoder.position_ids"] = torch.ones(1)
    (checkpoint / "model.safetensors").unlink()
    torch.save(state, checkpoint / "pytorch_model.bin", _use_new_zipfile_serialization=not legacy)
    assert_equal(load_transformers_rag(checkpoint).generator_model, expected.generator_model)


def test_weights_in_several_files_are_read(checkpoint: Path) -> None:
    expected = load_transformers_rag(checkpoint)
    shard(checkpoint)
    assert_equal(load_transformers_rag(checkpoint).generator_model, expected.generator_model)


def shard(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(state)
    places = {name: f"part-{i % 2}.safetensors" for i, name in enumerate(names)}
    for file in set(places.values()):
        save_file({name: state[name] for name in names if places[name] == file}, folder / file)
    index = json.dumps({"weight_map": places})
    (folder / "model.safetensors.index.json").write_text(index)


def test_the_type_of_the_weights_is_kept_or_chosen(checkpoint: Path) -> None:
    state = load_file(checkpoint / "model.safetensors")
    halves = {name: value.half() for name, value in state.items()}
    save_file(halves, checkpoint / "model.safetensors", metadata={"format": "pt"})
    assert load_transformers_rag(checkpoint).generator_model.dtype == torch.float16
    chosen = load_transformers_rag(checkpoint, dtype=torch.float32)
    assert chosen.generator_model.dtype == chosen.question_encoder.dtype == torch.float32


def test_a_passage_encoder_is_saved_and_read(checkpoint: Path, tmp_path: Path) -> None:
    found = load_transformers_rag(checkpoint)
    config = found.question_encoder.config.to_dict() | {"hidden_size": 8, "num_hidden_layers": 2}
    passages = DPRContextEncoder(type(found.question_encoder.config).from_dict(config)).eval()
    save_transformers_rag(replace(found, passage_encoder=passages), tmp_path / "again")
    again = load_transformers_rag(tmp_path / "again").passage_encoder
    assert again is not None
    assert_equal(again, passages)
    # transformers reads the rest and says nothing worse than that it has no place for these.
    model = transformers.RagTokenForGeneration.from_pretrained(tmp_path / "again")
    assert_equal(model.generator, found.generator_model)


def test_a_passage_encoder_that_transformers_wrote_is_read(tmp_path: Path) -> None:
    model = theirs()
    passages = DPRContextEncoder(model.config.question_encoder)
    model.set_context_encoder_for_training(passages)
    model.save_pretrained(tmp_path)
    found = load_transformers_rag(tmp_path).passage_encoder
    assert found is not None
    assert_equal(found, passages)


def test_saving_again_replaces_weights_of_other_names(checkpoint: Path) -> None:
    found = load_transformers_rag(checkpoint)
    torch.save({}, checkpoint / "pytorch_model.bin")
    (checkpoint / "notes.txt").write_text("keep me")
    save_transformers_rag(found, checkpoint)
    names = {path.name for path in checkpoint.iterdir()}
    assert "pytorch_model.bin" not in names
    assert "notes.txt" in names
    assert not any(name.startswith(".saving") for name in names)
    assert_equal(load_transformers_rag(checkpoint).generator_model, found.generator_model)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("evil"),))


class TestWhatIsWrong:
    def change(self, folder: Path, **state: Any) -> None:
        """Change tensors by name, dots written as double underscores; None removes one."""
        found: dict[str, Any] = dict(load_file(folder / "model.safetensors"))
        found |= {name.replace("__", "."): value for name, value in state.items()}
        kept = {name: value for name, value in found.items() if value is not None}
        save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})

    def configure(self, folder: Path, **settings: Any) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | settings))

    def test_a_tensor_is_missing(self, checkpoint: Path) -> None:
        self.change(checkpoint, rag__generator__model__decoder__layers__1__fc1__weight=None)
        with pytest.raises(
            DamagedError,
            match=r"model\.safetensors lacks the tensor rag\.generato"
            r"r\.model\.decoder\.layers\.1\.fc1\.weight",
        ):
            load_transformers_rag(checkpoint)

    def test_a_part_is_missing(self, checkpoint: Path) -> None:
        state = load_file(checkpoint / "model.safetensors")
        kept = {name: value for name, value in state.items() if "question_encoder" not in name}
        save_file(kept, checkpoint / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(DamagedError, match=r"lacks the tensor rag\.question_encoder\."):
            load_transformers_rag(checkpoint)

    @pytest.mark.parametrize("name", ["rag__generator__extra", "rag__judge__weight", "weight"])
    def test_a_tensor_is_unknown(self, checkpoint: Path, name: str) -> None:
        self.change(checkpoint, **{name: torch.zeros(1)})
        named = name.replace("__", r"\.")
        with pytest.raises(DamagedError, match=f"has the tensor {named}, which no part"):
            load_transformers_rag(checkpoint)

    def test_a_tensor_has_another_shape(self, checkpoint: Path) -> None:
        self.change(checkpoint, rag__generator__model__decoder__layers__1__fc1__bias=torch.zeros(3))
        with pytest.raises(
            DamagedError,
            match=r"fc1\.bias has the shape \[3\], config\.json says "
            r"\[16\]",
        ):
            load_transformers_rag(checkpoint)

    def test_a_tokenizer_knows_more_than_the_embeddings(self, checkpoint: Path) -> None:
        more = tokenizer("bart")
        more.add_tokens(["unheard"])
        more.save_pretrained(checkpoint / "generator_tokenizer")
        with pytest.raises(
            DamagedError,
            match=r"has the token id 44, but the embeddings of the "
            r"generator in model\.safetensors have 44 rows",
        ) as raised:
            load_transformers_rag(checkpoint)
        assert raised.value.hint == "take the tokenizer that the weights were trained with"

    def test_a_tokenizer_cannot_be_read(self, checkpoint: Path) -> None:
        (checkpoint / "generator_tokenizer" / "tokenizer.json").write_text("{")
        (checkpoint / "generator_tokenizer" / "tokenizer_config.json").write_text("{}")
        with pytest.raises(DamagedError, match="generator_tokenizer holds no tokenizer"):
            load_transformers_rag(checkpoint)

    def test_the_generator_is_of_an_unknown_type(self, checkpoint: Path) -> None:
        self.configure(checkpoint, generator={"model_type": "oracle"})
        with pytest.raises(UsageError, match="names a part of type 'oracle'"):
            load_transformers_rag(checkpoint)

    def test_the_generator_is_no_encoder_decoder(self, checkpoint: Path) -> None:
        self.configure(checkpoint, generator={"model_type": "gpt2"})
        with pytest.raises(
            UsageError, match="the generator is of type 'gpt2', which is no encoder-decoder"
        ):
            load_transformers_rag(checkpoint)

    def test_it_is_another_model(self, checkpoint: Path) -> None:
        self.configure(checkpoint, model_type="bart")
        with pytest.raises(UsageError, match="is of a model of type 'bart', not 'rag'"):
            load_transformers_rag(checkpoint)

    def test_a_setting_is_of_a_wrong_type(self, checkpoint: Path) -> None:
        self.configure(checkpoint, n_docs="five")
        with pytest.raises(DamagedError, match=r"config\.json: .*n_docs"):
            load_transformers_rag(checkpoint)

    def test_the_configuration_is_not_json(self, checkpoint: Path) -> None:
        (checkpoint / "config.json").write_text("{")
        with pytest.raises(DamagedError, match=r"config\.json is not JSON"):
            load_transformers_rag(checkpoint)

    def test_the_configuration_is_missing(self, tmp_path: Path) -> None:
        with pytest.raises(MissingError, match=r"it holds no config\.json"):
            load_transformers_rag(tmp_path)

    def test_the_weights_are_missing(self, checkpoint: Path) -> None:
        (checkpoint / "model.safetensors").unlink()
        with pytest.raises(MissingError, match=r"no weights in .*looked for model\.safetensors"):
            load_transformers_rag(checkpoint)

    def test_the_weights_are_cut_off(self, checkpoint: Path) -> None:
        path = checkpoint / "model.safetensors"
        path.write_bytes(path.read_bytes()[:1000])
        with pytest.raises(DamagedError, match=r"model\.safetensors cannot be read as tensors"):
            load_transformers_rag(checkpoint)

    @pytest.mark.parametrize("legacy", [False, True])
    def test_a_file_of_weights_carries_code(
        self, checkpoint: Path, legacy: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(checkpoint)
        (checkpoint / "model.safetensors").unlink()
        torch.save(
            {"rag.generator.x": Evil()},
            checkpoint / "pytorch_model.bin",
            _use_new_zipfile_serialization=not legacy,
        )
        with pytest.raises(DamagedError, match=r"pytorch_model\.bin cannot be read as tensors"):
            load_transformers_rag(checkpoint)
        assert not (checkpoint / "evil").exists()

    @pytest.mark.parametrize("name", ["../model.safetensors", "/model.safetensors", "model.pkl"])
    def test_an_index_leads_elsewhere(self, checkpoint: Path, name: str) -> None:
        shard(checkpoint)
        index = json.dumps({"weight_map": {"rag.generator.x": name}})
        (checkpoint / "model.safetensors.index.json").write_text(index)
        with pytest.raises(DamagedError, match="as a file of weights"):
            load_transformers_rag(checkpoint)

    def test_a_file_of_weights_is_missing(self, checkpoint: Path) -> None:
        shard(checkpoint)
        (checkpoint / "part-1.safetensors").unlink()
        with pytest.raises(DamagedError, match=r"part-1\.safetensors is missing"):
            load_transformers_rag(checkpoint)

    def test_there_is_no_such_folder(self) -> None:
        with pytest.raises(MissingError, match="no folder 'nowhere'") as raised:
            load_transformers_rag("nowhere")
        assert "facebook/rag-token-nq" in raised.value.hint

    def test_the_hub_cannot_be_reached(self) -> None:
        with pytest.raises(MissingError, match="the model 'someone/some-rag' is not on this"):
            load_transformers_rag("someone/some-rag")

    def test_a_name_is_no_name_of_the_hub(self) -> None:
        with pytest.raises(MissingError, match="'a b/c' is neither a folder nor a hub id"):
            load_transformers_rag("a b/c")

    def test_a_checkpoint_is_saved_over_a_file(self, checkpoint: Path) -> None:
        with pytest.raises(UsageError, match=r"config\.json is a file"):
            save_transformers_rag(load_transformers_rag(checkpoint), checkpoint / "config.json")


def test_a_save_that_fails_leaves_the_old_checkpoint(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = load_transformers_rag(checkpoint)
    other = theirs(seed=1)
    other.save_pretrained(checkpoint.parent / "other")
    after = load_transformers_rag(checkpoint.parent / "other")

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr("consilience.model.checkpoints.save_file", fail)
    with pytest.raises(OSError, match="the disk is full"):
        save_transformers_rag(after, checkpoint)
    assert_equal(load_transformers_rag(checkpoint).generator_model, before.generator_model)
    assert not list(checkpoint.glob(".saving-*"))
