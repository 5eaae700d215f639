"""The `gateway` program as a user meets it: real processes, real terminals, plugins made on the fly."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("typer")
pytest.importorskip("rich")

from gateway import Need
from gateway.cli_config import HIDDEN, hidden, to_toml
from gateway.cli_options import amount, need_of
from gateway.cli_show import count
from gateway.testing import Fault, LoopbackServer

sys.path.insert(0, str(Path(__file__).parent))
from warm import Warm

ROOT = Path(__file__).parent.parent

DEMO = '''
import asyncio, sys, threading
from dataclasses import dataclass, field
from gateway import (ChatResponse, Command, Image, ModelCard, ModelService, Reasoning, Request, Response, Text, WeightsError,
                     hookimpl, Price, Chat, Delta)
from gateway.testing import Echo

@dataclass(frozen=True, kw_only=True)
class RhymeResponse(Response):
    words: tuple[str, ...] = field(repr=False)

@dataclass(frozen=True, kw_only=True)
class Rhyme(Request[RhymeResponse]):
    word: str = field(repr=False)
    times: int = 2

class Rhymer(ModelService):
    card = ModelCard(name="rhymer", tasks=frozenset({Rhyme}), params=12_000)
    async def run(self, request, /):
        return RhymeResponse(words=(request.word + "y",) * request.times)

class Keyed(Echo):
    async def describe(self, resources):
        resources.secret("env:GATEWAY_TEST_KEY")
        return self.card

class Checked(Echo):
    async def check(self, resources):
        if self.card.name == "torn":
            raise WeightsError("'torn.safetensors' is cut short")
        if self.card.name == "odd":
            raise RuntimeError("what it says may be private")
        return "answers"

class Loaded(Echo):
    async def start(self, resources):
        def load():
            for step in range(0, 11):
                resources.progress("load loaded", step * 10, 100)
        await asyncio.to_thread(load)

class Loading(Echo):
    async def start(self, resources):
        def load():
            resources.progress("load loading", 10, 100)
            threading.Event().wait(3600)
        await asyncio.to_thread(load)

class Shy(ModelService):
    async def describe(self, resources):
        return ModelCard(name="shy", tasks=frozenset({Chat}))
    name = "shy"
    async def run(self, request, /):
        return ChatResponse(parts=())

class Thinker(ModelService):
    card = ModelCard(name="thinker", tasks=frozenset({Chat}))
    async def run(self, request, /):
        return ChatResponse(parts=(Reasoning("I ponder."), Text("red \\x1b[31m"), Image(data=b"PNG!")), finish="length")

class Hung(Echo):
    async def stream(self, request, /):
        yield Delta("so far ")
        await asyncio.Event().wait()

class Drip(Echo):
    async def stream(self, request, /):
        while True:
            yield Delta("drip " * 1000)
            await asyncio.sleep(0)

def hello(name: str, loud: bool = False) -> None:
    """Greet."""
    print("hello " + name + "!" * loud)

@hookimpl
def gateway_models(config):
    wanted = config.get("models", ["echo", "rhymer"])
    every = [Echo("echo", quality=0.5), Rhymer(), Keyed("keyed", place="hosted"), Checked("sound"), Checked("torn"),
             Checked("odd"), Thinker(), Shy(),
             Loaded("loaded", params=8_030_000_000, bytes=16_060_000_000, place="hosted", price=Price(input=1.25, output=10)),
             Loading("loading"), Hung("hung"), Drip("drip"), Echo("toy", quality=0.9, last_resort=True)]
    return [model for model in every if (model.name or model.card.name) in wanted]

@hookimpl
def gateway_commands(config):
    return [Command(name=config.get("command", "hello"), run=hello, help="Say hello.")]
'''


# Several commands in one process, because starting one costs more than a command does.
EACH = """
import contextlib, io, json, sys
from gateway.cli import run_program
for args, given in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    sys.stdin = io.TextIOWrapper(io.BytesIO(given.encode()))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_program(args)
    print(json.dumps([code, out.getvalue(), err.getvalue()]))
"""


ENV = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", "TERM": "xterm"}


class Program:
    """The program in a folder of its own, with plugins of its own."""

    def __init__(self, folder: Path, warm: Warm) -> None:
        self.folder = folder
        self.warm = warm
        self.site = folder / "site"
        self.env = {**ENV, "HOME": str(folder), "PYTHONPATH": os.pathsep.join([str(self.site), str(ROOT)])}
        self.install("demo", DEMO)

    def install(self, name: str, source: str) -> None:
        info = self.site / f"{name}_plugin-2.3.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-plugin\nVersion: 2.3\n")
        (info / "entry_points.txt").write_text(f"[gateway]\n{name} = {name}_plugin\n")
        (self.site / f"{name}_plugin.py").write_text(source)

    def configure(self, text: str = "", *, models: str = "echo rhymer", plugins: str = "demo") -> None:
        head = f"plugins = {json.dumps(plugins.split())}\n"
        (self.folder / "gateway.toml").write_text(f"{head}{text}\n[plugin.demo]\nmodels = {json.dumps(models.split())}\n")

    def __call__(self, *args: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        return self.warm.run(self.command(*args)[1:], self.folder, self.env | env, stdin)

    def anew(self, *args: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        """In an interpreter of its own, which has imported nothing yet."""
        return subprocess.run(
            self.command(*args), input=stdin, text=True, capture_output=True, cwd=self.folder, env=self.env | env, timeout=60
        )

    def each(self, *calls: list[str], stdin: str = "") -> list[tuple[int, str, str]]:
        """Exit code, output and errors of several calls in a row."""
        given = json.dumps([(args, stdin) for args in calls])
        command = [sys.executable, "-c", EACH]
        done = subprocess.run(command, input=given, text=True, capture_output=True, cwd=self.folder, env=self.env, timeout=60)
        assert done.stderr == ""
        return [tuple(json.loads(line)) for line in done.stdout.splitlines()]

    def on_terminal(self, *args: str, keys: tuple[str, str] | None = None, columns: int = 100, **env: str) -> tuple[int, str]:
        """Exit code and everything that came to a terminal. `keys`: what to type, once some text has been seen."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        seen = b""

        def meet() -> None:
            nonlocal seen, keys
            os.close(theirs)
            while True:
                try:
                    chunk = os.read(ours, 65_536)
                except OSError:  # EIO: the other side is closed
                    break
                if not chunk:
                    break
                seen += chunk
                if keys is not None and keys[0].encode() in seen:
                    os.write(ours, keys[1].encode())
                    keys = None

        command, env = self.command(*args), self.env | env
        if command[:2] == [sys.executable, "-c"] and keys is None:
            code = self.warm.run_on(os.ttyname(theirs), command[1:], self.folder, env, meet)
        else:
            with subprocess.Popen(
                command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=self.folder, env=env,
                start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            ) as process:  # fmt: skip
                try:
                    meet()
                    code = process.wait(60)
                except BaseException:
                    process.kill()  # leaving the block would wait for it
                    raise
        os.close(ours)
        return code, seen.decode().replace("\r\n", "\n")

    def command(self, *args: str) -> list[str]:
        return [sys.executable, "-c", "from gateway.cli import main; main()", *args]


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    loaded = ("gateway.cli_commands", "gateway.cli_map", "gateway.testing", "rich.progress", "rich.table", "rich.markup")
    with Warm(*loaded, env=ENV) as warm:
        yield warm


