"""Encoders on a real Ray of this machine: same vectors, deaths, and who can reach it."""

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from consilience.encoding import Encoder, Vectors, load_encoder
from consilience.encoding import ray_workers as rays
from consilience.encoding.ray_workers import RayEncoder, RayOptions
from consilience.errors import DependencyError, UsageError, VersionError
from tests.encoding.test_workers import Counting, Dying

PROGRAM = """
import json, os, sys
from pathlib import Path
import numpy as np
from consilience.encoding.ray_workers import RayEncoder, RayOptions, joined
from consilience.encoding.workers import CHUNK
from consilience.errors import ConsilienceError
from tests.encoding.test_ray_workers import Refusing, listening
from tests.encoding.test_workers import Counting, Dying

folder = Path(sys.argv[1])
texts = [f"text {number}" for number in range(3 * CHUNK + 5)]
found = {}
one = Counting()
found["before"] = "ray" in sys.modules
leave = joined(RayOptions(actors=2))
import ray

temporary = Path(ray._private.worker._global_node.get_temp_dir_path())
with RayEncoder(one, RayOptions(actors=2, patience=300)) as encoder:
    vectors = encoder.encode_passages(texts)
    asked = encoder.encode_questions(texts[:3])
    found["addresses"] = sorted(listening(os.getpid()))
    found["usage"] = os.environ["RAY_USAGE_STATS_ENABLED"]
    found["empty"] = list(encoder.encode_passages([]).shape)
(folder / "one").touch()
with RayEncoder(Dying(folder), RayOptions(actors=1, patience=300)) as dying:
    again = dying.encode_passages(texts)
    found["lost"] = dying.lost
with RayEncoder(Refusing(), RayOptions(patience=300)) as refusing:
    try:
        refusing.encode_passages(texts)
    except ConsilienceError as error:
        found["told"] = [error.message, error.hint]
found["still"] = ray.is_initialized()
leave()
wanted = [one.encode_passages(texts[at : at + CHUNK]) for at in range(0, len(texts), CHUNK)]
found["same"] = bool((vectors == np.concatenate(wanted)).all())
found["order"] = again[:, 0].astype(int).tolist() == list(range(len(texts)))
found["questions"] = bool((asked == one.encode_questions(texts[:3])).all())
found["gone"] = not temporary.exists() and not ray.is_initialized()
print(json.dumps(found))
"""


class Refusing(Counting):
    """An encoder that says what is wrong."""

    def _encode(self, texts: Sequence[str], side: float) -> Vectors:
        raise UsageError(f"{len(texts)} texts are too many", hint="give fewer")


def listening(process: int) -> set[str]:
    """The addresses, in hexadecimal, at which a process or its descendants listen."""
    sockets = {
        os.readlink(link)
        for one in _family(process)
        for link in Path(f"/proc/{one}/fd").iterdir()
        if link.is_symlink() and os.path.lexists(link)
    }
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                found.add(fields[1].split(":")[0])
    return found


def _family(process: int) -> set[int]:
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found, size = {process}, 0
    while len(found) > size:
        size = len(found)
        found |= {one for one, parent in parents.items() if parent in found}
    return found


def test_a_ray_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "deaths").mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path.cwd()), *sys.path])
    command = [sys.executable, str(tmp_path / "program.py")]
    command = [*command, str(tmp_path / "deaths")]
    told = None
    for _ in range(2):  # on a machine that has no time at all, Ray does not start, or stays stuck
        with suppress(subprocess.TimeoutExpired):
            told = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=140
            )
            if "Ray did not start" not in told.stderr:
                break
    assert told is not None
    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout)
    assert set(found.pop("addresses")) <= {"0100007F", "0000000000000000FFFF00000100007F"}
    assert found == {
        "before": False,
        "usage": "0",
        "empty": [0, 4],
        "lost": 1,
        "told": [found["told"][0], "give fewer"],
        "still": True,
        "same": True,
        "order": True,
        "questions": True,
        "gone": True,
    }
    assert found["told"][0].startswith("64 texts are too many (on ")


def test_an_encoder_of_torch_arrives_as_it_was_sent(tiny_model_folder: Path) -> None:
    sent = load_encoder(tiny_model_folder)
    arrived = pickle.loads(pickle.dumps(sent))  # noqa: S301 - as Ray does
    actor = rays._Embedder(arrived, None)
    texts = ["what is the fee", "门诊费用是多少"]
    assert (actor.encode("passages", texts) == sent.encode_passages(texts)).all()  # type: ignore[union-attr]
    assert (actor.encode("questions", texts) == sent.encode_questions(texts)).all()  # type: ignore[union-attr]


def test_what_is_made_ready_is_made_so_by_the_actor() -> None:
    class Doubled(Counting):
        def __init__(self, plain: Encoder) -> None:
            self.plain = plain

        def encode_passages(self, passages: Sequence[str]) -> Vectors:
            return 2 * self.plain.encode_passages(passages)

    actor = rays._Embedder(Counting(), Doubled)
    assert actor.encode("passages", ["text 3"]).tolist() == [[6, 2, 0, 0]]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("machines", "actors", "found"),
    [
        ([8, 4, 16], 0, (3, 4)),
        ([8, 8], 4, (4, 4)),
        ([2], 5, (5, 1)),
        ([4, 16], 1, (1, 16)),
        ([8, 8], 3, (3, 4)),  # five each would leave room for two
        ([8, 8, 8], 4, (4, 4)),
    ],
)
def test_processors_are_shared_among_actors(
    machines: list[int], actors: int, found: tuple[int, int]
) -> None:
    assert rays.sizes(machines, actors) == found


def test_another_version_on_a_machine_is_told() -> None:
    with pytest.raises(VersionError) as error:
        rays._same_version("on east in process 7", "0.0.0")
    assert error.value.message.startswith("consilience 0.0.0 is installed on east in process 7, ")
    assert error.value.hint == "install one version on all machines of the cluster"


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rays, "find_spec", lambda _: None)
    with RayEncoder(Counting()) as encoder, pytest.raises(DependencyError) as error:
        encoder.encode_passages(["text 1"])
    assert error.value.message == (
        "embedding on a cluster needs the package ray, which is not installed"
    )
    assert error.value.hint == "pip install 'consilience[simulation]'"


def test_a_ray_that_could_be_reached_from_elsewhere_is_not_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Imported:
        @staticmethod
        def is_initialized() -> bool:
            return False

    monkeypatch.setattr(rays, "find_spec", lambda _: True)
    monkeypatch.setitem(sys.modules, "ray", Imported())
    monkeypatch.delenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with RayEncoder(Counting()) as encoder, pytest.raises(UsageError) as error:
        encoder.encode_passages(["text 1"])
    assert error.value.message == "ray was imported before, and would now listen for other machines"


def test_fewer_than_no_actors_are_refused() -> None:
    with pytest.raises(UsageError, match=r"^actors must be at least 1, received -1$"):
        RayEncoder(Counting(), RayOptions(actors=-1))


def test_an_encoder_is_told_without_ray(tmp_path: Path) -> None:
    with RayEncoder(Dying(tmp_path)) as encoder:
        assert (encoder.fingerprint, encoder.dimension, encoder.lost) == ("counting-0001", 4, 0)
