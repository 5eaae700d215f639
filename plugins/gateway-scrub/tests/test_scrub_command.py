"""`gateway scrub`, as somebody types it, and the stretches and tokens that it goes through a file of any size in."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("typer")
pytest.importorskip("rich")

from gateway_scrub import Scrubber, Span
from gateway_scrub.errors import ScrubError
from gateway_scrub.json_stream import JsonFile, written
from gateway_scrub.stretches import Changes, Stretch, TextFile, Windows
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.cli import run_program

CONFIG = """
plugins = ["scrub"]
[plugin.scrub]
rules = [
    { name = "test.phone", type = "T_PHONE", first = [11], pattern = "{D}1[3-9][0-9]{9}{E}", score = 0.8 },
    { name = "test.key", type = "T_KEY", anchors = ["tk-"], pattern = "tk-[a-z0-9]{8,}", score = 0.9, secret = true },
    { name = "acc", type = "T_ACCOUNT", first = [8], pattern = "{D}[0-9]{8}{E}", score = 0, context = ["account"], boost = 1 },
    { name = "test.block", type = "T_BLOCK", anchors = ["BEGIN"], pattern = "BEGIN[^!]{0,40}?END", score = 0.9 },
]
"""
TEXT = "Write to jane@example.com, or 13812345678.\nNothing here.\r\nfrom 192.168.1.10 to jane@example.com\t\n"
PROGRAM = [sys.executable, "-c", "from gateway.cli import main; main()", "scrub"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GATEWAY_CONFIG", raising=False)
    (tmp_path / "gateway.toml").write_text(CONFIG)
    (tmp_path / "t.txt").write_bytes(TEXT.encode())


def typed(line: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code, output and errors of a command line."""
    code = run_program(line.split()[1:])
    out, err = capsys.readouterr()
    return code, out, err


def plain(text: str) -> str:
    """With the marks of values taken out."""
    return re.sub(r"(<[A-Z_]+):[0-9a-z]{8}>", r"\1>", text)


