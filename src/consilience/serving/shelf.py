"""Uploaded files on disk, each under the digest of its bytes, and none under a name from outside.

The same bytes lie there once, however often they came. A file stays for as long as somebody wants
it; who that is, is told to `sweep`.
"""

import os
import re
from collections.abc import Collection
from pathlib import Path

from consilience.serving.uploads import PART, Uploaded

_DIGEST = re.compile(r"[0-9a-f]{64}")


class Shelf:
    """A folder of files.

    Args:
        folder: Where; made if it is missing, for its owner only.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for part in folder.glob(f"*{PART}"):  # of uploads that an earlier process did not finish
            part.unlink(missing_ok=True)

    def path(self, digest: str) -> Path:
        """Where the file with these bytes is, if it is there."""
        assert _DIGEST.fullmatch(digest)
        return self.folder / digest

    def put(self, file: Uploaded) -> None:
        """Take in a file that has come in; its bytes are on disk already."""
        os.replace(file.path, self.path(file.digest))

    def sweep(self, wanted: Collection[str]) -> None:
        """Delete all files but those wanted, by their digests."""
        for path in self.folder.iterdir():
            if _DIGEST.fullmatch(path.name) and path.name not in wanted:
                path.unlink(missing_ok=True)