@pytest.fixture
def gateway(tmp_path: Path, warm: Warm) -> Program:
    program = Program(tmp_path, warm)
    program.configure()
    return program


def test_help_and_version_load_nothing_heavy_and_list_the_commands_of_plugins(gateway: Program) -> None:
    code = (
        "import sys; from gateway.cli import run_program; run_program(['--help']); run_program(['--version']); "
        "heavy = {'torch', 'transformers', 'httpx', 'numpy'} & set(sys.modules); assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], text=True, capture_output=True, cwd=gateway.folder, env=gateway.env, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("models", "explain", "run", "map", "replay", "plugins", "check", "config", "hello"):
        assert f"│ {name} " in done.stdout
    assert re.search(r"^gateway \d+\.\d+\.\d+$", done.stdout, re.MULTILINE)


def test_without_its_extra_the_program_says_what_to_install(gateway: Program) -> None:
    (gateway.site / "typer.py").write_text("raise ImportError('no typer', name='typer')")
    done = gateway.anew("models")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: the gateway program needs typer: pip install 'gateway-sdk[cli]'\n"


def test_models_are_listed_with_what_is_known_and_what_is_wrong(gateway: Program) -> None:
    gateway.configure(models="echo keyed loaded")
    done = gateway("models")
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr, "\x1b" in done.stdout) == (0, "", False)
    assert lines[0].split("  ")[0] == "name" and len(lines) == 4
    assert "8,192" in lines[1] and "free" in lines[1]
    assert "failed" in lines[2] and lines[2].endswith("environment variable GATEWAY_TEST_KEY is not set")
    assert re.search(r"hosted +chat, embed, generate +8.03B +16.1 GB +8,192 +1.25/10 +cold", lines[3])
    code, seen = gateway.on_terminal("models")
    assert code == 0 and "────" in seen
    assert "keyed: environment variable GATEWAY_TEST_KEY is not set" in seen
    code, seen = gateway.on_terminal("models", columns=50)
    assert code == 0 and "\nloaded\n  plugin: demo\n  place: hosted\n" in seen  # too narrow for columns


def test_models_as_json_name_the_error_and_the_card(gateway: Program) -> None:
    gateway.configure(models="echo keyed")
    echo, keyed = json.loads(gateway("models", "--json").stdout)
    assert echo["card"]["context"] == 8192 and echo["state"] == "cold" and echo["error"] is None and echo["shut"] == ""
    assert keyed["error"]["ref"] == "env:GATEWAY_TEST_KEY" and keyed["card"] is None


def test_explain_shows_every_model_and_why_not(gateway: Program) -> None:
    gateway.configure(models="echo rhymer loaded")
    (_, table, _), (_, wire, _) = gateway.each(
        ["explain", "chat", "hi", "--max-params", "9B", "--need", "place=hosted"],
        ["explain", "chat", "hi", "--model", "e*", "--json"],
    )
    assert re.search(r"^loaded +hosted +chosen", table, re.MULTILINE)
    assert "task: rhyme (allowed: chat)" in table and "\x1b" not in table
    decision = json.loads(wire)
    assert decision["chosen"] == "echo" and len(decision["candidates"]) == 3
    code, seen = gateway.on_terminal("explain", "chat", "hi", NO_COLOR="1")
    assert code == 0 and "────" in seen and "\x1b" not in seen


ROUTES = """
[route.outside]
description = "may leave the house"
place = "hosted"

[route.quiet]
place = "local"
match = { data_class = "personal", conversation = true }
"""


def test_a_decision_is_made_again_from_its_record_and_shown_as_it_was(gateway: Program) -> None:
    gateway.configure(models="echo rhymer loaded")
    taken, shown, again, wire = gateway.each(
        ["run", "chat", "my secret", "--place", "hosted", "--record", "run.json"],
        ["explain", "chat", "my secret", "--record", "why.json"],
        ["replay", "why.json"],
        ["replay", "run.json", "--json"],
    )
    assert taken == (0, "my secret\n", "") and shown[0] == 0
    assert again == (0, f"{shown[1]}\nreproduced byte for byte\n", "")
    made = json.loads(wire[1])
    record = (gateway.folder / "run.json").read_text()
    assert wire[0] == 0 and made["same"] and made["differences"] == [] and made["decision"]["chosen"] == "loaded"
    assert made["decision"] == json.loads(record)["decision"] and "secret" not in record
    assert gateway("replay", "-", stdin=record).stdout.endswith("\nreproduced byte for byte\n")
    code, seen = gateway.on_terminal("replay", "run.json")
    assert code == 0 and "loaded is chosen" in seen and "reproduced byte for byte" in seen


def test_the_decision_that_nobody_can_serve_a_request_is_recorded_too(gateway: Program) -> None:
    assert gateway("run", "chat", "x", "--place", "hosted", "--record", "no.json").returncode == 1
    done = gateway("replay", "no.json")
    assert done.returncode == 0 and done.stdout.startswith("no model can serve this chat request\n")


