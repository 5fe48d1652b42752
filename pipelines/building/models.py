"""The three models of a build, loaded once per process and shared by its threads."""

from __future__ import annotations

import functools
import hashlib
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labeling.annotate import SYSTEM, Annotator, LLMAnnotator
from labeling.answerers import EndpointAnswerer, PolicyAnswerer
from labeling.collect import TraceCollector
from labeling.domain import Domain
from labeling.effect import Answerer
from labeling.locators.base import Locator
from labeling.locators.chain import LocatorChain
from labeling.locators.loading import load_locator
from labeling.locators.ocr import OcrLocator
from labeling.locators.vlm_boxes import VlmBoxesLocator
from labeling.rules import RuleAnnotator
from labeling.segmenters.base import Segmenter
from labeling.segmenters.loading import load_segmenter
from labeling.segmenters.segment_anything import SegmentAnythingSegmenter
from labeling.verify import Verifier
from pipelines.building.code import code_version
from pipelines.building.endpoints import endpoint_of
from pipelines.config import (
    AnnotatorConfig,
    BoxesConfig,
    BuildConfig,
    CollectorConfig,
    DetectorConfig,
    OcrConfig,
    SegmenterConfig,
    find_checkpoint,
    public_name,
)
from rewardlib.cache import ReplyCache
from rewardlib.judge import JudgeClient
from rewardlib.redact import redact

_LOADING = threading.Lock()  # transformers patches torch globally while it loads, so two threads may not load at once


class ModelError(ValueError):
    """A model cannot be loaded; the message says which and what to do."""


@dataclass(frozen=True)
class Models:
    annotator: Annotator
    locators: LocatorChain
    segmenter: Segmenter
    collector: TraceCollector | None = None
    verifier: Verifier | None = None
    answerer: Answerer | None = None
    segmenter_domain: Domain | None = None  # everything without one

    def infos(self) -> dict[str, Any]:
        """What the manifest records about the models."""
        optional = {"collector": self.collector, "verifier": self.verifier, "answerer": self.answerer}
        return {
            "annotator": self.annotator.info().as_dict(),
            "locators": {name: info.as_dict() for name, info in self.locators.infos().items()},
            "segmenter": self.segmenter.info().as_dict(),
            **{name: model.info().as_dict() if model else None for name, model in optional.items()},
        }

    def provenance(self, config: BuildConfig) -> dict[str, Any]:
        """What a row records about the models that labelled it. ``detector`` is the locator of things."""
        judge, locators, segmenter = self.annotator.info(), self.locators.infos(), self.segmenter.info()
        detector = next(locators[locator.name] for locator in self.locators.locators if "object" in locator.kinds)
        answerer = self.answerer.info() if self.answerer else None
        asks = "prompt" in judge.settings
        return {
            "judge": judge.name,
            "prompt_sha256": hashlib.sha256(SYSTEM.encode()).hexdigest() if asks else None,
            "detector": detector.name,
            "detector_revision": detector.revision,
            "detector_threshold": detector.settings.get("threshold"),
            "locators": [{"locator": kind, "name": i.name, "revision": i.revision} for kind, i in locators.items()],
            "segmenter": segmenter.name,
            "segmenter_revision": segmenter.revision,
            "answerer": answerer.name if answerer else None,
            "answerer_revision": answerer.revision if answerer else None,
            "config_sha256": config.sha256(),
            "code_version": code_version(),
        }


def load_models(config: BuildConfig) -> Models:
    """The models that a configuration names; the same ones for the same names within a process."""
    with _LOADING:
        replies = config.out / ".work" / _replies(config)
        return Models(
            load_annotator(config.annotator, replies, config.max_cost),
            load_locators(config.detector, config.ocr, config.boxes, config.device, config.dtype, replies, config.max_cost),
            load_segmenter_of(config.segmenter, config.device, config.dtype),
            load_collector(config.collector, replies, config.max_cost),
            _load_verifier(config.annotator, replies, config.max_cost) if config.verify else None,
            _load_answerer(config) if config.answerer else None,
            Domain.read(find_checkpoint(config.segmenter.name)),
        )


def _replies(config: BuildConfig) -> str:
    """The judge's replies; each machine of a cluster has its own, since SQLite's write-ahead log cannot be shared over a network."""
    return f"replies-{platform.node()}.sqlite" if config.ray_address else "replies.sqlite"


@functools.lru_cache(maxsize=4)
def load_annotator(config: AnnotatorConfig, cache: Path, max_cost: float | None = None) -> Annotator:
    if config.model == "rules":
        return RuleAnnotator()
    return LLMAnnotator(JudgeClient(endpoint_of(config), ReplyCache(cache), max_cost))


