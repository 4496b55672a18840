"""What a server is told: where its things are, where it listens, and its limits.

One declaration, from which come the YAML file, the flags of `consilience serve`, and the settings
drawer of the page. Knows neither the store nor the web.
"""

import ipaddress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated

from consilience.training.settings import Setting

DEFAULT_CONFIG = Path("serve.yaml")
"""The config file of a server that was not told of another."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one request, one key and all requests together may ask for."""

    longest_question: Annotated[
        int, Setting("The longest question, in characters.", "问题的最大字符数。", 1, 4000)
    ] = 4000
    """The longest question, in characters."""

    longest_body: Annotated[
        int, Setting("The largest JSON body, in bytes.", "JSON 请求体的最大字节数。", 1000)
    ] = 1_000_000
    """The largest body of a request that uploads nothing, in bytes."""

    longest_upload: Annotated[
        int, Setting("The largest upload, in bytes.", "一次上传的最大字节数。", 1000)
    ] = 100_000_000
    """The largest body of an upload, in bytes."""

    upload_files: Annotated[
        int, Setting("The most files of one upload.", "一次上传的最多文件数。", 1, 10_000)
    ] = 100
    """The most files of one upload."""

    history: Annotated[
        int, Setting("The most turns that come before a question.", "问题之前的最多轮数。", 0, 1000)
    ] = 50
    """The most turns that come before a question."""

    k: Annotated[
        int, Setting("The most passages of a request.", "一次请求的最多段落数。", 1, 1000)
    ] = 50
    """The most passages that a request may ask for."""

    max_new_tokens: Annotated[
        int, Setting("The longest answer, in sub-words.", "回答的最大词元数。", 1, 100_000)
    ] = 512
    """The longest answer that a request may ask for, in sub-words."""

    asks: Annotated[
        int, Setting("Questions answered at the same time.", "同时作答的问题数。", 1, 1000)
    ] = 8
    """Questions that are answered at the same time, in one batch."""

    waiting: Annotated[
        int, Setting("Questions that wait for their turn.", "排队等候的问题数。", 0, 100_000)
    ] = 256
    """Questions that wait for their turn; a further one is refused."""

    searches: Annotated[
        int, Setting("Searches in work and waiting.", "正在进行和等候的检索数。", 1, 100_000)
    ] = 256
    """Searches in work and waiting; a further one is refused."""

    rate: Annotated[
        int,
        Setting(
            "Requests of one key in a minute; 0 for any number.",
            "每个密钥每分钟的请求数；0 表示不限。",
            0,
        ),
    ] = 6000
    """Requests of one key in a minute; 0 for any number. Without keys there is no such limit."""


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """What `consilience serve` is told."""

    store: Annotated[Path, Setting("The knowledge base.", "知识库。")] = Path("knowledge")
    """The folder of the knowledge base; made when there is none."""

    model: Annotated[
        str | None,
        Setting("A folder, a hub id or none for the one that ships.", "模型；none 为自带的模型。"),
    ] = None
    """A folder or hub id of a model; None for the one that ships."""

    host: Annotated[str, Setting("The address to listen at.", "监听的地址。")] = "127.0.0.1"
    """The address to listen at; one that other machines reach needs a key."""

    port: Annotated[int, Setting("The port; 0 for any.", "端口；0 为任意。", 0, 65_535)] = 8123
    """The port to listen at; 0 for any that is free."""

    keys: Annotated[
        Path | None,
        Setting(
            "The file of keys; none for STORE.keys.json.", "密钥文件；none 为 STORE.keys.json。"
        ),
    ] = None
    """The file of keys; None for one beside the store, so that a copy of it carries no keys."""

    runs: Annotated[Path, Setting("The folder of training runs.", "训练记录所在的文件夹。")] = Path(
        "runs"
    )
    """The folder in which training runs are looked for."""

    evaluations: Annotated[
        Path | None,
        Setting("The folder of evaluations; none for STORE/evaluations.", "评测所在的文件夹。"),
    ] = None
    """The folder of evaluations; None for `evaluations` in the folder of the store."""

    grace: Annotated[
        float,
        Setting("Seconds that answers have to finish when told to stop.", "停止时的等待秒数。", 0),
    ] = 30.0
    """Seconds that running answers have to finish when the server is told to stop."""

    limits: Annotated[Limits, Setting("Limits.", "各项限制。")] = field(default_factory=Limits)
    """How much may be asked for."""

    @property
    def key_path(self) -> Path:
        """The file of keys."""
        return self.keys or self.store.with_name(f"{self.store.name}.keys.json")

    @property
    def evaluation_folder(self) -> Path:
        """The folder of evaluations."""
        return self.evaluations or self.store / "evaluations"

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches the server."""
        return is_loopback(self.host)


@lru_cache(maxsize=64)
def is_loopback(host: str) -> bool:
    """Whether a host, as it stands in an address, is this machine and no other."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
