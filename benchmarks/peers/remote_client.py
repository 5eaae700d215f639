"""One client of hosted models, measured: CPU per call and stream. Run by the peers' own interpreter: see benchmarks/remote.py.

    .venv-bench/bin/python remote_client.py NAME BASE_URL

Reads jobs from standard input, a line of JSON each: {"job": "call" or "stream", "at_once": 1, "times": 200}. Answers each with
the CPU microseconds per call, user and system, all threads counted.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

os.environ.update(LITELLM_LOCAL_MODEL_COST_MAP="True", LITELLM_MODE="PRODUCTION", LITELLM_LOG="ERROR", OPENAI_API_KEY="none")

TEXT = "Name three rivers. " * 45
MESSAGES = [{"role": "user", "content": TEXT}]
BODY = {"model": "mock", "messages": MESSAGES, "max_tokens": 100}
STREAMED = {**BODY, "stream": True, "stream_options": {"include_usage": True}}
HEADERS = {"content-type": "application/json", "authorization": "Bearer none"}
Job = Callable[[], Awaitable[Any]]


async def pyreqwest(url: str) -> dict[str, Job]:
    """The quickest HTTP client, raw. Its stream is read without its buffer, which would hold a stream back to its end."""
    from pyreqwest.client import ClientBuilder  # type: ignore[import-not-found]

    client, body, streamed = ClientBuilder().build(), json.dumps(BODY).encode(), json.dumps(STREAMED).encode()

    async def call() -> Any:
        reply = await client.post(f"{url}/chat/completions").headers(HEADERS).body_bytes(body).build().send()
        return await reply.json()

    async def stream() -> None:
        asking = client.post(f"{url}/chat/completions").headers(HEADERS).body_bytes(streamed)
        async with asking.streamed_read_buffer_limit(0).build_streamed() as reply:
            rest = b""
            while (chunk := await reply.body_reader.read_chunk()) is not None:
                *lines, rest = (rest + memoryview(chunk)).split(b"\n")
                for line in lines:
                    if line.startswith(b"data: {"):
                        json.loads(line[6:])

    return {"call": call, "stream": stream}


async def aiohttp(url: str) -> dict[str, Job]:
    """aiohttp and json, raw."""
    import aiohttp  # type: ignore[import-not-found]

    session, body, streamed = aiohttp.ClientSession(), json.dumps(BODY).encode(), json.dumps(STREAMED).encode()

    async def call() -> Any:
        async with session.post(f"{url}/chat/completions", headers=HEADERS, data=body) as reply:
            return json.loads(await reply.read())

    async def stream() -> None:
        async with session.post(f"{url}/chat/completions", headers=HEADERS, data=streamed) as reply:
            async for line in reply.content:
                if line.startswith(b"data: {"):
                    json.loads(line[6:])

    return {"call": call, "stream": stream}


async def httpx(url: str) -> dict[str, Job]:
    """A bare httpx.AsyncClient and json."""
    import httpx

    client, body, streamed = httpx.AsyncClient(), json.dumps(BODY).encode(), json.dumps(STREAMED).encode()

    async def call() -> Any:
        return (await client.post(f"{url}/chat/completions", headers=HEADERS, content=body)).json()

    async def stream() -> None:
        async with client.stream("POST", f"{url}/chat/completions", headers=HEADERS, content=streamed) as reply:
            async for line in reply.aiter_lines():
                if line.startswith("data: {"):
                    json.loads(line[6:])

    return {"call": call, "stream": stream}


async def openai(url: str) -> dict[str, Job]:
    """OpenAI's own client."""
    import openai

    client: Any = openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0)

    async def call() -> Any:
        return await client.chat.completions.create(**BODY)

    async def stream() -> None:
        async for _ in await client.chat.completions.create(**STREAMED):
            pass

    return {"call": call, "stream": stream}


