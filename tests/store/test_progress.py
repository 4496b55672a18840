from consilience.store import Progress
from consilience.store.progress import Meter


def test_rate_and_time_left_come_from_the_work_and_not_from_what_was_skipped() -> None:
    now = [100.0]
    steps: list[Progress] = []
    meter = Meter(steps.append, total_files=4, total_bytes=1000, clock=lambda: now[0])
    meter.skip("same", 400)
    assert (steps[-1].rate, steps[-1].seconds_left) == (0.0, None)
    now[0] = 110.0
    meter.embed("a", 50)
    assert steps[-1].rate == 5.0
    meter.finish("a", 200, passages=60)
    assert steps[-1] == Progress(
        stage="embedding",
        source="a",
        done_files=2,
        total_files=4,
        done_bytes=600,
        total_bytes=1000,
        passages=60,
        rate=5.0,
        seconds_left=20.0,
    )
    meter.skip("bad", 400)
    assert steps[-1].seconds_left == 0.0


def test_nobody_has_to_listen() -> None:
    Meter(None, total_files=1, total_bytes=1).skip("a", 1)
