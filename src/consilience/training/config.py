"""The settings of a training run: what is trained, on what, towards which objectives, and how.

Read from YAML by `settings.read_settings`; flags and help of `consilience train` come from here.
Whether two settings fit together is checked when they are made, all at once; whether files and
models are there is checked by those who open them.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from consilience.errors import UsageError
from consilience.training.contradictions import contradictions
from consilience.training.names import JOINT, PLAIN, ObjectiveName, Part
from consilience.training.settings import Setting


@dataclass(frozen=True, slots=True)
class DataSettings:
    """Questions and answers."""

    train: Annotated[
        tuple[Path, ...],
        Setting("Question files to train on.", "用来训练的问答文件。"),
    ] = ()
    dev: Annotated[
        tuple[Path, ...],
        Setting("Question files to measure on while training.", "训练中用来评估的问答文件。"),
    ] = ()
    temperature: Annotated[
        float,
        Setting(
            "Files are drawn in proportion to size to the power of 1 / temperature.",
            "各文件按其大小的 1/temperature 次方抽取。",
            least=1,
        ),
    ] = 1.0
    limit: Annotated[
        int | None,
        Setting("At most so many training questions.", "最多用这么多训练问题。", least=1),
    ] = None
    negatives: Annotated[
        int,
        Setting("Hard negatives for each question.", "每个问题的难负例数。", least=0, most=64),
    ] = 1


@dataclass(frozen=True, slots=True)
class TextSettings:
    """Plain text, which asks about itself."""

    train: Annotated[
        tuple[Path, ...],
        Setting(
            "Plain text to learn from: stores, folders, documents, JSONL of documents.",
            "用来学习的纯文本：知识库、文件夹、文档或文档 JSONL。",
        ),
    ] = ()
    dev: Annotated[
        tuple[Path, ...],
        Setting("Plain text to measure on, in the same forms.", "用来评估的纯文本，形式同上。"),
    ] = ()
    hold_out: Annotated[
        float,
        Setting(
            "Share of the documents that is measured on and not learned from.",
            "留作评估、不参与学习的文档比例。",
            least=0,
            most=0.9,
        ),
    ] = 0.0
    limit: Annotated[
        int | None,
        Setting("At most so many passages of each.", "每处最多用这么多段落。", least=1),
    ] = None
    share: Annotated[
        float,
        Setting(
            "Share of the tokens that mlm masks and span_corruption takes out.",
            "mlm 遮盖、span_corruption 去掉的词元比例。",
            least=0.01,
            most=0.9,
        ),
    ] = 0.15
    span: Annotated[
        float,
        Setting(
            "Mean length of what span_corruption takes out, in tokens.",
            "span_corruption 每次去掉的平均词元数。",
            least=1,
            most=50,
        ),
    ] = 3.0
    heads: Annotated[
        Literal["keep", "drop"],
        Setting(
            "Keep the heads of mlm and nsp in the run's folder, or drop them.",
            "mlm 与 nsp 的输出头保留在训练目录中，或丢弃。",
        ),
    ] = "keep"

    @property
    def measured(self) -> bool:
        """Whether some of it is held out."""
        return bool(self.dev) or self.hold_out > 0


@dataclass(frozen=True, slots=True)
class RankingSettings:
    """Who says how well passages fit a question, for margin_mse and kl."""

    teacher: Annotated[
        str | None,
        Setting(
            "cross-encoder:MODEL, multi-vector:MODEL, maxsim, prior, or generator for its own "
            "scores.",
            "cross-encoder:模型、multi-vector:模型、maxsim、prior，"
            "或 generator（生成器自己的得分）。",
        ),
    ] = None
    temperature: Annotated[
        float,
        Setting(
            "Above 1 the lower ranks of kl count more.",
            "大于 1 时 kl 中靠后的名次更受重视。",
            least=0.01,
            most=100,
        ),
    ] = 1.0


@dataclass(frozen=True, slots=True)
class AdapterSettings:
    """What is trained in place of all weights."""

    kind: Annotated[
        Literal["none", "lora"],
        Setting("Train all weights, or low-rank adapters.", "训练全部权重，或低秩适配器。"),
    ] = "none"
    rank: Annotated[int, Setting("Rank of the adapters.", "适配器的秩。", least=1, most=1024)] = 8
    alpha: Annotated[int, Setting("Scale of the adapters.", "适配器的缩放系数。", least=1)] = 16
    targets: Annotated[
        tuple[str, ...],
        Setting("Ends of the names of the layers that get one.", "加适配器的层名（后缀）。"),
    ] = ("query", "value", "q_proj", "v_proj", "q", "v", "c_attn")


@dataclass(frozen=True, slots=True)
class RefreshSettings:
    """What happens to the passages' vectors while the passage encoder moves."""

    mode: Annotated[
        Literal["never", "synchronous", "background", "proposed"],
        Setting(
            "Never, all of them between steps, all in another process, or those just proposed.",
            "从不、在两步之间全部更新、在另一进程中全部更新，或只更新刚被检索到的段落。",
        ),
    ] = "never"
    every: Annotated[
        int, Setting("Steps between two refreshes.", "两次更新之间的步数。", least=1)
    ] = 500
    over: Annotated[
        int,
        Setting(
            "With `proposed`: passages proposed for each that is kept.",
            "proposed 模式下每保留一个段落先检索的段落数。",
            least=1,
            most=20,
        ),
    ] = 3


