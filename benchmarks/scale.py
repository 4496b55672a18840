"""A store of a million passages on one machine: made, opened, asked, served; and embedding itself.

    python benchmarks/scale.py --data DIR --out docs/benchmarks/scale.md

DIR/en_wikipedia_2015 holds articles: passages are 500 characters, one beginning every 125, so that
there are enough of them. The first are embedded by the encoder that ships, the others have copies
of these vectors with noise of the same covariance (`vectors.py`), so that a million need not be
embedded; the rate of embedding is measured by itself. A process of its own opens the store and
asks, another serves it, and what is told of memory is theirs.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any
from urllib.request import Request, urlopen

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from numpy.typing import NDArray

from consilience import Passage, Store
from consilience.encoding import Encoder, load_encoder
from consilience.encoding.compact import build_encoder, fastest_dtype
from consilience.encoding.folder import open_folder, which_folder
from data_sets import processor, rows
from load import StandIn, question_of, resident_mb, served
from vectors import filled_up

CHARACTERS, STRIDE = 500, 125
REAL = 4000
"""Passages that are embedded."""
ASKED, WARM = 300, 30
PART = 20_000
"""Passages that are added in one commit."""
MODES = ("bm25", "dense", "hybrid")


def passages(data: Path) -> Iterator[tuple[str, str]]:
    """Titles and texts."""
    for path in sorted((data / "en_wikipedia_2015").glob("train-*.jsonl.gz")):
        for article in rows(path):
            text = article["text"]
            for start in range(0, len(text) - CHARACTERS, STRIDE):
                yield article["title"], text[start : start + CHARACTERS]


@dataclass
class Copies(StandIn):
    """Real vectors, then copies of them."""

    coming: Iterator[NDArray[np.float32]]

    def encode_passages(self, passages: Sequence[str]) -> Any:
        """`[passages, dimension]`."""
        return np.stack(list(islice(self.coming, len(passages))))

    def encode_questions(self, questions: Sequence[str]) -> Any:
        """As the encoder."""
        return self.inner.encode_questions(questions)


def made(folder: Path, data: Path, count: int) -> dict[str, str]:
    """Write the store; what it took."""
    encoder, texts = load_encoder(), passages(data)
    first = [text for _, text in islice(passages(data), REAL)]
    real = np.asarray(encoder.encode_passages(first), np.float32)
    copies = Copies(encoder, (row for block in filled_up(real, count, 1) for row in block))
    started, processed = time.perf_counter(), time.process_time()
    with Store.open(folder, encoder=copies) as store:
        for start in range(0, count, PART):
            store.add([
                Passage(f"{start + i}", text, title, f"part {start}", None, 0, len(text))
                for i, (title, text) in enumerate(islice(texts, min(PART, count - start)))
            ])  # fmt: skip
            print(f"{len(store):,} passages, {time.perf_counter() - started:.0f} s", flush=True)
        held = len(store)
    wall, spent = time.perf_counter() - started, time.process_time() - processed
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {
        "passages": f"{held:,}",
        "made without embedding, s wall / processor": f"{wall:.0f} / {spent:.0f}",
        "on the disk, GB": f"{size / 1e9:.2f}",
    }


_ASK = """
import json, sys, time
import numpy as np
from consilience.encoding import load_encoder
from consilience.retrieval import open_retriever
from consilience.store import Store

folder, mode, warm = sys.argv[1], sys.argv[2], int(sys.argv[3])
questions = json.load(sys.stdin)
encoder = load_encoder()
encoder.encode_questions(questions[:1])
wall, cpu = time.perf_counter(), time.process_time()
store = Store.open(folder, encoder=encoder, create=False)
retriever = open_retriever(store, mode=mode, encoder=encoder)
retriever.search(questions[0], k=5)
opened = time.perf_counter() - wall, time.process_time() - cpu
spent = []
for question in questions:
    wall, cpu = time.perf_counter(), time.process_time()
    assert all(hit.passage.text for hit in retriever.search(question, k=5))
    spent.append((time.perf_counter() - wall, time.process_time() - cpu))
