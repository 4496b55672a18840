"""The tools that agents are given, called through the protocol's own client."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters

from consilience.errors import DependencyError
from consilience.serving.mcp import mcp_server
from consilience.serving.service import Service
from tests.serving.small import client_of

ASKED = "When are visitors welcome on weekdays?"


def talk(service: Service, with_client: Callable[[Client], Awaitable[Any]]) -> Any:
    async def whole() -> Any:
        async with Client(mcp_server(service)) as client:
            return await with_client(client)

    return asyncio.run(whole())


def called(service: Service, name: str, **values: Any) -> Any:
    return talk(service, lambda client: client.call_tool(name, values))


def test_there_are_three_tools_and_each_says_what_it_does(service: Service) -> None:
    tools = talk(service, lambda client: client.list_tools()).tools
    assert [tool.name for tool in tools] == ["search", "ask", "read_passage"]
    assert all(tool.description for tool in tools)
    assert tools[1].input_schema["required"] == ["question"]


def test_search_and_ask_say_what_the_api_says(service: Service) -> None:
    client, _ = client_of(service)
    body = {"question": ASKED, "k": 2}
    found = called(service, "search", **body).structured_content
    assert found == client.post("/v1/search", json=body).json()
    answer = called(service, "ask", **body).structured_content
    asked = client.post("/v1/ask", json=body).json()
    for name in ("answer", "abstained", "citations", "hits", "question"):
        assert answer[name] == asked[name]


def test_an_answer_may_be_wanted_word_for_word(service: Service) -> None:
    answer = called(service, "ask", question=ASKED, quote=True).structured_content
    client, _ = client_of(service)
    asked = client.post("/v1/ask", json={"question": ASKED, "k": 5, "quote": True}).json()
    free = called(service, "ask", question=ASKED).structured_content
    assert answer["answer"] == asked["answer"] != free["answer"]


def test_a_filter_confines_both(service: Service) -> None:
    where = {"source": "请假.txt"}
    for tool in ("search", "ask"):
        found = called(service, tool, question=ASKED, where=where).structured_content
        assert {hit["source"] for hit in found["hits"]} <= {"请假.txt"}


def test_a_passage_is_shown_with_what_stands_around_it(service: Service) -> None:
    (hit, *_) = called(service, "search", question=ASKED).structured_content["hits"]
    shown = called(service, "read_passage", passage_id=hit["id"], context=5).structured_content
    assert shown["text"] == hit["text"]
    assert shown["document"]["source"] == hit["source"]


@pytest.mark.parametrize(
    ("tool", "values", "message"),
    [
        ("search", {"question": " "}, "the question is empty"),
        ("ask", {"question": "a" * 4001}, "4000 are read at most"),
        ("search", {"question": "a", "where": {"sauce": "x"}}, "there is no field 'sauce'"),
        ("read_passage", {"passage_id": "nothing"}, "there is no passage 'nothing'"),
        ("search", {"question": "a", "k": 0}, "greater than or equal to 1"),
    ],
)
def test_what_is_wrong_is_told_to_the_agent(
    service: Service, tool: str, values: dict[str, Any], message: str
) -> None:
    found = called(service, tool, **values)
    assert found.is_error
    assert message in found.content[0].text


def test_without_the_package_the_line_that_installs_it_is_told(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mcp.server", None)
    with pytest.raises(DependencyError) as error:
        mcp_server(service)
    assert error.value.hint == "pip install 'consilience[serve,mcp]'"


def test_the_command_speaks_on_standard_input(served: Path, tiny_model_folder: Path) -> None:
    words = ["--store", str(served / "knowledge"), "--model", str(tiny_model_folder), "--mcp"]
    code = "import sys; from consilience.cli.main import run; sys.exit(run(sys.argv[1:]))"
    started = StdioServerParameters(command=sys.executable, args=["-c", code, "serve", *words])

    async def whole() -> Any:
        async with Client(started) as client:
            return await client.call_tool("search", {"question": ASKED, "k": 1})

    found = asyncio.run(whole())
    assert not found.is_error
    assert len(json.loads(found.content[0].text)["hits"]) == 1