def on_terminal(*args: str, **env: str) -> str:
    """Everything that came to a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen([*PROGRAM, *args], stdin=theirs, stdout=theirs, stderr=theirs, env=os.environ | env) as process:
        os.close(theirs)
        seen = b""
        try:
            while chunk := os.read(ours, 65_536):
                seen += chunk
        except OSError:  # EIO: the other side is closed
            pass
        process.wait(60)
    os.close(ours)
    return seen.decode().replace("\r\n", "\n")


def test_a_file_and_standard_input_are_scrubbed_and_the_rest_stays_byte_for_byte(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = typed("gateway scrub t.txt", capsys)
    assert (code, err) == (0, "found 4: EMAIL 2, IP 1, T_PHONE 1\n")
    assert plain(out) == "Write to <EMAIL>, or <T_PHONE>.\nNothing here.\r\nfrom <IP> to <EMAIL>\t\n"
    marks = re.findall(r"<EMAIL:(\w+)>", out)
    assert marks[0] == marks[1]  # one value, one mark: who is who can still be told
    assert marks[0] not in typed("gateway scrub t.txt", capsys)[1]  # in this output only
    done = subprocess.run(PROGRAM, input=TEXT.encode(), capture_output=True, timeout=60)
    assert (done.returncode, plain(done.stdout.decode())) == (0, plain(out))
    assert typed("gateway scrub gateway.toml --types IP", capsys)[1:] == (CONFIG, "found nothing\n")


def test_out_writes_a_whole_file_or_none_and_may_be_the_file_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.chmod("t.txt", 0o640)
    code, out, _ = typed("gateway scrub t.txt --mask --out t.txt", capsys)
    assert (code, out) == (0, "")
    assert Path("t.txt").read_bytes().decode() == "Write to ***, or ***.\nNothing here.\r\nfrom *** to ***\t\n"
    assert os.stat("t.txt").st_mode & 0o777 == 0o640
    Path("bad.txt").write_bytes(b"x" * 3_000_000 + b"\xff")
    Path("o.txt").write_text("was here")
    assert typed("gateway scrub bad.txt --out o.txt", capsys)[0] == 1
    assert Path("o.txt").read_text() == "was here"
    assert typed("gateway scrub t.txt --out no/where", capsys) == (1, "", "error: 'no/where': No such file or directory\n")
    assert typed("gateway scrub t.txt --out /dev/null", capsys)[0] == 0
    assert Path("/dev/null").is_char_device()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.txt", "gateway.toml", "o.txt", "t.txt"]


def test_spans_tell_the_place_and_the_reason_and_the_text_only_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = typed("gateway scrub t.txt --spans", capsys)
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and "jane" not in out and "1381" not in out
    assert rows[2] == {"offset": TEXT.index("192"), "length": 12, "line": 3, "type": "IP", "score": 0.8, "why": "ipv4: check"}
    shown = [json.loads(line) for line in typed("gateway scrub t.txt --spans --show", capsys)[1].splitlines()]
    assert [row["text"] for row in shown] == [TEXT[row["offset"] :][: row["length"]] for row in rows]
    assert [row["line"] for row in shown] == [1, 1, 3, 3]


def test_check_exits_with_1_when_there_is_something_and_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert typed("gateway scrub t.txt --check", capsys) == (1, "", "found 4: EMAIL 2, IP 1, T_PHONE 1\n")
    assert typed("gateway scrub t.txt --check --types T_KEY", capsys) == (0, "", "found nothing\n")
    Path("gateway.toml").write_text('[plugin.scrub]\nremote = { "*" = "keep" }\n')
    assert typed("gateway scrub t.txt --check", capsys) == (0, "", "found nothing\n")


def test_diff_shows_the_lines_that_change(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = typed("gateway scrub t.txt --diff", capsys)
    assert code == 0
    assert plain(out).splitlines() == [
        "     1 - Write to jane@example.com, or 13812345678.",
        "       + Write to <EMAIL>, or <T_PHONE>.  EMAIL, T_PHONE",
        "     3 - from 192.168.1.10 to jane@example.com\t",
        "       + from <IP> to <EMAIL>\t  IP, EMAIL",
    ]
    Path("long.txt").write_text("a\n" + "x " * 500 + "jane@example.com" + " y" * 500 + "\nBEGIN\none\nEND\x1b[31m b@c.de\n")
    out = plain(typed("gateway scrub long.txt --diff", capsys)[1])
    lines = out.splitlines()
    assert lines[0] == f"     2 - …{'x ' * 30}jane@example.com{' y' * 30}…"
    assert lines[2:] == ["     3 - BEGIN⏎one⏎END\ufffd[31m b@c.de", "       + <T_BLOCK>\ufffd[31m <EMAIL>  T_BLOCK, EMAIL"]


def test_diff_is_coloured_on_a_terminal_unless_that_is_not_wanted() -> None:
    seen = on_terminal("t.txt", "--diff", TERM="xterm")
    assert "\x1b[1;31mjane@example.com\x1b[0m" in seen and "\x1b[1;32m<EMAIL:" in seen and "\x1b[2mfound 4" in seen
    for env in ({"TERM": "xterm", "NO_COLOR": "1"}, {"TERM": "dumb"}):
        seen = on_terminal("t.txt", "--diff", **env)
        assert "\x1b" not in seen and "jane@example.com" in seen
    assert on_terminal(TERM="xterm", NO_COLOR="1") == "error: give a file, or pipe the text in\n"


def test_json_stays_json_with_its_keys_numbers_and_spaces(capsys: pytest.CaptureFixture[str]) -> None:
    raw = '{"to":  "jane@example.com", "n": [13812345678, 1e5, "caf\\u00e9 a\\u0040b.co\\n"],\n'
    raw += ' "account": 12345678, "x": 12345678}\n'
    raw += '{"jane@example.com": null, "b@c.de": {"account": [12345678]}} \n\n[]\n'
    Path("t.jsonl").write_text(raw)
    code, out, err = typed("gateway scrub t.jsonl --json", capsys)
    assert (code, err) == (0, "found 7: EMAIL 4, T_ACCOUNT 2, T_PHONE 1\n")
    assert plain(out) == (
        '{"to":  "<EMAIL>", "n": ["<T_PHONE>", 1e5, "café <EMAIL>\\n"],\n "account": "<T_ACCOUNT>", "x": 12345678}\n'
        '{"<EMAIL>": null, "<EMAIL>": {"account": ["<T_ACCOUNT>"]}} \n\n[]\n'
    )
    masked = typed("gateway scrub t.jsonl --json --mask", capsys)[1].splitlines()[2]
    assert len(json.loads(masked)) == 2 and json.loads(masked).popitem()[1] == {"account": ["***"]}  # keys stay apart
    rows = [json.loads(line) for line in typed("gateway scrub t.jsonl --json --spans --show", capsys)[1].splitlines()]
    assert [raw[row["offset"] :][: row["length"]] for row in rows[:3]] == ["jane@example.com", "13812345678", "a\\u0040b.co"]
    assert [row["line"] for row in rows] == [1, 1, 1, 2, 3, 3, 3]
    for name, bad, why in (
        ("a", "jane@example.com", "1: this is no number"),
        ("b", '[1,\n"a@b.co" "x"]', "2: a string is not exp"),
    ):
        Path(name).write_text(bad)
        code, out, err = typed(f"gateway scrub {name} --json --mask", capsys)
        assert code == 1 and err.startswith(f"error: '{name}' is not JSON at line {why}") and "a@b" not in out + err


def test_bytes_that_are_no_text_are_one_error_that_says_where(capsys: pytest.CaptureFixture[str]) -> None:
    for data, at in (
        (b"jane@example.com \xff", 17),
        (b"ab\0c", 2),
        (b"\xe2\x82", 0),
        (b"x" * (1 << 20) + "é".encode()[:1], 1 << 20),
    ):
        Path("b").write_bytes(data)
        code, _, err = typed("gateway scrub b --check", capsys)
        assert (code, err) == (1, f"error: 'b' is not UTF-8 text at byte {at:,}: convert it, or pass --errors replace\n")
    Path("b").write_bytes(b"\xffjane@example.com\0")
    assert typed("gateway scrub b --errors replace --mask", capsys)[1] == "\ufffd***\0"
    Path("b").write_bytes("é".encode() * 700_000)  # one of which lies in two pieces of the input
    assert typed("gateway scrub b", capsys)[1] == "é" * 700_000


def test_what_is_blocked_is_told_by_type_and_line(capsys: pytest.CaptureFixture[str]) -> None:
    Path("gateway.toml").write_text(CONFIG + 'remote = { secret = "block", EMAIL = "surrogate", IP = "drop" }\n')
    Path("k").write_text("a\nb\ntk-abcdefgh12\n")
    assert typed("gateway scrub k", capsys) == (1, "", "error: this may not be passed on: T_KEY at line 3\n")
    out = typed("gateway scrub t.txt", capsys)[1]
    made = re.findall(r"\S+@[\w.]+\w", out)
    assert made[0] == made[1] != "jane@example.com" and "from  to" in out
    assert typed("gateway scrub k --mask", capsys)[1] == "a\nb\n***\n"


ERRORS = [
    ("--diff --spans", "of --diff, --spans and --check give one"),
    ("--show", "--show goes with --spans"),
    ("--errors no", "--errors is strict or replace, not 'no'"),
    ("--threshold 2", "--threshold must be between 0 and 1"),
    ("--types EMAIL,EMIAL", "--types: there is no type EMIAL; there are: ADDRESS, "),
]


@pytest.mark.parametrize(("args", "message"), ERRORS)
def test_what_was_typed_wrong_is_one_line(args: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = typed(f"gateway scrub t.txt {args}", capsys)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"error: {message}")


def test_a_file_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert typed("gateway scrub none.txt", capsys) == (1, "", "error: 'none.txt': No such file or directory\n")


def test_a_pipe_that_nobody_reads_ends_it_quietly() -> None:
    Path("big.txt").write_text("jane@example.com and some words\n" * 200_000)
    with subprocess.Popen([*PROGRAM, "big.txt"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.read(7) == b"<EMAIL:"
        process.stdout.close()
        assert (process.stderr.read(), process.wait(60)) == (b"", 141)


def test_ctrl_c_ends_it_quietly_and_leaves_no_half_file(tmp_path: Path) -> None:
    for args in ([], ["--out", "o.txt"]):
        with subprocess.Popen(
            [*PROGRAM, *args], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as process:
            assert process.stdin is not None and process.stderr is not None
            process.stdin.write(b"some words in a line\n" * 200_000)
            process.stdin.flush()  # all but a pipe's length has been read: it is at work
            process.send_signal(signal.SIGINT)
            assert (process.stderr.read(), process.wait(60)) == (b"\n", 130)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gateway.toml", "t.txt"]


MEMORY = """
import resource, sys
from gateway.cli import run_program
code = run_program(sys.argv[1:])
print(code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, file=sys.stderr)
"""


@pytest.mark.parametrize(("head", "args"), [("", []), ('["', ["--json"])])
def test_a_line_without_breaks_takes_no_more_memory_than_a_window(head: str, args: list[str]) -> None:
    def most(millions: int) -> int:
        with open("line", "w") as file:
            file.write(head)
            for _ in range(millions):
                file.write("word" * 249_990 + " a@b.co, and 13812345678 ")
            file.write('"]' if head else "")
        command = [sys.executable, "-c", MEMORY, "scrub", "line", "--out", "made", *args]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100)
        told, numbers = done.stderr.splitlines()
        assert told == f"found {2 * millions}: EMAIL {millions}, T_PHONE {millions}"
        code, megabytes = map(int, numbers.split())
        assert code == 0
        return megabytes

    assert most(24) < most(4) + 16


# A chain of addresses without a space between them is found one way or another by what stands far away.
FINDS = st.sampled_from([" a@b.co", "13812345678", " ", "\n", "x", "account 12345678", "12345678", "BEGIN a\nb END", "é", ", "])


def look() -> Changes:
    import tomllib

    return Changes(Scrubber(rules=tomllib.loads(CONFIG)["plugin"]["scrub"]["rules"], actions={"*": "mask"}))


CHANGES = look()


def cut(text: str, sizes: list[int]) -> Iterable[str]:
    at = 0
    for size in sizes:
        yield text[at : at + size]
        at += size
    yield text[at:]


@settings(max_examples=300, deadline=None)
@given(st.lists(FINDS, max_size=60).map("".join), st.lists(st.integers(1, 20), max_size=20), st.integers(1, 60))
def test_stretches_hold_what_the_whole_text_holds_wherever_it_is_cut(text: str, sizes: list[int], window: int) -> None:
    windows = Windows(CHANGES.find, window=window, ahead=90, before=90)
    pieces, found, at = [], [], 0
    for piece in cut(text, sizes):
        for stretch, spans in windows.feed(piece):
            pieces.append(stretch)
            found += [(span.start + at, span.end + at, span.type) for span in spans]
            at += len(stretch)
    for stretch, spans in windows.flush():
        pieces.append(stretch)
        found += [(span.start + at, span.end + at, span.type) for span in spans]
    assert "".join(pieces) == text
    assert found == [(span.start, span.end, span.type) for span in CHANGES.find(text)]


def test_words_before_a_stretch_speak_for_finds_in_it() -> None:
    text = f"{'x ' * 30}account 12345678 {'y ' * 60}"
    for window in range(1, 90):
        windows = Windows(CHANGES.find, window=window, ahead=30, before=90)
        found = [spans for _, spans in [*windows.feed(text), *windows.flush()] if spans]
        assert [span.type for [span] in found] == ["T_ACCOUNT"]


def test_a_find_longer_than_a_window_is_cut_and_all_of_it_is_covered() -> None:
    def all_of_it(text: str) -> list[Span]:
        return [Span(found.start(), found.end(), "T_X", 1.0, "") for found in re.finditer("x+", text)]

    windows = Windows(all_of_it, window=10, ahead=10, before=5)
    text = "ab" + "x" * 100 + "cd"
    done = [*windows.feed(text), *windows.flush()]
    left = "".join(c for piece, spans in done for at, c in enumerate(piece) if not any(s.start <= at < s.end for s in spans))
    assert "".join(piece for piece, _ in done) == text and left == "abcd"


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.lists(FINDS | st.text(max_size=3), max_size=40).map("".join),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.sampled_from(["account", "k" * 70]), inner)
    ),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(st.lists(VALUES, max_size=3), st.booleans(), st.lists(st.integers(1, 30), max_size=20), st.booleans())
def test_json_is_masked_as_its_strings_are_wherever_it_is_cut(values: Any, plain: bool, sizes: list[int], small: bool) -> None:
    text = "\n".join(json.dumps(value, ensure_ascii=plain, indent=1 if small else None) for value in values)
    file = JsonFile(CHANGES, window=100 if small else 1000, ahead=90)
    out: list[Stretch] = []
    for piece in cut(text, sizes):
        out += file.feed(piece)
    out += file.flush()
    made = "".join(map(written, out))
    assert _masked(values) == [json.loads(line) for line in _documents(made)]


def _documents(text: str) -> Iterable[str]:
    decoder, at = json.JSONDecoder(), 0
    while (at := len(text) - len(text[at:].lstrip())) < len(text):
        _, end = decoder.raw_decode(text, at)
        yield text[at:end]
        at = end


def _masked(value: Any, label: str = "") -> Any:
    if isinstance(value, dict):
        return {key: _masked(item, key if len(key) <= 64 else "") for key, item in value.items()}
    if isinstance(value, list):
        return [_masked(item, label) for item in value]
    if isinstance(value, str):
        return Stretch(value, CHANGES.of(value, CHANGES.find(value, label), 1)).made
    number = json.dumps(value)
    if isinstance(value, (int, float)) and sum(map(str.isdigit, number)) >= 5 and CHANGES.find(number, label):
        return "***"
    return value


@pytest.mark.parametrize(
    "bad", ['{"a" 1}', "[1,]", "[1 2]", '{"a":1,}', "[", '"abc', "]", "tru", "1.", '"\\x"', "{1:2}", '"a', "[}", ":"]
)
def test_what_is_no_json_is_refused(bad: str) -> None:
    file = JsonFile(CHANGES)
    with pytest.raises(ScrubError, match=r"^the input is not JSON at line 1: ") as caught:
        [*file.feed(bad), *file.flush()]
    assert caught.value.__context__ is None
    with pytest.raises(ScrubError):
        small = JsonFile(CHANGES, window=1, ahead=1)
        [*(out for char in bad for out in small.feed(char)), *small.flush()]


def test_an_escape_that_is_cut_is_whole_again() -> None:
    for raw in ("\\ud83d\\ude00", "\\\\u12", "\\\\\\u0040", "\\n" * 5, "a\\\\", "\\ud83dx", "\\u00e9"):
        text = f'"{raw * 9}"'
        for size in range(1, 15):
            file = JsonFile(CHANGES, window=3, ahead=3)
            out = [stretch for at in range(0, len(text), size) for stretch in file.feed(text[at : at + size])]
            made = "".join(map(written, [*out, *file.flush()]))
            assert json.loads(made) == json.loads(text), (raw, size)


def test_a_text_file_counts_its_lines_over_stretches() -> None:
    file = TextFile(CHANGES, window=50, ahead=90)
    text = "".join(f"line {number} a@b.co\n" for number in range(1, 200))
    places = [place for piece in cut(text, [7] * 300) for stretch in file.feed(piece) for place in stretch.places()]
    places += [place for stretch in file.flush() for place in stretch.places()]
    assert [line for _, line, _, _ in places] == list(range(1, 200))
    assert {text[offset : offset + length] for _, _, offset, length in places} == {"a@b.co"}
