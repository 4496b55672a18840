"""Knowledge graphs: what reading them costs, and what links find that words do not.

    OMP_NUM_THREADS=1 python benchmarks/graphs.py --data DIR --out docs/benchmarks/graphs.md

DIR holds one folder per data set (kgclue, pathquestion, kdconv) with `kg.jsonl.gz` (`h`, `r`, `t`),
`train.jsonl.gz` and `dev.jsonl.gz`. Each graph is written as N-Triples, read as any user's file is,
and asked. A question counts as answered at k when a passage that holds its triple is among the
first k: that of the last step for questions of several steps, any triple of the reply for turns of
a conversation. Weights were chosen on questions of train; those of dev were only measured.
"""

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from consilience.documents import Document, read_document, triples_of
from consilience.documents.triples import Triple, iri_of, literal_of
from consilience.encoding import Encoder, load_encoder
from consilience.retrieval import Mode
from consilience.retrieval.graph import LinkedRanker
from consilience.retrieval.opening import lexical_ranker
from consilience.retrieval.ranking import PassageRetriever, Ranker
from consilience.retrieval.tuning import Tuning
from consilience.store import Store
from data_sets import NoVectors, rows

SETS = ("kgclue", "pathquestion", "kdconv")
SPLITS = ("train", "dev")
AT = (1, 5)
SAMPLE: dict[Mode, int] = {"bm25": 2000, "hybrid": 300}  # questions of a split at most
LABEL = "<http://www.w3.org/2000/01/rdf-schema#label>"
EXAMPLE = "http://graph.example/"

Fact = tuple[str, str, str]


@dataclass(frozen=True)
class Question:
    """A question, its kind, and the facts of which one must be found."""

    text: str
    kind: str
    facts: tuple[Fact, ...]


# Graphs and questions.


def spaced(name: str) -> str:
    """A name as people write it, not as PathQuestion does."""
    return " ".join(name.replace("_", " ").split())


def as_is(name: str) -> str:
    return name


def named(kind: str, name: str) -> str:
    return f"<{EXAMPLE}{kind}/{quote(name, safe='')}>"


def text_of(name: str) -> str:
    escaped = name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def ntriples(facts: Sequence[Fact], called: Callable[[str], str], *, things: set[str]) -> str:
    """The graph in N-Triples: a label for everything that has an IRI, and the facts."""
    properties = {r for _, r, _ in facts}
    shown = {x for h, _, t in facts for x in (h, t)} & things
    lines = [f"{named('p', x)} {LABEL} {text_of(called(x))} ." for x in sorted(properties)]
    lines += [f"{named('e', x)} {LABEL} {text_of(called(x))} ." for x in sorted(shown)]
    for h, r, t in facts:
        value = named("e", t) if t in things else text_of(t)
        lines.append(f"{named('e', h)} {named('p', r)} {value} .")
    return "\n".join(lines) + "\n"


def graph_of(name: str, data: Path) -> str:
    facts = [(row["h"], row["r"], row["t"]) for row in rows(data / name / "kg.jsonl.gz")]
    heads = {h for h, _, _ in facts}
    if name == "pathquestion":
        return ntriples(facts, spaced, things=heads | {t for _, _, t in facts})
    return ntriples(facts, as_is, things=heads)


def questions_of(name: str, split: str, data: Path, most: int) -> list[Question]:
    asked = rows(data / name / f"{split}.jsonl.gz")
    found = [question for row in asked for question in READ[name](row)]
    random.Random(0).shuffle(found)
    return found[:most]


def one_step(row: Mapping[str, Any]) -> Iterator[Question]:
    fact = (row["head"], row["relation"], row["answers"][0].strip())
    yield Question(row["question"], "kgclue, 1 step", (fact,))


def several_steps(row: Mapping[str, Any]) -> Iterator[Question]:
    steps = len(row["path"])
    last = tuple(row["path"][-1])
    yield Question(spaced(row["question"]), f"pathquestion, {steps} steps", (last,))


def turns(row: Mapping[str, Any]) -> Iterator[Question]:
    """What was said last, with the two turns before it; the facts are those of the reply."""
    said: list[str] = []
    for turn in row["turns"]:
        if said and turn["knowledge"]:
            facts = tuple((h, r, t.strip()) for h, r, t in turn["knowledge"])
            yield Question(" ".join(said[-3:]), "kdconv, a turn", facts)
        said.append(turn["text"])


READ: Mapping[str, Callable[[Mapping[str, Any]], Iterator[Question]]] = {
    "kgclue": one_step,
    "pathquestion": several_steps,
    "kdconv": turns,
}


# Where the facts are.


