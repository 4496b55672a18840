"""What holds on a device that is not the processor.

The cases are in `tests/far`. They run in a process of their own, since torch cannot forget a
device; each of them gives on the far device what it gives on the processor.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(300)  # a hundred cases, beside others
@pytest.mark.parametrize(
    ("cases", "least"), [("on_far", 90), ("learning_on_far", 26)], ids=["answers", "learning"]
)
def test_everything_gives_the_same_on_another_device(cases: str, least: int) -> None:
    file = f"tests/far/{cases}.py"
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-n0", "-pno:cacheprovider", "-oaddopts=", file],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-8000:]
    (passed,) = re.findall(r"^=+ (\d+) passed", run.stdout, re.MULTILINE)
    assert int(passed) >= least
    assert "skipped" not in run.stdout
