"""Evaluations and training runs: listed, started, and watched while they go on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.web.conftest import Opener
from tests.web.fake import Fake

POINTS: list[dict[str, Any]] = [
    {"step": step, "loss": 4 - step / 10, "epoch": step / 100}
    | ({"eval_loss": 4.2 - step / 10, "eval_f1": step / 40} if step % 10 == 0 else {})
    for step in range(1, 21)
]
EVALUATION = {
    "id": "0123456789abcdef",
    "name": "Hospital",
    "created": "2026-01-05T10:00:00Z",
    "questions": 212,
    "state": "done",
    "report": True,
    "metrics": {"exact_match": 0.6123, "f1": 0.744},
}


@pytest.fixture
def runs(fake: Fake, address: str, open_page: Opener) -> Page:
    fake.runs = {"reader": list(POINTS), "joint": []}
    return open_page(f"{address}#training")[0]


def test_curves_of_a_run_stand_beside_what_was_measured(
    runs: Page, picture: Callable[[Page, str], Path]
) -> None:
    expect(runs.locator(".run")).to_have_count(2)
    expect(runs.locator(".run").first).to_contain_text("done · 20 steps · token")
    expect(runs.locator(".chart h2")).to_have_text(["loss", "f1"])
    loss = runs.locator(".chart").first
    expect(loss.locator(".curve")).to_have_count(2)
    expect(loss.locator(".values")).to_have_text("loss 2eval_loss 2.2step 20")
    picture(runs, "training")


def test_a_line_goes_through_its_points(runs: Page) -> None:
    path = runs.locator(".chart .curve").first.get_attribute("d") or ""
    points = [part.split() for part in path[1:].split("L")]
    xs, ys = ([float(point[axis]) for point in points] for axis in (0, 1))
    assert len(points) == 20
    shape = runs.locator(".chart svg").first.get_attribute("viewBox") or ""
    assert (xs[0], xs[-1]) == (52, float(shape.split()[2]) - 10)
    assert ys == sorted(ys)  # a loss that falls goes down the screen
    assert ys[10] - ys[9] == pytest.approx(ys[1] - ys[0], abs=0.11)


def test_keys_and_pointer_show_the_values_of_a_step(runs: Page) -> None:
    plot = runs.locator(".chart .plot").first
    plot.focus()
    plot.press("Home")
    expect(plot).to_have_attribute("aria-valuetext", "step 1: loss 3.9, eval_loss –")
    plot.press("ArrowRight")
    expect(plot).to_have_attribute("aria-valuenow", "2")
    expect(runs.locator(".chart .values").first).to_have_text("loss 3.8eval_loss –step 2")
    box = plot.locator("svg").bounding_box()
    assert box is not None
    runs.mouse.move(box["x"] + 52 + (box["width"] - 62) * 9 / 19, box["y"] + 50)
    expect(plot).to_have_attribute("aria-valuetext", "step 10: loss 3, eval_loss 3.2")


def test_smoothing_draws_both_and_a_curve_can_be_left_out(runs: Page) -> None:
    expect(runs.locator(".raw")).to_have_count(0)
    runs.get_by_label("Smooth").check()
    expect(runs.locator(".chart").first.locator(".raw")).to_have_count(2)
    runs.get_by_role("checkbox", name="f1").uncheck()
    expect(runs.locator(".chart:visible h2")).to_have_text(["loss"])


@pytest.mark.parametrize(
    ("points", "weight", "wanted"),
    [
        ([[0, 2], [1, 2], [2, 2]], 0.85, [2, 2, 2]),
        ([[0, 0], [1, 3]], 0.5, [0, 2]),
        ([], 0.85, []),
    ],
)
def test_a_smoothed_value_is_the_mean_of_those_before_it(
    runs: Page, points: list[list[float]], weight: float, wanted: list[float]
) -> None:
    found = runs.evaluate(
        """async ([points, weight]) => (await import("./js/curves.js"))
          .smoothed(points, weight).map(([, y]) => y)""",
        [points, weight],
    )
    assert found == pytest.approx(wanted)


def test_ticks_are_round_numbers_within_the_range(runs: Page) -> None:
    found = runs.evaluate(
        """async () => { const { ticks } = await import("./js/curves.js");
          return [ticks(0, 1), ticks(3, 197, 5), ticks(0.00002, 0.0001), ticks(5, 5)]; }"""
    )
    assert found[0] == [0, 0.5, 1]
    assert found[1] == [50, 100, 150]
    assert found[2] == [0.00002, 0.00004, 0.00006, 0.00008, 0.0001]
    assert found[3] == [5]


def test_a_run_that_goes_on_is_watched(fake: Fake, address: str, open_page: Opener) -> None:
    fake.runs = {"joint": list(POINTS)}
    fake.coming = {"joint": [{"step": step, "loss": 2 - step / 100} for step in range(21, 27)]}
    page, watched = open_page(f"{address}#training")
    expect(page.locator(".live")).to_have_text("● live")
    expect(page.locator(".chart .values").first).to_have_text("loss 1.74eval_loss 2.2step 26")
    expect(page.locator(".live")).to_have_count(0)
    expect(page.locator(".run")).to_contain_text("done · 26 steps")
    assert any("events?after=20" in one for one in watched.requests)


def test_evaluations_are_listed_with_what_they_measured(
    fake: Fake, address: str, open_page: Opener
) -> None:
    fake.evaluations = [EVALUATION, {**EVALUATION, "id": "2", "name": "Cut", "report": False}]
    page, _ = open_page(f"{address}#evaluations")
    first = page.locator("tbody tr").first
    expect(first.locator("th")).to_have_text("Hospital")
    expect(first.locator(".number-cell").nth(1)).to_have_text("212")
    expect(first).to_contain_text("0.612")
    with page.context.expect_page() as opened:
        first.get_by_role("link").click()
    assert opened.value.url == f"{address}v1/evaluations/0123456789abcdef/report"
    expect(page.locator("tbody tr").nth(1).get_by_role("link")).to_have_count(0)


def test_with_a_key_the_report_opens_at_an_address_of_its_own(
    fake: Fake, address: str, open_page: Opener
) -> None:
    fake.evaluations, fake.key = [EVALUATION], "cs_right"
    page, _ = open_page(f"{address}#evaluations")
    page.fill("#key-field", "cs_right")
    page.keyboard.press("Enter")
    page.reload()
    with page.context.expect_page() as opened:
        page.locator("tbody").get_by_role("link").click()
    opened.value.wait_for_url(f"{address}reports/0123456789abcdef")


def test_an_evaluation_is_deleted_after_a_question(
    fake: Fake, address: str, open_page: Opener
) -> None:
    fake.evaluations = [EVALUATION]
    page, _ = open_page(f"{address}#evaluations")
    page.get_by_role("button", name="Delete Hospital").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.locator("#evaluations-body")).to_contain_text("There is none yet.")


def test_an_evaluation_is_started_with_a_file_and_watched(
    fake: Fake, address: str, open_page: Opener, tmp_path: Path
) -> None:
    data = tmp_path / "questions.jsonl"
    data.write_text('{"question": "?", "answers": ["!"]}\n', "utf-8")
    fake.steps["Night"] = [{"done": 3, "total": 9}, {"state": "done", "pause": 1.5}]
    page, _ = open_page(f"{address}#evaluations")
    page.set_input_files("#evaluation-data", str(data))
    page.fill("#evaluation-name", "Night")
    page.fill("#evaluation-limit", "5")
    page.get_by_role("button", name="Start").click()
    expect(page.locator("#evaluations-body .job")).to_contain_text("3 of 9 questions")
    expect(page.locator("#evaluations-body .job")).to_have_count(0)
    assert fake.acts == ["evaluate Night 5"]
