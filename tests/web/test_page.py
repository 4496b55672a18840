"""The page as a whole: languages, colours, keys, settings, a server that goes and comes back."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.web import made
from tests.web.conftest import Opener
from tests.web.fake import Fake, application
from tests.web.serving import served


def setting(key: str, **more: Any) -> dict[str, Any]:
    plain = {"value": 50, "default": 50, "file": None, "flag": False, "restart": False}
    bounds = {"allowed": "a whole number from 1 to 1000", "least": 1, "most": 1000}
    spoken = {"help": {"en": f"Help of {key}.", "zh": f"{key} 的说明。"}}
    return {"key": key, **plain, **bounds, **spoken, **more}


PATH = {"allowed": "a path", "least": None, "most": None, "restart": True}
SETTINGS = {
    "path": "/etc/consilience.yaml",
    "settings": [
        setting("store", value="knowledge", default="knowledge", flag=True, **PATH),
        setting("model", value=None, default=None, **PATH | {"allowed": "text, or none"}),
        setting("limits.k"),
        setting("limits.rate", value=600, default=6000, file=600),
    ],
}


def paper(page: Page) -> str:
    found: str = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    return found


@pytest.mark.parametrize(
    ("browser_language", "lang", "greeting"),
    [("en-GB", "en", "Begin with your documents"), ("zh-CN", "zh-CN", "先添加您的文档")],
)
def test_the_browser_chooses_the_language_and_the_switch_wins(
    address: str, open_page: Opener, browser_language: str, lang: str, greeting: str
) -> None:
    page, _ = open_page(address, language=browser_language)
    assert page.get_attribute("html", "lang") == lang
    expect(page.locator("#welcome h2")).to_have_text(greeting)
    page.click("#language")
    other = "先添加您的文档" if lang == "en" else "Begin with your documents"
    expect(page.locator("#welcome h2")).to_have_text(other)
    page.reload()
    page.wait_for_selector("html[data-ready]")
    expect(page.locator("#welcome h2")).to_have_text(other)


def test_what_is_on_the_page_is_said_again_when_the_language_changes(
    fake: Fake, address: str, open_page: Opener
) -> None:
    fake.texts, fake.answers = dict(made.TEXTS), [made.told(made.unanswered())]
    page, _ = open_page(address)
    page.fill("#question", "Who?")
    page.press("#question", "Enter")
    expect(page.locator(".abstained h3")).to_have_text("Not in the documents")
    page.click("#language")
    expect(page.locator(".abstained h3")).to_have_text("文档中没有答案")
    expect(page.locator(".abstained p")).to_contain_text("7%")
    expect(page.locator("#question")).to_have_attribute("placeholder", "就您的文档提问")
    expect(page.locator("#theme")).to_have_attribute("aria-label", "配色：跟随系统")
    expect(page.locator(".document .facts").first).to_contain_text("1 个段落")


def test_no_word_of_one_language_is_left_in_the_other(address: str, open_page: Opener) -> None:
    page, _ = open_page(address)
    tables = page.evaluate("async () => (await import('./js/words.js')).WORDS")
    assert tables["en"].keys() == tables["zh"].keys()
    places = {key: set(_places(text)) for key, text in tables["en"].items()}
    assert {key: set(_places(text)) for key, text in tables["zh"].items()} == places
    empty = [key for table in tables.values() for key, text in table.items() if not text.strip()]
    assert empty == []


def _places(text: str) -> list[str]:
    return [part.partition("}")[0] for part in text.split("{")[1:]]


def test_light_and_dark_follow_the_system_until_one_is_chosen(
    address: str, open_page: Opener
) -> None:
    light, dark = open_page(address)[0], open_page(address, dark=True)[0]
    white, black = paper(light), paper(dark)
    assert white != black
    dark.click("#theme")
    assert paper(dark) == white
    dark.reload()
    assert paper(dark) == white
    dark.click("#theme")
    expect(dark.locator("#theme")).to_have_attribute("aria-label", "Colours: Dark")
    assert paper(dark) == black


def test_the_keyboard_reaches_everything_and_focus_is_seen(address: str, open_page: Opener) -> None:
    page, _ = open_page(address)
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    expect(page.locator(".skip")).to_be_in_viewport()
    reached = []
    while "question" not in reached:
        page.keyboard.press("Tab")
        shown, name = page.evaluate(
            """() => { const one = document.activeElement, style = getComputedStyle(one);
            return [style.outlineStyle !== "none" || one.id === "question", one.id]; }"""
        )
        assert shown, name
        reached.append(name)
    for name in ("documents-tab", "language", "theme", "open-settings", "choose"):
        assert name in reached
    page.locator("#language").focus()
    page.keyboard.press("/")
    expect(page.locator("#question")).to_be_focused()


def test_settings_are_the_config_file(fake: Fake, address: str, open_page: Opener) -> None:
    fake.settings = json.loads(json.dumps(SETTINGS))
    page, _ = open_page(address)
    page.click("#open-settings")
    drawer = page.locator("#settings")
    expect(drawer).to_contain_text("This is the file /etc/consilience.yaml.")
    expect(drawer.get_by_label("Help of limits.rate.")).to_have_value("600")
    store = drawer.locator(".field", has_text="Help of store.")
    expect(store).to_contain_text("given by a flag, which wins · takes a restart")
    save = drawer.get_by_role("button", name="Save")
    expect(save).to_be_disabled()
    drawer.get_by_label("Help of limits.k.").fill("20")
    drawer.get_by_label("Help of limits.rate.").fill("")
    drawer.get_by_label("Help of model.").fill("models/new")
    expect(drawer).to_contain_text("3 changes")
    save.click()
    expect(drawer).to_contain_text("Saved. After a restart: model.")
    assert fake.put == [{"limits.k": 20, "limits.rate": None, "model": "models/new"}]
    expect(drawer.get_by_label("Help of limits.k.")).to_have_value("20")


def test_a_wrong_setting_is_told_at_its_field(fake: Fake, address: str, open_page: Opener) -> None:
    fake.settings = json.loads(json.dumps(SETTINGS))
    page, _ = open_page(address, language="zh-CN")
    page.click("#open-settings")
    field = page.locator("#settings").get_by_label("limits.k 的说明。")
    field.fill("0")
    page.locator("#settings .saving .primary").click()
    wrong = page.locator("#settings .field", has_text="limits.k").locator(".error")
    expect(wrong).to_have_text("limits.k is 0, allowed: a whole number from 1 to 1000")
    expect(field).to_be_focused()
    expect(field).to_have_attribute("aria-invalid", "")
    expect(page.locator("#settings .error:visible")).to_have_count(1)


def test_a_key_is_asked_for_once_and_kept_for_the_tab_only(
    fake: Fake, address: str, open_page: Opener
) -> None:
    fake.texts, fake.key = dict(made.TEXTS), "cs_right"
    page, _ = open_page(address)
    expect(page.locator("#key h2")).to_have_text("This server asks for a key")
    page.fill("#key-field", "cs_wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#key .error")).to_contain_text("does not accept this key")
    page.fill("#key-field", "cs_right")
    page.keyboard.press("Enter")
    expect(page.locator("#key")).to_be_hidden()
    expect(page.locator(".document")).to_have_count(3)
    held = "store => JSON.stringify(Object.entries(window[store]))"
    assert "cs_right" in page.evaluate(held, "sessionStorage")
    assert "cs_" not in page.evaluate(held, "localStorage")
    page.click("#open-settings")
    page.get_by_role("button", name="Forget the key").click()
    expect(page.locator("#key h2")).to_be_visible()
    assert page.evaluate(held, "sessionStorage") == "[]"


def test_whoever_gives_no_key_is_told_what_is_missing(
    fake: Fake, address: str, open_page: Opener
) -> None:
    fake.key = "cs_right"
    page, _ = open_page(address)
    page.locator("#key").get_by_role("button", name="Cancel").click()
    expect(page.locator("#listing")).to_contain_text("A valid key is needed.")


def test_a_server_that_is_gone_is_told_and_found_again(
    fake: Fake, open_page: Opener, tmp_path: Path
) -> None:
    fake.texts, fake.answers = dict(made.TEXTS), [made.told(made.answer())]
    with served(application(fake)) as address:
        page, _ = open_page(address)
        expect(page.locator(".document")).to_have_count(3)
        page.route("**/v1/**", lambda route: route.abort("connectionrefused"))
        page.fill("#question", "Until when?")
        page.press("#question", "Enter")
        expect(page.locator("#notice")).to_contain_text("The server does not answer.")
        expect(page.locator(".failed")).to_contain_text("The server does not answer.")
        page.unroute("**/v1/**")
        page.locator("#notice").get_by_role("button", name="Try again").click()
        expect(page.locator("#notice")).to_be_hidden()
        expect(page.locator("#told")).to_have_text("The server answers again.")
        page.get_by_role("button", name="Ask again").click()
        expect(page.locator(".answer")).to_contain_text("Until 21:30")


@pytest.mark.parametrize("width", [320, 360, 768, 1024, 1440])
def test_nothing_is_wider_than_the_screen(
    fake: Fake,
    address: str,
    open_page: Opener,
    picture: Callable[[Page, str], Path],
    width: int,
) -> None:
    fake.texts, fake.answers = dict(made.TEXTS), [made.told(made.answer())]
    fake.texts["a" * 180 + ".txt"] = "long"
    fake.settings = SETTINGS
    page, _ = open_page(address, width=width, height=740)
    page.fill("#question", "Until when? " + "x" * 300)
    page.press("#question", "Enter")
    expect(page.locator(".answer")).to_contain_text("Until 21:30")
    _require_fit(page)
    picture(page, f"answer-{width}")
    page.locator(".cite-mark").first.click()
    expect(page.locator("#source mark")).to_be_in_viewport()
    _require_fit(page)
    picture(page, f"source-{width}")
    page.keyboard.press("Escape")
    page.click("#open-settings")
    expect(page.locator("#settings")).to_contain_text("consilience.yaml")
    _require_fit(page)
    page.keyboard.press("Escape")
    for view in ("training", "evaluations"):
        page.click(f"a.tab[href='#{view}']")
        _require_fit(page)


def _require_fit(page: Page) -> None:
    wide = page.evaluate(
        """() => [...document.querySelectorAll("html, main, aside, dialog[open], .scroll")]
          .filter(one => one.scrollWidth > one.clientWidth + 1)
          .map(one => one.id || one.className || one.localName)"""
    )
    assert wide == []


def test_on_a_phone_the_tabs_go_from_pane_to_pane(
    fake: Fake, address: str, open_page: Opener
) -> None:
    fake.texts, fake.answers = dict(made.TEXTS), [made.told(made.answer())]
    page, _ = open_page(address, width=360, height=740)
    expect(page.locator("#documents")).to_be_hidden()
    page.click("#documents-tab")
    expect(page.locator("#documents")).to_be_visible()
    page.click("a.tab[href='#ask']")
    expect(page.locator("#documents")).to_be_hidden()
    page.fill("#question", "Until when?")
    page.click("#ask")
    page.locator(".cite-mark").first.click()
    expect(page.locator("#source")).to_be_visible()
    page.click("a.tab[href='#ask']")
    expect(page.locator("#source")).to_be_hidden()


def test_the_page_breaks_no_rule_of_its_policy_and_throws_nothing(
    fake: Fake, address: str, open_page: Opener
) -> None:
    fake.texts, fake.answers = dict(made.TEXTS), [made.told(made.answer())]
    page, watched = open_page(address)
    page.fill("#question", "Until when?")
    page.press("#question", "Enter")
    page.get_by_role("button", name="Which passage carried each word").click()
    page.locator(".token").first.click()
    expect(page.locator("#source mark")).to_have_count(1)
    assert watched.faults == []
    assert watched.elsewhere(address) == []
