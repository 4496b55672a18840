"""Every sentence that the command line says to people, in English and in Chinese.

A message is an attribute of `Words`, so that a missing translation is a type error and not a
surprise. Placeholders are those of `str.format`. The texts of errors come from the rooms below and
stay English; the labels around them are here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Language = Literal["en", "zh"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """The messages of one language, by what they are for."""

    error: str
    hint: str
    next: str
    question: str
    sources: str
    nearest: str
    not_in_documents: str
    confidence: str
    tokens: str
    alternatives: str
    timings: str
    characters: str
    loading: str
    welcome: str
    prompt: str
    added: str
    failed: str
    files_done: str
    rate: str
    seconds_left: str
    re_embedded: str
    interrupted: str
    workers_lost: str
    go_on: str
    removed: str
    published: str
    no_hits: str
    store: str
    contents: str
    encoder: str
    empty_store: str
    source: str
    title: str
    language: str
    contributor: str
    access: str
    length: str
    pages: str
    passages: str
    ok: str
    problem: str
    all_well: str
    problems: str
    demo_intro: str
    demo_ingest: str
    demo_kept: str
    an_example: str
    trained: str
    evaluated: str
    metric: str
    value: str
    interval: str
    questions_done: str
    steps_done: str
    loss: str
    passages_done: str
    report_written: str
    compared: str
    only_in_one: str
    difference: str
    chance: str
    chance_note: str
    changed: str
    no_change: str
    right_answer: str
    tuning: str
    tuned_on: str
    half_fit: str
    half_check: str
    before: str
    after: str
    curve: str
    numbers: str
    not_held: str
    tuning_kept: str
    tuning_not_kept: str
    serving: str
    how_to_stop: str
    key_made: str
    key_revoked: str
    no_keys: str
    until: str
    round: str
    round_of: str
    sent: str
    lost: str
    parties: str
    federated: str
    without_model: str
    federation_over: str
    federation_runs: str
    party_keys_made: str
    question_leaves: str
    passage_number: str
    parties_heading: str
    parties_answered: str
    fingerprint: str


ENGLISH = Words(
    error="error",
    hint="hint",
    next="next",
    question="Question",
    sources="Sources",
    nearest="Nearest passages",
    not_in_documents="Not in the documents: the passages found do not support an answer.",
    confidence="confidence {confidence:.0%}",
    tokens="Where each token comes from",
    alternatives="Further answers",
    timings="{retrieve:.0f} ms to find, {write:.0f} ms to read and write",
    characters="characters {places}",
    loading="loading the model…",
    welcome="Ask about your documents. :quit or Ctrl-D ends the conversation.",
    prompt="? ",
    added=(
        "added {added} · updated {updated} · unchanged {unchanged} · removed {removed} · "
        "failed {failed} · passages {passages}"
    ),
    failed="{path}: {reason}",
    files_done="{done}/{total} files",
    rate="{rate:.0f} passages/s",
    seconds_left="{time} left",
    re_embedded="re-embedded {embedded} of {passages} passages",
    interrupted="Interrupted. Done so far:",
    workers_lost="processes that embedded died {count} times; their work was done again",
    go_on="The same command goes on from here.",
    removed="removed {sources} · passages {passages}",
    published=(
        "{engine} is at generation {generation}: passages {passages} · added {added} · "
        "removed {removed}"
    ),
    no_hits="No passage has anything of this question.",
    store="Knowledge base {path}",
    contents=(
        "documents {documents} · passages {passages} · characters {characters} · "
        "{megabytes:.1f} MB · generation {generation}"
    ),
    encoder="encoder {fingerprint}",
    empty_store="The knowledge base {path} is empty.",
    source="Source",
    title="Title",
    language="Language",
    contributor="Contributor",
    access="Access",
    length="Characters",
    pages="Pages",
    passages="Passages",
    ok="ok",
    problem="problem",
    all_well="No problem found.",
    problems="Problems found: {count}",
    demo_intro="Three organisations, one knowledge base, questions in two languages.",
    demo_ingest="{contributor}: {added} documents, {passages} passages, {seconds:.1f} s",
    demo_kept="The knowledge base stays in {path}.",
    an_example="What must I bring?",
    evaluated="{n} questions",
    metric="Metric",
    value="Value",
    interval="{level:.0%} interval",
    questions_done="{done}/{total} questions",
    steps_done="{done}/{total} steps",
    loss="loss {loss:.4g}",
    passages_done="{done}/{total} passages",
    report_written="report: {path}",
    compared="{n} questions of both runs",
    only_in_one="Left out: {a} questions that only A has, {b} that only B has.",
    difference="B − A",
    chance="p",
    chance_note="p: how often exchanging the runs at random would give at least this difference.",
    changed="Changed questions: {count} ({better} better, {worse} worse)",
    no_change="No answer got better or worse.",
    right_answer="right: {answers}",
    tuning="measuring…",
    tuned_on="{fit} questions chose, {check} others check, {left_out} say nothing of a passage.",
    half_fit="chose",
    half_check="check",
    before="before",
    after="after",
    curve="Recall and latency on the questions that check",
    numbers="Numbers of the search",
    not_held="On the questions that check, nothing else ranks better: the ranking stays as it was.",
    tuning_kept="Kept with the knowledge base {path}; searches opened from now on use them.",
    tuning_not_kept="Nothing was written.",
    serving="Open {address}",
    how_to_stop="Ctrl-C lets answers finish and stops; a second one stops at once.",
    key_made="The key of {name} ({id}). It is shown this once; keep it in a safe place.",
    key_revoked="The key of {name} ({id}) is revoked.",
    no_keys="There is no key.",
    until="until {time}",
    round="round",
    round_of="round {round}/{of}",
    sent="up {up}, down {down}",
    lost="lost",
    parties="parties",
    federated="{n} rounds; the model is in {path}",
    without_model="{name} did not get the final weights: {why}",
    federation_over="The run is over.",
    federation_runs="The run is under way, or was interrupted.",
    party_keys_made="Send {path}, which is public, to the coordinator; keep the other files.",
    fingerprint="fingerprint of the roster",
    question_leaves="The question goes to every party; each writes down that it was asked.",
    passage_number="passage {number}",
    parties_heading="Parties",
    parties_answered="{answered} of {asked} parties answered · {seconds:.1f} s",
    trained="{steps} steps; the model is in {path}",
)

CHINESE = Words(
    error="错误",
    hint="提示",
    next="接下来",
    question="问题",
    sources="出处",
    nearest="最接近的段落",
    not_in_documents="文档中没有答案：找到的段落不足以支持任何回答。",
    confidence="置信度 {confidence:.0%}",
    tokens="每个词元出自何处",
    alternatives="其他答案",
    timings="检索 {retrieve:.0f} 毫秒，阅读与作答 {write:.0f} 毫秒",
    characters="第 {places} 字符",
    loading="正在加载模型……",
    welcome="请就您的文档提问。输入 :quit 或按 Ctrl-D 结束对话。",
    prompt="？ ",
    added=(
        "新增 {added} · 更新 {updated} · 未变 {unchanged} · 移除 {removed} · "
        "失败 {failed} · 段落 {passages}"
    ),
    failed="{path}: {reason}",
    files_done="{done}/{total} 个文件",
    rate="每秒 {rate:.0f} 段",
    seconds_left="还需 {time}",
    re_embedded="已重新编码 {embedded} 段，共 {passages} 段",
    interrupted="已中断。目前完成：",
    workers_lost="计算向量的进程中断了 {count} 次，其工作已重做",
    go_on="再次运行同一条命令即可从这里继续。",
    removed="移除 {sources} · 段落 {passages}",
    published="{engine} 已到版次 {generation}：段落 {passages} · 新增 {added} · 移除 {removed}",
    no_hits="没有与这个问题相关的段落。",
    store="知识库 {path}",
    contents=(
        "文档 {documents} · 段落 {passages} · 字符 {characters} · "
        "{megabytes:.1f} MB · 版次 {generation}"
    ),
    encoder="编码器 {fingerprint}",
    empty_store="知识库 {path} 是空的。",
    source="来源",
    title="标题",
    language="语言",
    contributor="提供者",
    access="访问标签",
    length="字符",
    pages="页",
    passages="段落",
    ok="正常",
    problem="问题",
    all_well="没有发现问题。",
    problems="发现问题：{count} 个",
    demo_intro="三家机构，一个知识库，两种语言的提问。",
    demo_ingest="{contributor}：{added} 份文档，{passages} 个段落，{seconds:.1f} 秒",
    demo_kept="知识库保存在 {path}。",
    an_example="需要带什么材料？",
    evaluated="{n} 题",
    metric="指标",
    value="数值",
    interval="{level:.0%} 区间",
    questions_done="{done}/{total} 题",
    steps_done="{done}/{total} 步",
    loss="损失 {loss:.4g}",
    passages_done="{done}/{total} 段",
    report_written="报告：{path}",
    compared="两次评测共有 {n} 题",
    only_in_one="未计入：只在 A 中的 {a} 题，只在 B 中的 {b} 题。",
    difference="B 减 A",
    chance="p 值",
    chance_note="p 值：随机互换两次评测的答案时，差距至少这么大的概率。",
    changed="有变化的题：{count} 题，其中变好 {better} 题，变差 {worse} 题",
    no_change="没有哪个回答变好或变差。",
    right_answer="正确答案：{answers}",
    tuning="正在测量……",
    tuned_on="用 {fit} 题选参数，另用 {check} 题检验，{left_out} 题没有段落信息。",
    half_fit="选择",
    half_check="检验",
    before="之前",
    after="之后",
    curve="检验题上的召回率与耗时",
    numbers="检索参数",
    not_held="在检验题上没有更好的排序，排序参数保持不变。",
    tuning_kept="已写入知识库 {path}，此后打开的检索都会使用。",
    tuning_not_kept="未写入任何内容。",
    serving="请打开 {address}",
    how_to_stop="按 Ctrl-C 会等回答写完再停止；再按一次立即停止。",
    key_made="{name} 的密钥（{id}）。只显示这一次，请妥善保存。",
    key_revoked="{name} 的密钥（{id}）已作废。",
    no_keys="还没有密钥。",
    until="{time} 止",
    round="轮",
    round_of="第 {round}/{of} 轮",
    sent="上行 {up}，下行 {down}",
    lost="掉队",
    parties="参与方",
    federated="共 {n} 轮；模型在 {path}",
    without_model="{name} 没有收到最终权重：{why}",
    federation_over="训练已结束。",
    federation_runs="训练正在进行，或被中断。",
    party_keys_made="把 {path} 发给协调方，它是公开的；其他文件请自己保管。",
    fingerprint="名册指纹",
    question_leaves="问题会发给每个参与方，各方都会记下自己被问过。",
    passage_number="第 {number} 段",
    parties_heading="参与方",
    parties_answered="{asked} 个参与方中有 {answered} 个作答 · {seconds:.1f} 秒",
    trained="已训练 {steps} 步；模型在 {path}",
)

WORDS: Mapping[Language, Words] = MappingProxyType({"en": ENGLISH, "zh": CHINESE})
"""The closed table of languages."""


def language_of_locale(environment: Mapping[str, str]) -> Language:
    """The language that a POSIX environment asks for: LC_ALL, else LC_MESSAGES, else LANG."""
    names = (environment.get(key) for key in ("LC_ALL", "LC_MESSAGES", "LANG"))
    locale = next((name for name in names if name), "")
    return "zh" if locale.lower().startswith("zh") else "en"
