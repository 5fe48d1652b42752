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
from typing import Any, NamedTuple

# Longer spans are prose, not answers; the bound also keeps every step below fast on hostile input.
_MAX_SPAN = 300
# Published golds are often rounded; two integers are never compared with a tolerance.
_REL_TOL = 1e-4
# Digits of a power grow with its exponent, and sympy computes exact integers.
_MAX_EXPONENT = 10_000

_ANSWER_TAG = re.compile(r"<(/?)answer>", re.IGNORECASE)
# Escaped braces are matched first so that they never open or close a group.
_BRACE = re.compile(r"\\[{}]|\\boxed\s*\{|[{}]")
# Two boxes with nothing but a connective between them are a list of candidates, not a corrected answer.
_LIST_GAP = re.compile(r"[\s$,;/|]*(?:or|and)?[\s$,;/|]*", re.IGNORECASE)
_NEGATED_BOX = re.compile(r"(?:\b(?:not|never|nor)|n't|\\neq?)[\s$*:]*$", re.IGNORECASE)
_HEDGE = re.compile(
    r"\b(?:or|nor|not|cannot|never|neither|either|both|maybe|perhaps|possibly|probably|might|could|unless|except|unsure)\b|n't\b",
    re.IGNORECASE,
)

# How prose states an answer; the end cuts the sentence or the clause that justifies it.
_PHRASE = re.compile(r"\b(?:answer|option|choice)\**(?:\s+(?:is|would be|should be|must be)\b|\s*:)\**\s*:?\s*", re.IGNORECASE)
_PHRASE_END = re.compile(r"\.(?:\s|$)|\n|\\\]|[,;]\s+(?:as|so|since|because|which|where)\b")
_SENTENCE_END = re.compile(r"[.!?]\s")
_LABELLED_LINE = re.compile(r"\([A-Za-z]\)(?:\s.*)?|[A-Za-z][.)]?|[A-Z]\)\s.*")
# The last words of a response that gives its result without the word "answer": "... is shown in (C).", "... is 15."
_CLOSING = re.compile(r"(\([A-Z]\))\W*$|\b(?:is|are|equals|option|choice)\s+\W{0,3}((?:[A-Z]|-?\d[\d,]*(?:\.\d+)?)\b\W{0,3})$")
_CORRECT_OPTION = re.compile(r"\b(?:[Oo]ption|[Cc]hoice)\s+(\(?[A-Z]\)?)\s+is\s+(?:the\s+)?(?:only\s+)?correct\b")

# One spelling for what LaTeX, Unicode and Markdown write in several ways.
_UNICODE = str.maketrans({"−": "-", "–": "-", "×": r"\times ", "π": r"\pi ", "²": "^2", "³": "^3", "\u00a0": " ", "’": "'", ";": ","})
_DELIMITED = re.compile(r"\$+([^$]+)\$+|\\\((.*)\\\)|\\\[(.*)\\\]", re.DOTALL)
_TEXT_COMMAND = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mathsf|mbox)\s*\{([^{}]*)\}")
_LATEX_SPACE = re.compile(r"\\\\|~|\\q?quad(?![A-Za-z])|\\[ ,:!]|\\(?:left|right|displaystyle)(?![A-Za-z])|\\[()\[\]]|\\?\$")
_DEGREE = re.compile(r"\s*(?:\^\s*\\circ(?![A-Za-z])|\^\s*\{\s*\\circ\s*\}|\\degree|\{?\bdegrees?\b\}?)")
_PERCENT = re.compile(r"\\%|\bper\s?cent\b")
_BOLD_END = re.compile(r"(?<=[A-Za-z).:])\*\*(?=[\s:.,)]|$)")  # spares the power in 9**9
_LEAD = re.compile(
    r"(?:(?:so|thus|hence|therefore)\b,?\s+)?(?:the\s+|my\s+)?(?:final\s+|correct\s+|right\s+)?(?:answer|option|choice)"
    r"(?:\s+is\b\s*:?|\s*:|(?=\s+\(?[a-z]\b))\s*",
    re.IGNORECASE,
)
_LONG_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_LOOSE_SPACE = re.compile(r"\s+(?!\w)|(?<!\w)\s+")
_ARTICLE = re.compile(r"(?:a|an|the)\s+(?=\w)", re.IGNORECASE)

