"""A row as a build stores it, without what only a build needs."""

import hashlib
import io

from PIL import Image

from pipelines.dataset.features import FEATURES

SIZE = (64, 48)


def labelled(**changes):
    file = io.BytesIO()
    Image.new("RGB", SIZE, "red").save(file, "PNG")
    mask = {"size": [48, 64], "counts": "X<<T1000000000000000000000hQ2"}
    return {
        **dict.fromkeys(FEATURES),
        **{"id": "a", "source": "scenes", "split": "train", "license": "cc0-1.0", "width": SIZE[0], "height": SIZE[1]},
        "image": {"bytes": file.getvalue(), "path": None},
        "image_sha256": hashlib.sha256(file.getvalue()).hexdigest(),
        **{"question": "Which colour?", "choices": ["red", "blue"], "answer": "red"},
        "traces": [{"text": "<think>I see red.</think><answer>red</answer>", "correct": True}],
        "annotations": [{"statement": "There is a square."}],
        "regions": [{"phrase": "square", "bbox": [8.0, 8.0, 20.0, 20.0], "mask": mask}],
        **changes,
    }
