from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consilience.retrieval import merging, postings
from consilience.retrieval.merging import merged
from consilience.retrieval.postings import Segment, forms_of, labels_array, term_keys
from tests.retrieval.small_index import WORDS, Page, segment_of

ARRAYS = [field.name for field in fields(Segment) if field.name != "remembered"]

words = st.lists(st.sampled_from(WORDS), max_size=6).map(tuple)
pages = st.builds(Page, words, words, st.sampled_from([(), ("a",), ("b", "c")]))


def in_memory(_: str, count: int, dtype: object) -> np.ndarray:  # type: ignore[type-arg]
    return np.empty(count, dtype)  # type: ignore[call-overload, no-any-return]


def contents(segment: Segment) -> dict[int, tuple[object, ...]]:
    """Everything that a segment says of each passage."""
    of_row: list[dict[int, tuple[int, int]]] = [{} for _ in range(len(segment))]
    for i, term in enumerate(segment.terms.tolist()):
        block = slice(segment.starts[i], segment.starts[i + 1])
        for row, form in zip(segment.rows[block], segment.forms[block], strict=True):
            of_row[row][term] = tuple(segment.pairs[form].tolist())
    lengths, labels = segment.lengths.tolist(), segment.labels
    return {
        number: (of_row[row], tuple(lengths[row]), labels[segment.kinds[row]])
        for row, number in enumerate(segment.numbers.tolist())
    }


def expected(pages: dict[int, Page]) -> dict[int, tuple[object, ...]]:
    found: dict[int, tuple[object, ...]] = {}
    for number, page in pages.items():
        present = sorted({*page.text, *page.title})
        counts = [(page.text.count(word), page.title.count(word)) for word in present]
        keys = term_keys(present).tolist()
        of_page = dict(zip(keys, counts, strict=True))
        found[number] = (of_page, (len(page.text), len(page.title)), page.access)
    return found


def is_sorted(segment: Segment) -> bool:
    starts = segment.starts[:-1]
    inside = np.ones(max(len(segment.rows), 1), np.bool_)
    inside[starts] = False
    rising = np.diff(segment.rows.astype(np.int64), prepend=-1)
    return bool(
        (np.diff(segment.terms) > 0).all()
        and (np.diff(segment.numbers) > 0).all()
        and (np.diff(segment.starts) > 0).all()
        and (rising[inside[: len(rising)]] > 0).all()
    )


@given(st.lists(pages, min_size=1, max_size=12))
@settings(deadline=None)
def test_a_segment_says_what_its_passages_hold(pages: list[Page]) -> None:
    numbered = {2 * place + 5: page for place, page in enumerate(pages)}
    segment = segment_of(numbered)
    assert contents(segment) == expected(numbered)
    assert is_sorted(segment)
    assert segment.pairs[0].tolist() == [0, 0]


@given(
    st.lists(st.lists(pages, min_size=1, max_size=6), min_size=1, max_size=4),
    st.sets(st.integers(0, 30)),
    st.integers(1, 5),
)
@settings(deadline=None)
def test_merged_segments_say_what_is_left(
    parts: list[list[Page]], dead: set[int], block: int
) -> None:
    numbered: list[dict[int, Page]] = []
    first = 0
    for part in parts:
        numbered.append(dict(enumerate(part, start=first)))
        first += len(part)
    whole = merge_in_blocks([segment_of(part) for part in numbered], dead, block)
    left = {n: page for part in numbered for n, page in part.items() if n not in dead}
    assert contents(whole) == expected(left)
    assert is_sorted(whole)
    assert len(whole.terms) == len({w for page in left.values() for w in page.text + page.title})


def merge_in_blocks(segments: list[Segment], dead: set[int], block: int) -> Segment:
    usual, merging._BLOCK = merging._BLOCK, block
    try:
        return merged(segments, np.array(sorted(dead), np.int64), in_memory)
    finally:
        merging._BLOCK = usual


def test_counts_beyond_a_byte_are_kept() -> None:
    pages = {n: Page(("w1",) * n, ("w1",) * (n % 3)) for n in range(1, 400)}
    segment = segment_of(pages)
    assert segment.forms.dtype == np.uint16
    assert contents(segment) == expected(pages)
    halves = [{n: pages[n] for n in range(1, 200)}, {n: pages[n] for n in range(200, 400)}]
    assert [segment_of(half).forms.dtype for half in halves] == [np.uint8, np.uint8]
    whole = merged([*map(segment_of, halves)], np.empty(0, np.int64), in_memory)
    assert contents(whole) == expected(pages)


def test_forms_are_the_distinct_pairs() -> None:
    which, found = forms_of(np.array([[3, 0], [1, 2], [3, 0]]))
    assert found.tolist() == [[0, 0], [1, 2], [3, 0]]
    assert which.tolist() == [2, 1, 2]


def test_forms_by_row_are_remembered_but_not_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postings, "_REMEMBERED", 20 * 399)
    segment = segment_of({n: Page((f"w{n}", "w1")) for n in range(1, 400)})
    for i in range(len(segment.terms)):
        begin, end = segment.starts[i : i + 2].tolist()
        forms = segment.forms_by_row(begin, end)
        assert np.flatnonzero(forms).tolist() == segment.rows[begin:end].tolist()
        assert segment.forms_by_row(begin, end) is forms
        assert len(segment.remembered) <= 20


def test_keys_of_terms_never_change() -> None:
    keys = term_keys(["library", "图书馆"]).tolist()
    assert keys == [4058322706541638695, 898317569659810019]


def test_labels_survive() -> None:
    segment = segment_of({1: Page(())})
    changed = replace(segment, labels_json=labels_array([("员工", 'a"b'), ()]))
    assert changed.labels == [("员工", 'a"b'), ()]
