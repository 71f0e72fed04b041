"""The code base itself: imports go one way between rooms, files are short, and the wheel holds all that it must."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
import zipfile
from collections import defaultdict
from pathlib import Path

import pytest
from helpers import ROOT, TESTS

TRAINING = "safeguard_cli/demo/training/"
PACKAGE = ROOT / "safeguard_cli"
GROUND = {"errors", "signals", "files", "address", "terminal"}

# Every room with the other rooms that it may import; all may import the ground. A room stands below all that import it.
ROOMS = {
    "model": "",
    "policy": "",
    "rows": "",
    "prompt": "model policy rows",
    "output": "model rows",
    "engine": "prompt rows",
    "engine.local": "engine model prompt",
    "engine.servers": "engine model policy prompt",
    "run": "engine engine.local engine.servers model output policy prompt rows",
    "machine": "engine engine.local model output policy prompt rows run",
    "measure": "output policy rows run",
    "measure.stress": "measure output policy rows run",
    "measure.report": "audit measure measure.stress output policy rows run",
    "review": "measure output policy rows run",
    "audit": "engine.local measure output policy rows run",
    "cli": "audit machine measure measure.report measure.stress model output policy review rows run",
}
AT_START = "cli"  # `--help` imports this room's files: at their top they import only the ground, options and each other


def modules() -> dict[str, ast.Module]:
    """Return the program's modules, without training, by their dotted names below the package."""
    files = [path for path in PACKAGE.rglob("*.py") if TRAINING not in str(path)]
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): ast.parse(path.read_bytes()) for path in files}


def imports(tree: ast.AST, known: dict[str, ast.Module]) -> set[str]:
    """Return the program's modules that a tree imports, inside functions too."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names if name.name.split(".")[0] == "safeguard_cli"}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            within = f"{node.module}.".removeprefix("safeguard_cli.")
            if within != f"{node.module}.":
                either = ((f"{within}{name.name}", within[:-1] or "__init__") for name in node.names)
                found |= {name if name in known else module for name, module in either}
    assert found <= known.keys(), found - known.keys()
    return found


def room(module: str) -> str:
    return module.rpartition(".")[0]


def test_imports_go_one_way_between_rooms() -> None:
    known = modules()
    found: dict[str, set[str]] = defaultdict(set)
    for module, tree in known.items():
        if module not in ("__init__", "__main__", "demo.__init__"):  # entry points, and a folder of data
            found[room(module)] |= {room(other) for other in imports(tree, known)} - {room(module)}
    assert found.pop("") == set(), "the ground imports no room"
    assert {module for module in known if not room(module)} == GROUND | {"__init__", "__main__"}
    allowed = {name: set(rooms.split()) for name, rooms in ROOMS.items()}
    assert {name: rooms - {""} for name, rooms in found.items()} == allowed
    assert list(graphlib.TopologicalSorter(allowed).static_order())


def test_no_files_import_each_other_in_a_circle() -> None:
    known = modules()
    graph = {module: imports(tree, known) for module, tree in known.items()}
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) == len(known)


def test_what_starts_the_command_imports_next_to_nothing() -> None:
    known = modules()
    tops = {
        module: ast.Module([node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))], [])
        for module, tree in known.items()
    }
    options = {module for module in known if module.rpartition(".")[2] in ("options", "settings")}
    light = GROUND | {"__init__"} | options
    for module in (*options, *(module for module in known if room(module) == AT_START)):
        found = {other for other in imports(tops[module], known) if room(other) != AT_START}
        assert found <= light, f"{module} imports {found - light} at its top: --help would wait for it"
    for module in options:
        names = {name.name for node in tops[module].body if isinstance(node, ast.Import) for name in node.names}
        names |= {str(node.module) for node in tops[module].body if isinstance(node, ast.ImportFrom)}
        names = {name for name in names if not name.startswith("safeguard_cli.")}
        assert names <= {"__future__", "collections.abc", "dataclasses", "typing", "typer"}, module


def test_files_are_short_and_the_package_is_not_a_corridor() -> None:
    long = {str(path): size for path in PACKAGE.rglob("*.py") if (size := len(path.read_text().splitlines())) > 400}
    assert {name: size for name, size in long.items() if "/demo/" not in name} == {}
    assert len([path for path in PACKAGE.iterdir() if path.is_file()]) <= 8


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the unpacked files of the wheel."""
    wheels = pytest.importorskip("hatchling.builders.wheel")
    folder = tmp_path_factory.mktemp("wheel")
    wheel = next(wheels.WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"]))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_holds_the_whole_program_with_its_policies_and_samples_and_no_training(site: Path) -> None:
    found = {str(path.relative_to(site)) for path in site.rglob("*") if path.is_file()}
    found = {name for name in found if ".dist-info/" not in name}
    ours = {str(path.relative_to(ROOT)) for path in (ROOT / "safeguard_cli").rglob("*") if path.is_file()}
    policies = [path.stem for path in (ROOT / "policies").iterdir()]
    ours |= {f"safeguard_cli/policies/{name}.md" for name in policies}
    samples = {"safeguard_cli/samples/messages.jsonl"}
    samples |= {f"safeguard_cli/samples/golden/{name}.jsonl" for name in policies}
    assert sum((site / name).stat().st_size for name in samples) < 200_000
    ours |= samples
    assert found == {name for name in ours if "__pycache__" not in name and not name.startswith(TRAINING)}
    assert any(name.startswith(TRAINING) for name in ours), "the training has moved: mend this test"


def test_built_in_policies_are_found_in_a_wheel(site: Path) -> None:
    code = "import safeguard_cli; from safeguard_cli.policy.policy import load_policy\n"
    code += "print(safeguard_cli.__file__, load_policy('spam').labels)"
    run = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(site)!r})\n{code}"]
    shown = subprocess.run(run, cwd=site.parent, capture_output=True, text=True, check=True).stdout
    assert shown.strip() == f"{site / 'safeguard_cli' / '__init__.py'} ('ham', 'spam')"


def test_samples_are_found_in_a_wheel(site: Path) -> None:
    code = "from safeguard_cli.rows.samples import input_path, samples\n"
    code += "print(len(samples()), input_path('sample:messages'), input_path('sample:golden/spam'))"
    run = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(site)!r})\n{code}"]
    shown = subprocess.run(run, cwd=site.parent, capture_output=True, text=True, check=True).stdout
    folder = site / "safeguard_cli" / "samples"
    assert shown.split() == ["18", str(folder / "messages.jsonl"), str(folder / "golden" / "spam.jsonl")]


def test_the_map_names_what_is_there() -> None:
    named = set(re.findall(r"`([a-z_/]+\.py)`", (PACKAGE / "README.md").read_text()))
    assert len(named) > 20
    assert {name for name in named if not ((PACKAGE / name).is_file() or (ROOT / name).is_file())} == set()


def test_every_promise_names_a_test_that_is_there() -> None:
    page = (PACKAGE / "output/README.md").read_text()
    tests = {
        name for path in TESTS.rglob("test_*.py") for name in re.findall(r"^def (test_\w+)", path.read_text(), re.M)
    }
    named = set(re.findall(r"`(test_\w+)`", page))
    assert len(named) > 15
    assert named - tests == set()
    assert {name for name in re.findall(r"`(tests/[\w/]+\.py)`", page) if not (ROOT / name).is_file()} == set()
