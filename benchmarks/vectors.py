"""Search among vectors, side by side with faiss' own indexes: recall and processor milliseconds.

    python benchmarks/vectors.py --data DIR --rows 200000 1000000 --out docs/benchmarks/vectors.md

DIR/squad_v11 holds questions with their contexts, which the encoder that ships embeds. Vectors are
filled up to the rows asked for with copies that have noise of the same covariance, as in
`docs/decisions/0019-vectors-in-files.md`. Everything is searched by one thread, one question after
another; recall is the overlap with the ten nearest of an exact search in fp32.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import faiss as _faiss
import numpy as np
from numpy.typing import NDArray

from consilience.encoding import load_encoder
from consilience.retrieval.tuning import IndexName
from consilience.retrieval.vector_files import Extent, VectorWriter, read_extent
from consilience.retrieval.vectors import VectorTable
from data_sets import processor, rows

faiss: Any = _faiss

NOISE = 0.8
BLOCK = 20_000
DEPTH = 10
WARM = 30  # questions before those that are timed
CANDIDATES = (200, 500, 1000, 2000)

HEAD = """# Search among vectors, measured

{day}, faiss-cpu {faiss}, {processor}. Made by

    python benchmarks/vectors.py --data DIR --out docs/benchmarks/vectors.md

One thread, one question after another, milliseconds of processor time. The ten nearest of an exact
search in fp32 are the truth. `codes` is what a store uses of itself above 50,000 passages: 512 bits
a vector, scanned, and so many as stand behind its name compared exactly.
"""

Search = Callable[[NDArray[np.float32]], list[int]]


@dataclass(frozen=True)
class Task:
    """Vectors in files, questions, and the right answers."""

    folder: Path
    extent: Extent
    questions: NDArray[np.float32]
    nearest: NDArray[np.int64]

    def vectors(self) -> NDArray[np.float16]:
        """All of them, mapped."""
        path = self.folder / f"vectors-{self.extent.token}"
        shape = (self.extent.rows, self.extent.dimension)
        return np.memmap(path, np.float16, "r", shape=shape)


def filled_up(real: NDArray[np.float32], rows: int, seed: int) -> Iterator[NDArray[np.float32]]:
    """The vectors, and copies of them with noise, in blocks of `[rows, dimension]`."""
    rng = np.random.default_rng(seed)
    shape = np.cov(real.T) + 1e-6 * np.eye(real.shape[1])
    spread = np.linalg.cholesky(shape).astype(np.float32).T
    yield real[:rows]
    for start in range(len(real), rows, BLOCK):
        count = min(BLOCK, rows - start)
        noise = rng.standard_normal((count, real.shape[1]), dtype=np.float32) @ spread
        copies = real[rng.integers(0, len(real), count)] + NOISE * noise
        yield copies / np.linalg.norm(copies, axis=1, keepdims=True)


def embedded(arguments: argparse.Namespace) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Vectors of passages and of questions, kept below the work folder."""
    encoder = load_encoder()
    kept = arguments.work / f"vectors-{encoder.fingerprint[:16]}.npz"
    if not kept.exists():
        files = [arguments.data / "squad_v11" / f"{name}.jsonl.gz" for name in ("train", "dev")]
        found = [row for file in files for row in rows(file)]
        texts = list(dict.fromkeys(r["context"] for r in found))
        asked = [r["question"] for r in found if r["question"].strip()]
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.savez(
            kept,
            p=np.asarray(encoder.encode_passages(texts), np.float32),
            q=np.asarray(encoder.encode_questions(asked[: arguments.asked + WARM]), np.float32),
        )
    given = np.load(kept)
    return given["p"], given["q"]


def prepared(count: int, arguments: argparse.Namespace) -> Task:
    """The files below the work folder, written at the first run."""
    real, questions = embedded(arguments)
    folder = arguments.work / f"vectors-{count}"
    folder.mkdir(parents=True, exist_ok=True)
    extent = read_extent(folder) or written(folder, real, count, arguments.seed)
    task = Task(folder, extent, questions[: arguments.asked + WARM], np.empty(0, np.int64))
    return Task(folder, extent, task.questions, exact(task))


def written(folder: Path, real: NDArray[np.float32], count: int, seed: int) -> Extent:
    extent = Extent.new(identity="benchmark", fingerprint="given", dimension=real.shape[1])
    started, number = time.process_time(), 0
    with VectorWriter(folder, extent) as writer:
        for block in filled_up(real, count, seed):
            numbers = np.arange(number, number + len(block))
            writer.take(numbers, block.astype(np.float16), [()] * len(block))
            number += len(block)
        print(f"written in {time.process_time() - started:.1f} s", flush=True)
        return writer.vouch(1)


