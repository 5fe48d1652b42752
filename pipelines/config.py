"""Everything that decides what a build makes. One model serves the command line, YAML files, Prefect parameters and Python callers.

Defaults are the embedded checkpoints, which know the shapes world only. For photographs and diagrams name real ones: detector
``IDEA-Research/grounding-dino-base``, segmenter ``facebook/sam-vit-huge``, and a judge endpoint.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from labeling.draws import MOST_DRAWS
from labeling.intervention import Fill, Shape

SPLIT_NAME = r"^\w+(\.\w+)*$"  # what `datasets` accepts
ROOT = Path(__file__).resolve().parents[1]


class Strict(BaseModel):
    """Settings: a name that is none is an error, and they do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class EndpointConfig(Strict):
    """A language model behind an OpenAI-compatible endpoint."""

    model: str | None
    """The model's name at the endpoint."""
    base_url: str | None = None
    """An OpenAI-compatible endpoint, e.g. http://localhost:8000/v1; OpenAI's own if left out."""
    api_key_env: str = "OPENAI_API_KEY"
    """The environment variable that holds the key. The key itself is never stored."""
    temperature: float = Field(0.0, ge=0)
    """Sampling temperature."""
    seed: int | None = 0
    """Sampling seed; None for servers that do not know the parameter."""
    max_tokens: int = Field(2048, ge=1)
    """Longest reply."""
    timeout: float = Field(120.0, gt=0)
    """Seconds for one attempt."""
    retries: int = Field(4, ge=0)
    """Further attempts on rate limits, server errors and lost connections."""
    concurrency: int = Field(16, ge=1)
    """Requests in flight."""
    price_in: float | None = None
    """Dollars per million prompt tokens, for the cost report."""
    price_out: float | None = None
    """Dollars per million completion tokens."""


class AnnotatorConfig(EndpointConfig):
    """Who reads the traces."""

    model: str = "rules"
    """A judge LLM's name at the endpoint, or "rules": the built-in reader of plain descriptive English."""


class CollectorConfig(EndpointConfig):
    """Who writes traces for the rows that have none."""

    model: str | None = None
    """A vision model's name at the endpoint; without one, rows without traces are dropped."""
    draws: int = Field(4, ge=1)
    """Traces to ask for, per row."""
    temperature: float = Field(0.8, ge=0)
    """Sampling temperature; at 0 all draws would be the same."""


class DetectorConfig(Strict):
    """Which model finds the phrases: a checkpoint of Grounding DINO, MM-Grounding-DINO, LLMDet, OWLv2 or SAM 3."""

    name: str = "labeling/embedded/detector"
    """A Hub id or a local folder."""
    revision: str | None = None
    """A Hub revision, for exact reproduction."""
    threshold: float | None = Field(None, gt=0, lt=1)
    """Lowest score of a finding; by default the checkpoint's own, or that of its family: 0.25 for Grounding DINO."""
    nms_iou: float = Field(0.7, gt=0, le=1)
    """Overlap above which a finding is the object of a better one by another phrase; of one phrase, half is enough."""
    batch_size: int = Field(1, ge=1)
    """Images in one forward pass, of the same size as the model sees them, no fewer and no more; more than one pays on GPUs."""


class OcrConfig(Strict):
    """Whether and how text is read in images: labels, numbers with units, angles, axis ticks, vertex names."""

    enabled: bool = True
    """Read text with the models that rapidocr ships; nothing is downloaded."""
    threshold: float = Field(0.5, gt=0, lt=1)
    """Lowest score of a finding: how sure the reader is, times how well the text matches."""


class BoxesConfig(EndpointConfig):
    """A vision model behind an endpoint that answers with boxes, asked for what the detector does not find."""

    model: str | None = None
    """Its name at the endpoint, e.g. Qwen/Qwen3-VL-32B-Instruct; without one, nobody is asked."""
    coordinates: Literal["pixels", "thousandths"] = "thousandths"
    """What its boxes are in: thousandths of the image (Qwen3-VL), or pixels of the image as it sees it (Qwen2.5-VL)."""


class SegmenterConfig(Strict):
    """Which model draws the masks: a checkpoint of SAM, SAM 2, EdgeTAM, SAM-HQ or SAM 3's tracker."""

    name: str = "labeling/embedded/segmenter"
    """A Hub id or a local folder; for the segment-anything backend, a checkpoint file."""
    revision: str | None = None
    """A Hub revision, for exact reproduction."""
    backend: Literal["transformers", "segment-anything"] = "transformers"
    """transformers, or Meta's package."""
    batch_size: int = Field(1, ge=1)
    """Images that are encoded in one forward pass; more than one pays on GPUs."""
    kind: Literal["vit_h", "vit_l", "vit_b"] = "vit_h"
    """The architecture of a segment-anything checkpoint file."""


class CounterfactualConfig(Strict):
    """How the evidence is removed."""

    fills: tuple[Fill, ...] = ("mean", "blur", "noise", "inpaint")
    """One is drawn for each pair, so that no model can learn that one kind of patch means "unknown"."""
    shapes: tuple[Shape, ...] = ("dilated", "box")
    """Silhouettes that are erased; one is drawn for each pair."""
    pairs: int = Field(1, ge=0)
    """Evidence and control images per row; 0 makes none."""
    seed: int = 0
    """Combined with the row's id."""