def test_a_replay_that_comes_out_otherwise_says_where_and_exits_1(gateway: Program) -> None:
    gateway("explain", "chat", "hi", "--record", "why.json")
    kept = json.loads((gateway.folder / "why.json").read_text())
    kept["decision"]["chosen"], kept["decision"]["candidates"][0]["utility_usd"] = "other", 7.0
    del kept["decision"]["notes"]
    done = gateway("replay", "-", stdin=json.dumps(kept))
    assert done.returncode == 1 and "reproduced" not in done.stdout and done.stderr == ""
    told = done.stdout.partition("\nthis is not what was recorded:\n")[2].splitlines()
    assert told[0] == '  chosen: recorded "other", now "echo"'
    assert told[1].startswith("  candidates[echo].utility_usd: recorded 7.0, now ")
    assert told[2:] == ["  notes: recorded nothing, now []"]


def test_a_damaged_record_and_one_of_other_policies_are_one_clear_error(gateway: Program) -> None:
    gateway("explain", "chat", "hi", "--record", "why.json")
    text = (gateway.folder / "why.json").read_text()

    def spoilt(at: list[Any], value: Any) -> str:
        kept = inner = json.loads(text)
        for step in at[:-1]:
            inner = inner[step]
        inner[at[-1]] = value
        return json.dumps(kept)

    damaged = ": the record cannot be replayed, it is damaged or of other plugins: "
    other = ": the record was made with other policies, or other settings of them, than those here: context, cost"
    cases = [
        (text[:-9], " is not JSON: make a record with"),
        ("[1]", " is no decision's record: make one with"),
        (spoilt(["decision"], None), ": the record is damaged: it has no decision"),
        (spoilt(["policy"], []), ": the record is damaged: it has no policy"),
        (spoilt(["policy", "wurth"], 1), ": record.policy.wurth: unknown key"),
        (spoilt(["record"], 99), ": not a decision's record of format 1"),
        (spoilt(["models"], 3), f"{damaged}TypeError"),
        (spoilt(["models", 0, "card", "name"], 3), f"{damaged}a model card needs a name"),
        (spoilt(["ask", "need"], {"percentile": 9}), f"{damaged}need.percentile is above 0 and below 1"),
        (spoilt(["notes"], [3]), ": the record is damaged: TypeError"),
        (spoilt(["digest"], "0" * 64), other),
    ]
    for number, (record, _) in enumerate(cases):
        (gateway.folder / f"{number}.json").write_text(record)
    for number, done in enumerate(gateway.each(*(["replay", f"{number}.json"] for number in range(len(cases))))):
        assert done[:2] == (1, "") and done[2].startswith(f"error: '{number}.json'{cases[number][1]}"), done
        assert done[2].count("\n") == 1


def test_the_policies_of_plugins_take_part_in_a_replay(gateway: Program) -> None:
    fond = "from gateway import Policy, Score, hookimpl\nclass Fond(Policy):\n    name = 'fond'\n"
    fond += "    def score(self, ask, card, live): return Score(1.0) if card.name == 'rhymer' else None\n"
    gateway.install("fond", f"{fond}@hookimpl\ndef gateway_policies(config): return [Fond()]\n")
    gateway.configure(plugins="demo fond")
    assert gateway("explain", "rhyme", "hi", "--record", "why.json").returncode == 0
    done = gateway("replay", "why.json")
    assert done.returncode == 0 and "fond $1.0000" in done.stdout
    gateway.configure()
    done = gateway("replay", "why.json")
    assert (done.returncode, done.stdout) == (1, "") and "made with other policies" in done.stderr


def test_a_route_is_asked_for_by_name_or_matched_and_told_first(gateway: Program) -> None:
    gateway.configure(ROUTES, models="echo loaded")
    asked, matched, by_field = gateway.each(
        ["explain", "chat", "hi", "--route", "outside"],
        ["explain", "chat", "hi", "--data-class", "personal", "--conversation", "c"],
        ["run", "chat", "hi", "--need", "route=outside", "--need", "percentile=0.95", "--restart", "--trace"],
    )
    assert asked[1].startswith("route outside (asked for): may leave the house\nloaded is chosen, worth ")
    assert "\necho     process  need.place: process (allowed: hosted)\n" in asked[1]
    assert matched[1].startswith("route quiet (matched: data class personal, in a conversation)\necho is chosen")
    assert by_field[0] == 0 and by_field[2].startswith("loaded ")


def test_a_route_that_no_model_can_serve_is_told_when_loading_or_by_check(gateway: Program) -> None:
    gateway.configure('\n[route.far]\nplace = "private"\n', models="echo")
    done = gateway("explain", "chat", "hi")
    told = "route.far: no model can serve it: echo: need.place: process (allowed: private)"
    assert (done.returncode, done.stderr) == (1, f"error: 'gateway.toml', line 3: {told}\n")
    gateway.configure('\n[route.far]\nplace = "private"\n', models="shy")  # its card is known only once it is asked
    table, wire = gateway("check"), gateway("check", "--json")
    assert (table.returncode, wire.returncode) == (1, 1)
    assert re.search(r"(?m)^wrong +route far +no model can serve it: shy: need.place: process", table.stdout)
    ok, far = json.loads(wire.stdout)
    assert ok["ok"] and (far["model"], far["plugin"], far["ok"]) == ("route far", "", False)


def test_the_explanation_fits_a_terminal(gateway: Program) -> None:
    gateway.configure(models="echo loaded")
    wide, usual, narrow = (gateway.on_terminal("explain", "chat", "hi", columns=n, NO_COLOR="1")[1] for n in (120, 70, 40))
    assert re.search(r"(?m)^echo +process +chosen .*\$0.0100 \(0.5 of 1\)", wide)
    assert re.search(r"(?m)^echo +process +chosen .*\$0.0100 *\n +\(.* s\) +\(0.5 of 1\)", usual)
    assert "\nloaded\n  place: hosted\n" in narrow and "  quality: +$0.0100 (0.5 of 1)\n" in narrow


def test_run_says_who_has_answered_when_that_is_a_last_resort(gateway: Program) -> None:
    gateway.configure(models="echo toy")
    assert gateway("run", "chat", "hi").stderr == ""
    gateway.configure(models="toy")
    told = "[answered by toy, a last resort: `gateway explain` and --trace tell why no other did]\n"
    for more in ([], ["--no-stream"]):
        done = gateway("run", "chat", "hi", *more)
        assert (done.returncode, done.stdout, done.stderr) == (0, "hi\n", told)


