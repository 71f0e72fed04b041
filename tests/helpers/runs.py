"""One input, one output, and runs of the command on the test engine: to the end, or killed on the way."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable
from pathlib import Path

from helpers.fake_engine import FakeEngine
from safeguard_cli.run.label import label
from safeguard_cli.run.settings import Settings

LIKELY = (".part", ".new", ".retry", ".tmp", ".run.json.new", ".manifest.json.new", ".retry.jsonl", ".rows.jsonl.part")


class Bench:
    """One input, one output, and runs of the command on the test engine in this process."""

    def __init__(self, folder: Path, model: Path | None) -> None:
        self.folder, self.model = folder, model
        self.source, self.out = folder / "in.jsonl", folder / "out.jsonl"

    def fill(self, rows: int, suffix: str = "jsonl", first: int = 0) -> bytes:
        self.source, self.out = self.folder / f"in.{suffix}", self.folder / f"out.{suffix}"
        data = "".join(row(number, suffix) for number in range(first, first + rows))
        if suffix == "csv":
            data = "id,text\n" + data
        self.source.write_text(data, newline="")
        return data.encode()

    def __call__(self, engine: Callable[..., FakeEngine] = FakeEngine, **options: object) -> int:
        given = {"policies": ("spam",), "slots": 2, "threads": 1, "quiet": True, "output": str(self.out)}
        given |= {"model": self.model and str(self.model), **options}
        return label(Settings(input=str(self.source), **given), engine)

    def whole(self, engine: Callable[..., FakeEngine] = FakeEngine, **options: object) -> bytes:
        """Return what an uninterrupted run writes."""
        out, self.out = self.out, self.folder / f"whole{self.out.suffix}"
        self(engine, overwrite=True, **options)
        out, self.out = self.out, out
        return out.read_bytes()

    def killed_after(self, prompts: int, kind: type[FakeEngine] = FakeEngine, **options: object) -> None:
        """Run until killed as by SIGKILL: no cleanup runs on the way out."""
        child = os.fork()
        if not child:

            def engine(*given: object) -> FakeEngine:
                asked = iter(range(prompts))
                return kind(*given, before=lambda _: None if next(asked, None) is not None else os._exit(9))

            self(engine, **options)
            os._exit(0)
        os.waitpid(child, 0)

    def state(self) -> dict[str, tuple[bytes, int]]:
        files = (path for path in self.folder.iterdir() if path.is_file())
        return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}

    def run_json(self) -> Path:
        return self.out.with_name(self.out.name + ".run.json")

    def manifest(self) -> dict:
        return json.loads(self.out.with_name(self.out.name + ".manifest.json").read_bytes())


def row(number: int, suffix: str) -> str:
    """Return a plain row, or now and then one that is hard to cut: with quotes, line ends, or an error."""
    text = ("see you at noon", 'say "hi"', "two\nlines", "", "é€😀 tail")[number % 5] + f" {number * 7919 % 1009}"
    if suffix == "csv":
        return f'{number},"{text}"\n'.replace('"say "hi"', '"say ""hi""') if number % 11 else f"{number},a,b,c\n"
    return json.dumps({"id": number, "text": text} if number % 11 else {"id": number, "text": None}) + "\n"


def ids(data: bytes, suffix: str = "jsonl") -> list[int]:
    if suffix == "csv":
        return [int(cells[0]) for cells in list(csv.reader(io.StringIO(data.decode(), newline="")))[1:]]
    return [json.loads(line)["id"] for line in data.splitlines()]


def plant(bench: Bench) -> dict[Path, str]:
    """Create a user's files under names that a run could want for itself, some of them links to others."""
    planted = {}
    for number, ending in enumerate((*LIKELY, ".rows.jsonl.new", ".rows.jsonl.run.json.new", ".lock")):
        path = bench.folder / (bench.out.name + ending)
        if number % 2:
            path.write_text("precious")
        else:
            victim = bench.folder / f"victim{number}"
            victim.write_text("precious")
            path.symlink_to(victim)
        planted[path] = "precious"
    return planted
