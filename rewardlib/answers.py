"""Find the final answer in a model's response and decide whether it is correct.

One checker serves both the filtering of chain-of-thought traces and the RL accuracy reward, so it must accept the many
ways a right answer is written (letter or choice text, LaTeX, fractions, units, percent) and refuse the ways of being
rewarded without answering (hedging, listing choices, several blocks). Comparisons of strings and rational numbers come
first; mathematical equivalence by math-verify is the last step. No function here raises or hangs, whatever the response.
"""

from __future__ import annotations

import cmath
import re
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from math import isclose, prod
from typing import Any

# Longer spans are prose, not answers; the bound also keeps every step below fast on hostile input.
_MAX_SPAN = 300
# A whole response of so few words is an answer given without a sentence around it.
_MAX_SPACES = 5
# Published golds are often rounded; two integers are never compared with a tolerance.
_REL_TOL = 1e-4
# sympy computes powers exactly, and its LaTeX parser slows down sharply with nested groups.
_MAX_EXPONENT = 10_000
_MAX_GROUPS = 30

_ANSWER_TAG = re.compile(r"(?i)<(/?)answer>")
_BRACE = re.compile(r"\\[{}]|\\boxed\s*\{|[{}]")  # escaped braces come first so that they never open or close a group
# Two boxes with nothing but a connective between them are a list of candidates, not a corrected answer.
_LIST_GAP = re.compile(r"(?i)[\s$,;/|]*(?:or|and)?[\s$,;/|]*")
_NEGATED_BOX = re.compile(r"(?i)(?:\b(?:not|never|nor)|n't|\\neq?)[\s$*:]*$")
_HEDGE = re.compile(
    r"(?i)\b(?:or|nor|no|not|cannot|never|neither|either|both|maybe|perhaps|possibly|probably|might|could|unless|except|unsure"
    r"|false|wrong|incorrect)\b|n't\b"
)

# How prose states an answer; the end cuts the next sentence or the clause that justifies it.
_PHRASE = re.compile(r"(?i)\b(?:answer|option|choice)\**(?:\s+(?:is|would be|should be|must be)\b|\s*:)\**\s*:?\s*")
_PHRASE_END = re.compile(r"\.(?:\s|$)|\n|\\\]|[,;]\s+(?:as|so|since|because|which|where)\b")
_LABELLED_LINE = re.compile(r"\$*(?:\([A-Za-z]\)(?:\s.*)?|[A-Za-z][.)]?|[A-Z]\)\s.*)")
# The last words of a response that gives its result without the word "answer": "... is shown in (C).", "... is 15."
_CLOSING = re.compile(r"(\([A-Z]\))\W*$|\b(?:is|are|equals|option|choice)\s+\W{0,3}((?:[A-Z]|-?\d[\d,]*(?:\.\d+)?)\b\W{0,3})$")

# One spelling for what LaTeX, Unicode and Markdown write in several ways.
_UNICODE = str.maketrans({"−": "-", "–": "-", "×": r"\times ", "π": r"\pi ", "²": "^2", "³": "^3", "\u00a0": " ", "’": "'", ";": ","})
_DELIMITED = re.compile(r"\$+([^$]+)\$+|\\\((.*)\\\)|\\\[(.*)\\\]", re.DOTALL)
_TEXT_COMMAND = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mathsf|mbox)\s*\{([^{}]*)\}")
_LATEX_SPACE = re.compile(r"\\\\|~|\\q?quad(?![A-Za-z])|\\[ ,:!]|\\(?:left|right|displaystyle)(?![A-Za-z])|\\[()\[\]]|\\?\$")
_DEGREE = re.compile(r"\s*(?:\^\s*\\circ(?![A-Za-z])|\^\s*\{\s*\\circ\s*\}|\\degree|\{?\bdegrees?\b\}?)")
_PERCENT = re.compile(r"\\%|\bper\s?cent\b")
_SHORT_EXPONENT = re.compile(r"\^\s*\{(\w)\}")
_BOLD_END = re.compile(r"(?<=[A-Za-z).:])\*\*(?=[\s:.,)]|$)")  # spares the power in 9**9
_LEAD = re.compile(
    r"(?i)(?:(?:so|thus|hence|therefore)\b,?\s+)?(?:the\s+|my\s+)?(?:final\s+|correct\s+|right\s+)?(?:answer|option|choice)"
    r"(?:\s+is\b\s*:?|\s*:|(?=\s+\(?[a-z]\b))\s*"
)
_LONG_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_ARTICLE = re.compile(r"(?i)^(?:a|an|the)\s+(?=\w)")
_LOOSE_SPACE = re.compile(r"\s+(?!\w)|(?<!\w)\s+")

