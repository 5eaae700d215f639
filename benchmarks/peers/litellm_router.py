"""LiteLLM's router, choosing a deployment: CPU per choice for each of its strategies. Run by the peer's own interpreter.

    echo '{"services": [10, 500], "prompt_bytes": [4000, 900], "rounds": 3}' | .venv-bench/bin/python litellm_router.py

Reads its task as JSON from standard input and prints JSON: `version`, and `us`, the CPU microseconds per choice by strategy,
by count of deployments, then "brief" (a prompt of one word) and "same" (prompts of the sizes given: most strategies count
tokens). It is timed at its best: the faster of the sync and the async method, statistics warm, nothing but the method itself.
"""

from __future__ import annotations

import os

os.environ.update(LITELLM_LOCAL_MODEL_COST_MAP="True", LITELLM_MODE="PRODUCTION", LITELLM_LOG="ERROR")  # before the import

import asyncio
import json
import random
import sys
import time
from collections import deque
from importlib.metadata import version
from typing import Any

import litellm  # type: ignore[import-not-found]  # it is in an environment of its own

GROUP = "group"
MODEL = "openai/gpt-4o-mini"
STRATEGIES = ("simple-shuffle", "least-busy", "latency-based-routing", "cost-based-routing", "usage-based-routing-v2")
WARM = 10
"""Answers told of each deployment before the timing: as many latencies as the router keeps of one."""
IN_FLIGHT = 32
SENTENCE = "The river rises in the hills, passes two old towns and reaches the sea after three hundred miles. "


class Peer:
    """A router with so many deployments of one model, that is told of answers as litellm itself would tell it."""

    def __init__(self, strategy: str, services: int) -> None:
        self.strategy = strategy
        self._random = random.Random(1)
        self.router = litellm.Router(
            model_list=[
                {
                    "model_name": GROUP,
                    "litellm_params": {
                        "model": MODEL,
                        "api_key": "none",
                        "api_base": f"http://127.0.0.1:9/{n}",
                        "input_cost_per_token": (1 + n % 7) * 1e-6,
                        "output_cost_per_token": (2 + n % 11) * 1e-6,
                    },
                    "model_info": {"id": f"service-{n}"},
                }
                for n in range(services)
            ],
            routing_strategy=strategy,
            num_retries=0,
        )
        found = (getattr(self.router, f"{name}_logger") for name in ("leastbusy", "lowestlatency", "lowestcost", "lowesttpm"))
        self._loggers = [one for one in (*found, self.router.lowesttpm_logger_v2) if one is not None]
        self._flying: deque[str] = deque()
        for n in range(services):
            for _ in range(WARM):
                self._answered(f"service-{n}")

    def chosen(self, name: str) -> None:
        """One more request in flight there; the oldest of them all is answered."""
        for logger in self._loggers:
            logger.log_pre_api_call(MODEL, [], self._kwargs(name))
        self._flying.append(name)
        if len(self._flying) > IN_FLIGHT:
            self._answered(self._flying.popleft())

    def _answered(self, name: str) -> None:
        seconds, tokens = self._random.lognormvariate(0.5, 0.5), 1 + int(self._random.lognormvariate(5.0, 0.8))
        kwargs = self._kwargs(name)
        kwargs["standard_logging_object"]["total_tokens"] = tokens
        reply = litellm.ModelResponse(usage=litellm.Usage(prompt_tokens=0, completion_tokens=tokens, total_tokens=tokens))
        for logger in self._loggers:
            logger.log_success_event(kwargs, reply, 0.0, seconds)

    def _kwargs(self, name: str) -> dict[str, Any]:
        facts = {"model_group": GROUP, "model_id": name, "hidden_params": {"litellm_model_name": MODEL}}
        params = {"metadata": {"model_group": GROUP}, "model_info": {"id": name}}
        return {"litellm_params": params, "standard_logging_object": facts}

    async def us(self, prompts: list[str], rounds: int) -> float:
        """CPU microseconds per choice: the best round of the faster of the two methods."""
        # Cost-based routing has no sync method.
        ways = (True,) if self.strategy == "cost-based-routing" else (False, True)
        return min([await self._round(prompts, waits) for waits in ways for _ in range(rounds)])

    async def _round(self, prompts: list[str], waits: bool) -> float:
        spent = 0.0
        for prompt in prompts:
            messages, kwargs = [{"role": "user", "content": prompt}], dict[str, Any]()
            if waits:
                began = time.process_time()
                found = await self.router.async_get_available_deployment(GROUP, request_kwargs=kwargs, messages=messages)
                spent += time.process_time() - began
                await asyncio.sleep(0)  # what it left to do in the background is not counted
            else:
                began = time.process_time()
                found = self.router.get_available_deployment(GROUP, messages=messages, request_kwargs=kwargs)
                spent += time.process_time() - began
            self.chosen(found["model_info"]["id"])
        return spent / len(prompts) * 1e6


async def main() -> None:
    """Time every strategy with every count of deployments."""
    task = json.load(sys.stdin)
    us: dict[str, dict[str, dict[str, float]]] = {}
    for strategy in STRATEGIES:
        for services in task["services"]:
            peer = Peer(strategy, services)
            sizes = task["prompt_bytes"][: 100 if services < 100 else 25]
            same = [(SENTENCE * (size // len(SENTENCE) + 1))[:size] for size in sizes]
            us.setdefault(strategy, {})[str(services)] = {
                "brief": await peer.us(["Hello"] * len(sizes), task["rounds"]),
                "same": await peer.us(same, task["rounds"]),
            }
            peer.router.discard()
    print(json.dumps({"version": version("litellm"), "us": us}))


if __name__ == "__main__":
    asyncio.run(main())