def fact_of(triple: Triple) -> Fact:
    literal = literal_of(triple.object)
    value = literal[0] if literal else unquote(iri_of(triple.object).rsplit("/", 1)[-1])
    subject, predicate = (
        unquote(iri_of(term).rsplit("/", 1)[-1]) for term in (triple.subject, triple.predicate)
    )
    return subject, predicate, value.strip()


def places(documents: Iterable[Document]) -> dict[Fact, set[str]]:
    """The sources that hold each fact."""
    found: dict[Fact, set[str]] = {}
    for document in documents:
        for triple in triples_of(document):
            found.setdefault(fact_of(triple), set()).add(document.source)
    return found


@dataclass
class Recall:
    """How many questions of a kind there were, and how many were answered at each depth."""

    asked: int = 0
    hits: tuple[int, ...] = (0,) * len(AT)

    def count(self, rank: int | None) -> None:
        """Count a question whose first right passage has this rank, from 0."""
        self.asked += 1
        self.hits = tuple(
            h + (rank is not None and rank < k) for h, k in zip(self.hits, AT, strict=True)
        )

    def __str__(self) -> str:
        return " / ".join(f"{100 * h / self.asked:.1f}" for h in self.hits)


@dataclass
class Measured:
    """Recalls by kind and split, and milliseconds of processor time of a question."""

    recalls: dict[tuple[str, str], Recall]
    times: list[float]


def ask(
    retriever: PassageRetriever, asked: Mapping[str, list[Question]], where: Mapping[Fact, set[str]]
) -> Measured:
    measured = Measured({}, [])
    for split, questions in asked.items():
        for question in questions:
            right = set().union(*(where.get(fact, set()) for fact in question.facts))
            if not right:
                continue
            before = time.process_time()
            hits = retriever.search(question.text, k=max(AT))
            measured.times.append(1000 * (time.process_time() - before))
            rank = next((n for n, h in enumerate(hits) if h.passage.source in right), None)
            measured.recalls.setdefault((question.kind, split), Recall()).count(rank)
    return measured


def rankers(store: Store, mode: Mode, encoder: Encoder | None) -> dict[str, Ranker]:
    """The ranker of a mode without links and with them."""
    plain = lexical_ranker(store, Tuning())
    if mode == "hybrid" and encoder is not None:
        from consilience.retrieval.hybrid import HybridRanker, HybridWeights
        from consilience.retrieval.opening import dense_ranker

        plain = HybridRanker(plain, dense_ranker(store, encoder, Tuning()), HybridWeights())
    return {mode: plain, f"{mode} with links": LinkedRanker(store, plain)}


def measure(name: str, data: Path, work: Path, mode: Mode) -> tuple[dict[str, Measured], str]:
    path = work / f"{name}.nt"
    path.write_text(graph_of(name, data), encoding="utf-8")
    documents = read_document(path, source=path.as_posix())
    encoder: Encoder = load_encoder() if mode == "hybrid" else NoVectors()
    asked = {split: questions_of(name, split, data, SAMPLE[mode]) for split in SPLITS}
    triples = sum(1 for line in path.read_text(encoding="utf-8").splitlines() if line)
    with Store.open(work / f"{name}-{mode}", encoder=encoder) as store:
        store.add(path)
        where = places(documents)
        found = {
            label: ask(PassageRetriever(store, ranker), asked, where)
            for label, ranker in rankers(store, mode, encoder).items()
        }
        size = f"{name}: {triples:,} triples, {len(store):,} passages"
    return found, size


# What parsing costs.

ONE = """
import resource, sys, time
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
library, path, form = sys.argv[1:]
data = open(path, "rb").read()
before = time.process_time()
if library == "pyoxigraph":
    import pyoxigraph
    count = sum(1 for _ in pyoxigraph.parse(data, getattr(pyoxigraph.RdfFormat, form)))
else:
    import rdflib
    graph = rdflib.Graph()
    graph.parse(data=data, format=form)
    count = len(graph)
used = time.process_time() - before
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(count, used, int(peak) // 1024)
"""
FORMS = {
    "N-Triples": (".nt", "N_TRIPLES", "nt"),
    "Turtle": (".ttl", "TURTLE", "turtle"),
    "RDF/XML": (".rdf", "RDF_XML", "xml"),
    "JSON-LD": (".jsonld", "JSON_LD", "json-ld"),
}


def sample_graph(things: int = 10_000) -> list[str]:
    """100,000 triples: labels in two languages, an alias, six links and a number for each."""
    chance = random.Random(1)
    lines = []
    for n in range(things):
        subject = f"<{EXAMPLE}e/Thing_{n}>"
        lines.append(f'{subject} {LABEL} "Thing {n}"@en .')
        lines.append(f'{subject} {LABEL} "第{n}件"@zh .')
        lines.append(f'{subject} <http://www.w3.org/2004/02/skos/core#altLabel> "Item No {n}"@en .')
        for link in range(6):
            other = chance.randrange(things)
            lines.append(f"{subject} <{EXAMPLE}p/leadsTo{link}> <{EXAMPLE}e/Thing_{other}> .")
        lines.append(f'{subject} <{EXAMPLE}p/populationTotal> "{chance.randrange(10**6)}" .')
    return lines