_LETTER = re.compile(r"[(\[{]?\s*([A-Za-z])\s*[)\]}]?\s*[.:,]?")
_LABELLED = re.compile(r"(?:\(\s*([A-Za-z])\s*\)|([A-Z])\s*[.):])\s*[:.,]?\s*(.+)", re.DOTALL)
# A second letter after a label; "A" before a lower-case word is the article.
_OTHER_LETTER = re.compile(r"(?<![A-Za-z\\])(A(?![A-Za-z]|\s+[a-z])|[B-Z](?![A-Za-z])|(?<=\()[a-z](?=\))|^[a-z]\b(?!\s+[a-z]{2}))")

_FRACTION = re.compile(r"\\frac\s*(?:\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}|(\d)\s*(\d))")
_NUMBER = re.compile(r"([-+]?)\s*(?:(?:(\d+)\s+)?(\d+)\s*/\s*(\d+)|((?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+))(\D.*)?")
# A unit glued to its number must be an abbreviation ("10h" and "13s" are algebra); after a space any noun will do.
_ABBREVIATION = r"(?:[mcdk]?m|[mk]?g|ml|cl|sec|min|hr|in|ft|°\s?[CF]?|%)"
_UNIT = re.compile(rf"\s*(?:{_ABBREVIATION}|(?<=\s)(?:[shgl]|[A-Za-z.]{{2,}}(?:\s+[A-Za-z]+){{0,3}}))(?:\^[23])?")
_NOT_A_UNIT = re.compile(
    r"\b(?:and|plus|minus|times|over|squared|cubed|factorial|half|halves|thirds?|quarters?|fifths?|tenths?|pi|root"
    r"|dozens?|hundreds?|thousands?|millions?|billions?|trillions?|zero|one|two|three|four|five|six|seven|eight|nine|ten)\b"
)
_SQUARE_UNIT = re.compile(r"(?:square|sq\.?)\s+(\w+).*")
_UNIT_NAMES = {
    "centimeter": "cm", "millimeter": "mm", "kilometer": "km", "meter": "m", "gram": "g", "kilogram": "kg", "hr": "h", "hour": "h",
    "minute": "min", "second": "s", "sec": "s", "inch": "in", "inche": "in", "foot": "ft", "feet": "ft", "unit": "",
}  # fmt: skip
_SYNONYMS = {"true": "yes", "false": "no"} | {
    word: str(number)
    for number, word in enumerate(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
    )
}

# The name before "=" in "x = 5" or "\angle ABC_1 = 40", as opposed to a side of an equation such as "2x = 10".
_NAME = re.compile(r"(?:_\{?\w\}?|[^\d,()<>≤≥+*_])*")
# An allow-list, because sympy evaluates what it parses: one \sum, \binom or matrix with large bounds never returns.
_MATH_WORDS = frozenset(
    [
        "frac",
        "sqrt",
        "pi",
        "cdot",
        "times",
        "div",
        "sin",
        "cos",
        "tan",
        "cot",
        "sec",
        "csc",
        "log",
        "ln",
        "arcsin",
        "arccos",
        "arctan",
        "angle",
        "overline",
        "alpha",
        "beta",
        "gamma",
        "delta",
        "epsilon",
        "theta",
        "lambda",
        "mu",
        "rho",
        "sigma",
        "tau",
        "phi",
        "omega",
        "Delta",
    ]
)
_WORD = re.compile(r"\\([A-Za-z]+)|([A-Za-z]{3,})")
_MATH_SIGN = re.compile(r"[\d\\^/+*-]")
# Several values ("7 8"), a relation, or an operator whose result may be too large (factorial).
_NOT_ONE_VALUE = re.compile(r"\d\s+\d|[,:=<>≤≥!?#&%|\"']|\\[^A-Za-z]|\*\*")
_EXPONENT = re.compile(r"\^\s*(\{(?:[^{}^]|\{[^{}^]*\})*\}|-?\d++|[A-Za-z])(?!\s*\^)")  # none followed by another: no towers
_TRAILING_UNIT = re.compile(rf"\s+{_ABBREVIATION}(?:\^[23])?$|°")
_RATIO = re.compile(r"^([^:]+):([^:]+)$")
_EQUATION = re.compile(r"^([^=]+)=([^=]+)$")

# The value of a number and the short name of its unit, "" when it has none.
_Quantity = tuple[Fraction, str]


def final_answer(text: str) -> str | None:
    """Return the response's final answer span without its wrappers, or None if the response has none."""
    return _extract(text, strict=False)


