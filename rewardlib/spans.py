"""What a final answer looks like as a piece of text: where its boxes are, its bare content, and one canonical spelling.

Finding an answer and comparing it must agree on which wrappers carry no meaning, so both take it from here.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

# Longer spans are prose, not answers; the bound also keeps every step below fast on hostile input.
MAX_SPAN = 300
HEDGE = re.compile(
    r"(?i)\b(?:or|nor|no|not|cannot|never|neither|either|both|maybe|perhaps|possibly|probably|might|could|unless|except|unsure"
    r"|false|wrong|incorrect)\b|n't\b"
)

_BRACE = re.compile(r"\\[{}]|\\boxed\s*\{|[{}]")  # escaped braces come first so that they never open or close a group

# A dollar that is money, as opposed to one that delimits mathematics.
DOLLAR = "\uff04"

# One spelling for what LaTeX, Unicode and Markdown write in several ways.
_FRACTIONS = {
    "½": (1, 2), "⅓": (1, 3), "⅔": (2, 3), "¼": (1, 4), "¾": (3, 4), "⅕": (1, 5), "⅖": (2, 5), "⅗": (3, 5), "⅘": (4, 5), "⅙": (1, 6),
    "⅚": (5, 6), "⅐": (1, 7), "⅛": (1, 8), "⅜": (3, 8), "⅝": (5, 8), "⅞": (7, 8), "⅑": (1, 9), "⅒": (1, 10),
}  # fmt: skip
_UNICODE = str.maketrans(
    {
        **dict.fromkeys("−–‐‑－", "-"),
        **dict.fromkeys("\u00a0\u2007\u2009\u202f", " "),
        **dict.fromkeys("：∶", ":"),
        **{sign: rf"\frac{{{above}}}{{{below}}}" for sign, (above, below) in _FRACTIONS.items()},
        "—": " - ", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": "/", "⁄": "/", "π": r"\pi ", "’": "'", ";": ",",
    }
)  # fmt: skip
# Letters and signs as Chinese and Japanese typing has them, as wide as a word sign; and quotes that know where they stand.
_WIDE = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {ord(a): b for a, b in zip("“”‘’。、", "\"\"''.,", strict=True)}
_EXCLAIMED = re.compile(r"(?<=[A-Za-z])!+$")  # not a factorial
_SUPERSCRIPT = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+")
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_ROOT = re.compile(r"√\s*(?:(\d+|[A-Za-z])|\(([^()]*)\))")
# Groups of three digits as LaTeX and typesetters write them: 1{,}000, 1\,000, 1,\!000.
_GROUPED = re.compile(r"(?<![\d.,])\d{1,3}(?:(?:(?:\{,\}|,)\\!|\{,\}|\\[,;:! ]|~|[\u00a0\u2007\u2009\u202f])\d{3})+(?!\d)")
# Most answers are words and numbers that have one spelling only.
_PLAIN = re.compile(r"(?!.*(?:degree|per\s?cent))[^\\$^~;{}]*", re.DOTALL)
_MATH_DELIMITERS = re.compile(r"\$(?=\S)([^$]*)(?<=\S)\$(?!\d)")
_NOT_MONEY = re.compile(rf"(?<!\d)(?<!\d\s){DOLLAR}(?!\s?\.?\d)")
_DELIMITED = re.compile(r"\$+([^$]+)\$+|\\\((.*)\\\)|\\\[(.*)\\\]", re.DOTALL)
_TEXT_COMMAND = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mathsf|mbox)\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_COMMAND_BEFORE_TEXT = re.compile(r"\\[A-Za-z]+(?=\\(?:text|math)[a-z]*\s*\{)")
_LATEX_SPACE = re.compile(r"\\\\|~|\\q?quad(?![A-Za-z])|\\[ ,:!]|\\(?:left|right|displaystyle)(?![A-Za-z])|\\[()\[\]]|\\?\$")
_DEGREE = re.compile(r"\s*(?:\^\s*\\circ(?![A-Za-z])|\^\s*\{\s*\\circ\s*\}|\\degree|\{?\bdegrees?\b\}?)")
_PERCENT = re.compile(r"\\%|\bper\s?cent\b")
_SHORT_EXPONENT = re.compile(r"\^\s*\{(\w)\}")
_BOLD_END = re.compile(r"(?<=[A-Za-z).:])\*\*(?=[\s:.,)]|$)")  # spares the power in 9**9
_LEAD = re.compile(
    r"(?i)(?:(?:so|thus|hence|therefore)\b,?\s+)?(?:the\s+|my\s+)?(?:final\s+|correct\s+|right\s+)?(?:answer|option|choice)"
    r"(?:\s+is\b\s*:?|\s*:|(?=\s+\(?[a-z]\b))\s*"
)


def find_boxes(text: str) -> list[tuple[int, int, int]]:
    """(command start, content start, content end) of every outermost closed \\boxed{}, in one pass over the braces."""
    opened: list[tuple[int, int] | None] = []
    found: list[tuple[int, int, int]] = []
    for brace in _BRACE.finditer(text):
        token = brace[0]
        if token == "{":
            opened.append(None)
        elif token.startswith(r"\boxed"):
            opened.append((brace.start(), brace.end()))
        elif token == "}" and opened and (box := opened.pop()):
            while found and found[-1][0] > box[0]:
                found.pop()
            found.append((*box, brace.start()))
    return found


def bare(span: str) -> str | None:
    """The span without wrappers that carry no meaning ($, **, quotes, \\text{}, \\boxed{}); None if nothing is left."""
    previous = None
    while span != previous and len(span) <= MAX_SPAN:
        previous = span
        span = span.strip(" *`\"'\t\r\n").rstrip(".").rstrip()
        boxes = find_boxes(span) if span.startswith(r"\boxed") else []
        if boxes and (boxes[0][0], boxes[0][2]) == (0, len(span) - 1):
            span = span[boxes[0][1] : -1]
        elif wrapped := _DELIMITED.fullmatch(span) or _TEXT_COMMAND.fullmatch(span):
            span = next(group for group in wrapped.groups() if group is not None)
    return span.strip() or None


@lru_cache(maxsize=8192)
def clean(span: str) -> str:
    """Canonical plain form: no wrappers, LaTeX spacing or lead-in; one spelling of degrees, percent and fractions."""
    if not span.isascii():
        span = unicodedata.normalize("NFC", span).translate(_WIDE)
    span = bare(span) or ""
    if not span.isascii() or not _PLAIN.fullmatch(span):
        span = _respelled(span)
    span = _EXCLAIMED.sub("", _BOLD_END.sub("", span.strip(" *`\"'\t\r\n")).rstrip(" .,:"))
    lead = _LEAD.match(span)
    return " ".join(span[lead.end() if lead else 0 :].split())


def _respelled(span: str) -> str:
    """The span in the one spelling of what Unicode and LaTeX write in several ways."""
    span = _GROUPED.sub(lambda number: re.sub(r"\D", "", number[0]), span)
    span = _SUPERSCRIPT.sub(lambda power: f"^{{{power[0].translate(_RAISED)}}}", span).translate(_UNICODE)
    span = _ROOT.sub(r"\\sqrt{\1\2}", span).replace(r"\colon", ":")
    span = _COMMAND_BEFORE_TEXT.sub(r"\g<0> ", span)
    previous = None
    while span != previous:
        previous, span = span, _TEXT_COMMAND.sub(r"\1", span)
    span = _PERCENT.sub("%", _LATEX_SPACE.sub(" ", _DEGREE.sub("°", _money(span))))
    return _SHORT_EXPONENT.sub(r"^\1", span).replace(r"\dfrac", r"\frac").replace(r"\tfrac", r"\frac")


def _money(span: str) -> str:
    """The span with DOLLAR for every dollar that is money; those of LaTeX go."""
    if "$" not in span:
        return span
    span = re.sub(r"(?<!\\)(?:\bUS\s?)?\\\$", DOLLAR, span)
    span = _MATH_DELIMITERS.sub(r" \1 ", re.sub(r"\$\$+", "$", span))
    span = re.sub(r"(?:\bUS\s?)?\$(?=\.?\d)", DOLLAR, span)
    return _NOT_MONEY.sub("", span).replace("$", " ")
