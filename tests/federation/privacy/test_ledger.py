import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from consilience.errors import BusyError, DamagedError, UsageError, VersionError
from consilience.federation.contracts import SpentError
from consilience.federation.privacy import ledger as ledgers
from consilience.federation.privacy.accounting import Steps, epsilon_of
from consilience.federation.privacy.ledger import Ledger, Spent
from consilience.retrieval.derived import exclusive

ROUND = Spent("summer", 1, "question", sampling=0.25, noise=2.0, steps=4, delta=1e-3)


def expected(*steps: int, delta: float = 1e-3) -> float:
    return epsilon_of([Steps(0.25, 2.0, sum(steps))], delta=delta)


def test_rounds_add_up_over_restarts(tmp_path: Path) -> None:
    path = tmp_path / "party" / "privacy.json"
    first = Ledger(path).spend(ROUND, budget=8.0)
    second = Ledger(path).spend(replace(ROUND, round=2), budget=8.0)
    assert (first.run, first.total) == (expected(4), expected(4))
    assert (second.run, second.total) == (expected(8), expected(8))
    assert Ledger(path).history() == (ROUND, replace(ROUND, round=2))


def test_runs_add_up_for_the_party_and_not_for_each_other(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "privacy.json")
    ledger.spend(ROUND, budget=8.0)
    found = ledger.spend(replace(ROUND, run="winter", delta=1e-5), budget=8.0)
    assert found.run == expected(4, delta=1e-5)
    assert found.total == expected(8, delta=1e-5)  # at the least delta of all


def test_a_round_that_is_trained_again_is_spent_again(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "privacy.json")
    ledger.spend(ROUND, budget=8.0)
    assert ledger.spend(ROUND, budget=8.0).run == expected(8)


def test_a_round_beyond_the_budget_of_the_run_is_refused(tmp_path: Path) -> None:
    path, budget = tmp_path / "privacy.json", expected(8)
    ledger = Ledger(path)
    ledger.spend(ROUND, budget=budget)
    ledger.spend(replace(ROUND, round=2), budget=budget)  # exactly the budget is within it
    before = path.read_bytes()
    with pytest.raises(SpentError) as caught:
        ledger.spend(replace(ROUND, round=3), budget=budget)
    assert str(caught.value) == (
        f"round 3 of summer would bring the privacy spent to epsilon {expected(12):.3f}; the run's "
        f"budget is {budget:g}, of which {expected(8):.3f} is spent"
    )
    assert "most_epsilon" in caught.value.hint
    assert path.read_bytes() == before


def test_a_first_round_beyond_the_party_s_own_budget_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "privacy.json"
    with pytest.raises(SpentError, match=r"this party's budget is 0\.1, of which 0\.000 is spent"):
        Ledger(path, most=0.1).spend(ROUND, budget=8.0)
    assert not path.exists()


def test_another_run_cannot_spend_what_is_gone(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "privacy.json", most=expected(6))
    ledger.spend(ROUND, budget=8.0)
    with pytest.raises(SpentError, match=r"round 1 of winter .* this party's budget"):
        ledger.spend(replace(ROUND, run="winter"), budget=8.0)


def test_records_of_another_kind_are_refused(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "privacy.json")
    ledger.spend(ROUND, budget=8.0)
    with pytest.raises(UsageError, match=r"counts what was spent on each question, .* each user"):
        ledger.spend(replace(ROUND, run="winter", unit="user"), budget=8.0)


def cut(text: str) -> str:
    return text[:-20]


def emptied(_: str) -> str:
    return ""


def forgotten(text: str) -> str:
    whole = json.loads(text)
    return json.dumps(whole | {"spent": whole["spent"][:1]})


def lessened(text: str) -> str:
    return text.replace('"noise": 2.0', '"noise": 20.0')


def listed(_: str) -> str:
    return "[]"


def bare(_: str) -> str:
    return "{}"


@pytest.mark.parametrize("change", [cut, emptied, forgotten, lessened, listed, bare])
def test_a_damaged_ledger_is_refused_and_stays_as_it_is(
    tmp_path: Path, change: Callable[[str], str]
) -> None:
    path = tmp_path / "privacy.json"
    Ledger(path).spend(ROUND, budget=8.0)
    Ledger(path).spend(replace(ROUND, round=2), budget=8.0)
    path.write_text(change(path.read_text()))
    before = path.read_bytes()
    with pytest.raises(DamagedError, match=r"the privacy ledger .*privacy\.json is damaged"):
        Ledger(path).spend(replace(ROUND, round=3), budget=8.0)
    with pytest.raises(DamagedError) as caught:
        Ledger(path).history()
    assert "put it back from a copy" in caught.value.hint
    assert path.read_bytes() == before


def test_a_ledger_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "privacy.json"
    Ledger(path).spend(ROUND, budget=8.0)
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(VersionError, match="format 2; this version reads up to 1"):
        Ledger(path).history()


def test_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "party" / "privacy.json"
    Ledger(path).spend(ROUND, budget=8.0)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_two_processes_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "privacy.json"
    monkeypatch.setattr(ledgers, "_PATIENCE", 0.0)
    with exclusive(tmp_path / "privacy.json.lock", patience=0.0) as held:
        assert held
        with pytest.raises(BusyError, match="another process is writing to the privacy ledger"):
            Ledger(path).spend(ROUND, budget=8.0)
    assert Ledger(path).spend(ROUND, budget=8.0).run == expected(4)


def test_a_stop_at_any_write_leaves_a_whole_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped before and after each call that touches the disk: either line count is whole."""

    class StopError(BaseException):
        pass

    path = tmp_path / "privacy.json"
    Ledger(path).spend(ROUND, budget=99.0)
    calls, stop_at, stops = 0, 0, 0

    def stopping(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == stop_at:
                raise StopError
            found = real(*args, **kwargs)
            calls += 1
            if calls == stop_at:
                raise StopError
            return found

        return call

    for name in ("open", "fsync", "replace", "fdopen"):
        monkeypatch.setattr(os, name, stopping(getattr(os, name)))
    wanted = replace(ROUND, round=2)
    while stop_at < 40:
        stop_at += 1
        calls, before = 0, Ledger(path).history()
        try:
            Ledger(path).spend(wanted, budget=99.0)
        except StopError:
            stops += 1
            assert Ledger(path).history() in (before, (*before, wanted))
        else:
            break
    assert stops >= 8
    assert Ledger(path).history()[-1] == wanted


def test_a_killed_process_has_spent_what_it_returned_from(tmp_path: Path) -> None:
    path = tmp_path / "privacy.json"
    code = (
        "import json, os, signal, sys\n"
        "from pathlib import Path\n"
        "from consilience.federation.privacy.ledger import Ledger, Spent\n"
        "Ledger(Path(sys.argv[1])).spend(Spent(**json.loads(sys.argv[2])), budget=9.0)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), json.dumps(asdict(ROUND))], check=False
    )
    assert done.returncode == -9
    assert Ledger(path).history() == (ROUND,)


def test_a_disk_that_is_full_spends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "privacy.json"
    Ledger(path).spend(ROUND, budget=8.0)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UsageError, match="No space left on device"):
        Ledger(path).spend(replace(ROUND, round=2), budget=8.0)
    assert Ledger(path).history() == (ROUND,)
