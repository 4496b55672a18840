"""What a store bears: many processes at once for a while, and being killed again and again.

*Together*: readers, writers and a deleter, each a process, on one store. A document has two
passages that name the same version in every commit; a reader that sees one of them, or two
versions, has seen no committed state.

*Killed*: a process that adds, replaces and deletes is ended by SIGKILL at a random moment.
Afterwards the store must be sound, each document whole, in its state before or after the change
that was under way, and every search must find what the store holds.

    python benchmarks/endurance.py --seconds 60 --kills 200 --out docs/benchmarks/endurance.md
"""

import argparse
import hashlib
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from consilience.documents import Passage
from consilience.encoding import Vectors
from consilience.errors import BusyError, MissingError
from consilience.retrieval import Mode, open_retriever
from consilience.store import Store

SOURCES = tuple(f"document-{n}" for n in range(12))
READERS, WRITERS, DELETERS = 8, 2, 1
MODES: tuple[Mode, ...] = ("bm25", "dense", "hybrid")
STARTING = 25.0  # seconds until all processes have imported what they need


class HashingEncoder:
    """A vector from a digest of the text: what is tested is not its sense."""

    fingerprint, dimension = "endurance-0001", 32

    def encode_passages(self, passages: Sequence[str]) -> Vectors:
        """`[passages, 32]`, each of length one."""
        rows = [np.frombuffer(hashlib.sha256(t.encode()).digest(), np.uint8) for t in passages]
        found = np.stack(rows).astype(np.float32) - 127.5
        unit: Vectors = found / np.linalg.norm(found, axis=1, keepdims=True)
        return unit

    encode_questions = encode_passages


def passages(source: str, version: int) -> list[Passage]:
    """The two passages of a document in one version."""
    texts = [f"{half} half of {source} version v{version}" for half in ("first", "second")]
    return [
        Passage(f"{source}-{n}", text, "", source, None, 100 * n, 100 * n + len(text))
        for n, text in enumerate(texts)
    ]


def versions(texts: Sequence[str]) -> dict[str, list[str]]:
    """The versions that passages name, by document."""
    found: dict[str, list[str]] = {}
    for text in texts:
        words = text.split()
        found.setdefault(words[3], []).append(words[-1])
    return found


def torn(texts: Sequence[str]) -> list[str]:
    """Documents of which passages show anything but both halves of one version."""
    found = versions(texts)
    return [f"{source}: {v}" for source, v in found.items() if len(v) != 2 or len(set(v)) != 1]


def read(place: Path, until: float, seed: int) -> dict[str, Any]:
    """Search, and count what was no committed state."""
    wrong: list[str] = []
    reads = busy = 0
    with Store.open(place, encoder=HashingEncoder(), create=False) as store:
        mode = MODES[seed % len(MODES)]
        retriever = open_retriever(store, mode=mode, encoder=HashingEncoder())
        while time.time() < until:
            try:
                hits = retriever.search("half of document version", k=100)
            except BusyError:
                busy += 1
                continue
            wrong += torn([hit.passage.text for hit in hits])
            reads += 1
    return {"reads": reads, "busy": busy, "wrong": wrong[:5], "torn": len(wrong)}


def write(place: Path, until: float, seed: int) -> dict[str, Any]:
    """Add and replace documents."""
    draw, writes, busy = random.Random(seed), 0, 0
    with Store.open(place, encoder=HashingEncoder(), create=False) as store:
        while time.time() < until:
            try:
                store.add(passages(draw.choice(SOURCES), draw.randrange(10**9)))
                writes += 1
            except BusyError:
                busy += 1
    return {"writes": writes, "busy": busy}


def forget(store: Store, source: str) -> bool:
    """Remove both halves of a document, in one commit; whether it was there."""
    halves = [one.source for one in store.sources() if one.origin == source]
    if halves:
        store.remove(*halves)
    return bool(halves)


def delete(place: Path, until: float, seed: int) -> dict[str, Any]:
    """Remove documents."""
    draw, deletes, busy = random.Random(seed), 0, 0
    with Store.open(place, encoder=HashingEncoder(), create=False) as store:
        while time.time() < until:
            try:
                deletes += forget(store, draw.choice(SOURCES))
            except MissingError:
                pass  # another was faster
            except BusyError:
                busy += 1
            time.sleep(0.01)
    return {"deletes": deletes, "busy": busy}


