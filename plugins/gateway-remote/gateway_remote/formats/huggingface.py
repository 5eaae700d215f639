"""Hugging Face's task APIs: ``{inputs, parameters}`` to a model's URL, images and sound as raw bytes.

Truth: `huggingface_hub`, whose client sends these bodies, and the task specifications (huggingface.js, packages/tasks), which
name the fields; what generates takes ``parameters.generation_parameters`` as those have it. Of ``return_timestamps`` the
specification has true and false, the pipelines behind it "word" too.

The router has a model at ``/models/{model}``, and embeddings at ``/models/{model}/pipeline/feature-extraction``. A dedicated
endpoint has one model, at its own URL: such a row has that as base_url, and no `model`. (Where base_url ends in
``/hf-inference``, as the router's does, a row's name stands for a `model` that it lacks, as in every other API.)

Neither lists its models. `body` of a row is added to every request: ``body = {normalize = true}`` for embeddings, else under
its key ``parameters``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from gateway import (
    Answer,
    Audio,
    Classify,
    ClassifyImage,
    DetectObjects,
    Embed,
    Extract,
    GenerateImage,
    Image,
    Speak,
    Summarize,
    Transcribe,
    Translate,
)
from gateway_remote.formats import huggingface_reply as reply
from gateway_remote.formats.api import Api, Route, Sending
from gateway_remote.formats.blocks import base64_of
from gateway_remote.formats.body import Body
from gateway_remote.formats.kinds import bytes_of
from gateway_remote.formats.openai import offers

if TYPE_CHECKING:
    from gateway_remote.config import ModelRow

ROUTER = "/hf-inference"
"""What a base_url of the router ends in."""


def classify_body(request: Classify, row: ModelRow, stream: bool) -> Sending:
    """Text classification; zero-shot classification where there are labels to choose from.

    That task has no `top_k`: the best are picked from its reply.
    """
    body = Body(request, row)
    if body.take("candidate_labels"):
        parameters = {"candidate_labels": request.candidate_labels, **_taken(body, "multi_label", "hypothesis_template")}
        body.take("top_k")
    else:
        parameters = _taken(body, "function_to_apply", "top_k")
    return _json(body, row, request.inputs, parameters)


def extract_body(request: Extract, row: ModelRow, stream: bool) -> Sending:
    """Token classification."""
    body = Body(request, row)
    return _json(body, row, request.inputs, _taken(body, "aggregation_strategy", "ignore_labels", "stride"))


def answer_body(request: Answer, row: ModelRow, stream: bool) -> Sending:
    """Question answering."""
    body = Body(request, row)
    names = (
        "align_to_words", "doc_stride", "handle_impossible_answer", "max_answer_len", "max_question_len", "max_seq_len",
        "top_k",
    )  # fmt: skip
    return _json(body, row, {"question": request.question, "context": request.context}, _taken(body, *names))


def summarize_body(request: Summarize, row: ModelRow, stream: bool) -> Sending:
    """Summarization."""
    body = Body(request, row)
    names = ("clean_up_tokenization_spaces", "generate_parameters", "truncation")
    return _json(body, row, request.inputs, _taken(body, *names))


def translate_body(request: Translate, row: ModelRow, stream: bool) -> Sending:
    """Translation."""
    body = Body(request, row)
    names = ("src_lang", "tgt_lang", "clean_up_tokenization_spaces", "truncation", "generate_parameters")
    return _json(body, row, request.inputs, _taken(body, *names))


def embed_body(request: Embed, row: ModelRow, stream: bool) -> Sending:
    """Feature extraction: its parameters stand beside the inputs."""
    body = Body(request, row, inputs=request.texts)
    body.carry({"dimensions": "dimensions"})
    path = path_of(row)
    return body.sending(f"{path}/pipeline/feature-extraction" if path else path)


def classify_image_body(request: ClassifyImage, row: ModelRow, stream: bool) -> Sending:
    """Image classification."""
    body = Body(request, row)
    return _media(body, row, request.inputs, _taken(body, "function_to_apply", "top_k"))


def detect_objects_body(request: DetectObjects, row: ModelRow, stream: bool) -> Sending:
    """Object detection."""
    body = Body(request, row)
    return _media(body, row, request.inputs, _taken(body, "threshold"))


def transcribe_body(request: Transcribe, row: ModelRow, stream: bool) -> Sending:
    """Automatic speech recognition. Its specification has no language: a model may take one in `generation_parameters`."""
    body = Body(request, row)
    parameters = _taken(body, "return_timestamps", "generation_parameters")
    if warmth := _taken(body, "temperature"):
        parameters["generation_parameters"] = {**parameters.get("generation_parameters", {}), **warmth}
    return _media(body, row, request.inputs, parameters)


def speak_body(request: Speak, row: ModelRow, stream: bool) -> Sending:
    """Text to speech."""
    body = Body(request, row)
    wanted = body.take("media_type") or ""
    sending = _json(body, row, request.inputs, _taken(body, "generation_parameters"))
    return replace(sending, accept=wanted)


def generate_image_body(request: GenerateImage, row: ModelRow, stream: bool) -> Sending:
    """Text to image: one image at a time."""
    body = Body(request, row)
    wanted = body.take("media_type") or "image/png"
    names = ("negative_prompt", "height", "width", "num_inference_steps", "guidance_scale", "scheduler", "seed")
    sending = _json(body, row, request.inputs, _taken(body, *names))
    return replace(sending, accept=wanted)


def path_of(row: ModelRow) -> str:
    """Where a row's model is, after its base_url; "" where it is the base_url itself."""
    model = row.model or (row.name if row.base_url.endswith(ROUTER) else "")
    return f"/models/{quote(model)}" if model else ""


def _taken(body: Body, *options: str) -> dict[str, Any]:
    """Those options that are given, under their own names: the specifications have the same."""
    return {option: value for option in options if (value := body.take(option)) is not None}


def _json(body: Body, row: ModelRow, inputs: Any, parameters: Mapping[str, Any]) -> Sending:
    body.fields |= {"inputs": inputs, "parameters": _all(row, parameters)}
    return body.sending(path_of(row))


def _media(body: Body, row: ModelRow, media: Image | Audio, parameters: Mapping[str, Any]) -> Sending:
    """The bytes as they are; with parameters JSON, and the bytes in base64."""
    data = bytes_of(body, media)
    if not parameters and not row.body:
        return body.raw(path_of(row), data, media.media_type)
    return _json(body, row, base64_of(media), parameters)


def _all(row: ModelRow, parameters: Mapping[str, Any]) -> dict[str, Any]:
    usual = row.body.get("parameters")
    return {**usual, **parameters} if isinstance(usual, Mapping) else dict(parameters)


API = Api(
    routes={
        Classify: Route(encode=classify_body, decode=reply.classify_response),
        Extract: Route(encode=extract_body, decode=reply.extract_response),
        Answer: Route(encode=answer_body, decode=reply.answer_response),
        Summarize: Route(encode=summarize_body, decode=reply.summarize_response),
        Translate: Route(encode=translate_body, decode=reply.translate_response),
        Embed: Route(encode=embed_body, decode=reply.embed_response),
        ClassifyImage: Route(encode=classify_image_body, decode=reply.classify_response),
        DetectObjects: Route(encode=detect_objects_body, decode=reply.detect_objects_response),
        Transcribe: Route(encode=transcribe_body, decode=reply.transcribe_response),
        Speak: Route(encode=speak_body, decode=reply.speak_response),
        GenerateImage: Route(encode=generate_image_body, decode=reply.generate_image_response),
    },
    offers=offers,
)