_LETTER = re.compile(r"[(\[{]?\s*([A-Za-z])\s*[)\]}]?\s*[.:,]?")
_LABELLED = re.compile(r"(?:\(\s*([A-Za-z])\s*\)|([A-Z])\s*[.):])\s*[:.,]?\s*(.+)", re.DOTALL)
# A capital before a lower-case word is the article ("A triangle"), not a second letter.
_LONE_CAPITAL = re.compile(r"(?<![A-Za-z\\])([A-Z])(?![A-Za-z]|\s+[a-z])")

_FRACTION = re.compile(r"\\frac\s*(?:\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}|(\d)\s*(\d))")
_NUMBER = re.compile(r"([-+]?)\s*(?:(?:(\d+)\s+)?(\d+)\s*/\s*(\d+)|((?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+))(\D.*)?")
# A unit glued to its number must be an abbreviation ("10h" and "13s" are algebra); after a space any noun will do.
_ABBREVIATION = r"(?:[mcdk]?m|[mk]?g|ml|cl|sec|min|hr|in|ft|°\s?[CF]?|%)"
_UNIT = re.compile(rf"\s*(?:{_ABBREVIATION}|(?<=\s)(?:[shgl]|[A-Za-z.]{{2,}}(?:\s+[A-Za-z]{{1,}}){{0,3}}))(?:\^\{{?[23]\}}?)?")
_NOT_A_UNIT = re.compile(
    r"\b(?:and|plus|minus|times|over|squared|cubed|factorial|half|halves|thirds?|quarters?|fifths?|tenths?|pi|root"
    r"|dozens?|hundreds?|thousands?|millions?|billions?|trillions?|zero|one|two|three|four|five|six|seven|eight|nine|ten)\b"
)
_UNIT_NAMES = {
    "centimeter": "cm", "centimetre": "cm", "millimeter": "mm", "millimetre": "mm", "kilometer": "km", "kilometre": "km",
    "meter": "m", "metre": "m", "gram": "g", "kilogram": "kg", "hour": "h", "hr": "h", "minute": "min", "second": "s",
    "sec": "s", "inche": "in", "inch": "in", "foot": "ft", "feet": "ft", "unit": "",
}  # fmt: skip
_NUMBER_WORDS = {w: i for i, w in enumerate("zero one two three four five six seven eight nine ten eleven twelve".split())}
_TRUTH = {"yes": True, "true": True, "no": False, "false": False}

# An allow-list, because sympy evaluates what it parses: one \sum, \binom or matrix with large bounds never returns.
_MATH_WORDS = frozenset(
    "frac sqrt pi cdot times div sin cos tan cot sec csc log ln arcsin arccos arctan circ angle infty overline "
    "alpha beta gamma delta epsilon theta lambda mu rho sigma tau phi omega Delta".split()
)
_WORD = re.compile(r"\\([A-Za-z]+)|([A-Za-z]{3,})")
_MATH_SIGN = re.compile(r"[\d\\^/+=*-]")
# Several values ("7 8", "1, 2"), a relation, or an operator whose result may be too large (factorial).
_NOT_ONE_VALUE = re.compile(r"\d\s+\d|[,=<>≤≥!?#&%|\"']|\\[^A-Za-z]|\*\*")
_EXPONENT = re.compile(r"\^\s*(\{(?:[^{}^]|\{[^{}^]*\})*\}|-?\d++|[A-Za-z])(?!\s*\^)")  # one not followed by another: no towers
_BRACKETED = re.compile(r"([(\[]|\\\{)(.*)([)\]]|\\\})", re.DOTALL)
_TRAILING_UNIT = re.compile(r"\s+(?:[mcdk]?m|[mk]?g|in|ft|(?:square |sq\.? )?(?:units?|inches|feet|c?m))(?:\^\{?[23]\}?)?$")
_SUBSCRIPT = re.compile(r"_\{?\w\}?")
_NOT_A_NAME = re.compile(r"[\d,()<>≤≥+*]|\\(?:neq?|le|ge|approx)")


