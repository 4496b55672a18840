"""Runs the server of the package `milvus` in a folder, asking for a password, until it is ended.

It is run by the Python that has the package, and says the port when it answers.
"""

import signal
import sys
from types import FrameType

from milvus import MilvusServer, MilvusServerConfig


def main(folder: str) -> None:
    config = MilvusServerConfig()
    config.set("authorization_enabled", True)
    server = MilvusServer(config)
    server.set_base_dir(folder)
    signal.signal(signal.SIGTERM, _leave)
    server.start()
    sys.stdout.write(f"{server.listen_port}\n")
    sys.stdout.flush()
    try:
        server.wait()
    finally:
        server.stop()


def _leave(_number: int, _frame: FrameType | None) -> None:
    sys.exit()


if __name__ == "__main__":
    main(sys.argv[1])
