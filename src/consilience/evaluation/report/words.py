"""Every sentence of the report, in English and in Chinese.

A sentence is an attribute, so that a missing translation is a type error. Names of metrics are the
same in both, as scripts know them; what each means is said beside it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Language = Literal["en", "zh"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """The sentences of one language."""

    title: str
    summary: str
    metrics: str
    metric: str
    value: str
    interval: str
    interval_note: str
    meaning: str
    questions: str
    lower: str
    retrieval: str
    retrieval_note: str
    passages: str
    recall: str
    risk: str
    risk_note: str
    coverage: str
    wrong: str
    calibration: str
    calibration_note: str
    confidence: str
    right: str
    lengths: str
    lengths_note: str
    length: str
    answered: str
    expected: str
    timings: str
    milliseconds: str
    browser: str
    browser_note: str
    search: str
    only_wrong: str
    withheld: str
    no_answer: str
    answer: str
    gold: str
    read: str
    share: str
    cited: str
    holds: str
    place: str
    nothing: str
    setup: str
    means: Mapping[str, str]


ENGLISH = Words(
    title="Evaluation",
    summary="{n} questions · {answered} answered · {right} exactly right",
    metrics="Metrics",
    metric="Metric",
    value="Value",
    interval="{level:.0%} interval",
    interval_note="Intervals are percentiles of figures over questions drawn anew (bootstrap).",
    meaning="Meaning",
    questions="Questions",
    lower="lower is better",
    retrieval="Retrieval",
    retrieval_note="The share of what is to be found among the first k passages.",
    passages="passages k",
    recall="recall",
    risk="Risk and coverage",
    risk_note="If only the most confident answers were given: how many are, and how many of those "
    "are wrong. The area below the curve is aurc.",
    coverage="share answered",
    wrong="share wrong",
    calibration="Calibration",
    calibration_note="Answers by confidence, each point equally many. On the diagonal a confidence "
    "is what it says.",
    confidence="confidence",
    right="share right",
    lengths="Lengths",
    lengths_note="Characters of the answers given and of the shortest right answers.",
    length="characters",
    answered="given",
    expected="right",
    timings="Median time",
    milliseconds="milliseconds",
    browser="Questions",
    browser_note="{shown} of {n} questions, the worst answers first.",
    search="search",
    only_wrong="only what is not exactly right",
    withheld="(no answer was given)",
    no_answer="(there is no answer)",
    answer="Answer",
    gold="Right",
    read="Passages that were read",
    share="Share",
    cited="cited",
    holds="gold",
    place="Source",
    nothing="No passage was read.",
    setup="What was run",
    means=MappingProxyType(
        {
            "exact_match": "answers that equal a right one",
            "f1": "words that answer and right answer share",
            "accuracy": "answers that are the right label",
            "rouge_1": "single tokens in common",
            "rouge_2": "pairs of tokens in common",
            "rouge_l": "longest common subsequence",
            "bleu": "n-grams in common, over all answers",
            "macro_f1": "F1 of the labels, each counting the same",
            "recall@1": "gold found at the first place",
            "recall@5": "gold found at five places",
            "recall@20": "gold found at twenty places",
            "mrr@10": "1 / place of the first gold passage",
            "ndcg@10": "gold found, early places counting more",
            "answer_in_passages": "questions for which gold was read",
            "citation_precision": "citations that are gold",
            "citation_recall": "gold that is cited",
            "attribution_precision": "citations that the answer needs",
            "attribution_recall": "sentences of the answer that its citations support",
            "answered": "questions that got an answer",
            "abstention_accuracy": "answered where there is an answer, and only there",
            "calibration_error": "distance of confidence from the share right",
            "brier": "squared distance of confidence from right or wrong",
            "auroc": "chance that a right answer is more confident than a wrong one",
            "aurc": "mean share wrong over all coverages",
        }
    ),
)

CHINESE = Words(
    title="评测",
    summary="共 {n} 题 · 作答 {answered} 题 · 完全正确 {right} 题",
    metrics="指标",
    metric="指标",
    value="数值",
    interval="{level:.0%} 区间",
    interval_note="区间是对问题重新抽样（自助法）所得数值的分位数。",
    meaning="含义",
    questions="题数",
    lower="越低越好",
    retrieval="检索",
    retrieval_note="前 k 个段落中找到了应找内容的多少。",
    passages="段落数 k",
    recall="召回率",
    risk="风险与覆盖率",
    risk_note="如果只给出置信度最高的答案：给出多少，其中又错多少。曲线下的面积就是 aurc。",
    coverage="作答比例",
    wrong="错误比例",
    calibration="校准",
    calibration_note="答案按置信度分组，每点的答案数相同。落在对角线上，说明置信度名副其实。",
    confidence="置信度",
    right="正确比例",
    lengths="长度",
    lengths_note="给出的答案与最短的正确答案各有多少字符。",
    length="字符数",
    answered="给出的",
    expected="正确的",
    timings="耗时中位数",
    milliseconds="毫秒",
    browser="逐题查看",
    browser_note="显示 {n} 题中的 {shown} 题，答得最差的在前。",
    search="查找",
    only_wrong="只看不完全正确的",
    withheld="（没有作答）",
    no_answer="（没有答案）",
    answer="回答",
    gold="正确答案",
    read="读过的段落",
    share="占比",
    cited="已引用",
    holds="含答案",
    place="来源",
    nothing="没有读到段落。",
    setup="评测设置",
    means=MappingProxyType(
        {
            "exact_match": "与某个正确答案完全相同的回答",
            "f1": "回答与正确答案共有的词",
            "accuracy": "标签正确的回答",
            "rouge_1": "共有的单个词元",
            "rouge_2": "共有的相邻词元对",
            "rouge_l": "最长公共子序列",
            "bleu": "全部回答中共有的 n 元组",
            "macro_f1": "各标签 F1 的平均，每个标签权重相同",
            "recall@1": "第一位找到的应找内容",
            "recall@5": "前五位找到的应找内容",
            "recall@20": "前二十位找到的应找内容",
            "mrr@10": "第一个应找段落的位次的倒数",
            "ndcg@10": "找到的应找内容，位置越前权重越大",
            "answer_in_passages": "读到了应找内容的问题",
            "citation_precision": "引用中正确的部分",
            "citation_recall": "应引内容中引用了的部分",
            "attribution_precision": "回答确实需要的引用",
            "attribution_recall": "引用足以支持的回答语句",
            "answered": "得到回答的问题",
            "abstention_accuracy": "有答案才作答，没有就不答",
            "calibration_error": "置信度与正确比例的差距",
            "brier": "置信度与对错之差的平方",
            "auroc": "正确回答比错误回答更有把握的概率",
            "aurc": "各覆盖率下错误比例的平均",
        }
    ),
)

WORDS: Mapping[Language, Words] = MappingProxyType({"en": ENGLISH, "zh": CHINESE})
"""The closed table of languages."""
