r"""One plain spelling for what traces write in LaTeX, with the way back to their own characters.

A grammar that knows "48°" should not also know ``$48^\circ$``; but a fact quotes its trace to the
letter. So a text is spelled plainly once, every plain character remembers where it comes from, and
readers search the plain text and quote the original.

    plain(r"$48^\circ$").text          # "48°"
    plain(r"\angle A B C").text        # "∠ A B C"; within dollars "∠ABC"
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from labeling.readers.vocabulary import words

_SIGNS = {
    "angle": "∠", "measuredangle": "∠", "triangle": "△", "vartriangle": "△", "bigtriangleup": "△",
    "degree": "°", "circ": "°", "prime": "'", "pi": "π", "alpha": "α", "beta": "β", "gamma": "γ",
    "delta": "δ", "epsilon": "ε", "theta": "θ", "lambda": "λ", "mu": "μ", "phi": "φ", "omega": "ω",
    "varphi": "φ", "psi": "ψ", "sigma": "σ", "rho": "ρ", "tau": "τ", "times": "×", "cdot": "·",
    "div": "÷", "pm": "±", "sqrt": "√", "approx": "≈", "neq": "≠", "ne": "≠", "leq": "≤",
    "le": "≤", "geq": "≥", "ge": "≥", "perp": "⊥", "parallel": "∥", "cong": "≅", "sim": "~",
    "to": "→", "rightarrow": "→", "Rightarrow": "⇒", "implies": "⇒", "%": "%", "$": "$",
    "{": "{", "}": "}", "&": "&", "#": "#", "_": "_", "\\": "\n",
}  # fmt: skip
# Commands that only say how their argument looks; what they hold is read as it stands.
_LOOKS = set(
    words(
        "text textbf textit textrm mathrm mathbf mathit mathsf operatorname mbox overline underline"
        " overrightarrow overleftrightarrow overarc widehat widetilde bar hat vec boldsymbol"
    )
)
_SILENT = set(words("left right displaystyle big Big bigl bigr limits ! ( ) [ ]"))
_RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")

_TOKEN = re.compile(
    r"(?P<degree>\^\s?(?:\\circ(?![a-zA-Z])|\{\s?\\circ\s?\}))"
    r"|(?P<raised>\^(?:\d|\{\d{1,3}\}))"
    r"|(?P<short>\\[dt]?frac\s?(?P<top>\d)\s?(?P<bottom>\d))"
    r"|\\(?P<command>[a-zA-Z]+|.)"
    r"|(?P<money>\$(?=\d[\d.,]{0,12}\s+[a-z]{2}))"
    r"|(?P<dollars>\${1,2})"
    r"|(?P<sign>[{}~^_])"
    r"|(?P<blank>\s{2,})",
    re.S,
)
_CAPITALS_APART = re.compile(r"(?<![A-Za-z])([A-Z]'?\d?) (?=[A-Z](?![a-z]))")


@dataclass
class Plain:
    """A text in plain spelling; character i stands for ``original[starts[i]:ends[i]]``, and
    ``math[i]`` is "m" where it stands within dollars or their like, else a space."""

    text: str
    starts: list[int]
    ends: list[int]
    math: str

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Where the original writes ``text[start:end]``, which is not empty."""
        return self.starts[start], self.ends[end - 1]


