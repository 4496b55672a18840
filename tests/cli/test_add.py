from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from consilience.cli import add as add_module
from consilience.cli.flags import BackendName
from consilience.cli.opening import load_named_encoder
from consilience.encoding import CompactEncoder, Vectors, load_encoder
from consilience.encoding.backends import Backend
from consilience.encoding.ray_workers import RayEncoder, RayOptions
from consilience.encoding.workers import WorkerEncoder
from consilience.errors import DependencyError, UsageError
from consilience.store import Store
from tests.cli.terminal import consilience

SOURCES = ["docs/fees.csv", "docs/visits.md", "docs/制度/请假.txt"]
KEYS = {
    "added", "updated", "unchanged", "removed", "failed", "passages",
    "generation", "cancelled", "embedded", "skipped",
}  # fmt: skip


def test_a_folder_is_taken_in(room: Path) -> None:
    done = consilience("add", "docs", "--store", "new", "--model", "model", "--json")
    assert (done.code, done.err) == (0, "")
    assert done.document.keys() == KEYS
    assert sorted(done.document["added"]) == SOURCES
    assert done.document["passages"] >= 3
    assert not done.document["cancelled"]


def test_people_get_a_summary_and_the_next_command(room: Path) -> None:
    done = consilience("add", "docs", "--model", "model")
    assert done.code == 0
    assert done.out.splitlines() == [
        "added 0 · updated 0 · unchanged 3 · removed 0 · failed 0 · passages 0",
        "next: consilience ask 'What must I bring?' --model model",
    ]


def test_chinese_by_flag_and_by_locale(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_flag = consilience("add", "docs", "--lang", "zh")
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    assert by_flag == consilience("add", "docs")
    assert by_flag.out.splitlines() == [
        "新增 0 · 更新 0 · 未变 3 · 移除 0 · 失败 0 · 段落 0",
        "接下来: consilience ask '需要带什么材料？'",
    ]


def test_a_file_that_fails_stops_nothing_else(room: Path) -> None:
    Path("docs/empty.txt").touch()
    Path("docs/new.txt").write_text("A new sentence.\n")
    done = consilience("add", "docs", "gone.pdf", "--model", "model")
    assert done.code == 7
    assert sorted(done.err.splitlines()) == [
        "docs/empty.txt: holds no text: the file is empty (0 bytes)",
        "gone.pdf: there is no such file or folder",
    ]
    assert done.out == "added 1 · updated 0 · unchanged 3 · removed 0 · failed 2 · passages 1\n"


def test_failures_are_part_of_the_document(room: Path) -> None:
    done = consilience("add", "gone.pdf", "--json")
    assert (done.code, done.err) == (7, "")
    reason = "there is no such file or folder"
    assert done.document["failed"] == [{"path": "gone.pdf", "reason": reason, "hint": ""}]


def test_quiet_shows_failures_only(room: Path) -> None:
    done = consilience("add", "docs", "gone.pdf", "--quiet")
    assert (done.code, done.out) == (7, "")
    assert done.err == "gone.pdf: there is no such file or folder\n"


def test_a_name_cannot_steer_the_terminal(room: Path) -> None:
    Path("docs/\x1b[31m[bold]red.txt").touch()
    done = consilience("add", "docs")
    assert done.err.startswith(r"docs/\x1b[31m[bold]red.txt: holds no text")


def test_labels_and_contributor_reach_the_store(room: Path) -> None:
    Path("secret.txt").write_text("The code of the safe is nine.\n")
    flags = ("--contributor", "人事处", "--access", "staff", "--access", "board")
    assert consilience("add", "secret.txt", "--model", "model", *flags).code == 0
    shown = consilience("show", "secret.txt", "--json").document
    assert (shown["contributor"], shown["access"]) == ("人事处", ["board", "staff"])


def test_prune_removes_what_is_gone(room: Path) -> None:
    Path("docs/fees.csv").unlink()
    assert consilience("add", "docs", "--json").document["removed"] == []
    pruned = consilience("add", "docs", "--prune", "--json").document
    assert pruned["removed"] == ["docs/fees.csv"]


def test_another_model_is_refused_with_the_command_that_helps(
    room: Path, other_model: Path
) -> None:
    done = consilience("add", "docs", "--model", other_model)
    assert done.code == 6
    assert "the vectors of the store at knowledge are from encoder" in done.err
    assert "hint: consilience add --re-embed --store knowledge\n" in done.err


def test_re_embedding_makes_the_store_the_other_models(room: Path, other_model: Path) -> None:
    passages = consilience("show", "--json").document["passages"]
    done = consilience("add", "--re-embed", "--model", other_model, "--json")
    assert (done.code, done.document["embedded"]) == (0, passages)
    assert consilience("search", "visits", "--model", other_model).code == 0
    assert consilience("search", "visits", "--model", "model").code == 6


def test_re_embedding_tells_people_what_it_did(room: Path, other_model: Path) -> None:
    done = consilience("add", "docs", "--re-embed", "--model", other_model)
    assert done.out.splitlines()[0].startswith("re-embedded ")
    assert done.out.splitlines()[1].startswith("added 0 · updated 0 · unchanged 3")


def test_nothing_named_is_a_mistake(bare: Path) -> None:
    done = consilience("add")
    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines() == [
        "error: no file or folder was named",
        "hint: name at least one: consilience add PATH",
    ]


class Impatient:
    """An encoder whose user presses Ctrl-C when the second batch begins."""

    def __init__(self, encoder: CompactEncoder) -> None:
        self.fingerprint, self.dimension = encoder.fingerprint, encoder.dimension
        self.encode_questions = encoder.encode_questions
        self._encode, self._calls = encoder.encode_passages, 0

    def encode_passages(self, passages: list[str]) -> Vectors:
        self._calls += 1
        if self._calls > 1:
            raise KeyboardInterrupt
        return self._encode(passages)


@pytest.fixture
def many(bare: Path) -> Path:
    Path("many").mkdir()
    for number in range(70):  # more than one batch of 64
        Path(f"many/{number:02}.txt").write_text(f"Note number {number}.\n")
    return Path("many")


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_ctrl_c_keeps_what_was_done_and_says_so(
    many: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...]
) -> None:
    command = ("add", "many", "--model", tiny_model_folder)
    with monkeypatch.context() as patch:
        patch.setattr(
            add_module, "load_named_encoder", lambda model: Impatient(load_named_encoder(model))
        )
        stopped = consilience(*command, *flags)
    assert stopped.code == 130
    if flags:
        assert stopped.document["cancelled"]
        assert len(stopped.document["added"]) == 64
    else:
        assert stopped.err.splitlines() == [
            "Interrupted. Done so far:",
            "The same command goes on from here.",
        ]
        assert stopped.out.startswith("added 64 ·")
    resumed = consilience(*command, "--json").document
    assert (len(resumed["unchanged"]), len(resumed["added"])) == (64, 6)


