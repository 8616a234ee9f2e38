"""Strings that tokenizers disagree about, from a seed: the same in every Python."""

import random

WORDS = (
    "the item describes a gloomy tale of two brave sailors who don't know what they'll find "
    "Recommend MOVIES I'VE seen item_1042 user_7 naïve café coöperate Straße İstanbul résumé "
    "https://example.org/a?b=c def main(self): return x+1 C++ e.g. U.S.A. 3.14 50% rock'n'roll"
).split()
SCRIPTS = (
    "Привет мир ёлка Ελληνικά ΣΊΣΥΦΟΣ مرحبا بالعالم שלום नमस्ते दुनिया สวัสดีชาวโลก 你好世界 電影 "
    "こんにちは カタカナ 한국어 영화 ქართული አማርኛ ﬁne ﬂow ｆｕｌｌ Å ǅ ſ ½ ² ① Ⅷ ㌔ "
    "e\u0301 a\u030a n\u0303 각 \u1112\u1161\u11ab ₹ € 𝔘𝔫𝔦 𐍈 Þórr"
).split()
EMOJI = "😀 🏳️‍🌈 👩‍👩‍👧 👍🏽 🇩🇪 ❤️ 🫠 ☕ 1️⃣".split(" ")
SPACES = [
    " ",
    "  ",
    "   ",
    "\t",
    "\n",
    "\n\n",
    "\r\n",
    " \n ",
    "\u00a0",
    "\u2009",
    "\u3000",
    "       ",
]
CONTROLS = [
    "\x07",
    "\x1b",
    "\x7f",
    "\x85",
    "\u00ad",
    "\u200b",
    "\u200d",
    "\u202e",
    "\ufeff",
    "\ufffd",
]
DIGITS = ["7", "42", "1042", "2024", "1234567", "0.001", "１２３", "٣٤٥", "१२"]
SIGNS = [
    ".",
    ",",
    "!?",
    "...",
    "…",
    "—",
    "'",
    '"',
    "(",
    ")]",
    "«»",
    "::",
    "__",
    "#$%",
    "、",
    "。",
    "¿",
    "~",
    "//",
]
KINDS = (WORDS, WORDS, WORDS, SCRIPTS, SCRIPTS, EMOJI, SPACES, CONTROLS, DIGITS, SIGNS)


def odd_strings(count: int = 1000, seed: int = 0) -> list[str]:
    """Strings of up to 12 parts; half of them set their parts apart by single spaces."""
    draw = random.Random(seed)
    strings = []
    for number in range(count):
        parts = []
        for _ in range(draw.randrange(13)):
            kind = KINDS[draw.randrange(len(KINDS))]
            part = kind[draw.randrange(len(kind))]
            parts.append(part.upper() if draw.randrange(12) == 0 else part)
        strings.append((" " if number % 2 else "").join(parts))
    return strings
