"""Text as it comes: both languages, and characters that are more than one code point."""

from hypothesis import strategies as st

FRAGMENTS = [
    "It cost 3.5 million. ",
    "Dr. Smith agreed; nobody else did! ",
    "“Really?” she asked. ",
    "合同自签署之日起生效。",
    "他说：“可以。”然后离开了……",
    "申請人應於三十日內提出，逾期不予受理！",
    "iPhone 15的价格是¥5,999；",
    "# Heading\n",
    "## 第二节 标题\n\n",
    "Name: Ada; Age: 36; City: 伦敦\n",
    "| a | b |\n",
    "\n\n",
    "\r\n",
    "\u3000",
    "\x0c",
    "👩‍👩‍👧‍👦",
    "👍🏽🇨🇳🇬🇧",
    "e\u0301a\u0308\u0323",
    "क्षत्रिय है। ",
    "שָׁלוֹם עולם. ",
    "مرحبا بالعالم؟ ",
    "한국어 문장입니다. ",
    "カタカナとひらがな。",
    "supercalifragilistic",
    "a" * 300,
    "字" * 300,
    "x, y, " * 60,
]

texts = st.one_of(
    st.text(max_size=200),
    st.lists(st.sampled_from(FRAGMENTS), max_size=25).map("".join),
    st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=8)), max_size=25).map("".join),
)
