"""What holds for every test of secure sums."""

import os

import pytest


@pytest.fixture(autouse=True)
def _a_disk_without_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What reaches the disk when is not seen by a test, and takes its time."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
