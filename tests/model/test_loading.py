"""From names to models: the shipped kind, checkpoints of transformers, parts joined in Python."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from consilience import Document, Rag, RagModel, Store
from consilience.errors import DamagedError, FingerprintError, MissingError, UsageError
from consilience.model import AskOptions
from consilience.model.attention_fusion import AttentionFusion
from consilience.model.averaging import RankWeights
from consilience.model.learned import FILE
from consilience.model.loading import is_checkpoint, load_any_encoder
from tests.compat.tiny_rag import PASSAGES, write_checkpoint

QUESTION = "what is the fee"
SHORT = AskOptions(max_new_tokens=5, k=2)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def rag(checkpoint: Path) -> Rag:
    return Rag.load(checkpoint)


@pytest.fixture
def store(tmp_path: Path, rag: Rag) -> Iterator[Store]:
    with Store.open(tmp_path / "store", encoder=rag.encoder) as opened:
        opened.add(*(Document(one["text"], one["title"], one["title"]) for one in PASSAGES))
        yield opened


@pytest.mark.parametrize("fusion", ["sequence", "token", "average", "fid", "concat"])
def test_a_checkpoint_answers_from_a_store(rag: Rag, store: Store, fusion: str) -> None:
    options = AskOptions(max_new_tokens=5, k=2, fusion=fusion)  # type: ignore[arg-type]
    answer = rag.ask(QUESTION, store, options)
    assert not answer.abstained
    assert len(answer.posterior) == 2
    assert sum(answer.posterior.values()) == pytest.approx(1.0, abs=1e-4)
    assert len(answer.tokens) > 0
    for token in answer.tokens:
        assert sum(token.posterior.values()) == pytest.approx(1.0, abs=1e-3)


def test_its_prior_is_the_softmax_of_inner_products(rag: Rag, store: Store) -> None:
    assert rag.settings.mode == "dense"
    hits = rag.retriever(store).search(QUESTION, k=4)
    asked = torch.from_numpy(rag.encoder.encode_questions([QUESTION]))
    texts = [f"{hit.passage.title}\n{hit.passage.text}" for hit in hits]
    expected = (torch.from_numpy(rag.encoder.encode_passages(texts)) @ asked[0]).tolist()
    assert [hit.score for hit in hits] == pytest.approx(expected, abs=0.05, rel=2e-3)
    assert max(expected) > 1.0  # vectors keep their length
    assert float(rag.model.temperature) == 1.0


def test_vectors_do_not_depend_on_what_is_encoded_with_them(rag: Rag) -> None:
    texts = ["the fee is nine", "the tower was built in 1889 by the old king of london"]
    both = rag.encoder.encode_passages(texts)
    for row, text in enumerate(texts):
        assert both[row] == pytest.approx(rag.encoder.encode_passages([text])[0], abs=1e-5)
    assert both.shape == (2, rag.encoder.dimension)


def test_what_a_checkpoint_asks_of_a_search_is_kept(rag: Rag) -> None:
    decoding = AskOptions(beams=1).decoding(rag.settings.decoding)
    assert (decoding.no_repeat_ngram, decoding.beams) == (3, 1)


def test_more_passages_than_there_are(rag: Rag, store: Store) -> None:
    answer = rag.ask(QUESTION, store, AskOptions(max_new_tokens=4, k=50))
    assert len(answer.posterior) == len(PASSAGES)


def test_a_store_of_other_vectors_is_refused(
    rag: Rag, tiny_model_folder: Path, tmp_path: Path
) -> None:
    other = Rag.load(tiny_model_folder)
    with Store.open(tmp_path / "other", encoder=other.encoder) as store:
        store.add(Document("the fee is nine", "fee", ""))
        with pytest.raises(FingerprintError):
            rag.ask(QUESTION, store)


def test_the_fingerprint_is_that_of_the_weights(checkpoint: Path, rag: Rag) -> None:
    assert Rag.load(checkpoint).encoder.fingerprint == rag.encoder.fingerprint
    changed = Rag.load(checkpoint)
    with torch.no_grad():
        next(changed.model.question_encoder.parameters()).add_(0.1)
    assert changed.encoder.fingerprint != rag.encoder.fingerprint


def test_what_was_learned_is_saved(checkpoint: Path, store: Store, tmp_path: Path) -> None:
    learned = Rag.load(checkpoint)
    with torch.no_grad():
        for parameter in learned.model.generator.parameters():
            parameter.mul_(1.1)
    learned.save(tmp_path / "learned")
    again = Rag.load(tmp_path / "learned")
    assert again.ask(QUESTION, store, SHORT).text == learned.ask(QUESTION, store, SHORT).text
    for old, new in zip(learned.model.parameters(), again.model.parameters(), strict=True):
        torch.testing.assert_close(old, new)


@pytest.mark.parametrize("learned", [True, False])
def test_attention_and_weights_of_ranks_are_saved(
    learned: bool, checkpoint: Path, tiny_model_folder: Path, tmp_path: Path
) -> None:
    for number, source in enumerate((checkpoint, tiny_model_folder)):
        taught, folder = Rag.load(source), tmp_path / str(number)
        assert (taught.model.attention, taught.model.ranks) == (None, None)
        taught.model.attention = AttentionFusion(6, 4)
        torch.nn.init.normal_(taught.model.attention.project.weight)
        taught.model.ranks = RankWeights([3.0, 2.0, 0.5], learned=learned)
        taught.save(folder)
        again = Rag.load(folder).model
        assert again.attention is not None
        assert again.ranks is not None
        assert again.ranks.log_weights.requires_grad == learned
        assert torch.equal(again.ranks.log_weights, taught.model.ranks.log_weights)
        for name, weight in taught.model.attention.state_dict().items():
            assert torch.equal(again.attention.state_dict()[name], weight)


def test_what_is_not_learned_any_more_is_not_found_again(checkpoint: Path, tmp_path: Path) -> None:
    model = RagModel.from_pretrained(checkpoint)
    model.ranks = RankWeights([3.0, 2.0])
    model.save_pretrained(tmp_path)
    assert RagModel.from_pretrained(tmp_path).ranks is not None
    model.ranks = None
    model.save_pretrained(tmp_path)
    assert RagModel.from_pretrained(tmp_path).ranks is None


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"attention.compare.weight": torch.ones(2, 3)}, "an attention fusion have shapes"),
        ({"ranks.learned": torch.tensor([0.0, float("nan")])}, "ranks are not numbers"),
        (None, "cannot be read as tensors"),
    ],
)
def test_a_damaged_file_of_the_sum(
    tensors: dict[str, torch.Tensor] | None, message: str, checkpoint: Path, tmp_path: Path
) -> None:
    RagModel.from_pretrained(checkpoint).save_pretrained(tmp_path)
    if tensors is None:
        (tmp_path / FILE).write_bytes(b"no tensors")
    else:
        save_file(tensors, tmp_path / FILE)
    with pytest.raises(DamagedError, match=message):
        RagModel.from_pretrained(tmp_path)


def test_the_sum_alone_is_loaded_and_saved(checkpoint: Path, tmp_path: Path) -> None:
    model = RagModel.from_pretrained(checkpoint)
    assert not model.log_temperature.requires_grad
    model.save_pretrained(tmp_path / "copy")
    copy = RagModel.from_pretrained(tmp_path / "copy")
    ids = torch.tensor([[7, 8, 9]])
    torch.testing.assert_close(
        model(question_ids=ids, passage_vectors=torch.ones(1, 2, 8)).log_prior,
        copy(question_ids=ids, passage_vectors=torch.ones(1, 2, 8)).log_prior,
    )
    model.log_temperature.data.fill_(0.5)
    with pytest.raises(UsageError, match=r"the prior has the temperature 1\.649"):
        model.save_pretrained(tmp_path / "no")
    with pytest.raises(UsageError, match="does not come from a checkpoint of transformers"):
        RagModel(model.generator).save_pretrained(tmp_path / "no")


def test_without_an_encoder_of_passages_words_are_searched(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "half", passages=False)
    half = Rag.load(folder)
    assert (half.encoder, half.settings.mode) == (None, "bm25")
    with Store.open(tmp_path / "words") as store:
        store.add(Document("the fee is nine", "fee", ""))
        assert half.ask(QUESTION, store, SHORT).posterior
        with pytest.raises(UsageError, match="no encoder, so it cannot search in the mode dense"):
            half.ask(QUESTION, store, AskOptions(mode="dense"))
    with pytest.raises(UsageError, match="holds no encoder of passages"):
        load_any_encoder(folder)


def test_encoders_by_name(checkpoint: Path, rag: Rag, tiny_model_folder: Path) -> None:
    assert load_any_encoder(checkpoint).fingerprint == rag.encoder.fingerprint
    ours = Rag.load(tiny_model_folder).encoder
    assert load_any_encoder(tiny_model_folder).fingerprint == ours.fingerprint


def test_joined_parts_have_no_format(rag: Rag, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="joined from parts in Python"):
        Rag.of(rag.model.generator).save(tmp_path / "x")


def test_names(checkpoint: Path, tiny_model_folder: Path, tmp_path: Path) -> None:
    assert is_checkpoint(checkpoint)
    assert is_checkpoint("facebook/rag-token-nq")
    assert not is_checkpoint(None)
    assert not is_checkpoint(tiny_model_folder)
    assert not is_checkpoint(tmp_path / "nowhere")
    assert not is_checkpoint("nowhere")
    assert not is_checkpoint("../models/x")
    with pytest.raises(MissingError):
        Rag.load("nobody/nothing-of-this-name")
    with pytest.raises(MissingError, match="no model folder 'nowhere'") as caught:
        Rag.load("nowhere")
    assert "facebook/rag-token-nq" in caught.value.hint


def test_the_shipped_kind_answers_without_transformers(
    tiny_model_folder: Path, tmp_path: Path
) -> None:
    program = f"""
import sys
from consilience import Document, Rag, Store
rag = Rag.load({str(tiny_model_folder)!r})
with Store.open({str(tmp_path / "s")!r}, encoder=rag.encoder) as store:
    store.add(Document("the fee is nine", "fee", ""))
    assert rag.ask("what is the fee", store).posterior
assert "transformers" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
