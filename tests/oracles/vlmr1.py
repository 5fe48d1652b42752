"""VLM-R1 REC rewards for Qwen2.5-VL (arXiv 2504.07615): slow reference, written from the formulas.  Per response."""

import re


def iou(a, b):
    """Boxes [x1, y1, x2, y2].  Released: an overlap of 1 pixel or less in either direction counts as none; else the usual IoU."""
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inter = w * h if w > 1 and h > 1 else 0
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)


def first_box(text):
    """Four whole non-negative numbers: the first '[d, d, d, d]' (whitespace only after a comma) of the first
    <answer>..</answer>; None where missing (decimals, minus signs, a space before the closing bracket do not match)."""
    start = text.find("<answer>")
    end = text.find("</answer>", start + 8) if start != -1 else -1
    if end == -1:
        return None
    found = re.search(r"\[(\d+),\s*(\d+),\s*(\d+),\s*(\d+)\]", text[start + 8 : end])
    return [int(x) for x in found.groups()] if found else None


def to_original(box, input_size, image_size):
    """Pixels of the resized image (what the model answers in) to pixels of the original.  Sizes are (width, height);
    the resized one is image_grid_thw * 14."""
    (iw, ih), (w, h) = input_size, image_size
    return [box[0] / iw * w, box[1] / ih * h, box[2] / iw * w, box[3] / ih * h]


def vlmr1_iou_reward(text, gold_box, input_size=None, image_size=None):
    """The IoU itself (soft, no threshold), gold in ORIGINAL pixels; 0 where no box, or where the union is 0."""
    box = first_box(text)
    if box is None:
        return 0.0
    if input_size is not None:
        box = to_original(box, input_size, image_size)
    try:
        return iou(box, gold_box)
    except ZeroDivisionError:
        return 0.0


def vlmr1_format(text):
    """Anywhere in the text: <think>..</think> whitespace <answer> .. { .. [d, d, d, d] .. } .. </answer>."""
    pattern = r"<think>[\s\S]*?</think>\s*<answer>[\s\S]*?\{[\s\S]*\[\d+,\s*\d+,\s*\d+,\s*\d+\][\s\S]*\}[\s\S]*?</answer>"
    return 1.0 if re.search(pattern, text) else 0.0


def vlmr1_total(text, gold_box, input_size=None, image_size=None):
    return vlmr1_iou_reward(text, gold_box, input_size, image_size) + vlmr1_format(text)


def hit(text, gold_box, input_size=None, image_size=None):
    """Evaluation: accuracy at IoU > .5, strictly; there the box must lie within braces."""
    return vlmr1_iou_reward(text, gold_box, input_size, image_size) > 0.5
