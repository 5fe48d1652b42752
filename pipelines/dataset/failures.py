"""What is known to go wrong in a dataset, in sentences: read from the counts of its manifest, so that a card cannot flatter."""

from __future__ import annotations

from collections.abc import Mapping

# Who was asked, and what is missing where there was no reply.
_UNANSWERED = {
    "collector": "traces ({reasons}); these were asked for and not written",
    "judge": "traces ({reasons}); these have no annotations",
    "vlm-boxes": "images ({reasons}); what it might have found there is missing",
    "verifier": "findings ({reasons}); these were kept without a second opinion",
    "answerer": "rows ({reasons}); their regions have no effect",
}
_DROPPED = {
    "quote not in trace": "because their quote is not in the trace",
    "no statement": "because they state nothing",
    "half a character": "because they hold half a character, which no file can",
}


def known_failures(counts: Mapping[str, int], rejected: int = 0) -> list[str]:
    """A sentence for everything that did not work, with its share; nothing for what always worked or was not tried."""

    def share(part: int, whole: int) -> str:
        return f"{part} of {whole} ({100 * part / whole:.1f} %)"

    def missing(whole: str, good: str) -> int:
        return counts.get(whole, 0) - counts.get(good, 0)

    lines = []
    if part := counts.get("phrases_not_found", 0):
        lines.append(f"{share(part, counts['phrases'])} phrases were not found in their image; their annotations have no region.")
    if part := counts.get("masks_from_box", 0):
        lines.append(f"{share(part, counts['masks'])} masks are the whole box, because the segmenter's own was not usable.")
    if part := counts.get("regions_unknown", 0):
        lines.append(
            f"Of {share(part, counts['regions'])} regions nobody could tell whether the answer rests on them; no reward looks there."
        )
    if part := counts.get("rows_out_of_domain", 0):
        lines.append(f"{share(part, counts['rows_in'])} images are none that the embedded detector was taught; it did not look at them.")
    if part := counts.get("counts_that_differ", 0):
        lines.append(f"{part} facts state another number of things than were found; they have the flag `count_differs`.")
    if part := counts.get("findings_refuted", 0):
        lines.append(f"{part} findings were dropped, because the judge saw something else there.")
    if part := missing("evidence_images", "evidence_verified"):
        whole = share(part, counts["evidence_images"])
        lines.append(f"On {whole} evidence images the removal is not verified: a locator still sees the evidence, or never did.")
    if part := missing("control_images", "control_verified"):
        whole = share(part, counts["control_images"])
        lines.append(f"On {whole} control images it is not verified that the evidence is still seen.")
    if part := counts.get("controls_without_room", 0):
        lines.append(f"{share(part, counts['evidence_images'])} evidence images have no control: there was no room elsewhere.")
    if part := counts.get("traces_wrong", 0):
        whole = share(part, part + counts.get("traces_correct", 0))
        lines.append(f"{whole} traces end in a wrong answer; they are kept with `correct` false and were not read for annotations.")
    dropped = {name.split(": ", 1)[1]: n for name, n in counts.items() if name.startswith("annotations_dropped: ")}
    for reason, part in sorted(dropped.items()):
        if part:
            whole = share(part, sum(dropped.values()) + counts.get("annotations", 0))
            why = _DROPPED.get(reason, f"with this reason: {reason}")
            lines.append(f"{whole} facts that the judge named were dropped, {why}.")
    for stage, what in _UNANSWERED.items():
        if failed := {name.split(": ", 1)[1]: n for name, n in counts.items() if name.startswith(f"{stage}_failed: ")}:
            reasons = ", ".join(f"{reason} {n}" for reason, n in sorted(failed.items()))
            lines.append(f"The {stage} gave no usable reply for {sum(failed.values())} {what.format(reasons=reasons)}.")
    if rejected:
        lines.append(f"{share(rejected, counts['rows_in'])} rows were dropped, so what is left is easier to ground than the source.")
    return lines
