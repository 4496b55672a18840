import subprocess
import sys

import pytest

from consilience.errors import UsageError
from consilience.retrieval import open_retriever
from consilience.store import Store
from tests.retrieval.corpus import fill


def test_an_unknown_mode_is_refused_with_the_known_ones(store: Store) -> None:
    with pytest.raises(UsageError) as error:
        open_retriever(store, mode="magic")  # type: ignore[arg-type]
    assert error.value.message == "there is no retrieval mode 'magic'"
    assert error.value.hint == "One of: bm25, dense, hybrid."


@pytest.mark.parametrize("mode", ["dense", "hybrid"])
def test_modes_with_vectors_need_an_encoder(store: Store, mode: str) -> None:
    with pytest.raises(UsageError, match=rf"^the mode {mode} needs an encoder, received None$"):
        open_retriever(store, mode=mode)  # type: ignore[arg-type]


def test_bm25_loads_neither_faiss_nor_torch(store: Store) -> None:
    fill(store)
    program = (
        "import sys; from consilience.store import Store;"
        "from consilience.retrieval import open_retriever;"
        f"hits = open_retriever(Store.open({str(store.path)!r}), mode='bm25').search('leave', k=1);"
        "print(hits[0].passage.source, sorted({'faiss', 'torch'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "leave []\n"