@functools.lru_cache(maxsize=4)
def load_collector(config: CollectorConfig, cache: Path, max_cost: float | None = None) -> TraceCollector | None:
    if config.model is None:
        return None
    return TraceCollector(JudgeClient(endpoint_of(config), ReplyCache(cache), max_cost), config.draws)


@functools.lru_cache(maxsize=2)
def load_locators(
    detector: DetectorConfig, ocr: OcrConfig, boxes: BoxesConfig, device: str, dtype: str, cache: Path, max_cost: float | None
) -> LocatorChain:
    """Who looks for what, in the order in which they are asked: text is read, things are detected, and whoever is left is asked for
    the rest. A locator more is a line more."""
    domain = Domain.read(find_checkpoint(detector.name))
    if detector.threshold is None and domain is not None:
        detector = detector.model_copy(update={"threshold": domain.threshold})
    found = _load_detector(detector, device, dtype)
    locators: list[Locator] = [found]
    if ocr.enabled:
        locators.insert(0, OcrLocator(threshold=ocr.threshold))
    if boxes.model is not None:
        client = JudgeClient(endpoint_of(boxes), ReplyCache(cache), max_cost)
        locators.append(VlmBoxesLocator(client, coordinates=boxes.coordinates))
    return LocatorChain(locators, {found.name: domain} if domain else None)


@functools.lru_cache(maxsize=2)
def _load_detector(config: DetectorConfig, device: str, dtype: str) -> Any:
    path = find_checkpoint(config.name)
    settings: dict[str, Any] = {"nms_iou": config.nms_iou, "batch_size": config.batch_size}
    if config.threshold is not None:
        settings["threshold"] = config.threshold
    with _explained("detector", config.name):
        locator = load_locator(path, revision=config.revision, device=device, dtype=dtype, **settings)
    locator.checkpoint, locator.revision = public_name(config.name), local_revision(path) or locator.revision
    return locator


@functools.lru_cache(maxsize=2)
def load_segmenter_of(config: SegmenterConfig, device: str, dtype: str) -> Segmenter:
    path = find_checkpoint(config.name)
    with _explained("segmenter", config.name):
        if config.backend == "segment-anything":
            return SegmentAnythingSegmenter.from_checkpoint(path, kind=config.kind, device=device)
        segmenter = load_segmenter(path, revision=config.revision, device=device, dtype=dtype, batch_size=config.batch_size)
    segmenter.checkpoint, segmenter.revision = public_name(config.name), local_revision(path) or segmenter.revision
    return segmenter


@functools.lru_cache(maxsize=2)
def _load_verifier(judge: AnnotatorConfig, cache: Path, max_cost: float | None) -> Verifier:
    return Verifier(JudgeClient(endpoint_of(judge), ReplyCache(cache), max_cost))


def _load_answerer(config: BuildConfig) -> Answerer:
    name = str(config.answerer)
    if config.answerer_url:
        return EndpointAnswerer(name, config.answerer_url)
    return _load_policy(name, config.device, config.dtype)


@functools.lru_cache(maxsize=1)
def _load_policy(name: str, device: str, dtype: str) -> Answerer:
    path = find_checkpoint(name)
    with _explained("answerer", name):
        answerer = PolicyAnswerer.from_pretrained(path, device=device, dtype=dtype)
    answerer.name, answerer.revision = public_name(name), local_revision(path) or answerer.revision
    return answerer


@contextmanager
def _explained(role: str, name: str) -> Iterator[None]:
    """Turns whatever a loader raises into one sentence with a remedy."""
    try:
        yield
    except Exception as error:
        message = " ".join(redact(str(error)).split())[:300]
        flag = "--answerer" if role == "answerer" else f"--{role}.name"
        raise ModelError(
            f"cannot load the {role} {name!r}: {message}. Give a Hub id that this machine can reach or has in its cache, "
            f"or a local folder with {flag}"
        ) from error


@functools.cache
def local_revision(path: str) -> str | None:
    """The revision of a local checkpoint is the hash of its contents; None for a Hub id, which has one of its own."""
    folder = Path(path)
    if not folder.is_dir():
        return None
    digest = hashlib.sha256()
    for file in sorted(f for f in folder.iterdir() if f.suffix in (".json", ".safetensors", ".bin", ".txt")):
        digest.update(file.name.encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return "sha256:" + digest.hexdigest()[:16]
