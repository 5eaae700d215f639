"""What the tests of tasks that are no chat share: samples, every option of each task, and how a RemoteModel is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import openai
from huggingface_hub import InferenceClient
from remote_case import started

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
    Meta,
    Request,
    Rerank,
    Response,
    Speak,
    Summarize,
    Transcribe,
    Translate,
)
from gateway.testing import LoopbackServer
from gateway.testing.media import png, wav

MODEL, KEY, KEY_REF = "wire-name", "sk-loopback", "TASKS_CASE_KEY"
ALL = ["timestamps", "zero_shot", "seed", "dimensions"]
"""Every feature: so it is the format, and not the card, that refuses."""
PNG, WAV = png("a red square"), wav("some words of silence")
PICTURE, SOUND = Image(data=PNG), Audio(data=WAV)
TEXT = "Mr. Brown flew from Bern to Paris."

PLAIN: dict[type[Request[Any]], Request[Any]] = {
    type(request): request
    for request in (
        Classify(inputs=TEXT),
        Extract(inputs=TEXT),
        Answer(question="Where did he fly?", context=TEXT),
        Summarize(inputs=TEXT),
        Translate(inputs=TEXT),
        Embed(texts=("a cat", "a dog")),
        Rerank(query="a cat", documents=("a dog", "the cat", "a river")),
        ClassifyImage(inputs=PICTURE),
        DetectObjects(inputs=PICTURE),
        GenerateImage(inputs="a red square"),
        Transcribe(inputs=SOUND),
        Speak(inputs="Hello there."),
    )
}
"""A request of each task with nothing but what it needs."""

OPTIONS: dict[type[Request[Any]], dict[str, Any]] = {
    Classify: {
        "candidate_labels": ("travel", "food"), "hypothesis_template": "About {}.", "multi_label": True, "top_k": 2,
        "function_to_apply": "none",
    },
    Extract: {"aggregation_strategy": "simple", "ignore_labels": ("O",), "stride": 0},
    Answer: {
        "top_k": 2, "doc_stride": 3, "max_answer_len": 4, "max_seq_len": 5, "max_question_len": 6,
        "handle_impossible_answer": True, "align_to_words": False,
    },
    Summarize: {
        "truncation": "only_first", "clean_up_tokenization_spaces": False, "generate_parameters": {"max_new_tokens": 9},
    },
    Translate: {
        "src_lang": "de", "tgt_lang": "fr", "truncation": "only_first", "clean_up_tokenization_spaces": True,
        "generate_parameters": {"max_new_tokens": 9},
    },
    Embed: {"dimensions": 4},
    Rerank: {"top_n": 2},
    ClassifyImage: {"top_k": 2, "function_to_apply": "sigmoid"},
    DetectObjects: {"threshold": 0.25},
    GenerateImage: {
        "n": 2, "width": 32, "height": 16, "media_type": "image/png", "negative_prompt": "blur", "guidance_scale": 2.5,
        "num_inference_steps": 3, "scheduler": "euler", "seed": 7,
    },
    Transcribe: {
        "return_timestamps": True, "language": "de", "prompt": "Mr. Brown", "temperature": 0.5,
        "generation_parameters": {"num_beams": 2},
    },
    Speak: {
        "voice": "alloy", "media_type": "audio/wav", "speed": 1.5, "instructions": "Softly.",
        "generation_parameters": {"num_beams": 2},
    },
}  # fmt: skip
"""Every option of every task, with a value that is not its default."""
for task, options in OPTIONS.items():
    assert set(options) == {
        f.name for f in fields(task) if f.name != "meta" and f.name not in vars(PLAIN[task]).keys() - options
    }
    assert all(getattr(PLAIN[task], name) != value for name, value in options.items())
PAIRS = {
    "width": ("height",),
    "height": ("width",),
    "hypothesis_template": ("candidate_labels",),
    "multi_label": ("candidate_labels",),
}
"""Options that go with others."""


def every_option(*tasks: type[Request[Any]]) -> Sequence[tuple[type[Request[Any]], str]]:
    return [(task, name) for task in tasks for name in OPTIONS[task]]


def with_option(task: type[Request[Any]], name: str, *, drop: bool = False) -> Request[Any]:
    """The plain request with one option set, and those that go with it."""
    chosen = {each: OPTIONS[task][each] for each in (name, *PAIRS.get(name, ()))}
    return replace(PLAIN[task], **chosen, meta=Meta(drop_unsupported=drop))


def asked(url: str, request: Request[Any], *, stream: bool = False, **facts: Any) -> Response:
    """The response to one request, streamed or not, asked of a RemoteModel at a URL."""
    usual = {"model": MODEL, "features": ALL, "modalities": ["text"], "tasks": [request.task], "api_key": f"env:{KEY_REF}"}

    async def whole() -> Response:
        async with started(url, **{**usual, **facts}) as model:
            if not stream:
                return await model.run(request)
            items = [item async for item in model.stream(request)]
            assert isinstance(items[-1], Response)
            return items[-1]

    return asyncio.run(whole())


def asked_hf(server: LoopbackServer, request: Request[Any], task: str, **facts: Any) -> Response:
    """The same of a dedicated endpoint of Hugging Face's that does a task, or of a path after the server's origin."""
    at = task if task.startswith("/") else f"/endpoint/{task}"
    return asked(server.origin + at, request, **{"api": "huggingface", "model": "", **facts})


def openai_sdk(server: LoopbackServer) -> openai.OpenAI:
    """The official client, which asks the server once."""
    return openai.OpenAI(base_url=server.url, api_key=KEY, max_retries=0)


def hf_sdk(server: LoopbackServer, task: str) -> InferenceClient:
    """The official client of a dedicated endpoint."""
    return InferenceClient(model=f"{server.origin}/endpoint/{task}", token=KEY)
