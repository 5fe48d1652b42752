"""Answers in words: what may be added to a short answer without changing it.

People ask for "brown" and get "The mug is brown."; for "yes", and get "Yes, there are more.". What may
be added is an article, a preposition, a sentence that ends in the answer, a reason after yes or no, an
explanation in parentheses. What names a second answer, hedges or takes the answer back is none of these.
"""

from __future__ import annotations

import re
from functools import lru_cache

from rewardlib.literals import parse_literal
from rewardlib.quantities import NUMBER_WORDS, parse_quantity
from rewardlib.spans import HEDGE

_LONG_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
# Inside a text only lower-case ones: the A of "vitamin A deficiency" is no article.
_ARTICLE = re.compile(r"^(?i:an?|the)\s+(?=\w)|(?<=\s)(?:an?|the)\s+(?=[A-Za-z]{2})")
_LOOSE_SPACE = re.compile(r"\s+(?!\w)|(?<!\w)\s+")
_SYNONYMS = {"true": "yes", "false": "no"} | {word: str(number) for word, number in NUMBER_WORDS.items()}


@lru_cache(maxsize=8192)
def key(span: str) -> str:
    """Form for plain-text equality: words lose their case, single letters keep it (m/M is not M/m)."""
    words = _ARTICLE.sub("", _LONG_WORD.sub(lambda word: word[0].lower(), span))
    spelled = _LOOSE_SPACE.sub("", words)
    return _SYNONYMS.get(spelled, spelled)


def same_wording(span: str, target: str) -> bool:
    """Whether two cleaned spans are the same words, or the answer adds only what changes nothing.

    A target that is a number or a letter has no words to be added to.
    """
    if key(span) == key(target):
        return True
    if key(target) in ("yes", "no"):
        return key(target) in (polarity(span), key(stated(span) or ""))
    if not _is_words(target):
        return False
    plain = span if "(" in target else without_explanation(span)
    statement = stated(plain)
    (lead, rest), (gold_lead, gold_rest) = _without_lead(statement or plain), _without_lead(target)
    return rest == gold_rest and (lead == gold_lead or not lead or not gold_lead)


def _is_words(text: str) -> bool:
    return _WORDS.search(text) is not None and key(text) not in _VALUES and not any(map(str.isdigit, text))


_WORDS = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2}")
_VALUES = frozenset(_SYNONYMS.values())

# --- what may be added ---

# A reason is set off by a sign, or begins a clause of its own ("Yes there are").
_ANSWERED = re.compile(
    r"""(?isx) (yes|no|true|false)
    (?: \s*[,:!]+\s* | \s*\.+\s+(?=[a-z]) | \s+-+\s+
      | \s+(?=(?:it|there|he|she|they|this|that|the|because|since|as)\b) )
    (\S.*)"""
)
_AGAINST = {
    "yes": re.compile(r"(?i)\b(?:no|not|nope|nor|never|none|false|untrue|wrong|incorrect|cannot|neither|but|except)\b|n't\b"),
    "no": re.compile(r"(?i)\b(?:yes|yeah|yep|(?<!not )true|(?<!not )correct|but|except)\b"),
}
_UNDECIDED = re.compile(
    r"(?i)\b(?:or|either|maybe|perhaps|possibly|probably|might|could|may|unless|unsure|uncertain|unclear|depends?|sure|know"
    r"|tell|determined?|decide|guess|sometimes|partly|partially|alternatively|otherwise|wait|actually|however)\b|\?"
)


def polarity(span: str) -> str | None:
    """What an answer says, "yes" or "no", which may add a reason; None where it says neither or takes it back.

    polarity("No, it isn't") == "no"; polarity("Yes, no, maybe") is None
    """
    if key(span) in ("yes", "no"):
        return key(span)
    answered = _ANSWERED.fullmatch(span)
    if answered is None:
        return None
    verdict, reason = key(answered[1]), answered[2]
    return None if _AGAINST[verdict].search(reason) or _UNDECIDED.search(reason) else verdict


_SUBJECT = r"(?:it|this|that|these|those|he|she|they|there|(?:the|an?|its|his|her|their)\s+[\w' -]{1,60}?)"
_STATED = re.compile(rf"(?i){_SUBJECT}(?:\s+(?:is|are|was|were|says|reads)|'s|'re)\s+(.+)", re.DOTALL)


