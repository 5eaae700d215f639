"""Tasks on images and sound: ClassifyImage, DetectObjects, GenerateImage, Transcribe, Speak.

Their fields are named as Hugging Face's task specifications name them (huggingface.js, packages/tasks); what those lack,
as OpenAI's API does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from gateway.card import check_number
from gateway.errors import InvalidRequest
from gateway.parts import Audio, Delta, Image
from gateway.request import NOTHING, Request, Response, Traits, check_text, text_bytes
from gateway.text_tasks import FUNCTIONS, ClassifyResponse, check_mapping, check_maybe_text, check_one_of

IMAGE, AUDIO = frozenset({"image"}), frozenset({"audio"})
WORD = "[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"
EXAMPLES = {"image": "image/png", "audio": "audio/mpeg"}


@dataclass(frozen=True, kw_only=True)
class ClassifyImage(Request[ClassifyResponse]):
    """What an image shows, as one of the model's classes. `top_k` and `function_to_apply` as in Classify."""

    task = "classify_image"

    inputs: Image
    top_k: int | None = None
    function_to_apply: Literal["sigmoid", "softmax", "none"] | None = None

    def __post_init__(self) -> None:
        _check_part(self.inputs, Image)
        check_number(self.top_k, "top_k", low=1, whole=True)
        check_one_of(self.function_to_apply, "function_to_apply", *FUNCTIONS)

    def traits(self) -> Traits:
        return Traits(output_tokens=0, modalities=IMAGE)

    def accept(self, response: Response) -> Response:
        if not isinstance(response, ClassifyResponse) or not response.labels:
            raise ValueError("no classes")
        return response


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A rectangle of an image, in pixels from its upper left corner."""

    xmin: int
    ymin: int
    xmax: int
    ymax: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Detected:
    """A thing that an image shows, and where."""

    label: str
    score: float
    box: Box


@dataclass(frozen=True, kw_only=True)
class DetectObjectsResponse(Response):
    """What was found, the surest first."""

    objects: tuple[Detected, ...] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class DetectObjects(Request[DetectObjectsResponse]):
    """Where an image shows which things. Those less sure than `threshold`, in [0, 1], are left out."""

    task = "detect_objects"

    inputs: Image
    threshold: float | None = None

    def __post_init__(self) -> None:
        _check_part(self.inputs, Image)
        check_number(self.threshold, "threshold", low=0, high=1)

    def traits(self) -> Traits:
        return Traits(output_tokens=0, modalities=IMAGE)


@dataclass(frozen=True, kw_only=True)
class GenerateImageResponse(Response):
    """The images that were made."""

    images: tuple[Image, ...]


@dataclass(frozen=True, kw_only=True)
class GenerateImage(Request[GenerateImageResponse]):
    """Images made from a description. `width` and `height` are pixels, `guidance_scale` how closely to follow it.

    `media_type` is the wanted form, such as ``image/webp``.
    """

    task = "generate_image"

    inputs: str = field(repr=False)
    n: int = 1
    width: int | None = None
    height: int | None = None
    media_type: str | None = None
    negative_prompt: str | None = field(default=None, repr=False)
    guidance_scale: float | None = None
    num_inference_steps: int | None = None
    scheduler: str | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        check_text(self.inputs, "inputs")
        for name in ("n", "width", "height", "num_inference_steps"):
            check_number(getattr(self, name), name, low=1, whole=True)
        if self.n is None:
            raise InvalidRequest("n must be a whole number of at least 1", field="n")
        check_media_type(self.media_type, "image")
        check_maybe_text(self.negative_prompt, "negative_prompt", empty=True)
        check_maybe_text(self.scheduler, "scheduler")
        check_number(self.guidance_scale, "guidance_scale", low=0)
        check_number(self.seed, "seed", low=None, whole=True)
        if (self.width is None) != (self.height is None):
            raise InvalidRequest("give width and height together", field="width")

    def traits(self) -> Traits:
        features = NOTHING if self.seed is None or self.meta.drop_unsupported else frozenset({"seed"})
        return Traits(input_bytes=text_bytes(self.inputs), output_tokens=0, features=features)

    def accept(self, response: Response) -> Response:
        if not isinstance(response, GenerateImageResponse) or len(response.images) != self.n:
            raise ValueError(f"not {self.n} images")
        return response


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A piece of what was said, and from when to when: seconds from the beginning.

    Its end is None where the model saw none: Whisper does not where a recording breaks off in a word.
    """

    text: str = field(repr=False)
    timestamp: tuple[float, float | None]


