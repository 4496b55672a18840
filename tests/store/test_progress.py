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


def test_a_large_file_shows_how_far_it_is() -> None:
    now = [0.0]
    steps: list[Progress] = []
    meter = Meter(steps.append, total_files=2, total_bytes=1000, clock=lambda: now[0])
    meter.begin(800, texts=40)
    meter.tell("reading")
    assert (steps[-1].done_bytes, steps[-1].seconds_left) == (0, None)
    now[0] = 4.0
    meter.embed("large", 10)
    assert (steps[-1].done_bytes, steps[-1].seconds_left) == (200, 16.0)
    now[0] = 16.0
    meter.embed("large", 30)
    assert (steps[-1].done_bytes, steps[-1].seconds_left) == (800, 4.0)
    meter.finish("large", 800, passages=40)
    assert (steps[-1].done_bytes, steps[-1].seconds_left) == (800, 4.0)
    meter.begin(200, texts=0)
    meter.tell("reading")
    assert (steps[-1].done_bytes, steps[-1].seconds_left) == (800, 4.0)
    meter.finish("small", 200, passages=1)
    assert (steps[-1].done_bytes, steps[-1].seconds_left) == (1000, 0.0)


def test_nobody_has_to_listen() -> None:
    Meter(None, total_files=1, total_bytes=1).skip("a", 1)
