"""What decoding costs in this process: ours beside transformers' generate, its batches, its own engine and its server.

    python benchmarks/local_decoder.py [--rounds N] [--only LOAD] [--serve PYTHON]

An 8M-parameter Llama of random weights. Each contender is a process of its own, and they take turns. Loads: `burst`, 16
requests of mixed length at once, in tokens a second; `open8` and `open20`, so many requests a second that come by chance, in
mean seconds until they are answered; `cold` and `warm`, milliseconds to the first token after 400 tokens that nobody has asked
with, and that somebody has; `lag`, how late the event loop is while 16 answers are streamed, the 99th percentile in ms.
Given are the best of the rounds, and the median of the ratios within each round: the machine may be shared.
PYTHON is an interpreter that has ``transformers[serving]``: its ``transformers serve --continuous-batching`` is then asked too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

WORDS = 8000
PREFIX = 400
NAMES = ("gateway", "generate, one at a time", "generate, batches of 16", "transformers' engine", "transformers serve")
SIZED = ("--cb-block-size", "32", "--cb-num-blocks", "512", "--cb-max-batch-tokens", "512")
"""Pages as small, and as many, as a CPU wants; left to itself it takes most of the memory."""
Ask = tuple[str, int]
"""A prompt, and how many tokens to answer."""


def prompt(chance: random.Random, count: int) -> str:
    """A text of so many tokens."""
    return " ".join(f"w{chance.randrange(WORDS)}" for _ in range(count))


def burst(seed: int) -> list[Ask]:
    """Sixteen requests of mixed length."""
    chance = random.Random(seed)
    return [(prompt(chance, chance.randint(8, 128)), chance.randint(16, 96)) for _ in range(16)]


def arrivals(rate: float) -> list[tuple[float, Ask]]:
    """Four seconds of requests, and when each comes."""
    chance, at, out = random.Random(5), 0.0, []
    while (at := at + chance.expovariate(rate)) < 4:
        out.append((at, (prompt(chance, chance.randint(8, 128)), chance.randint(8, 40))))
    return out


def save_model(folder: Path) -> None:
    """The model, and a tokenizer of one token a word."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM

    core = Tokenizer(models.WordLevel({f"w{at}": at for at in range(WORDS)}, unk_token="w0"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.save(str(folder / "tokenizer.json"))
    told = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}"}
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=WORDS, hidden_size=256, intermediate_size=688, num_hidden_layers=8, num_attention_heads=8,
        num_key_value_heads=4, max_position_embeddings=2048, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)


Answer = Callable[[Ask], Awaitable[float]]
"""Answers a request whole; when its first token came."""


def gateway(folder: Path) -> tuple[Answer, asyncio.AbstractEventLoop]:
    """Through `AsyncGateway`."""
    from gateway import AsyncGateway, Delta, Generate

    loop = asyncio.new_event_loop()
    row = {"name": "llama", "weights": str(folder), "max_queue": 1000}
    config = {"plugins": ["local"], "plugin": {"local": {"models": [row], "starter": False}}}
    gw = loop.run_until_complete(AsyncGateway.from_config(config).__aenter__())

    async def answer(ask: Ask) -> float:
        first = 0.0
        async with gw.stream(Generate(prompt=ask[0], max_tokens=ask[1], temperature=0.0)) as stream:
            async for item in stream:
                first = first or (time.perf_counter() if isinstance(item, Delta) else 0.0)
        assert stream.response.usage.output_tokens == ask[1]
        return first

    return answer, loop


