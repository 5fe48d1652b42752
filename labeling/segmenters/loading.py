from labeling.segmenters.sam import TransformersSegmenter


def load_segmenter(path, *, revision, device, dtype):
    return TransformersSegmenter.from_pretrained(path, revision=revision, device=device)
