"""Any sequence of changes, against a dictionary that does the same."""

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from consilience.documents import Document
from consilience.store import AddOptions, Store
from tests.store.doubles import HashingEncoder

SOURCES = st.sampled_from(["a", "b", "c/d", "渡轮"])
TEXTS = st.text(st.sampled_from("ab .。渡轮\n\u0301\u200d👩שׁ\0"), min_size=1, max_size=40).filter(
    lambda text: text.strip(" \n\0\u0301\u200d")
)
LABELS = st.sampled_from([(), ("staff",), ("audit", "staff")])


class StoreMachine(RuleBasedStateMachine):
    """Documents by source, what a derived index has been told, and how many commits there were."""

    @initialize()
    def make(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.expected: dict[str, tuple[str, tuple[str, ...]]] = {}
        self.index: dict[int, tuple[str, str]] = {}
        self.reached = 0
        self.commits = 0
        self.open()

    def open(self) -> None:
        self.store = Store.open(self.folder / "s", encoder=HashingEncoder())

    @rule(source=SOURCES, text=TEXTS, access=LABELS)
    def add(self, source: str, text: str, access: tuple[str, ...]) -> None:
        known = self.expected.get(source)
        report = self.store.add(
            Document(text=text, source=source), options=AddOptions(access=access)
        )
        assert report.failed == []
        if known == (text, access):
            assert report.unchanged == [source]
        else:
            assert (report.updated if known else report.added) == [source]
            self.commits += 1
        self.expected[source] = (text, access)

    @precondition(lambda self: self.expected)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        sources = data.draw(st.lists(st.sampled_from(sorted(self.expected)), min_size=1))
        assert self.store.remove(*sources).removed == sorted(set(sources))
        for source in set(sources):
            del self.expected[source]
        self.commits += 1

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.open()

    @rule()
    def follow(self) -> None:
        with self.store.changes(self.reached) as changes:
            for number in changes.removed:
                del self.index[number]
            rows = [row for batch in changes.added for row in batch]
            self.reached = changes.sequence
        for number, passage in self.store.passages([row.number for row in rows]).items():
            self.index[number] = (passage.source, passage.text)
        stored = {source: text for source, (text, _) in self.expected.items()}
        assert {source for source, _ in self.index.values()} == set(stored)
        for source, text in self.index.values():
            assert text in stored[source]

    @invariant()
    def holds_what_it_must(self) -> None:
        assert self.store.sequence == self.commits
        found = {info.source: info for info in self.store.sources()}
        assert found.keys() == self.expected.keys()
        for source, (text, access) in self.expected.items():
            assert self.store.document(source).text == text
            assert found[source].access == access

    def teardown(self) -> None:
        if hasattr(self, "store"):
            assert self.store.check() == []
            self.store.close()
            shutil.rmtree(self.folder)


StoreMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=12, deadline=None)
TestStoreMachine = StoreMachine.TestCase
