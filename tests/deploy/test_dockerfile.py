"""The container files: well-formed, and about files that are there."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.tree import ROOT

DOCKERFILE = ROOT / "deploy/Dockerfile"
HADOLINT = shutil.which("hadolint", path=str(Path(sys.executable).parent))


@pytest.mark.skipif(HADOLINT is None, reason="the linter of container files is not installed")
def test_the_linter_finds_nothing() -> None:
    assert HADOLINT is not None
    done = subprocess.run([HADOLINT, str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_everything_that_is_copied_is_there_and_not_ignored() -> None:
    text = DOCKERFILE.read_text("utf-8")
    copied = [
        name
        for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE)
        for name in line.split()[:-1]
    ]
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines()}
    assert copied
    for name in copied:
        assert (ROOT / name).exists()
        assert name in allowed


def test_the_container_runs_as_nobody_and_is_offline() -> None:
    text = DOCKERFILE.read_text("utf-8")
    assert re.search(r"^USER \d+$", text, re.MULTILINE)
    assert "HF_HUB_OFFLINE=1" in text
