"""No secret reaches a message: what an endpoint or a library says is cleaned here before it is written down or shown.

Servers quote the key that they refuse, libraries quote the URL that they cannot reach. Secrets are the values of environment variables
that are named like one, credentials inside URLs, and whatever follows ``Authorization:``. Redact before cutting a text short: half a key
is no longer found.
"""

from __future__ import annotations

import os
import re

_NAMED = re.compile(r"(KEY|TOKEN|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|(^|_)PAT)(_|\d|$)|SECRET", re.I)
SHORTEST = 8  # characters; shorter values are words such as "true", and would tear holes into sentences
_IN_URL = re.compile(r"(?<=://)[^/\s\"'<>]*@")
_IN_HEADER = re.compile(r"(authorization\W{1,4}(?:basic|bearer)\s+)[^\s\"'<>]+", re.I)


def named_secrets() -> dict[str, str]:
    """The values of the environment variables that are named like a secret, each with its variable's name."""
    found = {value.strip(): name for name, value in os.environ.items() if _NAMED.search(name)}
    return {value: name for value, name in found.items() if len(value) >= SHORTEST}


def redact(text: str, *secrets: str) -> str:
    """The text with every secret replaced; ``secrets`` are further ones that no environment variable holds."""
    known = {value: "secret" for value in secrets if len(value) >= SHORTEST} | named_secrets()
    for value in sorted(known, key=len, reverse=True):  # one may hold another
        text = text.replace(value, f"[{known[value]}]")
    return _IN_HEADER.sub(r"\1[credentials]", _IN_URL.sub("[credentials]@", text))