def started(kind: str, place: Path, until: float, seed: int) -> "subprocess.Popen[str]":
    """A process of its own for one kind of work."""
    words = [sys.executable, __file__, "--work", kind, "--place", str(place)]
    words += ["--until", repr(until), "--seed", str(seed)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def together(place: Path, seconds: float) -> dict[str, Any]:
    """All at once; the sums of what each process counted."""
    with Store.open(place, encoder=HashingEncoder()) as store:
        for source in SOURCES:
            store.add(passages(source, 0))
    kinds = ["read"] * READERS + ["write"] * WRITERS + ["delete"] * DELETERS
    until = time.time() + STARTING + seconds
    running = [started(kind, place, until, seed) for seed, kind in enumerate(kinds)]
    total: Counter[str] = Counter()
    seen: list[str] = []
    for process in running:
        out, _ = process.communicate()
        told = json.loads(out)
        seen += told.pop("wrong", [])
        total.update(told)
    with Store.open(place, encoder=HashingEncoder()) as store:
        problems = [str(one) for one in store.check()]
        total["commits"] = store.sequence
    return dict(total) | {"problems": len(problems), "seen": seen[:3]}


def killed(place: Path, times: int) -> dict[str, Any]:
    """Kill a process at random moments, and look at the store each time."""
    draw, counts = random.Random(5), Counter({"lost": 0, "mixed": 0, "unsound": 0, "unfound": 0})
    Store.open(place, encoder=HashingEncoder()).close()
    for seed in range(times):
        process = started("churn", place, time.time() + 60, seed)
        assert process.stdout is not None
        process.stdout.readline()  # it has opened the store
        time.sleep(draw.uniform(0.0, 0.4))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        counts.update(looked_at(place))
    with Store.open(place) as store:
        return dict(counts) | {"kills": times, "commits": store.sequence}


def looked_at(place: Path) -> Counter[str]:
    """What is wrong after a kill, by kind."""
    found: Counter[str] = Counter()
    with Store.open(place, encoder=HashingEncoder(), create=False) as store:
        found["unsound"] += len(store.check())
        texts = [store.document(one.source).text for one in store.sources()]
        found["mixed"] += len(torn(texts))
        for mode in MODES:
            retriever = open_retriever(store, mode=mode, encoder=HashingEncoder())
            hits = retriever.search("half of document version", k=1000)
            found["unfound"] += sorted(hit.passage.text for hit in hits) != sorted(texts)
        found["lost"] += store.sequence < last_told(place)
    return found


def last_told(place: Path) -> int:
    """The last commit that a process had been told of before it was killed."""
    path = place.with_suffix(".told")
    return int(path.read_text() or "0") if path.is_file() else 0


def churn(place: Path, until: float, seed: int) -> dict[str, Any]:
    """Add, replace, delete and search, telling of each commit outside the store."""
    draw, told = random.Random(seed), place.with_suffix(".told")
    with Store.open(place, encoder=HashingEncoder(), create=False) as store:
        retriever = open_retriever(store, mode="hybrid", encoder=HashingEncoder())
        print("opened", flush=True)
        while time.time() < until:
            source = draw.choice(SOURCES)
            if draw.random() > 0.3 or not forget(store, source):
                store.add(passages(source, draw.randrange(10**9)))
            beside = told.with_suffix(".new")
            beside.write_text(str(store.sequence))
            beside.replace(told)
            retriever.search("half", k=5)
    return {}


WORK = {"read": read, "write": write, "delete": delete, "churn": churn}


def table(first: dict[str, Any], second: dict[str, Any], seconds: float) -> str:
    """The results as a page."""
    rows = [
        ("readers, writers, deleters", f"{READERS}, {WRITERS}, {DELETERS}"),
        ("seconds together, at least", f"{seconds:.0f}"),
        ("searches", f"{first['reads']:,}"),
        ("commits", f"{first['commits']:,}"),
        ("searches that saw no committed state", str(first["torn"])),
        ("asked again because another was at it", str(first["busy"])),
        ("problems that `check` found", str(first["problems"])),
    ]
    kills = [
        ("kills", str(second["kills"])),
        ("commits between them", f"{second['commits']:,}"),
        ("commits lost that had been told", str(second["lost"])),
        ("documents mixed of two versions, or halved", str(second["mixed"])),
        ("problems that `check` found", str(second["unsound"])),
        ("rankings that did not find what the store held", str(second["unfound"])),
    ]
    parts = ["# Endurance", "", f"`python benchmarks/endurance.py`, {platform.machine()}.", ""]
    for heading, found in (("All at once", rows), ("Killed", kills)):
        parts += [f"## {heading}", "", "| | |", "|---|---|"]
        parts += [f"| {name} | {value} |" for name, value in found] + [""]
    return "\n".join(parts)


def main() -> None:
    """Run both, or one process of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--work", choices=tuple(WORK))
    parser.add_argument("--place", type=Path)
    parser.add_argument("--until", type=float)
    parser.add_argument("--seed", type=int)
    args = parser.parse_args()
    if args.work:
        print(json.dumps(WORK[args.work](args.place, args.until, args.seed)))
        return
    with tempfile.TemporaryDirectory() as folder:
        first = together(Path(folder) / "together", args.seconds)
        print(json.dumps(first), flush=True)
        second = killed(Path(folder) / "killed", args.kills)
        print(json.dumps(second), flush=True)
    page = table(first, second, args.seconds)
    if args.out:
        args.out.write_text(page, encoding="utf-8")
    else:
        print(page)


if __name__ == "__main__":
    main()