def stated(span: str) -> str | None:
    """The predicate of a short sentence: "brown" in "The mug is brown"; None where there is none."""
    sentence = _STATED.fullmatch(span)
    if sentence is None or HEDGE.search(span[: sentence.start(1)]):
        return None
    return sentence[1].strip(" \"'")


_EXPLANATION = re.compile(r"(.*\S)\s*\(([^()]+)\)", re.DOTALL)
_EXPLAINS = re.compile(
    r"(?i)(?:the|with|at|because|since|as|which|who|that|it|he|she|they|its|his|her|wearing|holding|standing|sitting"
    r"|see|shown|seen|i\.e|about|approximately|from)\b"
)
_ALTERNATIVE = re.compile(r"(?i)\b(?:also|and|alternatively|alternative|otherwise|else|instead|if|vs|versus|plus|second)\b|[?/]")


def without_explanation(span: str) -> str:
    """The span without an explanation in parentheses: "Bob" of "Bob (181 cm)", but all of "Bob (or Al)".

    A bare name in parentheses may be a second answer, so what explains is a measurement or a clause.
    """
    explained = _EXPLANATION.fullmatch(span)
    if explained is None:
        return span
    note = explained[2].strip()
    quantity, named = parse_quantity(note), stated(note)
    if not _EXPLAINS.match(note) and not (quantity and quantity[1]):
        return span
    if HEDGE.search(note) or _ALTERNATIVE.search(note) or (named and " " not in named):
        return span  # "it is Al" names another
    return explained[1]


_LEAD = re.compile(r"(?i)(on|to|at|in|by)\s+(?=\S)")
_SIDE = re.compile(r"(?i)((?:left|right|top|bottom|front|back|upper|lower|north|south|east|west)(?:[- ]hand)?)\s+side")


def _without_lead(span: str) -> tuple[str, str]:
    """The preposition that leads a place, and the place: "on the left side" is ("on", "left")."""
    lead = _LEAD.match(span)
    place = _ARTICLE.sub("", span[lead.end() if lead else 0 :])
    side = _SIDE.fullmatch(place)
    direction = re.sub(r"(?i)[- ]hand$", "", side[1]) if side else place
    return (lead[1].lower() if lead else ""), key(direction)


# --- lists ---

_JOINED = re.compile(r"\s*,\s*(?:and\s+|&\s*)?|\s+and\s+|\s*&\s*")
_GROUPED = re.compile(r"(?<![\d,])\d{1,3}(?:,\d{3})+(?![\d,])")


def items(span: str) -> list[str]:
    """The parts of a list: "a dog, a cat and a bird" has three."""
    joined = _GROUPED.sub(lambda number: number[0].replace(",", ""), span)
    return [item.strip() for item in _JOINED.split(joined)]


# --- a number in a sentence ---

_NUMBER = rf"(?:\d[\d,]*(?:\.\d+)?|(?:{'|'.join(NUMBER_WORDS)})\b)"
_NUMBER_STATED = re.compile(
    rf"(?i)(?:so,?\s+|thus,?\s+|therefore,?\s+|hence,?\s+)?(?:(?:i|we)\s+(?:can\s+)?(?:see|count)|there\s+(?:is|are|was|were)"
    rf"|{_SUBJECT}\s+(?:is|are|was|were|has|have|shows?|contains?|equals?|reads?|says|costs?|weighs?|measures?))"
    rf"\s+(?:exactly\s+|a\s+total\s+of\s+|only\s+)?({_NUMBER}.*)",
    re.DOTALL,
)
_ANY_NUMBER = re.compile(rf"(?i)\d[\d,.:]*|\b(?:{'|'.join(NUMBER_WORDS)})\b")


def stated_number(span: str) -> str | None:
    """The only number in a sentence that states it: "3 red mugs" in "There are 3 red mugs on the table"."""
    sentence = _NUMBER_STATED.fullmatch(span)
    if sentence is None or HEDGE.search(span) or len(_ANY_NUMBER.findall(span)) != 1:
        return None
    value = sentence[1]
    if parse_quantity(value) or parse_literal(value):
        return value
    number = re.match(_NUMBER, value, re.IGNORECASE)
    return number[0] if number and re.fullmatch(r"[A-Za-z' -]*", value[number.end() :]) else None