@dataclass(frozen=True, slots=True)
class DistilSettings:
    """A large model that teaches, and how small the model is that learns from it."""

    teacher: Annotated[
        str | None,
        Setting(
            "The model that teaches; `shipped` is the one that ships, none is no teacher.",
            "教师模型；shipped 为自带模型，none 为没有教师。",
        ),
    ] = None
    encoder_layers: Annotated[
        int | None,
        Setting(
            "Layers of each of the student's encoders; none is as many as the teacher has.",
            "学生每个编码器的层数；none 与教师相同。",
            least=1,
        ),
    ] = None
    decoder_layers: Annotated[
        int | None,
        Setting(
            "Layers of the student's decoder; none is as many as the teacher has.",
            "学生解码器的层数；none 与教师相同。",
            least=1,
        ),
    ] = None
    hidden_size: Annotated[
        int | None,
        Setting(
            "Width of the student; none is the teacher's.", "学生的宽度；none 与教师相同。", least=1
        ),
    ] = None
    answers: Annotated[
        Literal["data", "teacher"],
        Setting(
            "Learn the answers of the data, or those that the teacher gives.",
            "学习数据中的答案，或教师给出的答案。",
        ),
    ] = "data"
    temperature: Annotated[
        float,
        Setting(
            "Above 1 the teacher's second choices count more.",
            "大于 1 时教师的次选更受重视。",
            least=0.01,
            most=100,
        ),
    ] = 2.0

    @property
    def cuts(self) -> bool:
        """Whether the student is cut out of the teacher."""
        return any((self.encoder_layers, self.decoder_layers, self.hidden_size))


@dataclass(frozen=True, slots=True)
class VocabularySettings:
    """Words that the model learns to read and write whole."""

    tokens: Annotated[
        int, Setting("New words at most; 0 for none.", "最多新增的词数；0 为不新增。", least=0)
    ] = 0
    texts: Annotated[
        tuple[Path, ...],
        Setting(
            "Text files that they come from; without any, the store and the training questions.",
            "新词来自的文本文件；不写则来自知识库和训练问题。",
        ),
    ] = ()


