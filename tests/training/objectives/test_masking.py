"""What is taken out, and that nothing else changes."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from consilience.errors import UsageError
from consilience.training.objectives import (
    Masking,
    Words,
    corrupt_spans,
    mask_tokens,
    masked_language_loss,
)
from consilience.training.objectives.masking import IGNORED

WORDS = Words(mask=3, first=5, size=100)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class TestMaskTokens:
    def test_shares_are_those_asked_for(self) -> None:
        ids = torch.full((200, 100), 50)
        masked = mask_tokens(ids, ids > 0, words=WORDS, generator=seeded())
        chosen = masked.labels != IGNORED
        assert float(chosen.float().mean()) == pytest.approx(0.15, abs=0.01)
        of_chosen = masked.ids[chosen]
        assert float((of_chosen == 3).float().mean()) == pytest.approx(0.8, abs=0.03)
        assert float((of_chosen == 50).float().mean()) == pytest.approx(0.1 + 0.1 / 95, abs=0.02)
        assert bool((of_chosen[of_chosen != 3] >= 5).all())

    def test_only_chosen_tokens_change_and_their_labels_are_what_stood_there(self) -> None:
        ids = torch.arange(5, 85).view(2, 40)
        maskable = ids % 2 == 0
        masked = mask_tokens(ids, maskable, words=WORDS, generator=seeded())
        chosen = masked.labels != IGNORED
        assert bool(chosen.any())
        assert not bool((chosen & ~maskable).any())
        assert torch.equal(masked.labels[chosen], ids[chosen])
        assert torch.equal(masked.ids[~chosen], ids[~chosen])

    def test_a_word_is_masked_whole_or_not_at_all(self) -> None:
        ids = torch.full((50, 12), 50)
        groups = torch.tensor([0, 0, 0, 1, 2, 2, 3, 4, 4, 4, 4, 5]).expand(50, 12)
        half = Masking(share=0.5)
        masked = mask_tokens(
            ids, ids > 0, words=WORDS, generator=seeded(), masking=half, groups=groups
        )
        chosen = masked.labels != IGNORED
        assert 0.3 < float(chosen.float().mean()) < 0.7
        for word in range(6):
            part = chosen[:, groups[0] == word]
            assert torch.equal(part.all(1), part.any(1))

    def test_the_same_seed_masks_the_same(self) -> None:
        ids = torch.full((4, 20), 50)
        first, again, other = (
            mask_tokens(ids, ids > 0, words=WORDS, generator=seeded(seed)) for seed in (1, 1, 2)
        )
        assert torch.equal(first.ids, again.ids)
        assert not torch.equal(first.labels, other.labels)

    @pytest.mark.parametrize(
        "shares", [{"share": 1.5}, {"as_mask": -0.1}, {"as_mask": 0.8, "as_random": 0.3}]
    )
    def test_shares_out_of_order(self, shares: dict[str, float]) -> None:
        with pytest.raises(UsageError, match="shares must lie between 0 and 1, and as_mask"):
            Masking(**shares)


def test_the_loss_is_the_mean_over_labels_and_zero_without_any() -> None:
    logits = torch.randn(2, 3, 7, generator=seeded()).requires_grad_()
    labels = torch.tensor([[1, IGNORED, 6], [IGNORED, 0, IGNORED]])
    expected = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels)
    torch.testing.assert_close(masked_language_loss(logits, labels), expected)
    nothing = masked_language_loss(logits, torch.full((2, 3), IGNORED))
    nothing.backward()
    assert float(nothing.detach()) == 0.0
    assert logits.grad is not None
    assert float(logits.grad.abs().max()) == 0.0


SENTINELS = list(range(1000, 900, -1))
END = 1


def restored(inputs: list[int], targets: list[int]) -> list[int]:
    """The text that a corrupted one came from, by filling each sentinel's place."""
    missing: dict[int, list[int]] = {}
    for id_ in targets[:-1]:
        if id_ in SENTINELS:
            missing[id_] = []
            current = missing[id_]
        else:
            current.append(id_)
    parts = [missing.get(id_, [id_]) for id_ in inputs[:-1]]
    return [id_ for part in parts for id_ in part]


class TestCorruptSpans:
    @settings(deadline=None)
    @given(
        ids=st.lists(st.integers(10, 99), min_size=2, max_size=60),
        seed=st.integers(0, 99),
        share=st.floats(0.01, 0.99),
        length=st.floats(1.0, 9.0),
    )
    def test_the_two_sides_make_up_the_text(
        self, ids: list[int], seed: int, share: float, length: float
    ) -> None:
        made = corrupt_spans(
            ids, random.Random(seed), sentinels=SENTINELS, end=END, share=share, length=length
        )
        assert made is not None
        assert restored(made.inputs, made.targets) == ids
        assert made.inputs[-1] == made.targets[-1] == END
        used = [id_ for id_ in made.inputs if id_ in SENTINELS]
        assert used == SENTINELS[: len(used)]
        assert [id_ for id_ in made.targets if id_ in SENTINELS] == SENTINELS[: len(used) + 1]
        assert made.inputs[0] not in SENTINELS  # a text begins with something to go on
        assert 0 < len(made.targets) - len(used) - 2 < len(ids)

    def test_how_much_goes_missing(self) -> None:
        made = corrupt_spans(list(range(200)), random.Random(0), sentinels=SENTINELS, end=END)
        assert made is not None
        assert len([id_ for id_ in made.inputs if id_ in SENTINELS]) == 10
        assert len(made.targets) == 30 + 11 + 1

    def test_too_short_a_text(self) -> None:
        assert corrupt_spans([7], random.Random(0), sentinels=SENTINELS, end=END) is None

    def test_too_few_sentinels(self) -> None:
        with pytest.raises(UsageError) as caught:
            corrupt_spans(list(range(200)), random.Random(0), sentinels=[1000] * 10, end=END)
        assert caught.value.message == "10 stretches need 11 sentinels, there are 10"
