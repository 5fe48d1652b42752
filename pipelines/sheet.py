"""A sheet of facts for a person to judge: a line of JSON each, and a page that shows what one has to see to answer.

The page is one file without a server: picture, question, answer and trace beside the facts, ``y`` and ``n`` to answer. It saves the same
lines, filled in, which ``pipelines.agreement --gold`` reads.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from PIL import Image

from rewardlib.page import content_policy, data_url, inert

ASKED = {
    "facts": "Does the trace state this fact of the image?",
    "roles": "Does the answer rest on this fact? Would somebody who does not know it be unable to answer?",
}


def write_sheet(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """The lines as JSONL; ``FileExistsError`` rather than write over somebody's work."""
    with path.open("x", encoding="utf-8") as file:
        file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def write_page(path: Path, lines: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]], about: str) -> None:
    """The page to the lines; ``rows`` are those of the dataset that they are about, with their images."""
    known = {row["id"]: row for row in rows}
    shown = {
        key: {
            "image": data_url(Image.open(io.BytesIO(known[key]["image"]["bytes"])).convert("RGB")),
            "question": known[key]["question"],
            "choices": known[key]["choices"],
            "answer": known[key]["answer"],
        }
        for key in dict.fromkeys(line["id"] for line in lines)
    }
    data = inert({"lines": list(lines), "rows": shown, "name": path.stem, "asked": ASKED[about]})
    template = Environment(loader=PackageLoader("pipelines", "."), autoescape=True).get_template("sheet.html")
    policy = content_policy(template.render()) + "; base-uri 'none'; form-action 'none'"
    path.write_text(template.render(policy=policy, data=data), encoding="utf-8")
