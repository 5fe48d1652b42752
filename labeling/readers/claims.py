"""Which part of a sentence is a claim about what the picture shows.

A trace also concludes, supposes, defines, lists its options, and says that it sees nothing. None
of that is a fact, whatever nouns and numbers it has. What is *named* there is another matter:
"suppose triangle ABC is right-angled" supposes an angle, and the triangle is in the picture all the
same; only "let M be ..." and "draw the line AB" make up what they name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# Sentences that say nothing of the picture at all.
_REFUSAL = re.compile(
    r"\b(?:(?:can(?:no|')t|cannot|can not|couldn't|could not|unable to|not able to|don't|do not)"
    r"(?:\s+\w+){0,2}?\s+(?:see|view|access|open|read|display|process|analy[sz]e|interpret|have)"
    r"(?:\s+\w+){0,4}?\s+(?:(?:image|picture|diagram|figure|photo|graph)s?|it|them|anything)\b"
    r"|(?:i'm|i am|we're)\s+(?:sorry|unable)|as an ai|without seeing"
    r"|(?:no|without (?:the|an?|any))\s+(?:image|picture|diagram|figure)s?\b"
    r"|(?:image|picture|diagram|figure)s?\s+(?:is|was|are|were)\s+(?:missing"
    r"|not\s+(?:visible|provided|shown|available|attached|included|given|present))"
    r"|please (?:provide|share|upload))",
    re.I,
)
_ASKS = re.compile(
    r"\W*(?:\w+[,:]\s*)?(?:so|and|but|now|then)?\W*(?:what|which|who|whose|how|why|where|when|if|is"
    r"|are|am|was|were|do|does|did|can|could|has|have|had|will|would|should|in\s+which)\b",
    re.I,
)
_ASIDE = re.compile(r"\([^)]*\Z")  # "a star (is it a cross?)"
_ANSWER = re.compile(r"\banswer\b", re.I)
_CONCLUSION = re.compile(
    r"\s*(?:(?:so|therefore|thus|hence|that makes|that settles"
    r"|together(?=,|\s+(?:they|these|this|that))"
    r"|the\s+(?:remaining|rest)\s+(?:\w+\s+){0,2}(?:is|are|equals?)\s+\d+"
    r"|(?:half|twice|double|a\s+third)\s+(?:of\s+)?(?:this|that|it|which|\d+))\b"
    r"|\d+\s*[a-z]{1,3}\s*=)",  # 1 m = 100 cm
    re.I,
)
# "A triangle has three sides": true of every picture.
_GENERAL = re.compile(
    r"\A\s*(?:(?:an?|any|every|each|all|no)\s+(?:\w+[\s-]+){1,4}?"
    r"(?:(?:is|are)\s+(?:an?|any|always|\d+|called|defined)\b|(?:has|have)\s+(?:\w+\s+){0,4}?"
    r"(?:sides?|angles?|vertices|faces|edges|corners|diagonals?)\b"
    r"|can(?:not)?\b|must\b|consists?\s+of\b)"
    r"|(?:the|this|that|its)\s+(?:\w+\s+){0,3}?(?:area|volume|perimeter|sum|circumference|formula"
    r"|number|length|measure|size|diagonals?|sides|angles|rules?|definition)\s+(?:\w+\s+){0,4}?"
    r"(?:of|for|in)\s+(?:an?|any|every|each)\b"
    r"|(?:recall|remember|note)\s+that\s+an?\b)"
    r"|\b(?:by definition|in general|is defined (?:as|by|to be)|theorem|formula|properties of"
    r"|is called|are called|known as)\b",
    re.I,
)
_OPTION = re.compile(
    r"\s*(?:[*•-]+\s*)?(?:(?:option|choice|statement)s?\s*\(?[A-Z]\b|\(?[A-Z]\))",
    re.I,
)
_SEEING = re.compile(
    r"\b(?:see|sees|seen|shows?|showing|notice|observe|depicts?|displays?|looking)\b", re.I
)
# What follows these words is not in the picture, or not said to be.
_SUPPOSED = re.compile(
    r"\b(?:if|suppose|supposing|assume|assuming|imagine|consider|considering|let(?:'s|\s+us)?"
    r"|would|could|should|might|unless|whether|otherwise|for\s+(?:example|instance)|e\.g"
    r"|such\s+as|in\s+order\s+(?:to|that)"
    r"|we\s+can\s+(?:draw|add|construct|make|place|put|form|build|use)"
    r"|we\s+(?:draw|add|construct|place|need)|denote|what"
    r"|adds?\s+up\s+to|sums?\s+(?:up\s+)?to"
    r"|(?:must|has\s+to)\s+(?:equal|measure|be\s+(?:equal\s+to\s+)?\d+(?![\d\s]*\+))"
    r"|(?<!\()(?:perhaps|maybe|possibly)|at\s+first,?\s+(?:I|we|it\s+(?:seems|looks))"
    r"|thought|were\s+there|say,?\s+(?:there|that|we)"
    r"|(?:we\s+are|is)\s+asked|asks?"
    r"|(?:choices|options)\s+(?:are|include))\b",
    re.I,
)
_CONCLUDED = re.compile(
    r"(?:\bwe\s+(?:get|obtain|conclude)\b(?!\s+(?:an?|the|one|two|three|four|five|six)\b)"
    r"|(?:[,;:.]|\band|⇒)\s*(?:so|therefore|thus|hence"
    r"|which\s+(?:gives|means|implies|makes)|we\s+find|it\s+follows|this\s+(?:gives|means|implies)"
    r"|giving|leaving))\b",
    re.I,
)
_MADE_UP = re.compile(
    r"\b(?:let(?!'s|\s+us)|denote[sd]?|defin(?:e[sd]?|ing)|call(?:ing)?|introduc(?:e|ing)"
    r"|extend(?:ing)?"
    r"|(?:draw|construct|add|drop)(?:ing)?(?!\s+(?:the|a)\s+(?:diagram|figure|picture))"
    r"|suppose\s+there|imagine)\b|\A\s*(?:now,?\s+|then\s+)?(?:connect|join|link|produce)\b",
    re.I,
)


@dataclass(frozen=True)
class Claim:
    """Of a sentence, ``seen``: how much of it, from its start, says what the picture shows;
    ``named``: how much of it calls things of the picture by their names."""

    seen: int
    named: int


def claim(sentence: str, asks: bool = False) -> Claim:
    """What a sentence claims. One that ``asks`` may call things by their names."""
    if asks and _ASKS.match(sentence):
        return Claim(0, len(sentence))
    if _ANSWER.search(sentence) or _REFUSAL.search(sentence):
        return Claim(0, 0)
    named = _until(_MADE_UP, sentence)
    if _CONCLUSION.match(sentence) or _GENERAL.search(sentence):
        return Claim(0, named)
    if (option := _OPTION.match(sentence)) and not _SEEING.search(sentence):
        return Claim(0, 0 if len(option[0].strip(" *•-")) > 3 else named)
    seen = min(_until(_SUPPOSED, sentence), _until(_CONCLUDED, sentence))
    return Claim(min(seen, _until(_ASIDE, sentence)) if asks else seen, named)


def _until(pattern: re.Pattern[str], sentence: str) -> int:
    found = pattern.search(sentence)
    return found.start() if found else len(sentence)
