"""Damaged files of every format: documents or a `DocumentError`, and never anything else."""

import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consilience.documents import ReadLimits, read_document
from consilience.errors import DocumentError
from tests.documents import samples

LIMITS = ReadLimits(cpu_seconds=5, wall_seconds=60)

sound = cache(samples.one_of_each)


@st.composite
def damage(draw: st.DrawFn, data: bytes) -> bytes:
    """`data` with some bytes changed, or cut off at the end, or cut out of the middle."""
    places = draw(st.lists(st.integers(0, len(data) - 1), min_size=1, max_size=8))
    match draw(st.sampled_from(["flip", "truncate", "remove"])):
        case "truncate":
            return data[: places[0]]
        case "remove":
            return data[: min(places)] + data[max(places) :]
    damaged = bytearray(data)
    for place in places:
        damaged[place] ^= draw(st.integers(1, 255))
    return bytes(damaged)


@pytest.mark.parametrize(
    "name",
    ["pdf", "docx", "pptx", "xlsx", "xls", "ods", "html", "md", "txt", "csv", "json", "jsonl"],
)
def test_a_damaged_file_gives_documents_or_a_reason(name: str) -> None:
    original = sound()[f"a.{name}"]

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(damage(original))
    def reads(data: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"a.{name}"
            path.write_bytes(data)
            with suppress(DocumentError):
                documents = read_document(path, source="a", limits=LIMITS)
                assert all(document.text.strip() for document in documents)

    reads()


def test_the_sound_files_are_read(tmp_path: Path) -> None:
    for name, data in sound().items():
        (tmp_path / name).write_bytes(data)
        documents = read_document(tmp_path / name, source=name)
        assert documents
        for document in documents:
            for page in document.pages:
                assert document.text[page.start : page.end].strip()