@dataclass(frozen=True, kw_only=True)
class TranscribeResponse(Response):
    """What was said. `chunks` are there where timestamps were asked for; `language` as the model names it, or ""."""

    text: str = field(repr=False)
    chunks: tuple[Chunk, ...] = field(default=(), repr=False)
    language: str = ""
    duration_s: float | None = None

    def deltas(self) -> Sequence[Delta]:
        return (Delta(self.text),) if self.text else ()


@dataclass(frozen=True, kw_only=True)
class Transcribe(Request[TranscribeResponse]):
    """What is said in a recording. `return_timestamps`: by piece, or "word" for each word. `language` is a BCP 47 tag.

    `prompt` is text that came before, or names to expect; `generation_parameters` go to the model's generation.
    """

    inputs: Audio
    return_timestamps: bool | Literal["word"] | None = None
    language: str | None = None
    prompt: str | None = field(default=None, repr=False)
    temperature: float | None = None
    generation_parameters: Mapping[str, Any] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        _check_part(self.inputs, Audio)
        if self.return_timestamps != "word" and not isinstance(self.return_timestamps, (bool, type(None))):
            raise InvalidRequest("return_timestamps is true, false or 'word'", field="return_timestamps")
        check_maybe_text(self.language, "language")
        check_maybe_text(self.prompt, "prompt", empty=True)
        check_number(self.temperature, "temperature", low=0, high=2)
        check_mapping(self.generation_parameters, "generation_parameters")

    def traits(self) -> Traits:
        features = frozenset({"timestamps"}) if self.return_timestamps else NOTHING
        return Traits(input_bytes=text_bytes(self.prompt), features=features, modalities=AUDIO)

    def accept(self, response: Response) -> Response:
        if not isinstance(response, TranscribeResponse):
            raise ValueError("no transcription")
        if self.return_timestamps and response.text.strip() and not response.chunks:
            raise ValueError("no timestamps")
        return response


@dataclass(frozen=True, kw_only=True)
class SpeakResponse(Response):
    """The spoken text. `sampling_rate` in hertz, where the model says it."""

    audio: Audio
    sampling_rate: float | None = None


@dataclass(frozen=True, kw_only=True)
class Speak(Request[SpeakResponse]):
    """A text spoken. `voice` is one that the model knows, `speed` a factor, `instructions` how to say it.

    `media_type` is the wanted form, such as ``audio/mpeg``; `generation_parameters` go to the model's generation.
    """

    inputs: str = field(repr=False)
    voice: str | None = None
    media_type: str | None = None
    speed: float | None = None
    instructions: str | None = field(default=None, repr=False)
    generation_parameters: Mapping[str, Any] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_text(self.inputs, "inputs")
        check_maybe_text(self.voice, "voice")
        check_maybe_text(self.instructions, "instructions", empty=True)
        check_media_type(self.media_type, "audio")
        check_number(self.speed, "speed", low=0.1, high=10)
        check_mapping(self.generation_parameters, "generation_parameters")

    def traits(self) -> Traits:
        return Traits(input_bytes=text_bytes(self.inputs), output_tokens=0)


def check_media_type(value: object, kind: str) -> None:
    """Refuse what is no media type (RFC 6838, 4.2) of that kind, parameters allowed: it may become an HTTP header."""
    shape = rf"(?i:{kind})/{WORD}(?: ?; ?{WORD}={WORD})*"
    if value is not None and not (isinstance(value, str) and re.fullmatch(shape, value)):
        raise InvalidRequest(f"media_type must be one such as {EXAMPLES[kind]}", field="media_type")


def _check_part(value: object, kind: type) -> None:
    if not isinstance(value, kind):
        raise InvalidRequest(f"inputs must be an {kind.__name__}, not {type(value).__name__}", field="inputs")