def check_answer(text: str, gold: str, choices: Sequence[str] = (), *, strict: bool = False) -> bool:
    """Whether the final answer of `text` is correct; `strict` accepts only one closed <answer> block or a \\boxed{}."""
    span = _extract(text, strict)
    return span is not None and answers_match(span, gold, choices)


def answers_match(answer: str, gold: str, choices: Sequence[str] = ()) -> bool:
    """Whether an extracted answer span means the same as `gold`, a value or a choice given by its letter or its text."""
    if len(answer) > _MAX_SPAN:
        return answer.split() == gold.split()
    span, target = _clean(answer), _clean(gold)
    if not span or not target:
        return False
    # A gold letter without its choices is compared as a letter of the whole alphabet.
    named = choices or ("ABCDEFGHIJKLMNOPQRSTUVWXYZ" if _LETTER.fullmatch(target) else ())
    gold_index = _choice_index(target, named)
    if gold_index is None:
        return _same_value(span, target)
    answer_index = _choice_index(span, named)
    if answer_index is not None:
        return answer_index == gold_index
    return _same_value(span, _clean(named[gold_index]))


def _extract(text: str, strict: bool) -> str | None:
    visible = _without_reasoning(text)
    tags = list(_ANSWER_TAG.finditer(visible))
    if tags:
        return _block_answer(visible, tags, strict)
    if boxes := _boxes(visible):
        return _last_box(visible, boxes)
    return None if strict else _prose_answer(visible)


def _without_reasoning(text: str) -> str:
    """Drop <think> sections, also those opened by the prompt or cut off before their end."""
    *closed, tail = text.split("</think>")
    kept = [part.partition("<think>")[0] if "<think>" in part else "" for part in closed]
    return " ".join([*kept, tail.partition("<think>")[0]])


def _block_answer(text: str, tags: list[re.Match[str]], strict: bool) -> str | None:
    """Content of the last <answer> block; unclosed, nested or doubled tags leave the response without an answer."""
    blocks = len(tags) // 2
    if [tag[1] for tag in tags] != ["", "/"] * blocks or (strict and blocks > 1):
        return None
    content = text[tags[-2].end() : tags[-1].start()]
    boxes = _boxes(content)
    if not boxes:
        return _bare(content)
    # Prose may lead up to the box, but a word such as "maybe" beside it, or anything of the kind after it, takes it back.
    beside = content[max(0, boxes[0][0] - 10) : boxes[0][0]] + content[boxes[-1][2] + 1 :]
    if len({content[start:end].strip() for _, start, end in boxes}) > 1 or _HEDGE.search(beside):
        return None
    return _last_box(content, boxes)


def _boxes(text: str) -> list[tuple[int, int, int]]:
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


def _last_box(text: str, boxes: list[tuple[int, int, int]]) -> str | None:
    """Content of the last box, None where the text negates it or lists it beside a different one."""
    command, start, end = boxes[-1]
    if _NEGATED_BOX.search(text[max(0, command - 20) : command]):
        return None
    if len(boxes) > 1:
        _, previous_start, previous_end = boxes[-2]
        differs = text[previous_start:previous_end].strip() != text[start:end].strip()
        if differs and _LIST_GAP.fullmatch(text, previous_end + 1, command):
            return None
    return _bare(text[start:end])


def _prose_answer(text: str) -> str | None:
    """Answer stated in prose: an explicit phrase, else a last line that is only an answer, else the closing words."""
    phrases = list(_PHRASE.finditer(text))
    if phrases:
        start = phrases[-1].end()
        return _bare(_PHRASE_END.split(text[start : start + _MAX_SPAN], maxsplit=1)[0])
    line = text.strip().rpartition("\n")[2].strip()
    if len(line) <= _MAX_SPAN and (_LABELLED_LINE.fullmatch(line) or _quantity(_clean(line))):
        return _bare(line)
    sentence = re.split(r"[.!?]\s", line)[-1][-_MAX_SPAN:]
    if stated := _CLOSING.search(sentence):
        return None if _HEDGE.search(sentence) else _bare(stated[1] or stated[2])
    few_words = line == text.strip() and line.count(" ") < _MAX_SPACES
    return _bare(line) if few_words else None


def _bare(span: str) -> str | None:
    """The span without wrappers that carry no meaning ($, **, quotes, \\text{}, \\boxed{}); None if nothing is left."""
    previous = None
    while span != previous and len(span) <= _MAX_SPAN:
        previous = span
        span = span.strip(" *`\"'\t\r\n").rstrip(".").rstrip()
        boxes = _boxes(span) if span.startswith(r"\boxed") else []
        if boxes and (boxes[0][0], boxes[0][2]) == (0, len(span) - 1):
            span = span[boxes[0][1] : -1]
        elif wrapped := _DELIMITED.fullmatch(span) or _TEXT_COMMAND.fullmatch(span):
            span = next(group for group in wrapped.groups() if group is not None)
    return span.strip() or None