def test_processes_embed_what_one_would(room: Path) -> None:
    def vectors(folder: str) -> bytes:
        with Store.open(folder, create=False) as store, store.changes(0) as changes:
            return b"".join(row.vector.tobytes() for batch in changes.added for row in batch)

    for workers, folder in (("1", "one"), ("2", "two")):
        command = ("add", "docs", "--store", folder, "--model", "model", "--workers", workers)
        assert consilience(*command, "--json").code == 0
    assert vectors("one") == vectors("two") != b""


def test_processes_that_died_are_told(
    bare: Path, many: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consilience.encoding.workers.WorkerEncoder._encoded", _lossy)
    done = consilience("add", "many", "--model", tiny_model_folder, "--workers", "2")
    assert done.code == 0
    assert done.err == "processes that embedded died 2 times; their work was done again\n"


def _lossy(encoder: WorkerEncoder, side: object, texts: list[str]) -> Vectors:
    encoder.lost = 2
    return np.eye(1, encoder.dimension, dtype=np.float32).repeat(len(texts), axis=0)


def test_actors_of_ray_are_sent_the_encoder(
    bare: Path, many: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[RayEncoder] = []

    def embedded(encoder: RayEncoder, side: object, texts: list[str]) -> Vectors:
        seen.append(encoder)
        encoder._lost = 3
        return np.eye(1, encoder.dimension, dtype=np.float32).repeat(len(texts), axis=0)

    monkeypatch.setattr("consilience.encoding.ray_workers.RayEncoder._encoded", embedded)
    flags = ("--model", tiny_model_folder, "--workers", "ray://head:10001?actors=2")
    done = consilience("add", "many", *flags)
    assert done.code == 0
    assert done.err == "processes that embedded died 3 times; their work was done again\n"
    assert seen[0]._options == RayOptions("ray://head:10001", actors=2)
    assert seen[0].fingerprint == load_encoder(tiny_model_folder).fingerprint


def test_ray_that_is_not_installed_is_told(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consilience.encoding.ray_workers.find_spec", lambda name: None)
    done = consilience("add", "docs", "--model", "model", "--workers", "ray:2", "--json")
    assert done.code == DependencyError.code
    assert done.document["error"]["hint"] == "pip install 'consilience[simulation]'"


def test_workers_that_are_neither_a_number_nor_ray_are_refused(room: Path) -> None:
    done = consilience("add", "docs", "--workers", "many", "--json")
    assert done.code == UsageError.code
    assert done.document["error"]["message"] == (
        "workers must be a number, at least 1, or name Ray, received 'many'"
    )


def test_openvino_adds_to_a_store_of_torch(room: Path) -> None:
    Path("docs/new.txt").write_text("A new sentence.\n")
    flags = ("--model", "model", "--encoder-backend", "openvino")
    assert consilience("add", "docs", *flags, "--json").document["embedded"] == 1
    renewed = consilience("add", "--re-embed", *flags, "--json")
    assert (renewed.code, renewed.document["embedded"]) == (0, 0)


def test_openvino_that_is_not_installed_is_told(
    room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consilience.encoding.backends.find_spec", lambda name: None)
    done = consilience("add", "docs", "--model", "model", "--encoder-backend", "openvino")
    assert done.code == DependencyError.code
    assert done.err.splitlines() == [
        "error: the encoder backend openvino needs a package that is not installed",
        "hint: pip install 'consilience[openvino]'",
    ]


def test_the_backends_are_those_of_the_encoders() -> None:
    assert get_args(BackendName) == get_args(Backend)
