"""Training runs: found, told as curves, followed while they grow, and never reached by a path."""

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest

from consilience.errors import MissingError
from consilience.serving import runs
from consilience.serving.runs import Log, all_runs, point_of, points_of, run_info
from consilience.training.watching import JsonLog
from tests.serving.small import events_of
from tests.serving.world import World, world


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "runs" / "first"
    place.mkdir(parents=True)
    (place / "config.json").write_text(json.dumps({"steps": 40, "objectives": {"nll": 1.0}}))
    write(place, 10, 20, 30)
    return tmp_path / "runs"


@pytest.fixture
def place(tmp_path: Path, folder: Path) -> Iterator[World]:
    with world(tmp_path) as opened:
        yield opened


def write(place: Path, *steps: int, **more: Any) -> None:
    with (place / "log.jsonl").open("a") as log:
        for step in steps:
            log.write(json.dumps({"step": step, "loss": 1 / step, **more}) + "\n")


def test_runs_are_listed_with_how_far_they_are(place: World, folder: Path) -> None:
    os.utime(folder / "first" / "config.json", (1_700_000_000, 1_700_000_000))
    assert place.client().get("/v1/runs").json() == {
        "runs": [
            {
                "name": "first",
                "steps": 30,
                "total": 40,
                "state": "running",
                "objective": "nll",
                "started": "2023-11-14T22:13:20Z",
            }
        ]
    }


def test_a_run_is_over_when_its_model_is_written(folder: Path) -> None:
    place = folder / "first"
    os.utime(place / "log.jsonl", (1_700_000_000, 1_700_000_000))
    os.utime(place / "config.json", (1_700_000_000, 1_700_000_000))
    assert run_info(folder, "first").state == "stopped"
    (place / "model").mkdir()
    assert run_info(folder, "first").state == "done"
    os.utime(place / "model", (1_600_000_000, 1_600_000_000))
    assert run_info(folder, "first").state == "stopped", "it was made longer"


def test_a_curve_has_every_number(place: World, folder: Path) -> None:
    write(folder / "first", 40, eval_f1=0.5, grad_norm=float("nan"), note="text", flag=True)
    found = place.client().get("/v1/runs/first").json()
    assert (found["name"], found["steps"]) == ("first", 40)
    assert [point["step"] for point in found["points"]] == [10, 20, 30, 40]
    assert found["points"][-1] == {"step": 40, "loss": 0.025, "eval_f1": 0.5, "grad_norm": None}


@pytest.mark.parametrize(
    "line",
    [
        *(b"", b"{", b"[]", b"7", b'"step"', b"\xff\xfe", b"[" * 9999),
        *(b'{"loss": 1}', b'{"step": null}', b'{"step": "x"}', b'{"step": Infinity}'),
    ],
)
def test_lines_that_are_no_points_are_passed_over(folder: Path, line: bytes) -> None:
    assert point_of(line) is None
    with (folder / "first" / "log.jsonl").open("ab") as log:
        log.write(line + b"\n" + b'{"step": 50}\n')
    assert [p["step"] for p in points_of(folder, "first")] == [10, 20, 30, 50]
    assert run_info(folder, "first").steps == 50


def test_half_a_line_is_left_for_later(folder: Path) -> None:
    log = Log(folder / "first" / "log.jsonl")
    with (folder / "first" / "log.jsonl").open("ab") as file:
        file.write(b'{"step": 4')
        file.flush()
        assert [p["step"] for p in log.news().points] == [10, 20, 30]
        assert run_info(folder, "first").steps == 30
        assert log.news().points == ()
        file.write(b'0, "loss": 2}\n')
        file.flush()
        assert log.news().points == ({"step": 40, "loss": 2},)
        assert run_info(folder, "first").steps == 40


def test_a_log_is_read_in_chunks_of_any_size(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for size in (1, 7, 30, 64):
        monkeypatch.setattr(runs, "_CHUNK", size)
        assert [p["step"] for p in points_of(folder, "first")] == [10, 20, 30]


def test_a_log_that_is_written_anew_is_told_anew(folder: Path) -> None:
    path = folder / "first" / "log.jsonl"
    log = Log(path, after=25)
    assert [p["step"] for p in log.news().points] == [30]
    callback = JsonLog(path)
    state: Any = SimpleNamespace(global_step=20)
    nothing: Any = None
    callback.on_train_begin(nothing, state, nothing)
    state.global_step = 25
    callback.on_log(nothing, state, nothing, logs={"loss": 9.0})
    found = log.news()
    assert found.anew
    assert [p["step"] for p in found.points] == [10, 20, 25], "what was told before is void"
    assert log.news() == runs.News()


def test_a_log_that_grew_past_its_old_end_is_still_known_to_be_another(folder: Path) -> None:
    path = folder / "first" / "log.jsonl"
    log = Log(path)
    log.news()
    path.unlink()
    write(folder / "first", 1, 2, 3, 4, 5, 6)
    assert (log.news().anew, path.stat().st_size > 100) == (True, True)


def test_only_later_points_are_told(folder: Path) -> None:
    log = Log(folder / "first" / "log.jsonl", after=20)
    assert [p["step"] for p in log.news().points] == [30]


def test_long_curves_are_thinned_and_keep_their_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "MOST_POINTS", 10)
    write(folder / "first", *range(31, 60))
    steps = [p["step"] for p in points_of(folder, "first")]
    assert (len(steps), steps[-1], steps[-2]) == (8, 59, 55)


@pytest.mark.parametrize(
    "name", ["..", ".", "", "../runs/first", "first/", "none", "%2e%2e", "first\0", "linked"]
)
def test_a_name_is_looked_up_and_is_no_path(place: World, folder: Path, name: str) -> None:
    (folder / "linked").symlink_to(folder / "first", target_is_directory=True)
    (folder / "empty").mkdir()
    assert [one.name for one in all_runs(folder)] == ["first"]
    with pytest.raises(MissingError):
        run_info(folder, name)
    quoted = quote(name, safe="").replace(".", "%2E")
    for path in (f"/v1/runs/{quoted}", f"/v1/runs/{quoted}/events"):
        assert place.client().get(path).status_code == 404


def test_no_folder_is_no_run(tmp_path: Path) -> None:
    assert all_runs(tmp_path / "none") == []


def test_settings_that_cannot_be_read_are_none(folder: Path) -> None:
    for written in (b"[]", b"{", b"\xff", b'{"steps": "x", "objectives": 3}'):
        (folder / "first" / "config.json").write_bytes(written)
        found = run_info(folder, "first")
        assert (found.total, found.objective) == (None, "")


def test_a_run_is_watched_while_it_grows(
    place: World, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consilience.serving.following.LONGEST", 2.0)
    monkeypatch.setattr("consilience.serving.following.LOOK_EVERY", 0.05)
    timers = [
        threading.Timer(0.5, write, (folder / "first", 40)),
        threading.Timer(1.0, (folder / "first" / "log.jsonl").write_text, ('{"step": 5}\n',)),
    ]
    for timer in timers:
        timer.start()
    found = events_of(place.client().get("/v1/runs/first/events", params={"after": 20}).text)
    for timer in timers:
        timer.join()
    told = [data["points"] for name, data in found if name == "points"]
    assert [[p["step"] for p in points] for points in told] == [[30], [40], [5]]
    assert [name for name, _ in found].count("anew") == 1
    states = [data["steps"] for name, data in found if name == "run"]
    assert (states[0], 40 in states, states[-1]) == (30, True, 5)
