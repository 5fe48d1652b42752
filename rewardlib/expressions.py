"""Mathematical equivalence of two expressions, by sympy and math-verify, on input that may be hostile.

sympy evaluates what it parses, so an expression is read only where its size is bounded, and the libraries are loaded only when two spans
get this far: a choice answer or a plain number never pays for them.
"""

from __future__ import annotations

import cmath
import logging
import re
from functools import lru_cache
from math import prod
from typing import Any

from rewardlib.quantities import DEFAULT_TOLERANCE
from rewardlib.spans import HEDGE
from rewardlib.units import same_unit, split_unit

# sympy computes powers exactly, and its LaTeX parser slows down sharply with nested groups.
_MAX_EXPONENT = 10_000
_MAX_GROUPS = 30
# How far two evaluations of one exact value may drift apart.
_NOISE = 1e-9

# An allow-list, because sympy evaluates what it parses: one \sum, \binom or matrix with large bounds never returns.
_MATH_WORDS = frozenset([
    "frac", "sqrt", "pi", "cdot", "times", "div", "sin", "cos", "tan", "cot", "sec", "csc", "log", "ln", "arcsin", "arccos",
    "arctan", "angle", "overline", "alpha", "beta", "gamma", "delta", "epsilon", "theta", "lambda", "mu", "rho", "sigma", "tau",
    "phi", "omega", "Delta",
])  # fmt: skip
_WORD = re.compile(r"\\([A-Za-z]+)|([A-Za-z]{3,})")
_MATH_SIGN = re.compile(r"[\d\\^/+*-]")
# Several values ("7 8"), a relation, or an operator whose result may be too large (factorial).
_NOT_ONE_VALUE = re.compile(r"\d\s+\d|[,:=<>≤≥!?#&%|\"']|\\[^A-Za-z]|\*\*")
_EXPONENT = re.compile(r"\^\s*(\{(?:[^{}^]|\{[^{}^]*\})*\}|-?\d++|[A-Za-z])(?!\s*\^)")  # none followed by another: no towers
_RATIO = re.compile(r"^([^:]+):([^:]+)$")
_EQUATION = re.compile(r"^([^=]+)=([^=]+)$")


def same_expression(span: str, target: str, tolerance: float = DEFAULT_TOLERANCE) -> bool:
    """Mathematical equivalence of two cleaned spans.

    Simplifying the difference of unequal expressions may never end, so a numeric probe settles all but symbolic identities, and math-verify
    is asked only when both sides agree at the probe point. The relative tolerance holds for values that are written with a decimal point,
    and for all values where it is wider than the default; an expression with a variable must be an identity whatever it is. A unit behind
    the expression may be left out, but not replaced.
    """
    (span, unit), (target, gold_unit) = split_unit(span), split_unit(target)
    if not same_unit(unit, gold_unit):
        return False
    answer = _expression(span)
    gold = None if answer is None else _expression(target)
    if answer is None or gold is None:
        return False
    try:
        names = sorted({symbol.name for symbol in answer.free_symbols | gold.free_symbols})
        if "=" in span and not names:  # "5 = 5" and "7 = 7" are both true, and say nothing of each other
            return False
        rounded = "." in span + target or tolerance > DEFAULT_TOLERANCE
        if not cmath.isclose(_probe(answer, names), _probe(gold, names), rel_tol=max(tolerance, _NOISE) if rounded else _NOISE):
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
    source = _EQUATION.sub(r"\1-(\2)", _RATIO.sub(r"(\1)/(\2)", span.replace("°", "")))
    if not _is_bounded_math(source):
        return None
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse

    # It warns that nothing bounds its time; `_is_bounded_math` does.
    for module in ("parser", "grader"):
        logging.getLogger(f"math_verify.{module}").setLevel(logging.ERROR)
    from sympy import Expr

    # The default configuration would also strip units, which turns the algebra of "13s" into 13.
    config = [LatexExtractionConfig(normalization_config=NormalizationConfig(malformed_operators=True, nits=True))]
    try:
        parsed = parse(f"${source}$", extraction_config=config, fallback_mode="no_fallback", parsing_timeout=None)
    except Exception:  # as above
        return None
    return parsed[0] if parsed and isinstance(parsed[0], Expr) else None


def _is_bounded_math(source: str) -> bool:
    """Whether a span is one expression that sympy evaluates quickly: known functions, few groups, small exponents."""
    if not _MATH_SIGN.search(source) or _NOT_ONE_VALUE.search(source) or HEDGE.search(source):
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