@dataclass(frozen=True, slots=True)
class CollapseSettings:
    """When retrieval is taken to have collapsed."""

    action: Annotated[
        Literal["ignore", "warn", "stop"],
        Setting("What to do about it.", "检索塌缩时的处理方式。"),
    ] = "warn"
    distinct: Annotated[
        float,
        Setting(
            "Smallest share of distinct passages among those a window of batches retrieved.",
            "一段时间内检索到的段落中不同段落的最小比例。",
            least=0,
            most=1,
        ),
    ] = 0.05


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """A training run."""

    output: Annotated[Path, Setting("Where the run is written.", "训练结果写到哪里。")]
    data: Annotated[DataSettings, Setting("Questions and answers.", "问答数据。")] = DataSettings()
    text: Annotated[TextSettings, Setting("Plain text.", "纯文本。")] = TextSettings()
    model: Annotated[
        str | None,
        Setting(
            "The model to start from; none is the one that ships.", "起始模型；none 为自带模型。"
        ),
    ] = None
    store: Annotated[
        Path | None,
        Setting("The knowledge base that passages come from.", "段落所在的知识库。"),
    ] = None
    objectives: Annotated[
        dict[ObjectiveName, float],
        Setting("Objectives and their weights.", "训练目标及其权重。", least=0),
    ] = field(default_factory=lambda: {"sequence": 1.0})
    train: Annotated[
        tuple[Part, ...],
        Setting("The parts whose weights move.", "哪些部分的权重会变化。"),
    ] = ("question_encoder", "generator", "temperature")
    frozen: Annotated[
        tuple[str, ...],
        Setting("Beginnings of names of weights that stay.", "不变权重的名称（前缀）。"),
    ] = ()
    adapter: Annotated[AdapterSettings, Setting("Adapters.", "适配器。")] = AdapterSettings()
    refresh: Annotated[RefreshSettings, Setting("Index refresh.", "索引更新。")] = RefreshSettings()
    vocabulary: Annotated[VocabularySettings, Setting("Vocabulary.", "词表。")] = (
        VocabularySettings()
    )
    distil: Annotated[DistilSettings, Setting("Distillation.", "蒸馏。")] = DistilSettings()
    ranking: Annotated[RankingSettings, Setting("Ranking.", "排序。")] = RankingSettings()
    collapse: Annotated[CollapseSettings, Setting("Collapse.", "检索塌缩。")] = CollapseSettings()
    k: Annotated[int, Setting("Passages summed over.", "求和的段落数。", least=1, most=1000)] = 5
    mode: Annotated[
        Literal["dense", "bm25", "hybrid"],
        Setting("How passages are found.", "如何检索段落。"),
    ] = "dense"
    add_positive: Annotated[
        bool,
        Setting(
            "Sum over the passage known to hold the answer too, where it was not found.",
            "已知含答案的段落未被检索到时，也计入求和。",
        ),
    ] = False
    steps: Annotated[int, Setting("Optimiser steps.", "优化步数。", least=1)] = 1000
    batch: Annotated[int, Setting("Questions in a batch.", "每批问题数。", least=1)] = 8
    accumulate: Annotated[
        int, Setting("Batches added up for a step.", "每步累积的批数。", least=1)
    ] = 1
    chunk: Annotated[
        int | None,
        Setting(
            "Texts encoded at once while the batch is contrasted whole (GradCache).",
            "整批对比时一次编码的文本数（GradCache）。",
            least=1,
        ),
    ] = None
    learning_rate: Annotated[
        float, Setting("Largest learning rate.", "最大学习率。", least=0, most=10)
    ] = 2e-5
    encoder_rate: Annotated[
        float | None,
        Setting(
            "That of the encoders; none is the same.",
            "编码器的学习率；none 为相同。",
            least=0,
            most=10,
        ),
    ] = None
    prior_rate: Annotated[
        float,
        Setting(
            "That of ranks and hybrid_weights, and of the temperature beside hybrid_weights.",
            "ranks 与 hybrid_weights 的学习率；与 hybrid_weights 同在 train 中时也用于温度。",
            least=0,
            most=10,
        ),
    ] = 0.01
    schedule: Annotated[
        Literal["linear", "cosine", "constant"],
        Setting("How the learning rate falls.", "学习率如何下降。"),
    ] = "linear"
    warmup: Annotated[
        int, Setting("Steps until the learning rate is reached.", "预热步数。", least=0)
    ] = 100
    decay: Annotated[float, Setting("Weight decay.", "权重衰减。", least=0, most=1)] = 0.01
    clip: Annotated[
        float, Setting("Longest gradient; 0 clips nothing.", "梯度最大长度；0 为不裁剪。", least=0)
    ] = 1.0
    smoothing: Annotated[float, Setting("Label smoothing.", "标签平滑。", least=0, most=0.9)] = 0.0
    dropout: Annotated[
        float | None,
        Setting(
            "Dropout; none is the model's own.", "丢弃率；none 为模型自己的。", least=0, most=0.9
        ),
    ] = None
    precision: Annotated[
        Literal["float32", "bfloat16", "float16"],
        Setting("Precision of the matrix products.", "矩阵乘法的精度。"),
    ] = "float32"
    checkpointing: Annotated[
        bool,
        Setting("Compute activations twice instead of keeping them.", "重新计算激活值而不保存。"),
    ] = False
    fsdp: Annotated[
        bool,
        Setting(
            "Share weights and optimiser out among the processes that train (FSDP).",
            "把权重和优化器状态分摊到各训练进程（FSDP）。",
        ),
    ] = False
    temperature: Annotated[
        float, Setting("Of the contrastive scores.", "对比得分的温度。", least=1e-4, most=100)
    ] = 0.05
    seed: Annotated[int, Setting("Of everything random.", "随机种子。", least=0)] = 0
    log_every: Annotated[
        int, Setting("Steps between two log lines.", "日志间隔步数。", least=1)
    ] = 10
    save_every: Annotated[
        int, Setting("Steps between two checkpoints.", "检查点间隔步数。", least=1)
    ] = 500
    keep: Annotated[int, Setting("Checkpoints that are kept.", "保留的检查点数。", least=1)] = 2
    evaluate_every: Annotated[
        int | None,
        Setting(
            "Steps between two measurements; none is at the end.",
            "评估间隔步数；none 为结束时。",
            least=1,
        ),
    ] = None
    evaluate_limit: Annotated[
        int, Setting("Questions in a measurement.", "每次评估的问题数。", least=1)
    ] = 500
    metric: Annotated[
        Literal["loss", "f1", "exact_match", "recall@5"],
        Setting("What early stopping and the best model go by.", "早停与最佳模型所依据的指标。"),
    ] = "loss"
    patience: Annotated[
        int | None,
        Setting(
            "Measurements without progress before it stops.", "多少次评估无进步后停止。", least=1
        ),
    ] = None
    report_to: Annotated[
        tuple[Literal["tensorboard", "wandb", "mlflow"], ...],
        Setting("Logs beside the JSONL one.", "除 JSONL 外的日志。"),
    ] = ("tensorboard",)

    def __post_init__(self) -> None:
        found = list(contradictions(self))
        if found:
            raise UsageError(
                "settings that do not fit together: " + "; ".join(found),
                hint="change one of each pair",
            )

    @property
    def joint(self) -> bool:
        """Whether an objective sums over retrieved passages."""
        return any(name in JOINT for name in self.objectives)

    def active(self, among: frozenset[str]) -> list[str]:
        """The objectives among some whose weight is above zero."""
        return sorted(name for name, weight in self.objectives.items() if weight and name in among)

    @property
    def asking(self) -> bool:
        """Whether an objective learns from questions."""
        return any(weight and name not in PLAIN for name, weight in self.objectives.items())