@lru_cache(maxsize=8192)
def _clean(span: str) -> str:
    """Canonical plain form: no wrappers, LaTeX spacing or lead-in; one spelling of degrees, percent and fractions."""
    span = (_bare(span) or "").translate(_UNICODE)
    previous = None
    while span != previous:
        previous, span = span, _TEXT_COMMAND.sub(r"\1", span)
    span = _PERCENT.sub("%", _LATEX_SPACE.sub(" ", _DEGREE.sub("°", span)))
    span = _SHORT_EXPONENT.sub(r"^\1", span).replace(r"\dfrac", r"\frac").replace(r"\tfrac", r"\frac")
    span = _BOLD_END.sub("", span.strip(" *`\"'\t\r\n")).rstrip(" .,:")
    lead = _LEAD.match(span)
    return " ".join(span[lead.end() if lead else 0 :].split())


@lru_cache(maxsize=8192)
def _key(span: str) -> str:
    """Form for plain-text equality: words lose their case, single letters keep it (m/M is not M/m)."""
    key = _LOOSE_SPACE.sub("", _ARTICLE.sub("", _LONG_WORD.sub(lambda word: word[0].lower(), span)))
    return _SYNONYMS.get(key, key)


def _choice_index(span: str, choices: Sequence[str]) -> int | None:
    """Index of the choice that a cleaned span names; a lone letter is always the letter, even where it is also a text."""
    letter = _LETTER.fullmatch(span)
    if letter and (index := ord(letter[1].upper()) - ord("A")) < len(choices):
        return index
    keys = [_key(_clean(choice)) for choice in choices]
    return keys.index(_key(span)) if _key(span) in keys else _labelled_index(span, keys)


def _labelled_index(span: str, keys: Sequence[str]) -> int | None:
    """Index of "(B) text" or "B: text"; None when the text hedges, names a second letter or is another choice's text."""
    labelled = _LABELLED.fullmatch(span)
    if labelled is None:
        return None
    letter, text = (labelled[1] or labelled[2]).upper(), labelled[3]
    index, key = ord(letter) - ord("A"), _key(_clean(text))
    if index >= len(keys) or key in keys:
        return index if index < len(keys) and keys[index] == key else None
    others = {other.upper() for other in _OTHER_LETTER.findall(text)} - {letter}
    named = any(ord(other) - ord("A") < len(keys) for other in others)
    return None if named or _HEDGE.search(text) else index


def _same_value(span: str, target: str) -> bool:
    """Equality of two cleaned spans as text, number with unit, tuple or mathematical expression."""
    if _key(span) == _key(target):
        return True
    if "=" not in span or "=" not in target:
        span, target = _assigned(span), _assigned(target)
    quantity, gold_quantity = _quantity(span), _quantity(target)
    if quantity and gold_quantity:
        return _same_quantity(quantity, gold_quantity)
    if span.count("=") != target.count("=") or span.count(",") != target.count(","):
        return False
    return _same_tuple(span, target) if "," in span else _same_expression(span, target)


def _assigned(span: str) -> str:
    """The value in "x = 5" or "\\angle ABC = 40°"; an equation such as "2x = 10" or "5 = 7" is returned whole."""
    name, _, value = span.rpartition("=")
    return value.strip() if _NAME.fullmatch(name) and not _HEDGE.search(name) else span


@lru_cache(maxsize=8192)
def _quantity(span: str) -> _Quantity | None:
    """A whole span that is one number, plain, decimal, fraction or mixed, with an optional unit."""
    number = _NUMBER.fullmatch(_FRACTION.sub(lambda m: f" {m[1] or m[3]}/{m[2] or m[4]}", span).strip())
    if number is None:
        return None
    sign, whole, numerator, denominator, decimal, unit = number.groups(default="")
    if unit and (not _UNIT.fullmatch(unit) or _NOT_A_UNIT.search(unit) or _HEDGE.search(unit)):
        return None
    if denominator and int(denominator) == 0:
        return None
    value = Fraction(decimal.replace(",", "")) if decimal else int(whole or 0) + Fraction(int(numerator), int(denominator))
    return -value if sign == "-" else value, _unit_name(unit)


def _unit_name(unit: str) -> str:
    """Short name of a unit: "square centimetres" and "cm^2" are the same, "units" is none."""
    name, caret, power = _SQUARE_UNIT.sub(r"\1^2", unit.strip().lower().replace("metre", "meter")).partition("^")
    word = name.split(" ")[0]
    short = _UNIT_NAMES.get(word.removesuffix("s"), word)
    return short + caret + power if short else ""


