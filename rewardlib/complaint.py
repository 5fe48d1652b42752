"""What a server complains of, whatever shape its answer has: an object, a string, a list, plain
text, a page; also inside a 200.

    complaint = read_complaint(400, '{"detail": [{"loc": ["body", "seed"], "msg": "not known"}]}')
    complaint.words                                  # "not known; body.seed"
    complaint.blames({"seed", "response_format"})    # "seed": the parameter to do without

Servers agree on no shape, and proxies wrap one server's in their own. So every string of the answer
counts, but for those in which it repeats the request, and a parameter that is named as one counts
more than one that a sentence mentions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

# The parameters that a server may refuse, by the words that it has for them.
_PARAMETERS = {
    "response_format": r"response[ _-]?(?:format|schema|mime)|json[ _-]?(?:schema|object|mode)"
    r"|\bschemas?\b|structured[ _-]?output|guided[ _-]?(?:json|decoding|grammar)?\b|\bgrammar"
    r"|xgrammar|additional_?properties|requested parameters"
    r"|json_validate|generate (?:valid )?json",
    "max_tokens": r"\bmax_tokens\b|\bmax_completion_tokens\b",
    "temperature": r"\btemperature\b",
    "seed": r"(?<![\w/-])seed(?![\w/-]|[ -]oss)",  # there are models of this name
}
_CONTEXT = re.compile(r"context[ _-](?:length|window|size)|too many tokens", re.I)
_SIZE = re.compile(
    r"too (?:large|big|long|high|small|low)|at (?:most|least)|maximum|exceed|greater|less than"
    r"|between|range|最大|最多|超过|超出|范围",
    re.I,
)
_REFUSING = re.compile(
    r"unsupported|not support|unrecogni[sz]ed|unknown|unexpected"
    r"|not (?:permitted|allowed|available|accepted|valid)|forbidden|invalid"
    r"|deprecated|extra|cannot find|no longer|max_completion_tokens|不支持|不允许|无效|未知|已弃用",
    re.I,
)
# What a refusal may be about other than a parameter.
_OTHERWISE = re.compile(
    r"context|tokens?\b|too (?:large|big|long|many)|exceed|images?\b|\bprompts?\b|messages\b|\bcontent\b|\broles?\b"
    r"|\bmodels?\b|api.?key|auth|account|billing|credit|payment|balance|quota|polic(?:y|ies)|safety|moderat"
    r"|memory|location|permission|access|denied|limit|pictures?\b|base64|decode|download|\burl\b|deployment|adapter|\bfunds?\b"
    r"|not.found|does not exist|上下文|图片|模型|余额|敏感|不当|内容",
    re.I,
)
_BUSY = re.compile(
    r"rate.?limit|too many requests|overload|quota|throttl|capacity|busy|qps|upstream|provider|hiccup|try again|later"
    r"|繁忙|频繁|稍后|限流",
    re.I,
)
_WRONG = re.compile(
    r"invalid.?request|bad.?request|context.?length|not support|unsupported|not valid|not found"
    r"|does not exist|unauthori[sz]ed|api.?key",
    re.I,
)
_WAIT = re.compile(
    r"(?:try again|retry)\D{0,20}?(\d+(?:\.\d+)?) ?(ms|milliseconds?|s|sec|seconds?)\b",
    re.I,
)
# By these a server quotes the request, or what the model made of it.
_REPEATED = {"input", "inputs", "body", "request", "messages", "prompt", "ctx", "url"}
_REPEATED |= {"failed_generation"}
# These are for machines.
_UNTOLD = {"type", "object", "id", "request_id", "user_id", "code", "status", "headers"}
_UNTOLD |= {"provider_name"}
_NAMING = ("param", "parameter", "loc", "field", "argument")
_FIRST = ("message", "error", "detail", "msg", "raw")
# Members by which a 200 says that it is none, in small letters alone.
_ERRORS = {"error", "errors", "errormsg", "errormessage", "errmsg", "errcode", "detail", "details", "message", "msg"}
_ERRORS |= {"baseresp", "fault", "exception", "reason", "traceback", "failure"}
_NO_ERROR = {"", "0", "200", "null", "none", "n/a", "ok", "success", "false", "no error", "no errors", "no_error"}
# How a reply ends that has broken off, as it stands in the body.
BROKEN_OFF = re.compile(
    rb'"finish_reason"\s*:\s*"[^"]*(?:error|abort|cancel|fail|insufficient|overload|timeout|timed|interrupt|unavailable)',
    re.I,
)
_SILENT = {"", "error", "badrequest", "invalidrequest", "invalidrequesterror", "servererror"}
_UNWORDED = {400, 415, 422, 501}  # of refusals that need not say what they refuse
_UNREFUSED = {401, 408, 409, 429}  # whatever the words: who asks, or when, was wrong


@dataclass(frozen=True)
class Complaint:
    """A server's answer that is no reply."""

    status: int  # of HTTP, or the one that a 200 holds; 0 where it holds none
    words: str  # for people; empty where the server says nothing
    named: tuple[str, ...] = ()  # what it names as a parameter
    hidden: str = ""  # what it says for machines
    wait: float | None = None  # seconds after which it wants to be asked again

    def blames(self, sent: Collection[str]) -> str | None:
        """Which of the parameters that were sent is not taken; None where none is at fault."""
        if self.status in _UNREFUSED:
            return None
        for text in (*self.named, f"{self.words} {self.hidden}"):
            # ASCII: what stands before a name may be a letter of a script without spaces
            matches = {name: re.search(p, text, re.I | re.A) for name, p in _PARAMETERS.items()}
            places = [(match.start(), name) for name, match in matches.items() if match]
            # The first one named is the culprit: some servers go on to list all that they know.
            if places and (name := min(places)[1]) in sent:
                return name if self._is_refusal_of(name, named=text in self.named) else None
        if self.status in _UNWORDED and not self.named and self._is_silent:
            return "response_format" if "response_format" in sent else None
        return None

    @property
    def is_unexplained(self) -> bool:
        """Whether a refusal says neither what it is about nor that the server is busy: it may be the output's form."""
        said = f"{self.words} {self.hidden}"
        return self.status in _UNWORDED and not self.named and not _OTHERWISE.search(said) and not _BUSY.search(said)

    @property
    def _is_silent(self) -> bool:
        plain = re.sub(r"[^a-z]", "", self.words.lower())
        phrases = {re.sub(r"[^a-z]", "", status.phrase.lower()) for status in HTTPStatus}
        return plain in _SILENT | phrases

    def _is_refusal_of(self, name: str, named: bool) -> bool:
        if name == "response_format":
            return not _CONTEXT.search(self.words)
        if name == "max_tokens":  # its size may be wrong, too
            suggested = re.search(r"(?:use|with|try) .{0,12}max_completion_tokens", self.words, re.I)
            sized = _SIZE.search(self.words) or _CONTEXT.search(self.words)
            return bool(suggested) or (not sized and (named or bool(_REFUSING.search(self.words))))
        if self.status == 404:  # a thing is not there, mostly a model
            return named
        return named or self.status < 500 or bool(_REFUSING.search(self.words))