def generate(folder: Path, most: int) -> tuple[Answer, asyncio.AbstractEventLoop]:
    """transformers' generate in a thread, of as many requests as wait, at most so many: a batch ends with its longest."""
    import torch
    import transformers

    library: Any = transformers
    model = library.AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = library.AutoTokenizer.from_pretrained(folder, padding_side="left", pad_token="w0")
    waiting: list[tuple[Ask, asyncio.Future[float]]] = []
    loop = asyncio.new_event_loop()
    awake = asyncio.Event()
    tasks: list[asyncio.Task[None]] = []

    def run(asks: Sequence[Ask]) -> float:
        given = tokenizer([ask[0] for ask in asks], padding=True, return_tensors="pt")
        ids, mask = given.input_ids, given.attention_mask
        first, puts = 0.0, 0

        class Clock:
            def put(self, value: Any) -> None:
                nonlocal first, puts
                puts += 1
                first = time.perf_counter() if puts == 2 else first  # the first call has the prompt

            def end(self) -> None: ...

        streamer = Clock() if len(asks) == 1 else None
        with torch.inference_mode():
            model.generate(
                ids, attention_mask=mask, max_new_tokens=max(ask[1] for ask in asks), do_sample=False, streamer=streamer
            )
        return first

    async def serve() -> None:
        while True:
            await awake.wait()
            some = waiting[:most]
            del waiting[:most]
            if not waiting:
                awake.clear()
            first = await asyncio.to_thread(run, [ask for ask, _ in some])
            for _, future in some:
                future.set_result(first)

    async def answer(ask: Ask) -> float:
        future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        waiting.append((ask, future))
        assert not tasks[0].done()
        awake.set()
        return await future

    tasks.append(loop.create_task(serve()))
    return answer, loop


def engine(folder: Path) -> tuple[Answer, asyncio.AbstractEventLoop]:
    """transformers' own continuous batching, sized as it wants to be on a CPU."""
    import transformers

    library: Any = transformers
    model = library.AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = library.AutoTokenizer.from_pretrained(folder)
    settings = library.GenerationConfig(max_new_tokens=128, do_sample=False, eos_token_id=-1, pad_token_id=0)
    sized = library.ContinuousBatchingConfig(page_size=32, num_blocks=512, max_batch_tokens=512)
    manager = model.init_continuous_batching(generation_config=settings, continuous_batching_config=sized)
    manager.start()
    loop = asyncio.new_event_loop()
    count = 0

    async def answer(ask: Ask) -> float:
        nonlocal count
        count += 1
        name, done, first = f"r{count}", asyncio.get_running_loop().create_future(), 0.0

        def told(output: Any) -> None:
            nonlocal first
            first = first or time.perf_counter()
            if output.is_finished() and not done.done():
                done.set_result(None)

        manager.register_result_handler(name, told)
        manager.add_request(tokenizer(ask[0]).input_ids, request_id=name, max_new_tokens=ask[1], streaming=True)
        await done
        return first

    return answer, loop


def server(folder: Path, python: str) -> tuple[Answer, asyncio.AbstractEventLoop]:
    """``transformers serve``, a process beside this one, asked over HTTP."""
    import httpx

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(python).with_name("transformers")), "serve", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(
        [*command, "--continuous-batching", "--device", "cpu", "--dtype", "float32", *SIZED],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment,
    )  # fmt: skip
    client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=300)
    loop = asyncio.new_event_loop()

    async def answer(ask: Ask) -> float:
        body = {
            "model": str(folder), "messages": [{"role": "user", "content": ask[0]}], "max_tokens": ask[1], "stream": True,
            "temperature": 0.0,
        }  # fmt: skip
        first = 0.0
        async with client.stream("POST", "/v1/chat/completions", json=body) as reply:
            reply.raise_for_status()
            async for line in reply.aiter_lines():
                if line.startswith("data:") and '"content"' in line:
                    first = first or time.perf_counter()
        return first

    async def up() -> None:
        while True:
            try:
                await client.get("/health")
                return
            except httpx.TransportError:
                if process.poll() is not None:
                    raise RuntimeError("transformers serve has ended") from None
                await asyncio.sleep(0.2)

    loop.run_until_complete(up())
    return answer, loop


