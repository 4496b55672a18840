"""Web pages: what is seen, how it flows, tables, titles and encodings."""

import pytest

from tests.documents.conftest import Read, Refusal


def _page(body: str, head: str = "") -> bytes:
    return f"<!doctype html><html><head>{head}</head><body>{body}</body></html>".encode()


def test_only_what_a_visitor_sees(read: Read) -> None:
    body = (
        "<script>var a</script><style>p{}</style><p>seen</p><noscript>no</noscript>"
        "<p hidden>no</p><div style='display: none'>no</div><template>no</template><!-- no -->"
        "<p>also &amp; too</p>"
    )
    assert read("p.html", _page(body, "<meta charset=utf-8>")).text == "seen\n\nalso & too"


def test_blocks_items_and_breaks(read: Read) -> None:
    body = (
        "<h1>探视 时间</h1>\n<p>From <b>nine</b>\n  to&nbsp;five<br>daily.</p>"
        "<ul><li>one</li><li>two</li></ul><div>left</div><div>right</div>"
        "<pre>  a\n    b</pre>after"
    )
    assert read("p.html", _page(body)).text == (
        "探视 时间\n\nFrom nine to five\ndaily.\n\none\ntwo\n\nleft\nright\n\n  a\n    b\n\nafter"
    )


def test_inline_elements_neither_add_nor_lose_blanks(read: Read) -> None:
    body = "<p>un<i>believ</i>able <b> bold </b> end<span></span>ing</p>"
    assert read("p.html", _page(body)).text == "unbelievable bold ending"


def test_a_table_names_its_columns_and_fills_covered_rows(read: Read) -> None:
    body = (
        "<table><caption>Fees</caption><thead><tr><th>Ward<th>Day<th>Fee</thead>"
        "<tr><td rowspan=2>Cardiology<td>Monday<td>5</tr><tr><td>Tuesday<td>6</tr>"
        "<tr><td colspan=2>any<td>7</tr></table>"
    )
    assert read("p.html", _page(body)).text == (
        "Fees\nWard: Cardiology; Day: Monday; Fee: 5\nWard: Cardiology; Day: Tuesday; Fee: 6\n"
        "Ward: any; Fee: 7"
    )


def test_a_table_for_layout_flows(read: Read) -> None:
    body = "<table><tr><td>left<td><table><tr><td>a<td>b</table></table>"
    assert read("p.html", _page(body)).text == "left\n\na: b"


def test_the_title_is_the_pages_or_its_heading_or_its_name(read: Read) -> None:
    assert read("p.html", _page("<h1>H</h1>x", "<title> A  title </title>")).title == "A title"
    assert read("p.html", _page("<h1>Heading</h1>x")).title == "Heading"
    assert read("p.htm", _page("<p>x")).title == "p"


@pytest.mark.parametrize("charset", ["gb2312", "GBK", "big5", "utf-8"])
def test_the_declared_encoding(read: Read, charset: str) -> None:
    page = f'<html><head><meta charset="{charset}"></head><body>時間表</body></html>'
    codec = "gbk" if charset == "gb2312" else charset
    assert read("p.html", page.encode(codec)).text == "時間表"


def test_a_page_without_visible_text_is_a_reason(refusal: Refusal) -> None:
    assert refusal("p.html", _page("<script>x</script>")).message == "holds no text"