def read_complaint(status: int, text: str) -> Complaint:
    """What an answer of this status says."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = _plain(text)
    told: list[str] = []
    hidden: list[str] = []
    named: list[str] = []
    for name, part in _strings(value):
        if name in _NAMING:
            named.append(part)
        (hidden if name in _UNTOLD else told).append(part)
    words = "; ".join(dict.fromkeys(told))
    return Complaint(status, words, tuple(named), " ".join(hidden), _wait(value, words))


def complaint_inside(text: str) -> Complaint | None:
    """What the body of a 200 complains of; None where it is a reply, or says nothing."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, list) and value and isinstance(value[0], dict):  # several answers, or one in a list
        value = value[0]
    if not isinstance(value, dict):
        return None
    choices = value.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    choice = first if isinstance(first, dict) else {}
    codes = {name: value.get(name) for name in ("code", "status")}
    for error in (value.get("error"), choice.get("error")):
        if isinstance(error, dict) and any(map(_is_error, error.values())) and not (choices and _is_well(error)):
            return _inside({**codes, **error})
        if not isinstance(error, dict) and _is_error(error):
            return _inside({**codes, "error": error})
    ending = choice.get("finish_reason")
    if isinstance(ending, str) and BROKEN_OFF.search(f'"finish_reason":"{ending}"'.encode()):
        return Complaint(0, f"the reply broke off: finish_reason {ending}")
    if not choices and any(_is_error(member) for name, member in value.items() if _plain_name(name) in _ERRORS):
        return _inside(value)
    if not choices and value.get("success") is False:
        return _inside({"error": "no success", **value})
    return None