def test_run_answers_from_the_argument_or_from_standard_input(gateway: Program) -> None:
    done = gateway("run", "chat", "two  words", "--trace", stdin="not this")
    assert (done.returncode, done.stdout) == (0, "two  words\n")
    assert done.stderr.startswith("echo  0.") and "1. echo" in done.stderr
    assert gateway.anew("run", "chat", stdin="é ü\n", PYTHONIOENCODING="ascii").stdout == "? ?\n"
    continued, first = gateway.each(
        ["run", "generate"], ["run", "chat", "-", "--no-stream", "--max-tokens", "1"], stdin="from a pipe\n"
    )
    assert (continued[1], first[1]) == ("from a pipe\n", "from\n")


def test_on_a_terminal_the_input_must_be_given(gateway: Program) -> None:
    assert gateway.on_terminal("run", "chat") == (2, "error: give the input after the task, or pipe it in\n")


def test_embed_gives_a_json_vector_a_line(gateway: Program) -> None:
    vectors = [
        json.loads(line) for line in gateway("run", "embed", "--dimensions", "8", stdin="cat\ndog\n").stdout.splitlines()
    ]
    assert [len(vector) for vector in vectors] == [8, 8] and vectors[0] != vectors[1]


def test_a_task_of_a_plugin_is_run_through_set_and_prints_its_own_fields(gateway: Program) -> None:
    shown, wire = gateway.each(["run", "rhyme", "day", "--set", "times=3"], ["run", "rhyme", "--set", "word=day", "--json"])
    assert json.loads(shown[1]) == {"words": ["dayy", "dayy", "dayy"]}
    reply = json.loads(wire[1])
    assert reply["response"] == "rhyme" and reply["model"] == "rhymer" and reply["trace"]["attempts"]


def test_media_go_to_a_file_and_reasoning_shows_only_when_asked(gateway: Program) -> None:
    gateway.configure(models="thinker echo")
    ask = ["run", "chat", "x", "-m"]
    written, misnamed, thought, none = gateway.each(
        [*ask, "thinker", "--out", "a.png"],
        [*ask, "thinker", "--out", "a.wav"],
        [*ask, "thinker", "--show-reasoning"],
        [*ask, "echo", "--out", "b.png"],
    )
    assert (gateway.folder / "a.png").read_bytes() == b"PNG!"
    assert written == (0, "red \x1b[31m\n", "wrote a.png\n")  # a pipe gets what the model wrote
    assert misnamed[2] == "wrote a.wav, which is image/png\n"
    assert "I ponder." in thought[2] and "I ponder." not in thought[1]
    assert "[image/png, 4 bytes: --out FILE writes it]" in thought[2] and "[cut off at the token limit]" in thought[2]
    assert none == (1, "x\n", "error: the reply of 'echo' holds no image, sound or document to write to 'b.png'\n")
    code, seen = gateway.on_terminal(*ask, "thinker", "--show-reasoning")
    assert code == 0 and "\x1b[2mI ponder.\x1b[0m" in seen and "\x1b[31m" not in seen  # it must not drive a terminal