async def litellm(url: str) -> dict[str, Job]:
    """LiteLLM's function, without its router."""
    import litellm  # type: ignore[import-not-found]

    known = {"model": "openai/mock", "messages": MESSAGES, "max_tokens": 100, "api_base": url, "api_key": "none"}

    async def call() -> Any:
        return await litellm.acompletion(**known)

    async def stream() -> None:
        async for _ in await litellm.acompletion(**known, stream=True, stream_options={"include_usage": True}):
            pass

    return {"call": call, "stream": stream}


async def litellm_router(url: str) -> dict[str, Job]:
    """LiteLLM's router over ten deployments, by latency."""
    import litellm

    known = {"model": "openai/mock", "api_base": url, "api_key": "none"}
    deployments = [{"model_name": "group", "litellm_params": {**known, "rpm": 10**9 + at}} for at in range(10)]
    router = litellm.Router(model_list=deployments, routing_strategy="latency-based-routing", num_retries=0)

    async def call() -> Any:
        return await router.acompletion(model="group", messages=MESSAGES, max_tokens=100)

    async def stream() -> None:
        async for _ in await router.acompletion(model="group", messages=MESSAGES, max_tokens=100, stream=True):
            pass

    return {"call": call, "stream": stream}


async def any_llm(url: str) -> dict[str, Job]:
    """any-llm, one instance kept: a new one for each call costs many times more."""
    from any_llm import AnyLLM  # type: ignore[import-not-found]

    client: Any = AnyLLM.create("openai", api_key="none", api_base=url)

    async def call() -> Any:
        return await client.acompletion(model="mock", messages=MESSAGES, max_tokens=100)

    async def stream() -> None:
        async for _ in await client.acompletion(model="mock", messages=MESSAGES, max_tokens=100, stream=True):
            pass

    return {"call": call, "stream": stream}


async def tensorzero(url: str) -> dict[str, Job]:
    """TensorZero embedded: its Rust gateway in this process, without a database."""
    from tensorzero import AsyncTensorZeroGateway  # type: ignore[import-not-found]

    config = Path(tempfile.mkdtemp()) / "tensorzero.toml"
    config.write_text(
        f'[models.mock]\nrouting = ["mock"]\n[models.mock.providers.mock]\ntype = "openai"\nmodel_name = "mock"\n'
        f'api_base = "{url}"\napi_key_location = "env::OPENAI_API_KEY"\n'
    )
    made = AsyncTensorZeroGateway.build_embedded(config_file=str(config), async_setup=True)
    client: Any = await made
    given = {"model_name": "mock", "input": {"messages": MESSAGES}, "params": {"chat_completion": {"max_tokens": 100}}}

    async def call() -> Any:
        return await client.inference(**given)

    async def stream() -> None:
        async for _ in await client.inference(**given, stream=True):
            pass

    return {"call": call, "stream": stream}


CLIENTS: dict[str, Callable[[str], Awaitable[dict[str, Job]]]] = {
    "pyreqwest": pyreqwest,
    "aiohttp": aiohttp,
    "httpx": httpx,
    "openai": openai,
    "litellm": litellm,
    "litellm_router": litellm_router,
    "any_llm": any_llm,
    "tensorzero": tensorzero,
}


async def cpu_us(job: Job, *, at_once: int, times: int) -> float:
    """CPU microseconds per call."""
    began = time.process_time()

    async def several() -> None:
        for _ in range(times // at_once):
            await job()

    await asyncio.gather(*(several() for _ in range(at_once)))
    return (time.process_time() - began) / (times // at_once * at_once) * 1e6


async def serve(jobs: dict[str, Job]) -> None:
    """Do what standard input asks for, until it ends."""
    for job in jobs.values():
        for _ in range(3):
            await job()
    print("ready", flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        given = json.loads(line)
        print(await cpu_us(jobs[given["job"]], at_once=given["at_once"], times=given["times"]), flush=True)


async def main() -> None:
    """Measure one client."""
    await serve(await CLIENTS[sys.argv[1]](sys.argv[2]))


if __name__ == "__main__":
    asyncio.run(main())
