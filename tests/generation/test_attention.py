"""The registered attention in half precision on processors, where products are written out."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from consilience.generation import attention

QUERIES, KEYS, SIZE = 5, 5, 8


class Layer(nn.Module):
    """What attention is told of a layer."""

    def __init__(self, is_causal: bool = False, groups: int = 1) -> None:
        super().__init__()
        self.is_causal, self.num_key_value_groups = is_causal, groups


def some(heads: int, length: int, seed: int) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    made = torch.randn(2, heads, length, SIZE, generator=draw).to(torch.bfloat16)
    return made.requires_grad_()


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often the library's fused attention was asked."""
    asked: list[int] = []
    library = attention.sdpa_attention_forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        asked.append(1)
        return library(*args, **kwargs)

    monkeypatch.setattr(attention, "sdpa_attention_forward", counted)
    return asked


PADDING = torch.tensor([[True] * 5, [True, True, True, False, False]])[:, None, None, :]
ORDER = torch.ones(QUERIES, KEYS, dtype=torch.bool).tril()
MASKS: dict[str, tuple[bool, Tensor | None]] = {
    "none": (False, None),
    "order": (True, None),
    "padding": (False, PADDING.expand(2, 1, QUERIES, KEYS)),
    "both": (True, PADDING & ORDER),
    "added": (False, torch.linspace(-3, 0, KEYS).expand(2, 1, QUERIES, KEYS)),
}


def expected(
    query: Tensor, key: Tensor, value: Tensor, case: str, bias: Tensor | None, scale: float
) -> Tensor:
    """In float64, from the definition."""
    causal, mask = MASKS[case]
    q, k, v = (one.double() for one in (query, key, value))
    k, v = (one.repeat_interleave(q.shape[1] // k.shape[1], 1) for one in (k, v))
    scores = scale * q @ k.transpose(2, 3)
    if bias is not None:
        scores = scores + bias
    if mask is not None and mask.is_floating_point():
        scores = scores + mask
    allowed = ORDER if mask is None and causal else mask
    if allowed is not None and not allowed.is_floating_point():
        scores = scores.masked_fill(~allowed, float("-inf"))
    return (scores.softmax(-1) @ v).transpose(1, 2)


@pytest.mark.parametrize("case", MASKS)
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("with_bias", [False, True])
def test_written_out_it_is_the_definition(
    case: str, groups: int, with_bias: bool, fused: list[int]
) -> None:
    query, key, value = some(4, QUERIES, 0), some(4 // groups, KEYS, 1), some(4 // groups, KEYS, 2)
    causal, mask = MASKS[case]
    bias = torch.linspace(-1, 1, KEYS).expand(1, 4, QUERIES, KEYS) if with_bias else None
    out, _ = attention.attend(
        Layer(causal, groups), query, key, value, mask, position_bias=bias, scaling=0.3
    )
    wanted = expected(query, key, value, case, bias, 0.3)
    torch.testing.assert_close(out.double(), wanted, atol=0.03, rtol=0.02)
    out.float().square().sum().backward()
    learned = [one.grad for one in (query, key, value)]
    doubles = [one.detach().double().requires_grad_() for one in (query, key, value)]
    expected(*doubles, case, bias, 0.3).square().sum().backward()
    for ours, theirs in zip(learned, doubles, strict=True):
        assert ours is not None
        torch.testing.assert_close(ours.double(), theirs.grad, atol=0.15, rtol=0.05)
    assert not fused


def test_without_a_scale_it_is_the_root_of_the_size(fused: list[int]) -> None:
    query, key, value = some(2, QUERIES, 0), some(2, KEYS, 1), some(2, KEYS, 2)
    out, _ = attention.attend(Layer(), query, key, value, None, scaling=None)
    wanted = expected(query, key, value, "none", None, SIZE**-0.5)
    torch.testing.assert_close(out.double(), wanted, atol=0.03, rtol=0.02)
    assert not fused


def test_one_query_sees_every_key(fused: list[int]) -> None:
    """A decoder's next token, which has nothing after it that would have to be hidden."""
    query, key, value = some(2, 1, 0), some(2, KEYS, 1), some(2, KEYS, 2)
    out, _ = attention.attend(Layer(is_causal=True), query, key, value, None, scaling=1.0)
    q, k, v = (one.double() for one in (query, key, value))
    wanted = ((q @ k.transpose(2, 3)).softmax(-1) @ v).transpose(1, 2)
    torch.testing.assert_close(out.double(), wanted, atol=0.03, rtol=0.02)
    assert not fused


def test_what_is_dropped_is_dropped_while_it_learns_only(fused: list[int]) -> None:
    query, key, value = some(2, QUERIES, 0), some(2, KEYS, 1), torch.ones(2, 2, KEYS, SIZE)
    value = value.to(torch.bfloat16)
    layer = Layer()
    learning, _ = attention.attend(layer.train(), query, key, value, None, dropout=0.5, scaling=1.0)
    asked, _ = attention.attend(layer.eval(), query, key, value, None, dropout=0.5, scaling=1.0)
    torch.testing.assert_close(asked, torch.ones_like(asked), atol=0.01, rtol=0)
    assert float((learning.detach() - 1).abs().max()) > 0.1
    assert not fused


@pytest.mark.parametrize("why", ["float32", "no gradient", "nothing learns"])
def test_otherwise_the_library_is_asked(why: str, fused: list[int]) -> None:
    given = [some(2, QUERIES, seed).detach() for seed in range(3)]
    if why == "float32":
        given = [one.float() for one in given]
    if why != "nothing learns":
        given = [one.requires_grad_() for one in given]
    with torch.set_grad_enabled(why != "no gradient"):
        query, key, value = given
        out, _ = attention.attend(Layer(), query, key, value, None, scaling=1.0)
    wanted = functional.scaled_dot_product_attention(query, key, value, scale=1.0).transpose(1, 2)
    torch.testing.assert_close(out, wanted)
    assert fused == [1]