status = open("/proc/self/status").read().splitlines()
kept = {line.split(":")[0]: int(line.split()[1]) / 1000 for line in status if "Rss" in line}
print(json.dumps({"opened": opened, "spent": spent[warm:], "memory": kept}))
"""


def asked(folder: Path, mode: str, questions: Sequence[str]) -> list[str]:
    """A line of the table: a process that opens the store and asks."""
    run = subprocess.run(
        [sys.executable, "-c", _ASK, str(folder), mode, str(WARM)],
        input=json.dumps(questions),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found = json.loads(run.stdout)
    times = 1000 * np.asarray(found["spent"])
    halves = np.percentile(times, [50, 95], axis=0).T
    wall, cpu = (" / ".join(f"{each:.2f}" for each in half) for half in halves)
    opened = " / ".join(f"{each:.1f}" for each in found["opened"])
    memory = found["memory"]
    line = [mode, wall, cpu, opened, f"{memory['RssAnon']:.0f} / {memory['RssFile']:.0f}"]
    print(*line, sep=" | ", flush=True)
    return line


def served_memory(folder: Path, questions: Sequence[str]) -> str:
    """Memory of a server that has searched and answered: its own / with mapped files, in MB."""

    def post(path: str, **body: Any) -> None:
        told = json.dumps(body).encode()
        request = Request(at + path, told, {"content-type": "application/json"})
        with urlopen(request, timeout=120) as answer:
            answer.read()

    with served(folder) as (host, port, process):
        at = f"http://{host}:{port}"
        for question in questions:
            post("/v1/search", question=question, mode="hybrid", k=5)
        for question in questions[:50]:
            post("/v1/ask", question=question, k=5)
        own, whole = resident_mb(process)
    return f"{own:.0f} / {whole:.0f}"


def embedding(data: Path, count: int = 256) -> list[list[str]]:
    """Passages a processor second, by one thread, of each backend that is there."""
    torch.set_num_threads(1)
    texts = [text for _, text in islice(passages(data), 0, count * 40, 40)]
    folder = open_folder(which_folder(None)[0])
    encoders: dict[str, Encoder] = {
        f"torch, {str(dtype).removeprefix('torch.')}": build_encoder(
            folder, folder.tensors(), dtype=dtype
        )
        for dtype in dict.fromkeys((torch.float32, fastest_dtype()))
    }
    if find_spec("openvino") is not None:
        from consilience.encoding.openvino import OpenVinoEncoder

        encoders["OpenVINO, the same"] = OpenVinoEncoder(load_encoder())
    lines = []
    for name, encoder in encoders.items():
        encoder.encode_passages(texts)
        rates = []
        for _ in range(5):
            started = time.process_time()
            encoder.encode_passages(texts)
            rates.append(len(texts) / (time.process_time() - started))
        lines.append([name, f"{statistics.median(rates):.1f}"])
        print(*lines[-1], sep=" | ", flush=True)
    return lines


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, ["---"] * len(header), *lines])


HEAD = """# A store of a million passages, measured

{day}, {processor}. Made by

    python benchmarks/scale.py --data DIR --out docs/benchmarks/scale.md

Passages are 500 characters of Wikipedia of 2015 each, vectors those of the encoder that ships and
copies of them with noise; questions are six words in a row of some of the passages. One thread.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--out", type=Path, required=True, help="Markdown file to write")
    parser.add_argument("--passages", type=int, default=1_000_000)
    parser.add_argument("--work", type=Path, default=Path(__file__).parent / "work")
    arguments = parser.parse_args()
    folder = arguments.work / f"scale-{arguments.passages}"
    shutil.rmtree(folder, ignore_errors=True)
    facts = made(folder, arguments.data, arguments.passages)
    draw, step = Random(0), arguments.passages // (ASKED + WARM)
    some = islice(passages(arguments.data), 0, arguments.passages, step)
    questions = [question_of(text, draw) for _, text in islice(some, ASKED + WARM)]
    asked(folder, "hybrid", questions[: WARM + 1])  # the first process makes the indexes
    lines = [asked(folder, mode, questions) for mode in MODES]
    facts["a server that has searched 330 times and answered 50, MB, own / with mapped files"] = (
        served_memory(folder, questions)
    )
    shutil.rmtree(folder)
    header = ["mode", "ms, p50 / p95", "processor ms", "s to open, wall / processor"]
    parts = [
        HEAD.format(day=date.today(), processor=processor()),
        table(["", ""], list(facts.items())),
        "\n## Asked, each mode by a process of its own\n",
        table([*header, "MB, own / mapped"], lines),
        "\n## Embedding\n\nPassages of 500 characters a processor second, by one thread.\n",
        table(["encoder", "passages a second"], embedding(arguments.data)),
    ]
    arguments.out.write_text("\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
