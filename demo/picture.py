"""Draw one labelled row as a picture: the image with its regions, the evidence removed, and the control.

python -m demo.picture demo_out/dataset --out docs/row.png
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from labeling import masks
from pipelines.dataset import store

SCALE, MARGIN, LINE = 2, 12, 20
HUES = ((230, 0, 126), (0, 114, 178), (0, 158, 115), (213, 94, 0), (123, 63, 228))


def draw_row(row: dict[str, Any]) -> Image.Image:
    """Question and trace above, three pictures below, each with its caption."""
    phrases = list(dict.fromkeys(r["phrase"] for r in row["regions"]))
    hues = {phrase: HUES[i % len(HUES)] for i, phrase in enumerate(phrases)}
    trace = next(t for t in row["traces"] if t["correct"])
    evidence = sum(region["role"] == "evidence" for region in row["regions"])
    told = f"{evidence} regions that the answer rests on, filled; {len(row['regions']) - evidence} that are mentioned, as boxes"
    panels = [(_with_regions(row, hues), told)]
    panels += [(_open(c["image"]), _caption(c)) for c in row["counterfactuals"]]
    font = ImageFont.load_default(size=14)
    width = max(p.width for p, _ in panels) + 2 * MARGIN
    lines = [f"Q  {row['question']}   A  {row['answer']}", *_wrapped(trace["text"], width - 2 * MARGIN, font)]
    height = sum(p.height + LINE + MARGIN for p, _ in panels) + LINE * (len(lines) + 1) + MARGIN
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    y = MARGIN
    for line in lines:
        draw.text((MARGIN, y), line, fill=(30, 30, 30), font=font)
        y += LINE
    for x, phrase in zip(range(MARGIN, width, 130), phrases, strict=False):
        draw.text((x, y), phrase, fill=hues[phrase], font=font)
    y += LINE + MARGIN // 2
    for panel, caption in panels:
        sheet.paste(panel, (MARGIN, y))
        draw.text((MARGIN, y + panel.height + 2), caption, fill=(90, 90, 90), font=font)
        y += panel.height + LINE + MARGIN
    return sheet


_WHAT = {
    "evidence": "evidence removed",
    "control": "control, the same silhouettes elsewhere",
    "context": "what is mentioned but not needed removed",
}


def _open(image: dict[str, Any]) -> Image.Image:
    opened = Image.open(io.BytesIO(image["bytes"])).convert("RGB")
    return opened.resize((opened.width * SCALE, opened.height * SCALE), Image.Resampling.NEAREST)


def _with_regions(row: dict[str, Any], hues: dict[str, tuple[int, int, int]]) -> Image.Image:
    pixels = np.asarray(_open(row["image"])).copy()
    for region in row["regions"]:
        mask = cv2.resize(masks.decode(region["mask"]).astype(np.uint8), pixels.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        shade = np.array(hues[region["phrase"]])
        if region["role"] == "evidence":
            pixels[mask > 0] = (0.65 * pixels[mask > 0] + 0.35 * shade).astype(np.uint8)
            cv2.drawContours(pixels, contours, -1, hues[region["phrase"]], 1)
        x0, y0, x1, y1 = (round(SCALE * v) for v in region["bbox"])
        cv2.rectangle(pixels, (x0 - 3, y0 - 3), (x1 + 2, y1 + 2), hues[region["phrase"]], 1)
    return Image.fromarray(pixels)


def _caption(counterfactual: dict[str, Any]) -> str:
    verdict = "verified" if counterfactual["verified"] else "not verified"
    what = _WHAT[counterfactual["role"]]
    return f"{what} ({counterfactual['fill']}, {counterfactual['shape']}): {verdict}"


def _wrapped(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        lines = [*lines[:-1], longer] if font.getlength(longer) <= width else [*lines, word]
    return lines


def _is_telling(row: dict[str, Any]) -> bool:
    """Several kinds of things in a strip, and a verified pair whose fill can be seen without being mere noise."""
    pair, kinds = row["counterfactuals"], {r["phrase"] for r in row["regions"]}
    visible = len(pair) == 3 and all(c["verified"] and c["fill"] in ("blur", "mean") for c in pair)
    return visible and len(kinds) >= 3 and any("square" not in k for k in kinds) and row["width"] > 200


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draw one labelled row as a picture.")
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--out", type=Path, default=Path("row.png"))
    parser.add_argument("--id", help="which row; by default the first that shows much")
    a = parser.parse_args()
    rows = store.read_rows(a.dataset)
    good = (r for r in rows if r["id"] == a.id or (a.id is None and _is_telling(r)))
    draw_row(next(good)).save(a.out)
    print(f"drawn in {a.out}")