class BuildOptions(Strict):
    """What to build and with which models."""

    license: str | None = None
    """Licence of the source, for rows that do not carry their own. There is no default."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Where the source names its columns otherwise: {"question": "problem"}."""
    image_root: Path | None = None
    """Folder that relative image paths start from; the source file's own by default."""
    split: str = Field("train", pattern=SPLIT_NAME)
    """Split of rows that do not name one; also the Hub split that is read."""
    limit: int | None = Field(None, ge=1)
    """Use the first rows only."""
    require: Literal["annotations", "regions", "counterfactuals"] = "regions"
    """What a row must have to be kept."""
    shard_size: int = Field(64, ge=1, le=4096)
    """Rows in a shard, the unit of work and of resuming."""
    workers: int = Field(1, ge=1)
    """Shards in work at a time."""
    device: str = "cpu"
    """Where detector, segmenter and answerer run: cpu, cuda, cuda:1, mps."""
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Numbers that detector, segmenter and answerer compute with; the half ones are for GPUs."""
    answerer: str | None = None
    """A policy by Hub id or folder, or by its name at --answerer-url: every region is erased to see whether it still knows the answer."""
    answerer_url: str | None = None
    """An endpoint that gives log-probabilities of a prompt, as vLLM's does, e.g. http://localhost:8000/v1."""
    answerer_draws: int = Field(4, ge=2, le=MOST_DRAWS)
    """Erased images of each region, each with a fill of its own, and as many controls; more make the interval narrower."""
    verify: bool = False
    """Ask the judge, which has to see images, whether the crop of every finding shows its phrase."""
    runner: Literal["threads", "ray"] = "threads"
    """Who works on shards: threads of this process, or Ray's workers, on this machine or many."""
    ray_address: str | None = None
    """A running Ray cluster, e.g. 10.0.0.1:6379 or auto; if left out, Ray is started on this machine for the build."""
    max_cost: float | None = Field(None, gt=0)
    """Dollars that judge and collector may cost together, over all runs of this dataset; the build stops there and can be gone on with."""
    collector: CollectorConfig = CollectorConfig()
    annotator: AnnotatorConfig = AnnotatorConfig()
    detector: DetectorConfig = DetectorConfig()
    ocr: OcrConfig = OcrConfig()
    boxes: BoxesConfig = BoxesConfig()
    segmenter: SegmenterConfig = SegmenterConfig()
    counterfactual: CounterfactualConfig = CounterfactualConfig()

    @field_validator("columns")
    @classmethod
    def _known_columns(cls, columns: dict[str, str]) -> dict[str, str]:
        known = {"id", "split", "license", "source", "image", "question", "choices", "answer", "traces", "regions"}
        if unknown := sorted(set(columns) - known):
            raise ValueError(f"columns {unknown} are not Sightline's; expected some of {sorted(known)}")
        return columns

    @model_validator(mode="after")
    def _priced(self) -> BuildOptions:
        asked = {
            "annotator": self.annotator.model != "rules",
            "collector": self.collector.model is not None,
            "boxes": self.boxes.model is not None,
        }
        for name in [name for name, is_asked in asked.items() if is_asked and self.max_cost is not None]:
            endpoint: EndpointConfig = getattr(self, name)
            if endpoint.price_in is None or endpoint.price_out is None:
                raise ValueError(
                    f"max_cost needs the prices of {endpoint.model} in dollars per million tokens: --{name}.price-in, --{name}.price-out"
                )
        return self

    @model_validator(mode="after")
    def _somebody_can_verify(self) -> Self:
        if self.verify and self.annotator.model == "rules":
            raise ValueError("verify needs a judge that sees images: name one with --annotator.model and --annotator.base-url")
        if self.answerer_url and not self.answerer:
            raise ValueError(f"answerer_url {self.answerer_url!r} needs the model's name there: --answerer NAME")
        return self

    @model_validator(mode="after")
    def _ray_has_what_it_needs(self) -> Self:
        if self.ray_address and self.runner != "ray":
            raise ValueError(f"ray_address {self.ray_address!r} is for runner 'ray', and runner is {self.runner!r}")
        if self.ray_address and self.max_cost is not None:
            raise ValueError("max_cost cannot be held on a cluster, where every machine has its own account; set a limit at the endpoint")
        if self.runner == "ray" and self.device.startswith("cuda:"):
            raise ValueError(f"device {self.device!r} cannot be chosen with runner 'ray', which deals out the GPUs itself; say cuda")
        return self


class BuildConfig(BuildOptions):
    """A build: rows in, a labelled dataset out."""

    source: str
    """A JSONL, Parquet or COCO file, a folder saved by `datasets`, or a Hub dataset id; docs/formats.md has the formats of its rows."""
    out: Path
    """The dataset's folder; an interrupted build in it is resumed."""

    def decisive(self) -> dict[str, Any]:
        """The settings that a row's labels depend on; where things lie and how many hands work does not."""
        elsewhere = {"source", "out", "workers", "limit", "image_root", "device", "max_cost", "runner", "ray_address", "answerer_url"}
        settings = self.model_dump(mode="json", exclude=elsewhere)
        for name in ("base_url", "api_key_env", "timeout", "retries", "concurrency", "price_in", "price_out"):
            del settings["annotator"][name], settings["collector"][name], settings["boxes"][name]
        for model in ("detector", "segmenter"):  # a dataset does not tell where on some machine its models lay
            settings[model]["name"] = public_name(settings[model]["name"])
        if self.answerer:
            settings["answerer"] = public_name(self.answerer)
        return settings

    def sha256(self) -> str:
        return hashlib.sha256(json.dumps(self.decisive(), sort_keys=True).encode()).hexdigest()


def public_name(name: str) -> str:
    """A model's name as a dataset may show it: of an absolute path only the last part."""
    return Path(name).name if Path(name).is_absolute() else name


def find_checkpoint(name: str) -> str:
    """A local folder or file, also one given relative to the project; otherwise the name is a Hub id."""
    for candidate in (Path(name), ROOT / name):
        if candidate.exists():
            return str(candidate)
    return name
