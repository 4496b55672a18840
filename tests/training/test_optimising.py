"""What the loop is given: rates, precision, which weights decay, how sets are mixed."""

from pathlib import Path

import pytest

from consilience.training.optimising import batches_of, optimiser_of
from consilience.training.run import train
from tests.training.small import config_of, logged, opened_session, write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.mark.parametrize(
    ("schedule", "warmup", "rates"),
    [
        ("constant", 0, [1, 1, 1, 1, 1, 1]),
        ("linear", 2, [0, 0.5, 1, 0.75, 0.5, 0.25]),
        ("cosine", 2, [0, 0.5, 1, 0.853553, 0.5, 0.146447]),
    ],
)
def test_the_rate_goes_as_its_schedule_says(
    world: dict[str, Path], tmp_path: Path, schedule: str, warmup: int, rates: list[float]
) -> None:
    values = {"schedule": schedule, "warmup": warmup, "learning_rate": 2e-3, "batch": 2}
    train(config_of(world, tmp_path / "run", **values))
    found = logged(tmp_path / "run", "learning_rate")
    assert found == pytest.approx([rate * 2e-3 for rate in rates], abs=1e-8)


def test_half_precision_is_another_loss_but_a_near_one(
    world: dict[str, Path], tmp_path: Path
) -> None:
    for name in ("float32", "bfloat16"):
        train(config_of(world, tmp_path / name, precision=name, steps=2))
    full, half = (logged(tmp_path / name, "loss") for name in ("float32", "bfloat16"))
    assert half == pytest.approx(full, rel=0.05)
    assert half != pytest.approx(full, rel=1e-5)


def test_encoders_have_a_rate_of_their_own_and_biases_do_not_decay(
    world: dict[str, Path], tmp_path: Path
) -> None:
    config = config_of(world, tmp_path / "run", learning_rate=0.2, encoder_rate=0.5, decay=0.1)
    session, store = opened_session(config)
    store.close()
    names = {weight: name for name, weight in session.learner.named_parameters()}
    seen = set()
    for group in optimiser_of(session.learner, config).param_groups:
        for weight in group["params"]:
            told = ("_encoder." in names[weight], weight.dim() > 1)
            assert group["lr"] == (0.5 if told[0] else 0.2), names[weight]
            assert group["weight_decay"] == (0.1 if told[1] else 0.0), names[weight]
            seen.add(told)
    assert len(seen) == 4


def test_a_small_set_is_drawn_as_often_as_a_large_one_where_the_temperature_is_high(
    world: dict[str, Path], tmp_path: Path
) -> None:
    one = tmp_path / "one.jsonl"
    one.write_text(world["data"].read_text("utf-8").splitlines(keepends=True)[0], encoding="utf-8")
    data = {"train": [str(world["data"]), str(one)], "temperature": 1000}
    config = config_of(world, tmp_path / "run", data=data)
    session, store = opened_session(config)
    store.close()
    batches, drawn = batches_of(config, session.examples, seed=0), []
    for epoch in range(20):
        batches.set_epoch(epoch)
        drawn += [place for batch in batches for place in batch]
    assert 0.4 < drawn.count(len(session.examples[0])) / len(drawn) < 0.6