def write_forms(work: Path) -> dict[str, Path]:
    import pyoxigraph

    plain = work / "sample.nt"
    plain.write_text("\n".join(sample_graph()) + "\n", encoding="utf-8")
    for suffix, form, _ in FORMS.values():
        if form != "N_TRIPLES":
            quads = pyoxigraph.parse(path=plain, format=pyoxigraph.RdfFormat.N_TRIPLES)
            target = getattr(pyoxigraph.RdfFormat, form)
            pyoxigraph.serialize((q.triple for q in quads), work / f"sample{suffix}", target)
    return {name: work / f"sample{suffix}" for name, (suffix, _, _) in FORMS.items()}


def parse_alone(library: str, path: Path, form: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", ONE, library, str(path), form],
        capture_output=True,
        text=True,
        check=True,
    )
    _, seconds, peak = done.stdout.split()
    return f"{float(seconds):.1f} s, {peak} MB"


def read_confined(path: Path) -> str:
    """Processor seconds of the confined child that reads and tells a file; it retires after."""
    from consilience.documents.sandbox import SHARED

    SHARED.close()
    before = os.times()
    documents = read_document(path, source="sample")
    SHARED.close()
    after = os.times()
    used = after.children_user + after.children_system
    used -= before.children_user + before.children_system
    return f"{used:.1f} s, {len(documents):,} documents"


def reading_table(work: Path) -> list[str]:
    out = [
        "| 100,000 triples | pyoxigraph | rdflib | read and put into words |",
        "|---|---|---|---|",
    ]
    for name, path in write_forms(work).items():
        _, oxi, rdf = FORMS[name]
        cells = (parse_alone("pyoxigraph", path, oxi), parse_alone("rdflib", path, rdf))
        out.append(f"| {name} | {cells[0]} | {cells[1]} | {read_confined(path)} |")
    return out


# The page.


def recall_table(results: Sequence[dict[str, Measured]]) -> list[str]:
    labels = list(results[0])
    out = [
        f"| recall@1/5 in percent | {' | '.join(f'{x}, {s}' for s in SPLITS for x in labels)} |",
        "|---" * (1 + 2 * len(labels)) + "|",
    ]
    for measured in results:
        kinds = sorted({kind for kind, _ in measured[labels[0]].recalls})
        for kind in kinds:
            cells = [str(measured[x].recalls[kind, s]) for s in SPLITS for x in labels]
            counts = "/".join(str(measured[labels[0]].recalls[kind, s].asked) for s in SPLITS)
            out.append(f"| {kind} ({counts}) | {' | '.join(cells)} |")
    return out


def time_line(results: Sequence[dict[str, Measured]], sizes: Sequence[str]) -> list[str]:
    lines = []
    for measured, size in zip(results, sizes, strict=True):
        times = ", ".join(
            f"{label} {statistics.median(one.times):.1f} ms" for label, one in measured.items()
        )
        lines.append(f"- {size}; {times}")
    return lines


def page(data: Path, work: Path) -> str:
    libraries = ", ".join(f"{x} {version(x)}" for x in ("pyoxigraph", "rdflib", "apsw", "numpy"))
    words, sizes = zip(*(measure(name, data, work, "bm25") for name in SETS), strict=True)
    both, size = measure("pathquestion", data, work, "hybrid")
    return "\n".join(
        [
            "# Knowledge graphs, measured",
            "",
            f"{date.today()}, consilience {version('consilience')}, Python "
            f"{sys.version.split()[0]}, {libraries}. One thread; processor time. Made by",
            "",
            "    OMP_NUM_THREADS=1 python benchmarks/graphs.py --data DIR",
            "",
            (__doc__ or "").split("\n\n")[2].replace("\n", " ").strip(),
            "",
            "## Reading",
            "",
            "Parsing alone, each in a process of its own, and the whole way through the confined",
            "reader. A reader may take 512 MB and 20 s for a file.",
            "",
            *reading_table(work),
            "",
            "## Links, beside BM25",
            "",
            *recall_table(words),
            "",
            "Median processor time of a search:",
            "",
            *time_line(words, sizes),
            "",
            "## Links, beside hybrid search",
            "",
            "With the encoder that ships; Chinese questions are searched by words there too.",
            "",
            *recall_table([both]),
            "",
            *time_line([both], [size]),
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        written = page(arguments.data, Path(work))
    if arguments.out:
        arguments.out.write_text(written, encoding="utf-8")
    print(written)


if __name__ == "__main__":
    main()