@dataclass
class _Writer:
    """What has been spelled so far, and which braces and commands are open."""

    original: str
    text: list[str] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    math: list[str] = field(default_factory=list)
    open: list[tuple[str, int, int]] = field(default_factory=list)  # role, first character, start
    argument: tuple[str, int, int] | None = None  # the same, of a command that waits for its brace
    in_math: bool = False

    def write(self, text: str, start: int, end: int) -> None:
        """``text`` for all of ``original[start:end]``."""
        for sign in text:
            self.text.append(sign)
            self.starts.append(start)
            self.ends.append(end)
            self.math.append("m" if self.in_math else " ")

    def copy(self, start: int, end: int) -> None:
        for i in range(start, end):
            self.write(self.original[i], i, i + 1)

    def take(self, token: re.Match[str]) -> None:
        start, end = token.span()
        waiting, self.argument = self.argument, None
        if token["degree"]:
            self.write("°", start, end)
        elif token["raised"]:
            self.write(token[0].strip("^{}").translate(_RAISED), start, end)
        elif token["short"]:
            self._part_from_number(start)
            self.write(f"{token['top']}/{token['bottom']}", start, end)
        elif token["command"]:
            self._command(token["command"], start, end)
        elif token["dollars"]:
            self.in_math = not self.in_math
        elif token["blank"]:
            self._blank(min(2, token[0].count("\n")), start, end)
        elif token["sign"]:
            self._sign(token["sign"], start, end, waiting)

    def _blank(self, breaks: int, start: int, end: int) -> None:
        """One space, one break, or an empty line for any more of them."""
        if breaks == 2:
            self.in_math = False  # a dollar that is never closed reaches no further
        self.write("\n" * breaks or " ", start, end)

    def _command(self, name: str, start: int, end: int) -> None:
        if name in "([":
            self.in_math = True
        elif name in ")]":
            self.in_math = False
        elif name.endswith("frac"):
            self._part_from_number(start)
            self.argument = ("top", len(self.text), start)
        elif name in _LOOKS:
            self.argument = ("look", len(self.text), start)
        elif name in _SIGNS:
            self.write(_SIGNS[name], start, end)
        elif name not in _SILENT:
            self.write(" ", start, end)

    def _sign(self, sign: str, start: int, end: int, waiting: tuple[str, int, int] | None) -> None:
        if sign == "{":
            self.open.append(waiting or ("", len(self.text), start))
        elif sign == "}" and self.open:
            self._close(*self.open.pop(), start, end)
        elif sign == "~":
            self.write(" ", start, end)
        elif sign == "^" or not self._after_symbol():
            self.copy(start, end)

    def _close(self, role: str, first: int, begun: int, start: int, end: int) -> None:
        """The first and the last character within a command's braces stand for the command too."""
        if role == "top":
            self.write("/", start, end)
            self.argument = ("bottom", first, begun)
        if role in ("top", "bottom", "look") and first < len(self.text):
            self.starts[first] = begun
            self.ends[-1] = end

    def _part_from_number(self, start: int) -> None:
        if self.text and self.text[-1].isdigit():  # 7\frac{1}{2} is not 71/2
            self.write(" ", start, start)

    def _after_symbol(self) -> bool:
        """Whether an underscore is an index: ``P_1``, not ``my_file`` nor ``__init__``."""
        apart = len(self.text) < 2 or not self.text[-2].isalnum()
        return bool(self.text) and self.text[-1].isalpha() and (apart or self.in_math)


def plain(original: str) -> Plain:
    """The plain spelling of a text. Text without LaTeX stays as it is."""
    writer = _Writer(original)
    end = 0
    for token in _TOKEN.finditer(original):
        if token.start() > end:
            writer.argument = None
            writer.copy(end, token.start())
        writer.take(token)
        end = token.end()
    writer.copy(end, len(original))
    return _join_names(
        Plain("".join(writer.text), writer.starts, writer.ends, "".join(writer.math))
    )


def _join_names(spelled: Plain) -> Plain:
    """``$A B C$`` is one name; "A B C" in prose may be three."""
    spaces = {
        m.end() - 1
        for m in _CAPITALS_APART.finditer(spelled.text)
        if spelled.math[m.end() - 1] == "m"
    }
    if not spaces:
        return spelled
    kept = [i for i in range(len(spelled.text)) if i not in spaces]
    return Plain(
        "".join(spelled.text[i] for i in kept),
        [spelled.starts[i] for i in kept],
        [spelled.ends[i] for i in kept],
        "".join(spelled.math[i] for i in kept),
    )
