"""Licences as the Hub wants them in a card: one of its identifiers, or ``other`` with a name.

Identifiers and rule: https://huggingface.co/docs/hub/repositories-licenses.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from rewardlib.rows.values import is_missing

_STATES_NOTHING = {"unknown", "none", "null", "n/a", "na", "unspecified", "-"}
# fmt: off
_IDENTIFIERS = {
    "apache-2.0", "mit", "openrail", "bigscience-openrail-m", "creativeml-openrail-m", "bigscience-bloom-rail-1.0", "bigcode-openrail-m",
    "afl-3.0", "artistic-2.0", "bsl-1.0", "bsd", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear", "c-uda", "cc", "cc0-1.0",
    "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0",
    "cc-by-nd-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cdla-sharing-1.0",
    "cdla-permissive-1.0", "cdla-permissive-2.0", "wtfpl", "ecl-2.0", "epl-1.0", "epl-2.0", "etalab-2.0", "eupl-1.1", "eupl-1.2",
    "agpl-3.0", "gfdl", "gpl", "gpl-2.0", "gpl-3.0", "lgpl", "lgpl-2.1", "lgpl-3.0", "isc", "intel-research", "lppl-1.3c", "ms-pl",
    "mpl-2.0", "odc-by", "odbl", "openrail++", "openmdw-1.0", "osl-3.0", "postgresql", "ofl-1.1", "ncsa", "unlicense", "zlib", "pddl",
    "lgpl-lr", "deepfloyd-if-license", "llama2", "llama3", "llama3.1", "llama3.2", "llama3.3", "llama4", "gemma", "apple-ascl",
    "apple-amlr", "fair-noncommercial-research-license", "grok2-community", "h-research",
}
# fmt: on


def is_stated(license: str | None) -> bool:
    """Whether a row's licence says anything."""
    return not is_missing(license) and str(license).strip().lower() not in _STATES_NOTHING


def license_metadata(licenses: Collection[str]) -> dict[str, Any]:
    """A card's ``license``, and ``license_name`` where that is ``other``: for several licences, and for one that the Hub does not list."""
    names = sorted({name.strip().lower() for name in licenses})
    if len(names) == 1 and names[0] in _IDENTIFIERS:
        return {"license": names[0]}
    if not names:
        return {"license": "other"}
    return {"license": "other", "license_name": "-and-".join(re.sub(r"[^a-z0-9.+]+", "-", name).strip("-") for name in names)}