async def measure(load: str, answer: Answer, turn: int) -> float:
    """One load's figure."""
    if load == "burst":
        asks = burst(turn)
        began = time.perf_counter()
        await asyncio.gather(*map(answer, asks))
        return sum(ask[1] for ask in asks) / (time.perf_counter() - began)
    if load == "lag":
        late: list[float] = []

        async def watch() -> None:
            while True:
                began = time.perf_counter()
                await asyncio.sleep(0.001)
                late.append(time.perf_counter() - began - 0.001)

        watching = asyncio.create_task(watch())
        await asyncio.gather(*map(answer, burst(turn)))
        watching.cancel()
        return statistics.quantiles(late, n=100)[98] * 1e3
    if load in ("cold", "warm"):
        chance = random.Random(f"{load} {turn}")
        text = prompt(chance, PREFIX)
        if load == "warm":
            await answer((f"{text} w1 w2", 2))
        began = time.perf_counter()
        return (await answer((f"{text} w3 w4", 2)) - began) * 1e3
    began = time.perf_counter()

    async def one(at: float, ask: Ask) -> float:
        await asyncio.sleep(began + at - time.perf_counter())
        await answer(ask)
        return time.perf_counter() - began - at

    took = await asyncio.gather(*(one(at, ask) for at, ask in arrivals(float(load.removeprefix("open")))))
    return statistics.mean(took)


def child(name: str, folder: Path, python: str) -> None:
    """Take on each load whose name comes, and say its figure."""
    answer, loop = {
        NAMES[0]: lambda: gateway(folder),
        NAMES[1]: lambda: generate(folder, 1),
        NAMES[2]: lambda: generate(folder, 16),
        NAMES[3]: lambda: engine(folder),
        NAMES[4]: lambda: server(folder, python),
    }[name]()
    loop.run_until_complete(asyncio.wait_for(measure("warm", answer, 0), 120))
    print("ready", flush=True)
    for turn, line in enumerate(sys.stdin, 1):
        print(loop.run_until_complete(measure(line.strip(), answer, turn)), flush=True)


LOADS = {
    "burst": ("16 of mixed length at once", "tokens/s", True),
    "open8": ("8 a second", "s, mean", False),
    "open20": ("20 a second", "s, mean", False),
    "cold": ("400 tokens, new", "ms to first", False),
    "warm": ("400 tokens, known", "ms to first", False),
    "lag": ("the loop is late by", "ms, p99", False),
}


def main() -> None:
    """Measure all of them and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=list(LOADS), action="append")
    parser.add_argument("--serve", help="a Python that has transformers[serving]")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.child, Path(given.folder), given.serve or "")
        return
    with tempfile.TemporaryDirectory() as place:
        save_model(Path(place))
        clients: dict[str, Any] = {}
        for name in NAMES if given.serve else NAMES[:4]:
            command = [sys.executable, __file__, "--child", name, "--folder", place, "--serve", given.serve or ""]
            clients[name] = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
        for name in [name for name, client in clients.items() if client.stdout.readline().strip() != "ready"]:
            print(f"{name} did not start")
            del clients[name]
        seen: dict[tuple[str, str], list[float]] = {}
        for _ in range(given.rounds):
            for load in given.only or LOADS:
                for name, client in clients.items():
                    print(load, file=client.stdin, flush=True)
                    seen.setdefault((load, name), []).append(float(client.stdout.readline()))
        for load in given.only or LOADS:
            what, unit, more = LOADS[load]
            print(f"{what} ({unit})")
            ours = seen[load, NAMES[0]]
            for name in clients:
                each = seen[load, name]
                times = statistics.median((a / b if more else b / a) for a, b in zip(ours, each, strict=True))
                print(f"  {name:26}{(max if more else min)(each):9.3g}   ours is better by{times:7.2f}")
        for client in clients.values():
            client.terminate()
            client.wait()


if __name__ == "__main__":
    main()
