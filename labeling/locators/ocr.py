class OcrLocator:
    name = "ocr"
    kinds = frozenset()

    def __init__(self, threshold):
        self.threshold = threshold

    def locate(self, images, sought, threshold=None):
        return [[] for _ in images]

    def info(self):
        from labeling.info import ModelInfo

        return ModelInfo("rapidocr")
