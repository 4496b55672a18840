"""A party's yes goes as far as its file says; its book has every question and no word of one."""

import json
import stat
from pathlib import Path

import pytest

from consilience.errors import BusyError, DamagedError, FingerprintError, UsageError
from consilience.federation import consent
from consilience.federation.config import AskingSettings
from consilience.federation.consent import Book, Consent


def consent_of(folder: Path, **values: object) -> Consent:
    settings = AskingSettings(**{"tells": "answer", **values})  # type: ignore[arg-type]
    return Consent("ward", settings, Book(folder / "state" / "asked.jsonl"))


def test_nothing_is_the_default_and_is_a_refusal(tmp_path: Path) -> None:
    consent_of(tmp_path).require_any()
    with pytest.raises(UsageError, match=r"^ward answers no questions$"):
        Consent("ward", AskingSettings(), Book(tmp_path / "b")).require_any()


def test_another_model_is_refused_with_both(tmp_path: Path) -> None:
    consent_of(tmp_path).require_model("aa", "aa")
    with pytest.raises(FingerprintError, match="the model of ward is aa, the asker's bb"):
        consent_of(tmp_path).require_model("bb", "aa")


def test_a_day_has_so_many_questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_000_000.0]
    monkeypatch.setattr(consent, "time", lambda: now[0])
    party = consent_of(tmp_path, a_day=2)
    party.enter("coordinator")
    now[0] += 1000
    party.enter("bank")
    for one in (party, consent_of(tmp_path, a_day=2)):  # also after a restart
        with pytest.raises(BusyError, match="ward answers 2 questions within 24 hours"):
            one.enter("coordinator")
    now[0] += consent.DAY - 500  # the first is a day ago, the second is not
    party.enter("coordinator")
    with pytest.raises(BusyError):
        party.enter("coordinator")
    entries = list(party.book.entries())
    assert [one.asker for one in entries] == ["coordinator", "bank", "coordinator"]
    assert [one.at for one in entries] == [1_000_000.0, 1_001_000.0, now[0]]


def test_without_a_limit_every_question_is_in_the_book(tmp_path: Path) -> None:
    party = consent_of(tmp_path)
    for _ in range(30):
        party.enter("协调方")
    lines = party.book.path.read_text("utf-8").splitlines()
    assert len(lines) == 30
    assert json.loads(lines[0]).keys() == {"at", "asker"}
    assert stat.S_IMODE(party.book.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(party.book.path.parent.stat().st_mode) == 0o700


def test_a_line_that_was_cut_off_is_of_no_question(tmp_path: Path) -> None:
    party = consent_of(tmp_path, a_day=2)
    party.enter("a")
    whole = party.book.path.read_bytes()
    party.book.path.write_bytes(whole + whole[:-5])
    assert [one.asker for one in party.book.entries()] == ["a"]
    party.enter("b")
    assert [one.asker for one in party.book.entries()] == ["a", "b"]
    assert party.book.path.read_bytes().startswith(whole)


def test_a_question_that_cannot_be_written_down_is_not_answered(tmp_path: Path) -> None:
    party = consent_of(tmp_path)
    party.book.path.mkdir(parents=True)
    with pytest.raises(UsageError, match=r"asked\.jsonl could not be written: "):
        party.enter("a")


@pytest.mark.parametrize("line", ["{", "[1]", '{"at": "x", "asker": "a"}', '{"at": 1}'])
def test_a_damaged_book_is_no_free_question(tmp_path: Path, line: str) -> None:
    party = consent_of(tmp_path, a_day=100)
    party.enter("a")
    with party.book.path.open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")
    with pytest.raises(DamagedError, match="holds a line that is no question"):
        party.enter("a")
