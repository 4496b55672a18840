from itertools import pairwise

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from consilience.errors import UsageError
from consilience.text import PassageSize, Span, split_passages
from consilience.text.passages import weigh
from tests.text.strategies import texts

SMALL = PassageSize(words=12, characters=16)
SENTENCE = "The committee meets on the first Monday of every month."  # ten words


def passages(text: str, **options: object) -> list[str]:
    return [text[s.start : s.end] for s in split_passages(text, **options)]  # type: ignore[arg-type]


def gaps(text: str, spans: list[Span]) -> list[str]:
    ends = [0, *(span.end for span in spans)]
    starts = [*(span.start for span in spans), len(text)]
    return [text[end:start] for end, start in zip(ends, starts, strict=True)]


sizes = st.builds(PassageSize, words=st.integers(1, 200), characters=st.integers(1, 300))


@given(texts, sizes)
def test_passages_share_nothing_and_hold_all_visible_text(text: str, size: PassageSize) -> None:
    spans = split_passages(text, size=size)
    assert all(span.start < span.end for span in spans)
    assert all(text[s.start : s.end] == text[s.start : s.end].strip() for s in spans)
    assert all(a.end <= b.start for a, b in pairwise(spans))
    assert not "".join(gaps(text, spans)).strip()


@given(texts, sizes)
def test_no_cut_parts_a_grapheme_cluster(text: str, size: PassageSize) -> None:
    boundaries = {match.end() for match in regex.finditer(r"\X", text)} | {0}
    spans = split_passages(text, size=size)
    touching = [a.end for a, b in pairwise(spans) if a.end == b.start]
    assert set(touching) <= boundaries


@given(texts, st.lists(st.integers(0, 500), max_size=5), st.integers(0, 3))
def test_breaks_and_overlap_lose_nothing(text: str, breaks: list[int], overlap: int) -> None:
    spans = split_passages(text, breaks=breaks, size=SMALL, overlap_sentences=overlap)
    covered = {i for span in spans for i in range(span.start, span.end)}
    assert all(i in covered for i, character in enumerate(text) if not character.isspace())
    assert spans == sorted(spans)
    assert len({s.start for s in spans}) == len({s.end for s in spans}) == len(spans)


@given(texts)
def test_only_what_cannot_be_cut_is_heavier_than_a_passage(text: str) -> None:
    for span in split_passages(text, size=PassageSize(words=40, characters=60)):
        assert weigh(text[span.start : span.end], PassageSize(words=40, characters=60)) <= 1 + 1e-9


def test_a_short_text_is_one_passage() -> None:
    assert passages("  Only this.\n") == ["Only this."]
    assert passages(" \n ") == []


def test_the_default_size_leaves_room_in_256_subwords() -> None:
    english = split_passages(f"{SENTENCE} " * 200)
    chinese = split_passages("委员会每月第一个星期一开会，讨论各部门的预算。" * 100)
    assert all(100 <= (span.end - span.start) // len(SENTENCE) * 10 <= 160 for span in english)
    assert all(150 <= span.end - span.start <= 220 for span in chinese)


def test_passages_end_with_sentences() -> None:
    found = passages(" ".join([SENTENCE] * 5), size=PassageSize(words=25, characters=40))
    assert all(passage.endswith(".") and passage.startswith("The") for passage in found)


@pytest.mark.parametrize("first", [2, 3])
def test_a_passage_rather_begins_with_a_paragraph(first: int) -> None:
    text = "\n\n".join(" ".join([SENTENCE] * count) for count in (first, 5 - first))
    found = passages(text, size=PassageSize(words=31, characters=40))
    assert found == text.split("\n\n")


def test_sections_of_half_a_passage_stay_apart_and_shorter_ones_do_not() -> None:
    sections = [f"## Leave\n{SENTENCE}", f"## Loans\n{SENTENCE}"]
    text = "\n\n".join(sections)
    assert passages(text, size=PassageSize(words=24, characters=40)) == sections
    assert passages(text, size=PassageSize(words=60, characters=40)) == [text]


def test_lengths_are_balanced() -> None:
    text = " ".join([SENTENCE] * 4)
    found = passages(text, size=PassageSize(words=31, characters=40))
    assert [passage.count(".") for passage in found] == [2, 2]


def test_a_heading_stays_with_what_follows() -> None:
    text = f"{SENTENCE}\n\n## 1. Leave of absence\n\n{SENTENCE}\n\n### 说明\n{SENTENCE}"
    found = passages(text, size=PassageSize(words=16, characters=16))
    assert [passage.split("\n")[0] for passage in found] == [
        SENTENCE,
        "## 1. Leave of absence",
        "### 说明",
    ]


def test_a_heading_stays_even_with_a_sentence_that_must_be_cut() -> None:
    size = PassageSize(words=40, characters=40)
    found = passages(f"# Heading\n\n{'word ' * 80}", size=size)
    assert found[0].startswith("# Heading\n\nword")


@pytest.mark.parametrize("words", [30, 16])  # three rows, or one though one and a half would fit
def test_a_table_row_is_kept_whole(words: int) -> None:
    rows = [f"Name: Person {n}. Esq.; Age: {n}; City: Oslo. Norway" for n in range(30)]
    found = passages("\n".join(rows), size=PassageSize(words=words, characters=40))
    assert [row for passage in found for row in passage.split("\n")] == rows
    assert all(set(passage.split("\n")) <= set(rows) for passage in found)


def test_a_passage_does_not_run_across_a_page_unless_a_paragraph_does() -> None:
    separate = f"{SENTENCE}\n\n{SENTENCE}"
    assert len(passages(separate)) == 1
    assert passages(separate, breaks=[separate.rindex("The")]) == separate.split("\n\n")
    running_on = f"{SENTENCE} {SENTENCE}"
    assert passages(running_on, breaks=[running_on.rindex("The")]) == [running_on]
    assert passages(running_on, breaks=[20]) == [running_on]


def test_a_long_sentence_is_cut_at_commas_else_between_words_else_characters() -> None:
    commas = "one two three four, five six seven eight, nine ten eleven twelve, end"
    assert [p[-1] for p in passages(commas, size=SMALL)[:-1]] == [","]
    words = " ".join(["word"] * 30)
    assert all(set(passage.split()) == {"word"} for passage in passages(words, size=SMALL))
    family = "👩‍👩‍👧‍👦"
    found = passages(family * 500, size=SMALL)
    assert len(found) > 1
    assert all(passage.replace(family, "") == "" for passage in found)


def test_overlap_repeats_sentences_but_not_across_pages() -> None:
    text = "One is first. Two is second. Three is third. Four is last."
    size = PassageSize(words=6, characters=8)
    assert passages(text, size=size, overlap_sentences=1) == [
        "One is first. Two is second.",
        "Two is second. Three is third. Four is last.",
    ]
    paged = text.replace(" Three", "\n\nThree")
    found = passages(paged, size=size, overlap_sentences=1, breaks=[paged.index("Three")])
    assert found == ["One is first. Two is second.", "Three is third. Four is last."]


def test_errors_say_what_was_received() -> None:
    with pytest.raises(UsageError, match=r"^overlap_sentences must be 0 or more, received -1$"):
        split_passages("text", overlap_sentences=-1)
    with pytest.raises(UsageError, match=r"received words=0, characters=220$"):
        PassageSize(words=0)