def results(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def answers(text: str) -> list[str]:
    return ["".join(part["text"] for part in one["parts"]) if "parts" in one else one["error"] for one in results(text)]


def test_map_asks_for_each_line_and_prints_a_line_for_each_in_order(gateway: Program) -> None:
    inputs = gateway.folder / "in.txt"
    inputs.write_bytes("one\r\n-\né {not json\n{\"messages\": [{\"role\": \"user\", \"parts\": ".encode()
                       + b'[{"type": "text", "text": "two\\nlines"}]}], "max_tokens": 1}\nlast')  # fmt: skip
    done = gateway("map", "chat", "in.txt", "--system", "", "--temperature", "0.5", stdin="not this")
    assert (done.returncode, done.stderr) == (0, "")
    assert answers(done.stdout) == ["one", "-", "é {not json", "two", "last"]
    reply = results(done.stdout)[3]
    assert (reply["response"], reply["finish"], reply["model"]) == ("chat", "length", "echo")
    assert reply["trace"]["decision"] is None and reply["trace"]["attempts"]
    embedded, rhymed, empty = gateway.each(
        ["map", "embed", "--dimensions", "4"], ["map", "rhyme", "-", "--set", "times=1"], ["map", "chat", os.devnull],
        stdin='cat\ndog\n',
    )  # fmt: skip
    assert [len(one["vectors"][0]) for one in results(embedded[1])] == [4, 4]
    assert [one["words"] for one in results(rhymed[1])] == [["caty"], ["dogy"]]
    assert empty == (0, "", "")


def test_map_gives_a_wrong_line_its_error_in_its_place_and_counts_them_at_the_end(gateway: Program) -> None:
    (gateway.folder / "in.txt").write_bytes(
        b'good\n\n\xff\n{"x": 1}\n{"messages": [], "seed": 1}\n' + b'{"a":' * 2000 + b'\n{"max_tokens": 3}\nend'
    )
    done = gateway("map", "chat", "in.txt")
    wrong = "InvalidRequest"
    assert done.returncode == 1
    said = answers(done.stdout)
    assert said == ["good", *[wrong] * 6, "end"]
    errors = [one for one in results(done.stdout) if "error" in one]
    assert [one["field"] for one in errors] == ["input", "input", "x", "messages", "input", "messages"]
    assert [one["message"].partition(":")[0] for one in errors] == [f"line {number}" for number in range(2, 8)]
    assert done.stderr == "error: 6 of 8 requests failed: 6 InvalidRequest\n"
    (gateway.folder / "in.txt").write_text('a\n{"messages": [{"role": "user", "parts": [{"type": "text", "text": "b"}]}]}\n')
    done = gateway("map", "chat", "in.txt", "--system", "be brief", "--out", "out.jsonl", "-m", "echo")
    assert (done.returncode, done.stdout) == (1, "")
    assert answers((gateway.folder / "out.jsonl").read_text()) == ["a", wrong]
    (gateway.folder / "in.txt").write_text("none.wav\n")
    [line] = results(gateway("map", "transcribe", "in.txt").stdout)
    assert line["message"] == "line 1: 'none.wav': No such file or directory"


def test_map_sends_no_line_of_broken_json_as_text(gateway: Program) -> None:
    broken = ["{broken", ' {"messages": [{"role": "us', '{"max_tokens": 1} and more', "{}{}"]
    whole = '\ufeff{"messages": [{"role": "user", "parts": [{"type": "text", "text": "{whole"}]}]}'
    (gateway.folder / "in.txt").write_text("\n".join([whole, *broken, "[1", '"as it is"']))
    done = gateway("map", "chat", "in.txt")
    assert answers(done.stdout) == ["{whole", *["InvalidRequest"] * 4, "[1", '"as it is"']
    said = [one["message"] for one in results(done.stdout) if "error" in one]
    hint = "mend it, or put a text that begins so into a field of one"
    assert said[0] == f'line 2: it begins with "{{" and is no JSON object from column 2 on: {hint}'
    assert [one.partition(":")[0] for one in said] == ["line 2", "line 3", "line 4", "line 5"]


def test_map_gives_each_answer_before_it_needs_the_next_line(gateway: Program) -> None:
    command = gateway.command("map", "chat")
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=gateway.folder, env=gateway.env
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        for text in ("one", "two", "three"):
            process.stdin.write(f"{text}\n")
            process.stdin.flush()
            assert answers(process.stdout.readline()) == [text]
        process.stdin.close()
        assert (process.stdout.read(), process.wait(60)) == ("", 0)


def stalling(gateway: Program, server: LoopbackServer, count: int, stall: int) -> None:
    """So many lines, of which one is never answered by a hosted model."""
    (gateway.folder / "in.txt").write_text("".join(f"number {n}.\n" for n in range(count)))
    row = f'name = "hosted"\nbase_url = "{server.url}"\nmodel = "loopback"\ntasks = ["chat"]'
    gateway.configure(f"[retry]\nattempts = 1\n[[plugin.remote.models]]\n{row}", plugins="demo remote", models="none")
    server.always(Fault(stall_after=0), when=lambda request: f"number {stall}.".encode() in request.body)


@pytest.mark.parametrize("out", [[], ["--out", "out.jsonl"]])
def test_map_has_written_what_was_answered_when_ctrl_c_ends_it(gateway: Program, out: list[str]) -> None:
    pytest.importorskip("gateway_remote")
    with LoopbackServer(answer=lambda body: body["messages"][-1]["content"]) as server:
        stalling(gateway, server, 300, stall=40)
        (gateway.folder / "out.jsonl").write_text("of another run\n")
        command = gateway.command("map", "chat", "in.txt", "--max-concurrency", "2", *out)
        with subprocess.Popen(
            command, cwd=gateway.folder, env=gateway.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            server.block_until(lambda server: len(server.requests) == 40 + 8 * 2 and server.in_flight == 1, timeout_s=60)
            process.send_signal(2)
            seen, said = process.communicate(timeout=60)
        assert process.returncode == 130 and len(server.requests) == 40 + 8 * 2  # so far ahead of the one that hangs
    hint = "with --journal FILE the same command would go on from there"
    assert said == f"\nbroken off with 40 lines written; {hint}\n"
    kept = (gateway.folder / "out.jsonl").read_text()
    assert kept == "of another run\n" if not out else seen == ""
    assert answers(kept if out else seen) == [f"number {n}." for n in range(40)]


def test_map_ends_quietly_and_soon_when_nobody_reads_on(gateway: Program) -> None:
    pytest.importorskip("gateway_remote")
    with LoopbackServer(answer=lambda body: body["messages"][-1]["content"]) as server:
        stalling(gateway, server, 300, stall=-1)
        command = gateway.command("map", "chat", "in.txt", "--max-concurrency", "2", "--max-rps", "20")
        with subprocess.Popen(
            command, cwd=gateway.folder, env=gateway.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None and process.stderr is not None
            assert answers(process.stdout.readline()) == ["number 0."]
            process.stdout.close()
            assert (process.stderr.read(), process.wait(60)) == ("", 141)
        assert len(server.requests) < 300


def test_map_never_writes_over_what_it_reads(gateway: Program) -> None:
    (gateway.folder / "in.txt").write_text("one\n")
    (gateway.folder / "j").touch()
    over, journal, empty = gateway.each(
        ["map", "chat", "in.txt", "--out", "./in.txt"], ["map", "chat", "in.txt", "--out", "j", "--journal", "j"],
        ["map", "chat", os.devnull, "--out", "out.jsonl"],
    )  # fmt: skip
    assert over == (2, "", "error: --out is the file of FILE too: give it another\n")
    assert journal == (2, "", "error: --out is the file of --journal too: give it another\n")
    assert (gateway.folder / "in.txt").read_text() == "one\n"
    assert empty == (0, "", "") and (gateway.folder / "out.jsonl").read_text() == ""


def test_map_needs_lines_and_shows_a_bar_on_a_terminal_only(gateway: Program) -> None:
    gateway.configure(models="loaded")
    assert gateway.on_terminal("map", "chat") == (2, "error: give a file of inputs after the task, or pipe them in\n")
    (gateway.folder / "in.txt").write_text("one\ntwo\n\n")
    assert gateway("map", "chat", "in.txt").stderr == "error: 1 of 3 requests failed: 1 InvalidRequest\n"
    code, seen = gateway.on_terminal("map", "chat", "in.txt", "--max-concurrency", "1", "--out", "out", "--max-rps", "20")
    assert code == 1 and "requests" in seen and "━" in seen and "load loaded" in seen
    assert re.search(r"0/3|1/3|2/3", seen) and seen.endswith("error: 1 of 3 requests failed: 1 InvalidRequest\n")
    seen_alone = gateway.on_terminal("map", "chat", "in.txt")[1].rpartition("\x1b[")[2]
    assert seen_alone.count('"chat"') == 2 and '"trace"' in seen_alone  # the bar is wiped before the first of them
    program = gateway.command
    gateway.command = lambda *args: ["sh", "-c", 'exec "$@" > piped', "sh", *program(*args)]  # type: ignore[method-assign]
    code, seen = gateway.on_terminal("map", "chat", "in.txt", "--max-rps", "20")
    assert code == 1 and "━" in seen and "trace" not in seen
    assert answers((gateway.folder / "piped").read_text()) == ["one", "two", "InvalidRequest"]
    gateway.command = program  # type: ignore[method-assign]
    code, seen = gateway.on_terminal("map", "chat", "in.txt", "--out", "out", TERM="dumb")
    assert (code, seen) == (1, "error: 1 of 3 requests failed: 1 InvalidRequest\n")


MAPPED = """
from gateway import Chat, Gateway
from gateway.testing import Echo
with Gateway([Echo()]) as gw:
    gw.map((Chat.ask(str(n)) for n in range(3)), max_rps=20)
    gw.map([Chat.ask("x")], progress=False)
print("after")
"""


def test_map_in_an_app_shows_a_bar_on_a_terminal_where_rich_is_installed(gateway: Program) -> None:
    (gateway.folder / "app.py").write_text(MAPPED)
    gateway.command = lambda *args: [sys.executable, "app.py", *args]  # type: ignore[method-assign]
    code, seen = gateway.on_terminal()
    assert code == 0 and "requests" in seen and seen.endswith("after\n")
    (gateway.site / "rich").mkdir()
    (gateway.site / "rich" / "__init__.py").write_text("raise ImportError('no rich', name='rich')")
    assert gateway.on_terminal() == (0, "after\n")


def test_map_over_the_wire_goes_on_from_its_journal_after_ctrl_c(gateway: Program) -> None:
    pytest.importorskip("gateway_remote")
    (gateway.folder / "in.txt").write_text("".join(f"number {n}\n" for n in range(12)))
    with LoopbackServer(answer=lambda body: body["messages"][-1]["content"]) as server:
        row = f'name = "hosted"\nbase_url = "{server.url}"\nmodel = "loopback"\ntasks = ["chat"]'
        gateway.configure(f"[retry]\nattempts = 1\n[[plugin.remote.models]]\n{row}", plugins="demo remote", models="none")
        server.always(Fault(stall_after=0), when=lambda request: b"number 7" in request.body)
        command = gateway.command("map", "chat", "in.txt", "--journal", "j", "--max-concurrency", "2", "--out", "out.jsonl")
        with subprocess.Popen(command, cwd=gateway.folder, env=gateway.env, stderr=subprocess.PIPE, text=True) as process:
            journal = gateway.folder / "j"
            server.block_until(lambda server: len(server.requests) == 12, timeout_s=60)
            server.block_until(lambda server: server.in_flight == 1, timeout_s=60)
            process.send_signal(2)
            assert process.stderr is not None
            said, code = process.stderr.read(), process.wait(60)
        assert answers((gateway.folder / "out.jsonl").read_text()) == [f"number {n}" for n in range(7)]
        answered = len(results(journal.read_text()))
        hint = "the same command goes on from there"
        assert (code, said) == (130, f"\nbroken off; journal 'j' holds {answered} answers: {hint}\n")
        assert answered in (10, 11) and journal.stat().st_mode & 0o777 == 0o600
        server.clear()
        server.always(Fault(status=400), when=lambda request: b"number 7" in request.body)
        done = subprocess.run(command, cwd=gateway.folder, env=gateway.env, text=True, capture_output=True, timeout=60)
        assert (done.returncode, done.stdout, done.stderr) == (1, "", "error: 1 of 12 requests failed: 1 Rejected\n")
        assert len(server.requests) == 12 - answered
        server.clear()
        done = subprocess.run(command, cwd=gateway.folder, env=gateway.env, text=True, capture_output=True, timeout=60)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert len(server.requests) == 1
    assert answers((gateway.folder / "out.jsonl").read_text()) == [f"number {n}" for n in range(12)]


def test_loading_shows_a_bar_on_a_terminal_only(gateway: Program) -> None:
    gateway.configure(models="loaded")
    assert gateway("run", "chat", "hi").stderr == ""
    code, seen = gateway.on_terminal("run", "chat", "hi")
    assert code == 0 and "load loaded" in seen and "━" in seen and seen.endswith("hi\n")
    code, seen = gateway.on_terminal("run", "chat", "hi", TERM="dumb")
    assert (code, seen) == (0, "hi\n")


def test_ctrl_c_does_not_wait_for_a_model_that_is_loading(gateway: Program) -> None:
    gateway.configure(models="loading")  # its thread ends an hour later
    code, seen = gateway.on_terminal("run", "chat", "hi", keys=("load loading", "\x03"))
    assert code == 130 and seen.endswith("\n") and "Traceback" not in seen and "error" not in seen


def test_ctrl_c_during_the_imports_prints_nothing(gateway: Program) -> None:
    (gateway.site / "typer.py").write_text("raise KeyboardInterrupt")
    done = gateway.anew("models")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_the_package_is_the_program(gateway: Program) -> None:
    command = [sys.executable, "-m", "gateway", "run", "chat", "hi"]
    done = subprocess.run(command, text=True, capture_output=True, cwd=gateway.folder, env=gateway.env, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "hi\n", "")


def test_ctrl_c_ends_a_stream_quietly(gateway: Program) -> None:
    gateway.configure(models="hung")
    code, seen = gateway.on_terminal("run", "chat", "hi", keys=("so far ", "\x03"))
    assert (code, seen) == (130, "so far ^C\n")


def test_a_pipe_that_nobody_reads_ends_the_program_quietly(gateway: Program) -> None:
    gateway.configure(models="drip")
    command = gateway.command("run", "chat", "hi")
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=gateway.folder, env=gateway.env
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.read(4) == b"drip"
        process.stdout.close()
        assert (process.stderr.read(), process.wait(60)) == (b"", 141)


ERRORS: list[tuple[list[str], int, str]] = [
    (["foo"], 2, "unknown command 'foo'; there are: models, explain, run, map, replay, plugins, check, config, hello"),
    (["run", "foo", "x"], 2, "unknown task 'foo'; there are: answer, chat, classify, "),
    (["run", "rhyme", "x", "--set", "a=1"], 2, "the task 'rhyme' has no field 'a'; it has: word, times"),
    (["run", "chat", "x", "-m", "nope"], 2, "need.model: no model answers to 'nope'; there are: echo, rhymer"),
    (["run", "chat", "x", "--route", "no"], 2, "need.route: there is no route 'no'; there are: none; [route.NAME] in gateway."),
    (["explain", "chat", "x", "--percentile", "95"], 2, "need.percentile is above 0 and below 1"),
    (["replay", "none.json"], 1, "'none.json': No such file or directory"),
    (["replay", "gateway.toml"], 1, "'gateway.toml' is not JSON: make a record with `gateway explain --record FILE`"),
    (["replay", "-"], 1, "standard input is not JSON"),
    (["run", "chat", "x", "--temperature", "9"], 2, "temperature must be a finite number from 0 to 2, not 9.0"),
    (["run", "chat", "x", "--max-params", "big"], 2, "invalid value for '--max-params': not a number such as"),
    (["run", "chat", "x", "--set", "a"], 2, "--set takes FIELD=VALUE"),
    (
        ["run", "chat", "x", "--file", "site/demo_plugin-2.3.dist-info/METADATA"],
        2,
        "'site/demo_plugin-2.3.dist-info/METADATA': its name must end like that of a known kind of document, as .pdf",
    ),
    (["run", "chat", "x", "--image", "gateway.toml"], 2, "'gateway.toml': its name must end like that of an image, as .png"),
    (["run", "chat", ""], 2, "the input is empty"),
    (["run", "chat"], 2, "the input is empty"),
    (["run", "embed", "-"], 2, "the input is empty"),
    (["explain", "generate", "  "], 2, "the input is empty"),
    (["run"], 2, "missing argument 'TASK' (see `gateway run --help`)"),
    (["models", "--config", "x"], 2, "no such option: --config: it goes before the command"),
    (["--config", "none.toml", "models"], 1, "'none.toml' cannot be read: FileNotFoundError"),
    (["run", "chat", "x", "--place", "hosted"], 1, "no model can serve this chat request"),
    (["map", "foo"], 2, "unknown task 'foo'; there are: answer, chat, classify, "),
    (["map", "chat", "--set", "a=1"], 2, "the task 'chat' has no field 'a'; it has: messages, "),
    (["map", "rhyme", "--system", "x"], 2, "the task 'rhyme' takes no system message; it has: word, times"),
    (["map", "chat", "none.txt"], 1, "'none.txt': No such file or directory"),
    (["map", "chat", "gateway.toml", "--out", "no/where"], 1, "'no/where': No such file or directory"),
    (["map", "chat", "gateway.toml", "--max-concurrency", "0"], 2, "max_concurrency must be a whole number of at least 1"),
    (["map", "chat", "gateway.toml", "--max-rps", "0"], 2, "max_rps must be a finite number of at least"),
    (["map", "chat", "gateway.toml", "--journal", "gateway.toml"], 1, "journal 'gateway.toml', line 1 is damaged"),
]


def test_every_error_is_one_line_that_names_what_exists(gateway: Program) -> None:
    results = gateway.each(*(args for args, _, _ in ERRORS))
    for (args, code, message), (got, out, err) in zip(ERRORS, results, strict=True):
        assert (args, got, out) == (args, code, "")
        assert err.startswith(f"error: {message}") and err.count("\n") == 1, args


def test_plugins_are_listed_although_one_is_broken_and_serving_refuses_it(gateway: Program) -> None:
    gateway.install("bad", "raise RuntimeError('no luck')")
    gateway.configure(plugins="demo bad")
    (code, table, _), (_, wire, _), (refused, _, error) = gateway.each(["plugins"], ["plugins", "--json"], ["models"])
    assert code == 0 and "failed to import: RuntimeError" in table
    assert re.search(r"^demo +demo-plugin +2.3 +yes +commands, models +\d+", table, re.MULTILINE)
    rows = {row["name"]: row for row in json.loads(wire)}
    assert rows["bad"]["error"]["distribution"] == "bad-plugin"
    assert rows["demo"]["hooks"] == ["gateway_commands", "gateway_models"]
    assert refused == 1 and error.startswith("error: plugin 'bad' (bad-plugin 2.3) failed to import")


def test_a_plugin_without_a_hook_and_two_models_of_one_name_show_among_the_plugins(gateway: Program) -> None:
    gateway.install("idle", "def gateway_model(config): return []")
    gateway.configure(plugins="demo idle")
    done = gateway("plugins")
    assert done.returncode == 0 and re.search(r"(?m)^idle +idle-plugin +2.3 +yes +none: it provides nothing ", done.stdout)
    assert json.loads(gateway("plugins", "--json").stdout)[1]["hooks"] == []
    gateway.install("twin", DEMO.replace("Say hello", "Say").replace('"hello"', '"hello2"').replace('"rhymer"', '"rhymer2"'))
    gateway.install("bad", "raise RuntimeError('no luck')")
    gateway.configure(plugins="demo twin bad")
    done = gateway("plugins")
    assert done.returncode == 1 and "failed to import: RuntimeError" in done.stdout
    assert re.search(r"^error: two models are named 'echo'.*'demo'.*'twin'", done.stderr)


def test_a_wrong_key_of_a_plugin_is_named_with_its_line(gateway: Program) -> None:
    check = "parse_config(dict[str, int], dict(config), 'plugin.strict') if config else None\n    return []"
    strict = "from gateway import hookimpl, parse_config\n@hookimpl\ndef gateway_models(config):\n    " + check
    gateway.install("strict", strict)
    gateway.configure('[plugin.strict]\nsize = "big"\n', plugins="demo strict")
    (served, _, error), (listed, table, _) = gateway.each(["models"], ["plugins"])
    assert (served, listed) == (1, 0) and "gateway.toml', line 3: plugin.strict.size: " in error
    assert "gateway.toml', line 3: plugin.strict.size: " in table


def test_a_command_of_a_plugin_runs_and_may_not_take_a_built_in_name(gateway: Program) -> None:
    assert gateway("hello", "bob", "--loud").stdout == "hello bob!\n"
    gateway.configure()
    with (gateway.folder / "gateway.toml").open("a") as file:
        file.write('command = "check"\n')
    done = gateway("models")
    assert done.returncode == 1 and "plugin 'demo' has a command 'check', which is built in" in done.stderr


def test_check_says_what_is_wrong_with_each_model_and_what_to_do(gateway: Program) -> None:
    gateway.configure(models="echo keyed odd sound torn")
    done = gateway("check")
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (1, "")
    assert re.match(r"ok +echo +demo +its card can be had", lines[1])
    assert re.match(r"wrong +keyed +demo +environment variable GATEWAY_TEST_KEY is not set; set it", lines[2])
    assert re.match(r"wrong +odd +demo +model 'odd' raised RuntimeError at demo_plugin.py:\d+ in check$", lines[3])
    assert re.match(r"ok +sound +demo +answers", lines[4])
    assert re.match(r"wrong +torn +demo +'torn.safetensors' is cut short; check `weights`", lines[5])
    gateway.configure(models="sound keyed")
    done = gateway("check", "--json", GATEWAY_TEST_KEY="k")
    assert done.returncode == 0 and [row["ok"] for row in json.loads(done.stdout)] == [True, True]


def test_config_is_toml_without_secrets_and_the_variable_names_its_file(gateway: Program) -> None:
    rows = 'rows = [{ headers = { x-id = "hunter2" }, first_token_s = 0.5 }]'
    (gateway.folder / "other.toml").write_text(f'[plugin.demo]\ntoken = "hunter2"\napi_key = "env:BIG"\n{rows}\n')
    done = gateway("config", GATEWAY_CONFIG="other.toml")
    shown = tomllib.loads(done.stdout)
    assert done.stdout.startswith("# other.toml\n# plugins: every one installed\n") and "hunter2" not in done.stdout
    demo = shown["plugin"]["demo"]
    assert demo == {"token": HIDDEN, "api_key": "env:BIG", "rows": [{"headers": {"x-id": HIDDEN}, "first_token_s": 0.5}]}
    assert shown["policy"]["worth"] == 0.02 and not {"limit", "seed", "events"} & set(shown)
    assert "plugin" in json.loads(gateway("config", "--schema").stdout)["properties"]


def test_config_shows_limits_seed_and_events_when_they_are_set(gateway: Program) -> None:
    limit = '[[limit]]\nunit = "usd"\nmax = 5.0\nper = "day"\nby = "tenant"\n'
    gateway.configure(f'seed = 7\nevents = "e.jsonl"\ntransforms = []\n{limit}')
    text = gateway("config").stdout
    shown = tomllib.loads(text)
    assert shown["limit"] == [{"unit": "usd", "max": 5.0, "per": "day", "by": "tenant"}]
    assert (shown["seed"], shown["events"], shown["transforms"], shown["plugins"]) == (7, "e.jsonl", [], ["demo"])
    assert "local_data_classes = []" in text and "only" not in text
    (gateway.folder / "again.toml").write_text(text)
    assert gateway("--config", "again.toml", "config").stdout.splitlines()[1:] == text.splitlines()[1:]


def test_config_shows_the_sections_that_are_set_and_none_that_are_not(gateway: Program) -> None:
    text = gateway("config").stdout
    assert not {"attempt", "retry", "hedge", "state", "route", "limit"} & set(tomllib.loads(text)) and "[route" not in text
    said = '[attempt]\nfirst_token_s = 5.0\n[state]\npath = "limits.db"\n[hedge]\nshare = 0.05\n[route.far]\navoid = []\n'
    limit = '[[limit]]\nunit = "usd"\nmax = 5.0\nper = "day"\nby = "tenant"\nonly = ["acme"]\n'
    gateway.configure(said + ROUTES + limit)
    text = gateway("config").stdout
    shown = tomllib.loads(text)
    assert shown["attempt"] == {"first_token_s": 5.0, "between_s": 60.0, "reply_s": 600.0}
    assert shown["state"] == {"path": "limits.db"} and shown["hedge"]["share"] == 0.05 and "retry" not in shown
    assert shown["route"]["far"] == {"avoid": []} and list(shown["route"]) == ["far", "outside", "quiet"]
    assert shown["route"]["quiet"] == {"place": ["local"], "match": {"data_class": ["personal"], "conversation": True}}
    assert shown["limit"][0]["only"] == ["acme"]
    (gateway.folder / "again.toml").write_text(text)
    assert gateway("--config", "again.toml", "config").stdout.splitlines()[1:] == text.splitlines()[1:]
    whole = json.loads(gateway("config", "--json").stdout)
    assert whole["retry"]["attempts"] == 3


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({"api_key": "abc"}, {"api_key": HIDDEN}),
        ({"key": "file:/run/key"}, {"key": "file:/run/key"}),
        ({"password": 1234, "max_tokens": 5, "per_token_s": 0.1}, {"password": HIDDEN, "max_tokens": 5, "per_token_s": 0.1}),
        ({"secrets": {"a": ["x", "env:A"]}}, {"secrets": {"a": [HIDDEN, "env:A"]}}),
        ({"note": "Bearer abc"}, {"note": HIDDEN}),
        ({"url": "https://u:p@h/v1?api_key=a&b=c"}, {"url": f"https://{HIDDEN}@h/v1?api_key={HIDDEN}&b=c"}),
        ({"name": "tiny", "on": True, "none": None}, {"name": "tiny", "on": True, "none": None}),
    ],
)
def test_what_may_be_a_secret_is_hidden_and_the_rest_is_shown(value: Any, shown: Any) -> None:
    assert hidden(value) == shown


def test_toml_that_is_written_reads_back() -> None:
    table = {
        "text": 'a "quoted" \\ line\n\x7f', "list": [1, 2.5, True], "empty": {}, "odd key": "x",
        "plugin": {"a": {"rows": [{"n": 1, "deep": {"x": "y"}}, {"n": 2}], "late": {"z": 1}}, "b": {}},
    }  # fmt: skip
    assert tomllib.loads(to_toml(table)) == table


def test_amounts_are_read_and_written_as_people_do() -> None:
    assert [amount(text) for text in ("8e9", "8B", "500M", "1.5k", "16GB", "2GiB")] == [8e9, 8e9, 5e8, 1500, 16e9, 2**31]
    for wrong in ("", "big", "8X", "-1", "1.2.3"):
        with pytest.raises(ValueError):
            amount(wrong)
    assert [count(n) for n in (None, 7, 12_000, 8_030_000_000, 999_999)] == ["", "7", "12K", "8.03B", "1M"]
    assert [count(n, "B") for n in (512, 16_060_000_000)] == ["512 B", "16.1 GB"]


def test_need_fields_given_by_name_equal_those_given_as_options() -> None:
    by_name = need_of(need=["max_params=8B", "place=local,private", "context=4096", "features=tools", "route=far"])
    assert by_name == Need(max_params=8e9, place=("local", "private"), context=4096, features=frozenset({"tools"}), route="far")
    assert by_name == need_of(max_params=8e9, place=["local", "private"], context=4096, feature=["tools"], route="far")
    assert need_of(need=["percentile=0.95"]) == Need(percentile=0.95) == need_of(percentile=0.95)
