"""The layers against transformers' `BertModel`, with random weights."""

import pytest
import torch

from consilience.encoding import bert
from consilience.encoding.bert import Embeddings, EncoderStack, TransformerShape, mean_pool

SHAPE = TransformerShape(
    vocabulary_size=50, hidden_size=32, heads=4, intermediate_size=64, positions=40
)


def test_layers_compute_what_bert_model_computes() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=40,
    )
    theirs = transformers.BertModel(config, add_pooling_layer=False).eval()
    embeddings, layers = Embeddings(SHAPE), EncoderStack(SHAPE, 3)
    state = theirs.state_dict()
    embeddings.load_state_dict(
        {
            k.removeprefix("embeddings."): v
            for k, v in state.items()
            if k.startswith("embeddings.") and "position_ids" not in k
        }
    )
    layers.load_state_dict(
        {k.removeprefix("encoder."): v for k, v in state.items() if k.startswith("encoder.")}
    )
    ids = torch.randint(0, 50, (3, 17))
    segments = torch.randint(0, 2, (3, 17))
    mask = torch.ones(3, 17, dtype=torch.long)
    mask[1, 9:] = 0
    with torch.no_grad():
        expected = theirs(ids, attention_mask=mask, token_type_ids=segments).last_hidden_state
        found = layers(embeddings(ids, segments), mask)
    torch.testing.assert_close(found[mask.bool()], expected[mask.bool()], atol=1e-5, rtol=1e-5)


def test_padding_changes_no_vector() -> None:
    torch.manual_seed(0)
    embeddings, layers = Embeddings(SHAPE), EncoderStack(SHAPE, 2)
    ids = torch.randint(1, 50, (1, 6))
    longer = torch.cat([ids, torch.zeros(1, 5, dtype=torch.long)], dim=1)
    short = mean_pool(layers(embeddings(ids, torch.zeros_like(ids)), ids > 0), ids > 0)
    padded = layers(embeddings(longer, torch.zeros_like(longer)), longer > 0)
    torch.testing.assert_close(short, mean_pool(padded, longer > 0), atol=1e-6, rtol=1e-5)
    assert float(short.detach().norm()) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("most", [1, 7, 12, 2048])
def test_texts_end_to_end_are_what_they_are_side_by_side(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bert, "PACKED_TOKENS", most)
    torch.manual_seed(0)
    embeddings, layers = Embeddings(SHAPE), EncoderStack(SHAPE, 2)
    lengths = torch.tensor([5, 1, 9, 0, 4])
    mask = torch.arange(9) < lengths[:, None]
    ids = torch.randint(1, 50, (5, 9))
    with_gradient = layers(embeddings(ids, torch.zeros_like(ids)), mask)
    with torch.inference_mode():
        found = layers(embeddings(ids, torch.zeros_like(ids)), mask)
    assert with_gradient.requires_grad
    torch.testing.assert_close(found[mask], with_gradient[mask].detach(), atol=1e-5, rtol=1e-5)
    assert not found[~mask].any()


def test_a_text_has_the_numbers_that_it_has_alone() -> None:
    torch.manual_seed(0)
    embeddings, layers = Embeddings(SHAPE), EncoderStack(SHAPE, 2)
    mask = torch.arange(12) < torch.tensor([[12], [3], [7]])
    ids = torch.randint(1, 50, (3, 12))
    with torch.inference_mode():
        together = layers(embeddings(ids, torch.zeros_like(ids)), mask)
        alone = layers(embeddings(ids[1:2, :3], torch.zeros(1, 3, dtype=torch.long)), mask[1:2, :3])
    torch.testing.assert_close(together[1, :3], alone[0], atol=1e-6, rtol=1e-5)