class _Quantity(NamedTuple):
    value: Fraction
    unit: str


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
    gold_index = _choice_index(target, choices)
    if gold_index is None:
        return _same_letter(span, target) if _LETTER.fullmatch(target) else _same_value(span, target)
    answer_index = _choice_index(span, choices)
    if answer_index is not None:
        return answer_index == gold_index
    return _same_value(span, _clean(choices[gold_index]))


def _extract(text: str, strict: bool) -> str | None:
    visible = _without_reasoning(text)
    tags = list(_ANSWER_TAG.finditer(visible))
    if tags:
        return _block_answer(visible, tags, strict)
    boxes = _boxes(visible)
    if boxes:
        return _last_box(visible, boxes)
    return None if strict else _prose_answer(visible)


def _without_reasoning(text: str) -> str:
    """Drop <think> sections, also those opened by the prompt or cut off before their end."""
    *closed, tail = text.split("</think>")
    kept = [part.partition("<think>")[0] if "<think>" in part else "" for part in closed]
    return " ".join([*kept, tail.partition("<think>")[0]])


def _block_answer(text: str, tags: list[re.Match[str]], strict: bool) -> str | None:
    """Content of the last <answer> block; unclosed, nested or doubled tags leave the response without an answer."""
    if [tag[1] for tag in tags] != ["", "/"] * (len(tags) // 2) or (strict and len(tags) > 2):
        return None
    content = text[tags[-2].end() : tags[-1].start()]
    boxes = _boxes(content)
    if not boxes:
        return _bare(content)
    around = content[: boxes[0][0]] + content[boxes[-1][2] + 1 :]
    if len({content[start:end].strip() for _, start, end in boxes}) > 1 or _HEDGE.search(around):
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
        elif token == "}" and opened:
            box = opened.pop()
            if box is not None:
                while found and found[-1][0] > box[0]:
                    found.pop()
                found.append((*box, brace.start()))
    return found


def _last_box(text: str, boxes: list[tuple[int, int, int]]) -> str | None:
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
    """Answer stated in prose: an explicit phrase, else the last line or the closing words of the response."""
    phrases = list(_PHRASE.finditer(text))
    if phrases:
        start = phrases[-1].end()
        return _bare(_PHRASE_END.split(text[start : start + _MAX_SPAN], maxsplit=1)[0])
    line = text.strip().rpartition("\n")[2].strip()
    if len(line) <= _MAX_SPAN and _is_bare_answer(line, whole=line == text.strip()):
        return _bare(line)
    sentence = _SENTENCE_END.split(line)[-1][-_MAX_SPAN:]
    stated = _CORRECT_OPTION.search(sentence) or _CLOSING.search(sentence)
    if stated is None or _HEDGE.search(sentence):
        return None
    return _bare(next(group for group in stated.groups() if group))


def _is_bare_answer(line: str, whole: bool) -> bool:
    """Whether a last line is an answer and not a sentence: "(B) 5 cm", "20.", or a response of a few words."""
    if _LABELLED_LINE.fullmatch(line.strip("$*")) or _quantity(_clean(line)):
        return True
    return whole and len(line.split()) <= 5


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
    span = _LATEX_SPACE.sub(" ", _DEGREE.sub("°", span))
    span = _PERCENT.sub("%", span).replace(r"\dfrac", r"\frac").replace(r"\tfrac", r"\frac")
    span = _BOLD_END.sub("", span.strip(" *`\"'\t\r\n")).rstrip(" .,:")
    lead = _LEAD.match(span)
    return " ".join(span[lead.end() if lead else 0 :].split())


@lru_cache(maxsize=8192)
def _key(span: str) -> str:
    """Form for plain-text equality: words lose their case, single letters keep it (m/M is not M/m)."""
    lowered = _LONG_WORD.sub(lambda word: word[0].lower(), span)
    return _LOOSE_SPACE.sub("", _ARTICLE.sub("", lowered, count=1) if _ARTICLE.match(lowered) else lowered)


def _choice_index(span: str, choices: Sequence[str]) -> int | None:
    """Index of the choice that a cleaned span names; a lone letter is always the letter, even where it is also a text."""
    letter = _LETTER.fullmatch(span)
    if letter and (index := ord(letter[1].upper()) - ord("A")) < len(choices):
        return index
    keys = [_key(_clean(choice)) for choice in choices]
    if _key(span) in keys:
        return keys.index(_key(span))
    return _labelled_index(span, keys)


def _labelled_index(span: str, keys: Sequence[str]) -> int | None:
    """Index of "(B) text" or "B: text"; None when the text hedges, names a second letter or is another choice's text."""
    labelled = _LABELLED.fullmatch(span)
    if labelled is None:
        return None
    letter, text = (labelled[1] or labelled[2]).upper(), labelled[3]
    index = ord(letter) - ord("A")
    if index >= len(keys):
        return None
    key = _key(_clean(text))
    if key in keys:
        return index if keys[index] == key else None
    others = {other for other in _LONE_CAPITAL.findall(text) if ord(other) - ord("A") < len(keys)} - {letter}
    return None if others or _HEDGE.search(text) else index


def _same_letter(span: str, target: str) -> bool:
    """Letter comparison for a gold letter whose choices are unknown."""
    letters = [chr(ord("A") + index) for index in range(26)]
    index = _choice_index(span, letters)
    return index is not None and index == _choice_index(target, letters)


def _same_value(span: str, target: str) -> bool:
    if _key(span) == _key(target):
        return True
    truth, gold_truth = _TRUTH.get(span.lower()), _TRUTH.get(target.lower())
    if truth is not None and gold_truth is not None:
        return truth is gold_truth
    if "=" not in span or "=" not in target:
        span, target = _assigned(span), _assigned(target)
    quantity, gold_quantity = _quantity(span), _quantity(target)
    if quantity and gold_quantity:
        return _same_quantity(quantity, gold_quantity)
    if span.count(",") == target.count(",") > 0:
        return _same_tuple(span, target)
    if span.count("=") == target.count("=") == 1:
        return _same_equation(span, target)
    return _same_expression(span, target)


def _assigned(span: str) -> str:
    """The value in "x = 5" or "\\angle ABC = 40°"; an equation such as "2x = 10" or "5 = 7" is returned whole."""
    name, equals, value = span.rpartition("=")
    is_name = equals and not _NOT_A_NAME.search(_SUBSCRIPT.sub("", name)) and not _HEDGE.search(name)
    return value.strip() if is_name else span


@lru_cache(maxsize=8192)
def _quantity(span: str) -> _Quantity | None:
    """A whole span that is one number, plain, decimal, fraction or mixed, with an optional unit."""
    if span.lower() in _NUMBER_WORDS:
        return _Quantity(Fraction(_NUMBER_WORDS[span.lower()]), "")
    number = _NUMBER.fullmatch(_FRACTION.sub(lambda m: f" {m[1] or m[3]}/{m[2] or m[4]}", span).strip())
    if number is None:
        return None
    sign, whole, numerator, denominator, decimal, unit = number.groups(default="")
    if unit and (not _UNIT.fullmatch(unit) or _NOT_A_UNIT.search(unit) or _HEDGE.search(unit)):
        return None
    if denominator and int(denominator) == 0:
        return None
    value = Fraction(decimal.replace(",", "")) if decimal else int(whole or 0) + Fraction(int(numerator), int(denominator))
    return _Quantity(-value if sign == "-" else value, _unit_name(unit))


def _unit_name(unit: str) -> str:
    """Short name of a unit: "square centimeters" and "cm^{2}" are both "cm^2"."""
    name = unit.lower().replace("{", "").replace("}", "").strip()
    for prefix, power in (("square ", "^2"), ("sq ", "^2"), ("sq. ", "^2"), ("cubic ", "^3")):
        if name.startswith(prefix):
            name = name.removeprefix(prefix).split()[0] + power
    base, caret, power = name.partition("^")
    base = base.split()[0] if base.split() else ""
    base = base.removesuffix("s") if len(base) > 2 else base
    short = _UNIT_NAMES.get(base, base)
    return short + caret + power if short else ""


def _same_quantity(answer: _Quantity, gold: _Quantity) -> bool:
    if (answer.unit == "%") != (gold.unit == "%"):
        percent, plain = (answer, gold) if answer.unit == "%" else (gold, answer)
        return not plain.unit and (_close(percent.value, plain.value) or _close(percent.value / 100, plain.value))
    if answer.unit and gold.unit and answer.unit != gold.unit:
        return False
    return _close(answer.value, gold.value)


def _close(answer: Fraction, gold: Fraction) -> bool:
    both_integers = answer.denominator == gold.denominator == 1
    return answer == gold or (not both_integers and isclose(answer, gold, rel_tol=_REL_TOL))


def _same_tuple(span: str, target: str) -> bool:
    """Element-wise equality: parentheses fix the order, braces or nothing make a set; the brackets must agree."""
    bracketed, gold_bracketed = _BRACKETED.fullmatch(span), _BRACKETED.fullmatch(target)
    if (bracketed and bracketed.group(1, 3)) != (gold_bracketed and gold_bracketed.group(1, 3)):
        return False
    parts, golds = ([part.strip() for part in (found[2] if found else text).split(",")]
                    for found, text in ((bracketed, span), (gold_bracketed, target)))  # fmt: skip
    if bracketed and bracketed[1] in "([":
        return all(map(_same_value, parts, golds))
    answered = all(any(_same_value(part, gold) for gold in golds) for part in parts)
    return answered and all(any(_same_value(part, gold) for part in parts) for gold in golds)


def _same_equation(span: str, target: str) -> bool:
    left, right = span.split("=")
    gold_left, gold_right = target.split("=")
    gold = f"{gold_left}-({gold_right})"
    return _same_expression(f"{left}-({right})", gold) or _same_expression(f"{right}-({left})", gold)


def _same_expression(span: str, target: str) -> bool:
    """Mathematical equivalence. A numeric probe settles all but symbolic identities: sympy's simplification of two
    different expressions may never end, so math-verify is asked only when they agree at the probe point."""
    answer, gold = _expression(span), _expression(target)
    if answer is None or gold is None:
        return False
    try:
        symbols = answer.free_symbols | gold.free_symbols
        names = sorted({symbol.name for symbol in symbols})
        point = {symbol: 0.37 + 0.61 * names.index(symbol.name) for symbol in symbols}
        value, gold_value = (complex(expression.subs(point).evalf()) for expression in (answer, gold))
        if not cmath.isclose(value, gold_value, rel_tol=_REL_TOL if "." in span + target else 1e-9):
            return False
        from math_verify import verify  # loads sympy, which a choice answer never needs

        return not symbols or bool(verify(gold, answer, timeout_seconds=None))
    except Exception:  # sympy fails in many ways on odd input, and none of them makes an answer right
        return False


@lru_cache(maxsize=4096)
def _expression(span: str) -> Any | None:
    """The sympy expression of a span that is one bounded mathematical expression, else None."""
    source = _TRAILING_UNIT.sub("", span).replace("°", "")
    ratio = source.split(":")
    if len(ratio) == 2:
        source = f"({ratio[0]})/({ratio[1]})"
    if not _is_bounded_math(source):
        return None
    from math_verify import LatexExtractionConfig, parse
    from sympy import Expr

    try:
        config = [LatexExtractionConfig()]
        parsed = parse(f"${source}$", extraction_config=config, fallback_mode="no_fallback", parsing_timeout=None)
    except Exception:  # as above
        return None
    return parsed[0] if parsed and isinstance(parsed[0], Expr) else None


def _is_bounded_math(source: str) -> bool:
    """Whether a span is one expression that sympy evaluates quickly: known functions, small exponents, no towers."""
    if not _MATH_SIGN.search(source) or _NOT_ONE_VALUE.search(source) or _HEDGE.search(source):
        return False
    if any((command or word) not in _MATH_WORDS for command, word in _WORD.findall(source)):
        return False
    exponents = _EXPONENT.findall(source)
    size = prod(int(digits) or 1 for exponent in exponents for digits in re.findall(r"\d+", exponent))
    return len(exponents) == source.count("^") and size <= _MAX_EXPONENT
