"""The settings of a federation, and those of a party.

A federation is trained by a recipe: a config of `consilience train`, whose data, store and output
are each party's own, and the settings here. The coordinator sends both to every party; a party's
own file says what it brings and what it will not do.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from consilience.errors import UsageError
from consilience.training.config import DataSettings
from consilience.training.settings import Setting


@dataclass(frozen=True, slots=True)
class TravelSettings:
    """What travels."""

    kind: Annotated[
        Literal["alternate", "frozen-a", "average", "stack", "full", "subset"],
        Setting(
            "Adapters, one factor a round; adapters with the first factor frozen; both factors "
            "averaged; factors stacked; all weights that learn; those named in `names`.",
            "适配器，每轮训练一个因子；冻结第一个因子；两个因子分别平均；因子堆叠；全部可训练权重；"
            "names 所列权重。",
        ),
    ] = "alternate"
    names: Annotated[
        tuple[str, ...],
        Setting("With `subset`: beginnings of names.", "subset 时：权重名称（前缀）。"),
    ] = ()
    personal: Annotated[
        tuple[str, ...],
        Setting(
            "Beginnings of names of weights that learn at each party and stay there.",
            "在各参与方训练且不离开该方的权重名称（前缀）。",
        ),
    ] = ()
    precision: Annotated[
        Literal["float32", "bfloat16", "int8"],
        Setting(
            "Of updates; what rounding loses is sent with the next one.",
            "更新的精度；舍入误差随下一次更新补发。",
        ),
    ] = "float32"


@dataclass(frozen=True, slots=True)
class MeanSettings:
    """How updates become one, and what the coordinator does with it."""

    kind: Annotated[
        Literal["average", "trimmed", "median", "krum"],
        Setting(
            "Average by questions, or a mean that bears hostile parties.",
            "按问题数平均，或能容忍恶意参与方的均值。",
        ),
    ] = "average"
    hostile: Annotated[
        float,
        Setting(
            "Share of parties that may be hostile, for trimmed and krum.",
            "trimmed 与 krum：可能恶意的参与方比例。",
            least=0,
            most=0.49,
        ),
    ] = 0.3
    longest: Annotated[
        float | None,
        Setting(
            "Longest update; longer ones are shortened. None shortens nothing.",
            "更新的最大长度，超出者缩短；none 为不缩短。",
            least=1e-9,
        ),
    ] = None
    optimiser: Annotated[
        Literal["none", "adam", "yogi"],
        Setting("FedAvg, FedAdam or FedYogi.", "FedAvg、FedAdam 或 FedYogi。"),
    ] = "none"
    rate: Annotated[
        float, Setting("Rate of the coordinator's step.", "协调方更新的步长。", least=1e-6, most=10)
    ] = 1.0


@dataclass(frozen=True, slots=True)
class SecureSettings:
    """Sums of which nobody sees a part."""

    sums: Annotated[
        bool, Setting("Updates are masked before they leave.", "更新离开前加掩码。")
    ] = False
    threshold: Annotated[
        int | None,
        Setting(
            "Parties that must stay to the end; none is two thirds, at least two.",
            "必须坚持到最后的参与方数；none 为三分之二且至少两个。",
            least=2,
        ),
    ] = None
    longest: Annotated[
        float,
        Setting(
            "Largest absolute value of a weight's change.", "单个权重变化的最大绝对值。", least=1e-6
        ),
    ] = 0.5


@dataclass(frozen=True, slots=True)
class PrivacySettings:
    """Differential privacy inside each party."""

    epsilon: Annotated[
        float | None,
        Setting(
            "Budget of the whole run; none is no privacy.",
            "整个过程的预算；none 为不启用。",
            least=1e-3,
        ),
    ] = None
    delta: Annotated[
        float | None,
        Setting(
            "none is records to the power of -1.1.",
            "none 为记录数的 -1.1 次方。",
            least=0,
            most=0.1,
        ),
    ] = None
    unit: Annotated[
        Literal["question", "user", "document"],
        Setting(
            "What one record is: a question, all of one user, all about one document.",
            "一条记录是什么：一个问题、同一用户的全部、同一文档的全部。",
        ),
    ] = "question"
    longest: Annotated[
        float,
        Setting("Longest gradient of a record.", "单条记录梯度的最大长度。", least=1e-6),
    ] = 1.0
    party_noise: Annotated[
        float,
        Setting(
            "Noise multiplier of the sum over parties; 0 is none. Needs secure.sums.",
            "各参与方之和的噪声倍数；0 为无。需要 secure.sums。",
            least=0,
        ),
    ] = 0.0


@dataclass(frozen=True, slots=True)
class FederationConfig:
    """A federation, as its coordinator runs it."""

    output: Annotated[Path, Setting("Where the run is written.", "训练结果写到哪里。")]
    recipe: Annotated[
        Path,
        Setting(
            "A config of `consilience train`; data, store and output are each party's own.",
            "consilience train 的配置；数据、知识库和输出由各参与方自定。",
        ),
    ]
    parties: Annotated[
        tuple[Path, ...],
        Setting("Files of the parties, for `simulate`.", "参与方的配置文件，供 simulate 使用。"),
    ] = ()
    expected: Annotated[
        int | None,
        Setting(
            "Parties that are waited for before the first round; none is all that are known.",
            "第一轮之前等待的参与方数；none 为全部已知者。",
            least=1,
        ),
    ] = None
    rounds: Annotated[int, Setting("Rounds.", "轮数。", least=1)] = 10
    steps: Annotated[
        int | None,
        Setting(
            "Optimiser steps of each party in a round; none is one pass over its questions.",
            "每轮各参与方的优化步数；none 为遍历一次其问题。",
            least=1,
        ),
    ] = None
    quorum: Annotated[
        int | None,
        Setting(
            "Replies with which a round may end; none is all that were asked.",
            "一轮可以结束的回复数；none 为全部被请求者。",
            least=1,
        ),
    ] = None
    grace: Annotated[
        float, Setting("Seconds that late parties get after that.", "此后再等的秒数。", least=0)
    ] = 30.0
    deadline: Annotated[
        float, Setting("Longest a round waits, in seconds.", "一轮最长等待秒数。", least=1)
    ] = 3600.0
    proximal: Annotated[
        float,
        Setting(
            "Pull towards the shared weights (FedProx).", "向共享权重的拉力（FedProx）。", least=0
        ),
    ] = 0.0
    scaffold: Annotated[
        bool, Setting("Correct the drift of parties (SCAFFOLD).", "校正各方漂移（SCAFFOLD）。")
    ] = False
    travel: Annotated[TravelSettings, Setting("What travels.", "传输内容。")] = TravelSettings()
    mean: Annotated[MeanSettings, Setting("The mean.", "均值。")] = MeanSettings()
    secure: Annotated[SecureSettings, Setting("Secure sums.", "安全求和。")] = SecureSettings()
    privacy: Annotated[PrivacySettings, Setting("Privacy.", "隐私。")] = PrivacySettings()
    engine: Annotated[
        Literal["local", "flower"],
        Setting(
            "With `simulate`: in this process, or on Flower's simulation runtime.",
            "simulate 时：在本进程中，或在 Flower 的模拟运行时上。",
        ),
    ] = "local"
    listen: Annotated[str, Setting("Address of the coordinator.", "协调方的地址。")] = (
        "127.0.0.1:8443"
    )
    keys: Annotated[
        Path | None,
        Setting(
            "Folder of `federate keys`; none only with --demo.",
            "federate keys 的目录；仅 --demo 时可为 none。",
        ),
    ] = None
    seed: Annotated[int, Setting("Of everything random.", "随机种子。", least=0)] = 0

    def __post_init__(self) -> None:
        found = list(_contradictions(self))
        if found:
            raise UsageError(
                "settings that do not fit together: " + "; ".join(found),
                hint="change one of each pair",
            )


@dataclass(frozen=True, slots=True)
class AskingSettings:
    """What a party lets others ask of its documents; nothing unless it says so."""

    tells: Annotated[
        Literal["nothing", "answer", "source", "sentence"],
        Setting(
            "What leaves: nothing; answers, which are text copied from documents; also the source, "
            "title and page; also the sentences that hold the answer.",
            "允许离开的内容：nothing 什么都不给；answer 只给答案（答案是从文档中抄出的文字）；"
            "source 另给出处、标题和页码；sentence 另给含答案的句子。",
        ),
    ] = "nothing"
    a_day: Annotated[
        int | None,
        Setting(
            "Questions within 24 hours; none is any number.",
            "24 小时内最多回答的问题数；none 为不限。",
            least=1,
        ),
    ] = None
    access: Annotated[
        tuple[str, ...],
        Setting(
            "Labels that askers hold; documents with other labels are not read for them.",
            "提问者持有的标签；带有其他标签的文档不会为其阅读。",
        ),
    ] = ()
    model: Annotated[
        str | None,
        Setting("The model that answers; none is `model`.", "作答的模型；none 为 model。"),
    ] = None
    store: Annotated[
        Path | None,
        Setting(
            "The knowledge base that is asked; none is `store`.", "被提问的知识库；none 为 store。"
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class PartyConfig:
    """A party: what it brings, and what it will not do."""

    name: Annotated[str, Setting("Its name in the federation.", "在联邦中的名称。")]
    state: Annotated[
        Path,
        Setting("Folder of its own: model, ledger, journal.", "自用目录：模型、账本、日志。"),
    ]
    store: Annotated[Path | None, Setting("Its knowledge base.", "其知识库。")] = None
    model: Annotated[
        str | None,
        Setting(
            "The model that the run starts from; none is the shipped one.",
            "起始模型；none 为自带模型。",
        ),
    ] = None
    data: Annotated[
        DataSettings,
        Setting(
            "Its questions; without train it makes its own.", "其问答；没有 train 时自行造题。"
        ),
    ] = DataSettings()  # noqa: RUF009 - frozen
    made: Annotated[
        int,
        Setting(
            "Questions made from its documents where it has none of its own.",
            "没有问答时从文档中造出的问题数。",
            least=1,
        ),
    ] = 500
    coordinator: Annotated[str, Setting("Address of the coordinator.", "协调方的地址。")] = (
        "127.0.0.1:8443"
    )
    keys: Annotated[
        Path | None,
        Setting(
            "Folder with its keys; none only with --demo.", "密钥目录；仅 --demo 时可为 none。"
        ),
    ] = None
    most_epsilon: Annotated[
        float | None,
        Setting(
            "Privacy it is willing to spend in all; none asks for no privacy.",
            "愿意花费的隐私总预算；none 为不要求隐私。",
            least=1e-3,
        ),
    ] = None
    only_secure: Annotated[bool, Setting("Take part only in secure sums.", "只参加安全求和。")] = (
        False
    )
    least_parties: Annotated[
        int,
        Setting(
            "Take part only in rounds of so many parties, itself among them.",
            "只参加至少有这么多参与方（含自身）的轮次。",
            least=1,
        ),
    ] = 1
    asking: Annotated[
        AskingSettings, Setting("What others may ask of it.", "允许他人向它提问的范围。")
    ] = AskingSettings()


def _contradictions(config: FederationConfig) -> Iterator[str]:
    travel, mean, secure, privacy = config.travel, config.mean, config.secure, config.privacy
    if travel.kind == "subset" and not travel.names:
        yield "travel.kind is subset, but travel.names names nothing"
    if travel.kind != "subset" and travel.names:
        yield f"travel.names is given, but travel.kind is {travel.kind}"
    if secure.sums and travel.kind == "stack":
        yield "stacking needs each party's factors in the clear, but secure.sums hides them"
    if secure.sums and mean.kind != "average":
        yield f"mean.kind {mean.kind} compares updates, but secure.sums hides them"
    if secure.sums and mean.longest is not None:
        yield "mean.longest measures each update, but secure.sums hides it; set secure.longest"
    if secure.sums and travel.precision != "float32":
        yield "secure.sums sends whole numbers of 4 bytes, so travel.precision must be float32"
    if secure.sums and config.scaffold:
        yield "scaffold sends a second vector of each party, which secure.sums does not carry"
    if privacy.epsilon is not None and travel.kind in ("stack", "full"):
        yield f"privacy needs few weights that are averaged, but travel.kind is {travel.kind}"
    if privacy.party_noise and not secure.sums:
        yield "privacy.party_noise hides a party in a sum, so it needs secure.sums"
    if mean.optimiser != "none" and mean.rate >= 1:
        yield f"mean.rate {mean.rate:g} is for averaging; {mean.optimiser} takes about 0.01"
    if config.scaffold and travel.kind == "stack":
        yield "scaffold corrects gradients of weights, and stack trains fresh factors every round"
    if config.scaffold and config.proximal:
        yield "scaffold and proximal both correct drift"
    if config.scaffold and privacy.epsilon is not None:
        yield "scaffold keeps gradients of all rounds, which the privacy ledger does not cover"
    quorum, expected = config.quorum, config.expected
    if quorum is not None and expected is not None and quorum > expected:
        yield f"quorum is {quorum}, but only {expected} parties are expected"
