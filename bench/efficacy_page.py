"""What ``bench.efficacy`` shows people: the tables and the plot of docs/efficacy.md."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "docs" / "efficacy.md"
PLOT = PAGE.with_suffix(".svg")
INK = ("#1f6fb2", "#d1495b", "#2e933c", "#8a5a99", "#c07f00", "#555")
COLUMNS = ("accuracy", "greedy_accuracy", "naming", "contrast", "pointing", "evidence_minus_control", "late_looking", "gain")


def page(result: dict[str, Any]) -> str:
    """The page with the result's tables; what people have written around them stays."""
    text = PAGE.read_text()
    made = {name: differences(result[name]) for name in ("headlines", "controls", "own_rewards")} | {"settings": settings(result)}
    for name, table in made.items():
        text = re.sub(rf"(?s)(<!-- {name} -->\n).*?(?=<!-- end -->)", lambda found, table=table: found[1] + table + "\n", text)
    return text


def differences(pairs: dict[str, dict[str, Any]]) -> str:
    """Differences with their intervals, and whether these exclude zero."""
    lines = ["| | of | against | difference | 95 % interval | |", "|---|---|---|---|---|---|"]
    for name, pair in pairs.items():
        verdict = "more" if pair["low"] > 0 else "less" if pair["high"] < 0 else "within the noise"
        one, other, measure = pair["of"], pair["against"].partition(": ")[2] or pair["against"], pair["measure"].replace("_", " ")
        interval = f"{pair['low']:+.3f} to {pair['high']:+.3f}"
        lines.append(f"| {name} | {one} | {other} | {pair['difference']:+.3f} {measure} | {interval} | {verdict} |")
    return "\n".join(lines)


def settings(result: dict[str, Any]) -> str:
    """Every setting's measures, a table for each task, under the policy before training."""
    parts = []
    for task, start in result["start"].items():
        heads = ["rate", *(name.replace("_", " ") for name in COLUMNS), "completions to 80 %"]
        parts += [f"| {task} | " + " | ".join(heads) + " |", "|---|" + "---|" * len(heads)]
        before = [f"{start[name]:.3f}" if name in start else "" for name in COLUMNS]
        parts.append(f"| *before* | | {' | '.join(before)} | |")
        for name, row in result["settings"].items():
            if name.startswith(f"{task}: "):
                cells = [f"{row[m]['mean']:.3f} ± {row[m]['mean'] - row[m]['low']:.3f}" for m in COLUMNS]
                enough = row["completions"] or "never"
                parts.append(f"| {name.partition(': ')[2]} | {row['learning_rate']:g} | {' | '.join(cells)} | {enough} |")
        parts.append("")
    return "\n".join(parts)


def plot(result: dict[str, Any]) -> str:
    """The headlines' and controls' differences with their intervals, and the learning curves of every task, as SVG."""
    pairs = [*result["headlines"].items(), *result["controls"].items()]
    tasks = list(result["start"])
    height = 70 + 24 * len(pairs) + 40 + 210 * -(-len(tasks) // 2)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1000 {height}" font-family="sans-serif" font-size="12">']
    parts.append(f'<rect width="1000" height="{height}" fill="white"/>')
    parts += _forest(pairs, len(result["headlines"]))
    top = 90 + 24 * len(pairs)
    for n, task in enumerate(tasks):
        parts += _curves(result, task, 20 + 490 * (n % 2), top + 210 * (n // 2))
    return "\n".join([*parts, "</svg>\n"])


def _forest(pairs: list[tuple[str, dict[str, float]]], headlines: int) -> list[str]:
    low, high = min(0.0, *(p["low"] for _, p in pairs)), max(0.0, *(p["high"] for _, p in pairs))

    def at(value: float) -> float:
        return 300 + 620 * (value - low) / (high - low or 1)

    bottom = 50 + 24 * len(pairs)
    parts = ['<text x="20" y="24" font-weight="bold">difference against what it is compared with, 95 % interval over seeds</text>']
    parts.append(f'<path d="M{at(0):.1f} 36V{bottom - 6}" stroke="#999" stroke-dasharray="3 3"/>')
    parts += [f'<text x="{at(v):.1f}" y="{bottom + 8}" font-size="10" text-anchor="middle">{v:+.2f}</text>' for v in {low, 0.0, high}]
    for n, (name, pair) in enumerate(pairs):
        y, ink = 50 + 24 * n, INK[0] if n < headlines else INK[5]
        parts.append(f'<text x="20" y="{y + 4}" fill="{ink}">{name}</text>')
        parts.append(f'<path d="M{at(pair["low"]):.1f} {y}H{at(pair["high"]):.1f}" stroke="{ink}" stroke-width="2"/>')
        parts.append(f'<circle cx="{at(pair["difference"]):.1f}" cy="{y}" r="4" fill="{ink}"/>')
    return parts


def _curves(result: dict[str, Any], task: str, x: float, y: float) -> list[str]:
    """The accuracy of a task's sampled completions while training, over seeds; each point a mean with the two before it."""
    parts = [f'<text x="{x}" y="{y}" font-weight="bold">{task}: accuracy while training</text>']
    parts.append(f'<path d="M{x + 30} {y + 12}V{y + 162}H{x + 270}" stroke="#999" fill="none"/>')
    parts += [f'<text x="{x + 24}" y="{y + 166 - 150 * v:.0f}" font-size="10" text-anchor="end">{v:.1f}</text>' for v in (0.0, 0.5, 1.0)]
    shown = [(name, row["curve"]) for name, row in result["settings"].items() if name.startswith(f"{task}: ")]
    for n, (name, curve) in enumerate(shown):
        smooth = [sum(curve[max(0, i - 2) : i + 1]) / len(curve[max(0, i - 2) : i + 1]) for i in range(len(curve))]
        points = " ".join(f"{x + 30 + 240 * i / max(1, len(smooth) - 1):.1f},{y + 162 - 150 * v:.1f}" for i, v in enumerate(smooth))
        ink, dashes = INK[n % len(INK)], ' stroke-dasharray="5 3"' if n >= len(INK) else ""  # a colour again is dashed
        line = y + 20 + 15 * n
        parts.append(f'<polyline points="{points}" fill="none" stroke="{ink}" stroke-width="2"{dashes}/>')
        parts.append(f'<path d="M{x + 276} {line - 4}h18" stroke="{ink}" stroke-width="2"{dashes}/>')
        parts.append(f'<text x="{x + 300}" y="{line}" fill="{ink}" font-size="11">{name.partition(": ")[2]}</text>')
    return parts
