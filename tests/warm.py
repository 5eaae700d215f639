"""Python programs that begin in an interpreter that has imported the heavy packages: real processes, less the imports.

An interpreter imports them once and forks for each program. The fork has the program's folder, environment, standard streams
and terminal, and ends as any Python process does. What is about imports themselves belongs into a process of its own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

FORKS = """
import gc, importlib, json, os, sys, types
for name in sys.argv[1:]:
    importlib.import_module(name)
gc.freeze()  # what is shared with the forks is not copied by their looking for garbage
asked = open(0, "rb", buffering=0, closefd=False)
while line := asked.readline():
    if not (child := os.fork()):
        break
    os.write(1, b"%d\\n" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
else:
    sys.exit()
told, asked = os.dup(1), json.loads(line)
os.chdir(asked["folder"])
os.environ.clear()
os.environ.update(asked["env"])
if asked["terminal"]:
    os.setsid()
for number, (path, flags) in enumerate(asked["streams"]):
    stream = os.open(path, flags)
    os.dup2(stream, number)
    os.close(stream)
sys.stdout.reconfigure(line_buffering=os.isatty(1))
os.write(told, b"%d\\n" % os.getpid())
os.close(told)
how, *sys.argv = asked["arguments"]
if how == "-c":
    code, sys.argv[0] = sys.argv[0], "-c"
else:
    sys.argv.insert(0, how)
    sys.path[0] = os.path.dirname(how)
    with open(how) as file:
        code = file.read()
sys.path[1:1] = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path not in sys.path]
sys.modules["__main__"] = main = types.ModuleType("__main__")
exec(compile(code, "<string>" if how == "-c" else how, "exec"), main.__dict__)
"""


class Warm:
    """Runs programs; an interpreter with these modules is started for the first of them."""

    def __init__(self, *modules: str, flags: Sequence[str] = (), env: Mapping[str, str] | None = None) -> None:
        self._command = [sys.executable, *flags, "-c", FORKS, *modules]
        self._env = dict(os.environ if env is None else env)
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Warm:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._process is not None:
            self._process.communicate()
            self._process = None

    def run(
        self, arguments: Sequence[str], folder: Path, env: Mapping[str, str], stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """What ``python *arguments`` (a script, or -c and code) has printed, and its exit code."""
        with tempfile.TemporaryDirectory() as at:
            paths = [os.path.join(at, name) for name in ("in", "out", "err")]
            Path(paths[0]).write_text(stdin)
            written = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            streams = list(zip(paths, (os.O_RDONLY, written, written), strict=True))
            code = self._run(arguments, folder, env, streams)
            for path in paths:
                Path(path).touch()
            return subprocess.CompletedProcess(list(arguments), code, *(Path(path).read_text() for path in paths[1:]))

    def run_on(
        self, terminal: str, arguments: Sequence[str], folder: Path, env: Mapping[str, str], meet: Callable[[], None]
    ) -> int:
        """The exit code of a program on a terminal of its own; `meet` is called once it has opened it, and sees it through."""
        return self._run(arguments, folder, env, [(terminal, os.O_RDWR)] * 3, meet)

    def _run(
        self,
        arguments: Sequence[str],
        folder: Path,
        env: Mapping[str, str],
        streams: list[tuple[str, int]],
        meet: Callable[[], None] | None = None,
    ) -> int:
        if self._process is None:
            pipe = subprocess.PIPE  # all three: a file could be sought in, and so Python would try it on a terminal too
            self._process = subprocess.Popen(
                self._command,
                env=self._env,
                stdin=pipe,
                stdout=pipe,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        process, child = self._process, 0
        assert process.stdin is not None and process.stdout is not None
        asked = {
            "arguments": list(arguments), "folder": str(folder), "env": dict(env), "streams": streams,
            "terminal": meet is not None,
        }  # fmt: skip
        try:
            print(json.dumps(asked), file=process.stdin, flush=True)
            child = int(process.stdout.readline())
            if meet is not None:
                meet()
            return int(process.stdout.readline())
        except BaseException:  # the next program is begun from a new interpreter
            if child:
                os.kill(child, signal.SIGKILL)
            self._process = None
            with process:
                process.kill()
            raise