def _same_quantity(answer: _Quantity, gold: _Quantity) -> bool:
    (value, unit), (gold_value, gold_unit) = answer, gold
    if unit and gold_unit and unit != gold_unit:
        return False
    pairs = [(value, gold_value)]
    if (unit == "%") != (gold_unit == "%"):  # 25% is 0.25, and 25 where the question asks for a percentage
        pairs.append((value / (100 if unit else 1), gold_value / (100 if gold_unit else 1)))
    exact = value.denominator == gold_value.denominator == 1
    return any(a == b or (not exact and isclose(a, b, rel_tol=_REL_TOL)) for a, b in pairs)


def _same_tuple(span: str, target: str) -> bool:
    """Element-wise equality of "(1, 2)" and the like; a list without brackets has no order."""
    bracketed = span[0] in "(["
    if (bracketed or target[0] in "([") and (span[0], span[-1]) != (target[0], target[-1]):
        return False
    sides = [(text[1:-1] if bracketed else text).split(",") for text in (span, target)]
    parts, golds = [[part.strip() for part in (side if bracketed else sorted(side, key=str.strip))] for side in sides]
    return all(map(_same_value, parts, golds))


def _same_expression(span: str, target: str) -> bool:
    """Mathematical equivalence. Simplifying the difference of unequal expressions may never end, so a numeric probe
    settles all but symbolic identities, and math-verify is asked only when both sides agree at the probe point."""
    answer, gold = _expression(span), _expression(target)
    if answer is None or gold is None:
        return False
    try:
        names = sorted({symbol.name for symbol in answer.free_symbols | gold.free_symbols})
        tolerance = _REL_TOL if "." in span + target else 1e-9
        if not cmath.isclose(_probe(answer, names), _probe(gold, names), rel_tol=tolerance):
            return False
        from math_verify import verify  # loads sympy, which a choice answer never needs

        return not names or bool(verify(gold, answer, timeout_seconds=None))
    except Exception:  # sympy fails in many ways on odd input, and none of them makes an answer right
        return False


def _probe(node: Any, names: list[str]) -> complex:
    """Value of a sympy expression at a fixed point, visiting each node once (evalf is exponential in nested fractions)."""
    if node.is_Symbol:
        return 0.37 + 0.61 * names.index(node.name)
    values = [_probe(child, names) for child in node.args]
    if node.is_Add:
        return sum(values)
    if node.is_Mul:
        return prod(values)
    if node.is_Pow:
        return complex(values[0] ** values[1])
    return complex(node.func(*values).evalf() if values else node)


@lru_cache(maxsize=4096)
def _expression(span: str) -> Any | None:
    """The sympy expression of a span that is one bounded mathematical expression (an equation: its difference)."""
    source = _EQUATION.sub(r"\1-(\2)", _RATIO.sub(r"(\1)/(\2)", _TRAILING_UNIT.sub("", span)))
    if not _is_bounded_math(source):
        return None
    from latex2sympy2_extended import NormalizationConfig  # type: ignore[import-untyped]
    from math_verify import LatexExtractionConfig, parse
    from sympy import Expr  # type: ignore[import-untyped]

    # The default configuration would also strip units, which turns the algebra of "13s" into 13.
    config = [LatexExtractionConfig(normalization_config=NormalizationConfig(malformed_operators=True, nits=True))]
    try:
        parsed = parse(f"${source}$", extraction_config=config, fallback_mode="no_fallback", parsing_timeout=None)
    except Exception:  # as above
        return None
    return parsed[0] if parsed and isinstance(parsed[0], Expr) else None


def _is_bounded_math(source: str) -> bool:
    """Whether a span is one expression that sympy evaluates quickly: known functions, few groups, small exponents."""
    if not _MATH_SIGN.search(source) or _NOT_ONE_VALUE.search(source) or _HEDGE.search(source):
        return False
    if any((command or word) not in _MATH_WORDS for command, word in _WORD.findall(source)):
        return False
    letters = set(_WORD.sub("", source))
    if any(letter != letter.swapcase() in letters for letter in letters):  # math-verify would take M/m for m/m
        return False
    exponents = _EXPONENT.findall(source)
    size = prod(int(digits) or 1 for exponent in exponents for digits in re.findall(r"\d+", exponent))
    groups = source.count("(") + source.count("{") + source.count("[")
    return len(exponents) == source.count("^") and size <= _MAX_EXPONENT and groups <= _MAX_GROUPS
