import pytest

from consilience.cli.flags import Output
from consilience.cli.messages import ENGLISH
from consilience.cli.progress import Lines, clock_time, described
from consilience.cli.screen import Screen
from consilience.store import Progress


def at(done: int, *, rate: float = 0.0, left: float | None = None) -> Progress:
    return Progress("embedding", "a.md", done, 9, done, 9, done, rate, left)


def test_it_tells_files_rate_and_time_left() -> None:
    assert (
        described(at(2, rate=12.4, left=71.6), ENGLISH) == "2/9 files · 12 passages/s · 1:12 left"
    )


def test_it_tells_no_rate_and_no_time_before_it_knows_them() -> None:
    assert described(at(0), ENGLISH) == "0/9 files"


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.4, "0:00"), (59.6, "1:00"), (3599, "59:59"), (36610, "10:10:10")]
)
def test_clock_time(seconds: float, shown: str) -> None:
    assert clock_time(seconds) == shown


def test_a_log_gets_a_line_every_ten_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    seconds = iter([100.0, 105.0, 110.0, 110.0, 119.0, 121.0, 121.0])
    log = Lines(Screen(Output()), clock=lambda: next(seconds))
    for done in range(4):
        log(described(at(done), ENGLISH))
    assert capsys.readouterr().err.splitlines() == ["1/9 files", "3/9 files"]


def test_a_count_gets_a_line_every_ten_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    seconds = iter([0.0, 9.0, 11.0, 11.0, 12.0])
    lines = Lines(Screen(Output()), clock=lambda: next(seconds))
    for done in (1, 2, 3):
        lines(ENGLISH.steps_done.format(done=done, total=9))
    assert capsys.readouterr().err == "2/9 steps\n"
