"""What a chat template looks at, read from its own text: tools, calls, results, thoughts. Nothing is rendered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import meta, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from gateway import Weights, WeightsError
from gateway_local.syntax import family_of, thoughts_of

SWITCHES = ("enable_thinking", "thinking")
"""Variables that turn thinking on and off."""
EFFORT = "reasoning_effort"
"""The variable that says how hard to think: low, medium or high."""


class _Generation(Extension):
    """The tag of transformers that marks what an assistant wrote."""

    tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@dataclass(frozen=True, kw_only=True)
class Reads:
    """What one template reads. What it does not read must not be given to it: it would be dropped unseen."""

    tools: bool = False
    """The tools that may be called."""
    calls: bool = False
    """The calls of earlier turns."""
    results: bool = False
    """What tools returned."""
    one_call: bool = False
    """Of several calls in one message it writes the first, or refuses them."""
    text_arguments: bool = False
    """It wants a call's arguments as JSON text, not as an object."""
    no_content: bool = False
    """It wants none, and not the empty text, where a message has no text."""
    switch: str = ""
    """The variable that turns thinking on and off; "" without one."""
    effort: bool = False
    """Whether it reads ``reasoning_effort``."""
    thinks: bool = False
    """The prompt that it writes has begun a thought, whatever one asks for."""

    @property
    def tool_calling(self) -> bool:
        """Whether a whole round of a tool call can be written."""
        return self.tools and self.calls and self.results


def chat_template(weights: Weights, config: Mapping[str, Any]) -> tuple[str, str]:
    """The file that holds the chat template, and the template."""
    if "chat_template.jinja" in weights.files:
        file = "chat_template.jinja"
        try:
            return file, weights.file(file).decode()
        except UnicodeDecodeError as error:
            raise WeightsError(f"{file} is not UTF-8") from error
    file = "tokenizer_config.json"
    template = config.get("chat_template")
    if isinstance(template, list):  # several named ones: the default is what a plain chat uses
        named = [row for row in template if isinstance(row, dict) and row.get("name") == "default"]
        template = named[0].get("template") if named else None
    if not isinstance(template, str):
        raise WeightsError(f'{file}: chat_template is neither a text nor a list with one named "default"')
    return file, template


@lru_cache(maxsize=64)
def reads_of(template: str) -> Reads:
    """What a template reads; nothing of one that does not compile, which loading it reports."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
    try:
        tree = environment.parse(template)
        free = meta.find_undeclared_variables(tree)
    except (jinja2.TemplateError, RecursionError):
        return Reads()
    words = {node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)}
    words |= {node.attr for node in tree.find_all(nodes.Getattr)}
    switch = next((name for name in SWITCHES if name in free), "")
    thoughts = thoughts_of(template)
    prompt = template.rpartition("add_generation_prompt")[2]
    opened = thoughts is not None and thoughts.opens in prompt and thoughts.closes not in prompt
    return Reads(
        tools="tools" in free,
        calls="tool_calls" in words,
        results="tool" in words,
        one_call=not any(_reads(loop.iter, "tool_calls") for loop in tree.find_all(nodes.For)) and _indexes(tree),
        text_arguments=_joined(tree) and not _structured(tree),
        no_content=any(test.name == "none" and _key(test.node) == "content" for test in tree.find_all(nodes.Test)),
        switch=switch,
        effort=EFFORT in free,
        thinks=opened and not switch and EFFORT not in free,
    )


def template_features(template: str) -> frozenset[str]:
    """The names of what a model with this template can be asked for: "tools", "reasoning"."""
    reads, features = reads_of(template), set()
    if reads.tool_calling and family_of(template) is not None:
        features.add("tools")
    if reads.switch or reads.effort or reads.thinks:
        features.add("reasoning")
    return frozenset(features)


def _key(node: nodes.Node) -> Any:
    """The name that ``x.name`` or ``x["name"]`` looks up."""
    if isinstance(node, nodes.Getattr):
        return node.attr
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        return node.arg.value
    return None


def _within(node: nodes.Node) -> Iterator[nodes.Node]:
    yield node
    yield from node.find_all(nodes.Node)


def _reads(node: nodes.Node, key: str) -> bool:
    """Whether an expression looks a key up, or names a variable of that name."""
    return any(_key(each) == key or (isinstance(each, nodes.Name) and each.name == key) for each in _within(node))


def _indexes(tree: nodes.Node) -> bool:
    return any(_key(node) == 0 and _reads(node.node, "tool_calls") for node in tree.find_all(nodes.Getitem))


def _joined(tree: nodes.Node) -> bool:
    """Whether arguments are joined to other text as they are."""
    sums = [(node.left, node.right) for node in tree.find_all(nodes.Add)]
    joins = [tuple(node.nodes) for node in tree.find_all(nodes.Concat)]
    return any(_key(part) == "arguments" for parts in [*sums, *joins] for part in parts)


def _structured(tree: nodes.Node) -> bool:
    """Whether arguments are written from an object somewhere."""
    for node in tree.find_all((nodes.Filter, nodes.Test, nodes.For, nodes.Call)):
        if isinstance(node, nodes.Filter) and node.name in ("tojson", "items", "dictsort") and node.node is not None:
            read = _reads(node.node, "arguments")
        elif isinstance(node, nodes.Test):
            read = node.name in ("mapping", "string") and _key(node.node) == "arguments"
        elif isinstance(node, nodes.For):
            read = _reads(node.iter, "arguments")
        else:
            read = isinstance(node, nodes.Call) and _key(node.node) == "items" and _reads(node.node, "arguments")
        if read:
            return True
    return False
