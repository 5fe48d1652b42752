"""Asking the Hub: passing trouble is waited out, and what remains is one sentence that says what to do.

``huggingface_hub`` itself asks up to six times, honouring Retry-After, where it sends, lists and fetches files; it asks once where it looks
a repository up, creates it and commits. ``patiently`` repeats those, and nothing that the client has repeated already.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import Any, TypeVar, cast

from huggingface_hub import HfApi, constants, get_token, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

T = TypeVar("T")
ATTEMPTS = 5
FIRST_WAIT = 1.0  # seconds; doubled after every attempt, unless the Hub says how long
_PASSING = {408, 412, 429, 500, 502, 503, 504}  # 412: somebody else has committed meanwhile
_ASKED_ONCE = re.compile(r"/api/(repos/create|validate-yaml|datasets/[^/]+/[^/]+(/revision/[^/]+)?)$")
# The error of whichever HTTP library the client is built on, for connections that broke: httpx in 1.x, httpx2 in 2.x.
_HTTP_ERROR = cast(type[Exception], HfHubHTTPError.__bases__[0])


class HubError(RuntimeError):
    """The Hub did not do what it was asked for; the message says why and what to do."""


def check_name(repo: str) -> None:
    """``HubError`` for what cannot be the name of a dataset repository."""
    try:
        hf_hub_url(repo, "README.md", repo_type="dataset")  # asks nobody, but checks the name
        problem = "" if repo.count("/") == 1 else "it has no owner"
    except HFValidationError as error:
        problem = _brief(str(error))
    if problem:
        raise HubError(f"{repo!r} is no name of a repository ({problem}); expected USER/NAME, for example me/shapes")


def has_token() -> bool:
    return bool(get_token())


def log_in() -> HfApi:
    """A client with the user's token."""
    if not (token := get_token()):
        raise HubError("there is no token for the Hub; log in with `hf auth login`, or set HF_TOKEN to a token that may write")
    return HfApi(token=token)


def patiently(call: Callable[[], T], say: Callable[[str], None]) -> T:
    """The result of a call that may be made again; trouble that passes is waited out, ``ATTEMPTS`` times at most."""
    for attempt in range(1, ATTEMPTS):
        try:
            return call()
        except Exception as error:
            if not _may_pass(error):
                raise
            wait = _retry_after(error, FIRST_WAIT * 2 ** (attempt - 1))
            say(f"{_what_happened(error)}; trying again in {wait:g} s (attempt {attempt + 1} of {ATTEMPTS})")
        time.sleep(wait)
    return call()


def _root(error: BaseException) -> BaseException | None:
    """The Hub's answer or the broken connection behind an error, which the client may have wrapped in another."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, _HTTP_ERROR):
        seen = seen.__cause__
    return seen


def _may_pass(error: Exception) -> bool:
    """Whether asking again may help, and the client has not done so already."""
    root = _root(error)
    if root is None or (isinstance(root, HfHubHTTPError) and root.response.status_code not in _PASSING):
        return False
    path = _path(root)
    if "/commit/" in path:  # streamed uploads repeat their commits, but a stale one is for us to make anew
        streamed = not constants.HF_HUB_DISABLE_XET and find_spec("hf_xet") is not None
        return not streamed or _status(root) == 412
    if "/resolve/" in path:  # answers are asked for again by the client, broken connections are not
        return _status(root) is None
    return _ASKED_ONCE.search(path) is not None


def _path(error: Any) -> str:
    """Of the request that went wrong."""
    with suppress(RuntimeError):  # raised by errors that do not know their request
        return str((error.response if isinstance(error, HfHubHTTPError) else error).request.url.path)
    return ""


def _status(error: BaseException | None) -> int | None:
    return error.response.status_code if isinstance(error, HfHubHTTPError) else None


def _retry_after(error: Exception, default: float) -> float:
    root = _root(error)
    value = root.response.headers.get("Retry-After", "") if isinstance(root, HfHubHTTPError) else ""
    return float(value) if value.isdigit() else default


def _what_happened(error: Exception) -> str:
    root = _root(error)
    return f"the Hub answered {_status(root)}" if isinstance(root, HfHubHTTPError) else f"the connection broke ({_brief(str(root))})"


@contextmanager
def explained(repo: str, endpoint: str) -> Iterator[None]:
    """Whatever the client raises becomes a ``HubError`` of one sentence, with no cause chained: servers may repeat what they were sent."""
    try:
        yield
    except OfflineModeIsEnabled:
        raise HubError("HF_HUB_OFFLINE is set, so the Hub is not asked; unset it and run the same command again") from None
    except (OSError, ValueError, RuntimeError, _HTTP_ERROR) as error:
        if type(error).__module__.startswith("pipelines."):  # a sentence already
            raise
        raise HubError(_sentence(error, repo, endpoint)) from None


def _sentence(error: BaseException, repo: str, endpoint: str) -> str:
    root = _root(error)
    status = _status(root)
    again = "run the same command again, what has been sent stays"
    if status == 401 or (root is None and isinstance(error, PermissionError)):
        first = "unset HF_TOKEN, which comes first, and " if os.environ.get("HF_TOKEN") else ""
        return f"the Hub does not accept the token (401), it may have expired; {first}run `hf auth login`, or set HF_TOKEN to a new one"
    if status == 403:
        make = f"make one with write access at {endpoint}/settings/tokens"
        return f"the token may not write to {repo} (403); {make}, then give it to `hf auth login` or set HF_TOKEN"
    if status == 429:
        return f"the Hub limits requests (429) and did not stop within {ATTEMPTS} attempts; wait some minutes and {again}"
    if status is not None and status >= 500:
        return f"the Hub answered {status} to every attempt; wait some minutes and {again}"
    if status is not None:
        said = getattr(root, "server_message", None) or str(root)
        return f"the Hub refused the request for {repo} ({status}): {_brief(said)}"
    if root is not None:
        return f"cannot reach {endpoint} ({_brief(str(root))}); check the network and HF_ENDPOINT, then {again}"
    return f"publishing to {repo} failed: {_brief(str(error))}; {again}"


def _brief(text: str) -> str:
    return " ".join(text.split())[:300].rstrip(".")