def _is_error(member: Any) -> bool:
    """Whether what a member for errors holds is one."""
    if isinstance(member, dict | list):
        return bool(member)
    return member is not None and str(member).strip().lower() not in _NO_ERROR


def _is_well(error: dict[str, Any]) -> bool:
    """Whether an object for errors states a code that is none; beside a reply it is believed."""
    return any(name in error and not _is_error(error[name]) and error[name] is not None for name in ("code", "status"))


def _plain_name(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.lower())


def _inside(error: dict[str, Any]) -> Complaint:
    found = read_complaint(0, json.dumps(error))
    for status in (error.get(name) for name in ("code", "status", "status_code", "http_status")):
        if isinstance(status, int | str) and re.fullmatch(r"[45]\d\d", str(status)):
            return Complaint(int(status), found.words, found.named, found.hidden, found.wait)
    said = f"{found.words} {found.hidden}"
    status = 429 if _BUSY.search(said) else 400 if _WRONG.search(said) else 0
    return Complaint(status, found.words, found.named, found.hidden, found.wait)


def _strings(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Every string below a value with its member's name, sentences first."""
    if isinstance(value, dict):
        first = [member for member in _FIRST if member in value]
        for member in [*first, *(member for member in value if member not in first)]:
            if member not in _REPEATED:
                yield from _strings(value[member], str(member))
    elif isinstance(value, list):
        if name == "loc":
            yield name, ".".join(map(str, value))
        else:
            for item in value:
                yield from _strings(item, name)
    elif isinstance(value, str) and value.strip():
        inner = _parsed(value)
        if isinstance(inner, dict | list):  # an answer that a proxy quotes
            yield from _strings(inner, name)
        else:
            yield name, " ".join(value.split())


def _parsed(text: str) -> Any:
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _plain(text: str) -> str:
    """The words of plain text or of a page."""
    if not text.lstrip().startswith("<"):
        return text
    without = re.sub(r"(?is)<(script|style)\b.*?</\1\s*>|<!--.*?-->|<[^>]*>", " ", text)
    return " ".join(without.split()) or text


def _wait(value: Any, words: str) -> float | None:
    """The pause that an answer asks for in its body."""
    for name, pause in _pauses(value):
        if match := re.fullmatch(r"(\d+(?:\.\d+)?) ?s?", str(pause).strip()):
            return float(match[1]) / (1000 if name.endswith("ms") else 1)
    if match := _WAIT.search(words):
        return float(match[1]) / (1000 if match[2].lower().startswith("m") else 1)
    return None


def _pauses(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, member in value.items():
            plain = re.sub(r"[^a-z]", "", str(name).lower())
            if re.fullmatch(r"retry(?:after|delay)(?:ms|s|seconds)?", plain):
                yield plain, member
            yield from _pauses(member)
    elif isinstance(value, list):
        for item in value:
            yield from _pauses(item)
