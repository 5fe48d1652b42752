"""The three models of a build, loaded once per process and shared by its threads."""

from __future__ import annotations

import functools
import hashlib
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from labeling.annotate import SYSTEM, Annotator, LLMAnnotator
from labeling.boxes import Detector
from labeling.collect import TraceCollector
from labeling.detect import GroundingDinoDetector
from labeling.rules import RuleAnnotator
from labeling.segment import SegmentAnythingSegmenter, Segmenter, TransformersSegmenter
from pipelines.code import code_version
from pipelines.config import (
    AnnotatorConfig,
    BuildConfig,
    CollectorConfig,
    DetectorConfig,
    EndpointConfig,
    SegmenterConfig,
    find_checkpoint,
    public_name,
)
from rewardlib.cache import ReplyCache
from rewardlib.judge import JudgeClient, JudgeEndpoint
from rewardlib.redact import redact

_LOADING = threading.Lock()  # transformers patches torch globally while it loads, so two threads may not load at once


class ModelError(ValueError):
    """A model cannot be loaded; the message says which and what to do."""


@dataclass(frozen=True)
class Models:
    annotator: Annotator
    detector: Detector
    segmenter: Segmenter
    collector: TraceCollector | None = None

    def provenance(self, config: BuildConfig) -> dict[str, Any]:
        """What a row records about the models that labelled it."""
        judge, detector, segmenter = self.annotator.describe(), self.detector.describe(), self.segmenter.describe()
        prompt = hashlib.sha256(SYSTEM.encode()).hexdigest() if judge["prompt"] else None
        return {
            "judge": judge["judge"],
            "prompt_sha256": prompt,
            "detector": detector["detector"],
            "detector_revision": detector["revision"],
            "detector_threshold": detector["threshold"],
            "segmenter": segmenter["segmenter"],
            "segmenter_revision": segmenter["revision"],
            "config_sha256": config.sha256(),
            "code_version": code_version(),
        }


def load_models(config: BuildConfig) -> Models:
    """The models that a configuration names; the same ones for the same names within a process."""
    with _LOADING:
        replies = config.out / ".work" / _replies(config)
        return Models(
            load_annotator(config.annotator, replies, config.max_cost),
            _load_detector(config.detector, config.device),
            _load_segmenter(config.segmenter, config.device),
            load_collector(config.collector, replies, config.max_cost),
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


def endpoint_of(config: EndpointConfig) -> JudgeEndpoint:
    return JudgeEndpoint(**config.model_dump(include={field.name for field in fields(JudgeEndpoint)}))


@functools.lru_cache(maxsize=2)
def _load_detector(config: DetectorConfig, device: str) -> Detector:
    path = find_checkpoint(config.name)
    settings = {"threshold": config.threshold, "nms_iou": config.nms_iou, "batch_size": config.batch_size}
    with _explained("detector", config.name):
        detector = GroundingDinoDetector.from_pretrained(path, revision=config.revision, device=device, **settings)
    detector.name, detector.revision = public_name(config.name), local_revision(path) or detector.revision
    return detector


@functools.lru_cache(maxsize=2)
def _load_segmenter(config: SegmenterConfig, device: str) -> Segmenter:
    path = find_checkpoint(config.name)
    with _explained("segmenter", config.name):
        if config.backend == "segment-anything":
            return SegmentAnythingSegmenter.from_checkpoint(path, kind=config.kind, device=device)
        segmenter = TransformersSegmenter.from_pretrained(path, revision=config.revision, device=device)
    segmenter.name, segmenter.revision = public_name(config.name), local_revision(path) or segmenter.revision
    return segmenter


@contextmanager
def _explained(role: str, name: str) -> Iterator[None]:
    """Turns whatever a loader raises into one sentence with a remedy."""
    try:
        yield
    except Exception as error:
        message = " ".join(redact(str(error)).split())[:300]
        raise ModelError(
            f"cannot load the {role} {name!r}: {message}. Give a Hub id that this machine can reach or has in its cache, "
            f"or a local folder with --{role}.name"
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
