"""Any sequence of changes, searches, merges and damage, against a dictionary that does the same.

`CONSILIENCE_EXAMPLES=2000` runs as many sequences; as many as fit into a test run otherwise.
"""

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from consilience.documents import Document
from consilience.retrieval import open_retriever
from consilience.retrieval.following import FollowingIndex
from consilience.store import Store
from consilience.store.embedding import embedding_text
from tests.retrieval.encoders import TrigramEncoder

WORDS = ("ferry", "harbour", "ticket", "渡轮", "碼頭")
SOURCES = st.sampled_from(["a", "b", "c/d", "e", "船"])
TEXTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(" ".join)
LABELS = st.sampled_from([(), ("staff",)])
ALL = 100


class RetrievalMachine(RuleBasedStateMachine):
    """Documents by source, and the retrievers of one process."""

    @initialize()
    def make(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.expected: dict[str, tuple[str, tuple[str, ...]]] = {}
        self.encoder = TrigramEncoder()
        self.open()

    def open(self) -> None:
        self.store = Store.open(self.folder / "s", encoder=self.encoder)
        self.bm25 = open_retriever(self.store, mode="bm25")
        self.dense = open_retriever(self.store, mode="dense", encoder=self.encoder)
        self.hybrid = open_retriever(self.store, mode="hybrid", encoder=self.encoder)

    @rule(source=SOURCES, text=TEXTS, access=LABELS)
    def put(self, source: str, text: str, access: tuple[str, ...]) -> None:
        self.store.add(Document(text, source=source, access=access))
        self.expected[source] = (text, access)

    @precondition(lambda self: self.expected)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        source = data.draw(st.sampled_from(sorted(self.expected)))
        self.store.remove(source)
        del self.expected[source]

    @rule(word=st.sampled_from(WORDS), access=st.sampled_from([None, (), ("staff",)]))
    def by_words(self, word: str, access: tuple[str, ...] | None) -> None:
        hits = self.bm25.search(word, k=ALL, access=access)
        wanted = {s: text for s, text in self.seen(access).items() if word in text}
        assert {hit.passage.source: hit.passage.text for hit in hits} == wanted
        assert len(hits) == len(wanted)
        scores = [hit.score for hit in hits]
        assert scores == sorted(scores, reverse=True)

    @rule(word=st.sampled_from(WORDS), access=st.sampled_from([None, (), ("staff",)]))
    def by_vectors(self, word: str, access: tuple[str, ...] | None) -> None:
        hits = self.dense.search(word, k=ALL, access=access)
        wanted = self.seen(access)
        assert sorted(hit.passage.source for hit in hits) == sorted(wanted)
        asked = self.encoder.encode_questions([word])[0]
        for hit in hits:
            text = embedding_text(hit.passage.title, wanted[hit.passage.source])
            kept = self.encoder.encode_passages([text])[0].astype(np.float16).astype(np.float32)
            assert abs(hit.score - float(kept @ asked)) < 1e-5

    @rule(word=st.sampled_from(WORDS))
    def by_both(self, word: str) -> None:
        hits = self.hybrid.search(word, k=ALL)
        found = [hit.passage.source for hit in hits]
        with_word = {source for source, (text, _) in self.expected.items() if word in text}
        assert with_word <= set(found) <= self.expected.keys()
        assert len(set(found)) == len(found)

    @rule()
    def merge(self) -> None:
        index = FollowingIndex(self.store, patience=5.0)
        index.collection()
        index.merge()

    @rule()
    def leave_without_a_word(self) -> None:
        """As a process that is killed: nothing is closed, others open the same files."""
        self.left = (self.store, self.bm25, self.dense, self.hybrid)
        self.open()

    @rule(data=st.data(), how=st.sampled_from(["delete", "empty", "halve"]))
    def damage(self, data: st.DataObject, how: str) -> None:
        """A file of an index is lost or cut while nobody has it open."""
        self.close()
        files = sorted(p for p in (self.folder / "s" / "derived").rglob("*") if p.is_file())
        if files:
            path = data.draw(st.sampled_from(files))
            if how == "delete":
                path.unlink()
            else:
                os.truncate(path, 0 if how == "empty" else path.stat().st_size // 2)
        self.open()

    def seen(self, access: tuple[str, ...] | None) -> dict[str, str]:
        """What a reader may see, by source."""
        return {
            source: text
            for source, (text, labels) in self.expected.items()
            if access is None or not labels or set(labels) & set(access)
        }

    def close(self) -> None:
        self.left = ()
        del self.bm25, self.dense, self.hybrid
        self.store.close()

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.close()
            shutil.rmtree(self.folder)


EXAMPLES = int(os.environ.get("CONSILIENCE_EXAMPLES", "25"))
RetrievalMachine.TestCase.settings = settings(
    max_examples=EXAMPLES, stateful_step_count=15, deadline=None
)
TestRetrievalMachine = RetrievalMachine.TestCase