def exact(task: Task) -> NDArray[np.int64]:
    """The ten nearest rows of every question, `[questions, 10]`."""
    vectors, found = task.vectors(), []
    for start in range(0, len(vectors), BLOCK):
        scores = task.questions @ vectors[start : start + BLOCK].astype(np.float32).T
        top = np.argpartition(-scores, DEPTH, axis=1)[:, :DEPTH]
        found.append((np.take_along_axis(scores, top, 1), top + start))
    scores, rows = (np.concatenate(each, axis=1) for each in zip(*found, strict=True))
    best = np.argsort(-scores, axis=1)[:, :DEPTH]
    nearest: NDArray[np.int64] = np.take_along_axis(rows, best, 1)
    return nearest


def row(name: str, task: Task, search: Search, built: float) -> list[str]:
    """A line of the table: median and 95th percentile in ms, recall, seconds to build, memory."""
    seconds, shared = [], 0
    for place, question in enumerate(task.questions):
        started = time.process_time()
        found = search(question)
        seconds.append(time.process_time() - started)
        shared += len(set(found[:DEPTH]) & set(task.nearest[place].tolist()))
    times = [f"{1000 * float(np.percentile(seconds[WARM:], p)):.2f}" for p in (50, 95)]
    recall = shared / len(task.questions) / DEPTH
    line = [name, " / ".join(times), f"{recall:.4f}", f"{built:.1f}", memory()]
    print(*line, sep=" | ", flush=True)
    return line


def memory() -> str:
    """Resident megabytes of this process: its own / mapped."""
    status = Path("/proc/self/status").read_text().splitlines()
    kept = {line.split(":")[0]: int(line.split()[1]) // 1000 for line in status if "Rss" in line}
    return f"{kept['RssAnon']} / {kept['RssFile']}"


def of_faiss(name: str, task: Task) -> Iterator[list[str]]:
    """An index of faiss as its factory makes it, at several efforts."""
    product = faiss.METRIC_INNER_PRODUCT
    started = time.process_time()
    index = faiss.index_factory(task.extent.dimension, name, product)
    vectors = task.vectors()
    index.train(vectors[:: max(1, len(vectors) // 131_072)].astype(np.float32))
    for start in range(0, len(vectors), BLOCK):
        index.add(vectors[start : start + BLOCK].astype(np.float32))
    built = time.process_time() - started

    def search(question: NDArray[np.float32]) -> list[int]:
        rows: list[int] = index.search(question[None], DEPTH)[1][0].tolist()
        return rows

    for effort in efforts(index):
        yield row(f"faiss {name} {effort}".strip(), task, search, built)


def efforts(index: Any) -> Iterator[str]:
    """Set an index to one effort after another."""
    found = faiss.downcast_index(index)
    if hasattr(found, "nprobe"):
        for found.nprobe in (16, 32, 64):
            yield f"nprobe {found.nprobe}"
    elif hasattr(found, "hnsw"):
        for found.hnsw.efSearch in (64, 128, 256):
            yield f"efSearch {found.hnsw.efSearch}"
    else:
        yield ""


def ours(index: IndexName, task: Task) -> Iterator[list[str]]:
    """The table that `DenseRanker` searches."""
    started = time.process_time()
    table = VectorTable(task.folder, task.extent, index=index)
    built = time.process_time() - started
    for candidates in (0,) if index == "exact" else CANDIDATES:

        def search(question: NDArray[np.float32], candidates: int = candidates) -> list[int]:
            found = table.search(question, depth=DEPTH, candidates=candidates)
            return [number for number, _ in found]

        yield row(f"**{index}** {candidates or ''}".strip(), task, search, built)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--out", type=Path, required=True, help="Markdown file to write")
    parser.add_argument("--rows", type=int, nargs="+", default=[200_000, 1_000_000])
    parser.add_argument("--asked", type=int, default=300, help="questions that are timed")
    parser.add_argument("--peers", nargs="*", default=["Flat", "SQfp16", "IVF1024,SQ8", "HNSW16"])
    parser.add_argument("--indexes", nargs="*", default=["exact", "codes", "ivf", "hnsw"])
    parser.add_argument("--work", type=Path, default=Path(__file__).parent / "work")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    parts = [HEAD.format(day=date.today(), faiss=version("faiss-cpu"), processor=processor())]
    for count in arguments.rows:
        task = prepared(count, arguments)
        lines = [line for name in arguments.indexes for line in ours(name, task)]
        lines += [line for name in arguments.peers for line in of_faiss(name, task)]
        header = ["index", "ms, p50 / p95", "recall@10", "s to build or open", "MB, own / mapped"]
        table = "\n".join(f"| {' | '.join(line)} |" for line in [header, ["---"] * 5, *lines])
        parts.append(f"## {task.extent.rows:,} vectors of {task.extent.dimension}\n\n{table}\n")
        arguments.out.write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
