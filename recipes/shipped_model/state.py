"""Which stage of a run stands where: one JSON file, replaced whole, never half written.

A stage that is done is not repeated; one that had begun goes on from what it left in the run's
folder. The file holds no weights and no positions: those are the checkpoints' own, so that the two
can never disagree.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

from schedule import Schedule


def write_whole(path: Path, text: str) -> None:
    """Replace a file so that a crash leaves the old one or the new one."""
    part = path.with_name(f"{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


class State:
    """The state file of a run.

    Args:
        run: The run's folder.
        schedule: Of the run; a folder that was begun with another is refused.
    """

    def __init__(self, run: Path, schedule: Schedule) -> None:
        self._path = run / "state.json"
        self._found: dict[str, Any] = {"schedule": schedule.to_dict(), "stages": {}}
        if self._path.is_file():
            self._found = json.loads(self._path.read_text(encoding="utf-8"))
        if self._found["schedule"] != schedule.to_dict():
            raise SystemExit(f"{run} was begun with another schedule; choose another folder")

    def stage(self, name: str) -> dict[str, Any]:
        """What is known of a stage: `state`, and of one that is done its facts."""
        return dict(self._found["stages"].get(name, {"state": "waiting"}))

    def is_done(self, name: str) -> bool:
        """Whether nothing of a stage is left to do."""
        return bool(self.stage(name)["state"] == "done")

    def begin(self, name: str) -> None:
        """A stage begins, or goes on; attempts are counted."""
        before = self.stage(name)
        times = int(before.get("attempts", 0)) + 1
        self._set(name, {"state": "begun", "attempts": times, "since": round(time.time())})

    def end(self, name: str, **facts: Any) -> None:
        """A stage is done."""
        begun = self.stage(name)
        kept = {"attempts": begun.get("attempts", 1), "until": round(time.time())}
        self._set(name, {"state": "done", **kept, **facts})

    def _set(self, name: str, told: dict[str, Any]) -> None:
        self._found["stages"][name] = told
        write_whole(self._path, json.dumps(self._found, indent=2, ensure_ascii=False) + "\n")
