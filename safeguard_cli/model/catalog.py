"""`safeguard pull`, `safeguard models` and `safeguard models rm`: what they print and return."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from rich.cells import cell_len, set_cell_size

from safeguard_cli import errors
from safeguard_cli.errors import UsageError, nearest, quoted
from safeguard_cli.model.config import configured_model
from safeguard_cli.model.find import find_model
from safeguard_cli.model.gguf import SPLIT_NAME, model_parts
from safeguard_cli.model.names import DEFAULT, DEMO, KNOWN, HubName, data_name, hub_name, size_text
from safeguard_cli.terminal import Hanging, note, safe, show_hanging


def pull_model(name: str, check: Callable[[Path], object]) -> int:
    """Fetch a model and have `check` see whether it can be used."""
    model = _on_the_hub(name)
    from safeguard_cli.model.hub import pull

    path = pull(model)[0]
    check(path)
    note(f"ready: {path}")
    note(f"to use it: safeguard label DATA --policy POLICY{'' if name == DEFAULT else f' --model {name}'}")
    return errors.OK


def pull_data(name: str) -> int:
    """Fetch a file of a dataset's repository."""
    repo, file = _of_data(name)
    from safeguard_cli.model.hub import pull_data

    path = pull_data(repo, file)
    note(f"ready: {path}")
    note(f"to use it: safeguard label {name} --policy POLICY")
    return errors.OK


def pulled_data(name: str) -> Path:
    """Return a file of a dataset's repository. Raise UsageError if it was not pulled: nothing else is fetched."""
    repo, file = _of_data(name)
    from safeguard_cli.model.hub import cached_data

    if (found := cached_data(repo, file)) is None:
        raise UsageError(f"{name} is not here; to fetch it: safeguard pull {name}")
    return found


def _of_data(name: str) -> tuple[str, str]:
    found = data_name(name)
    assert found
    return found


def remove_model(name: str) -> int:
    """Remove a model's files from the cache."""
    model = _on_the_hub(name)
    from safeguard_cli.model.hub import remove

    freed = remove(model)
    note(f"removed {name}: {size_text(freed)} freed" if freed else f"{name} is not here; nothing removed")
    return errors.OK


def list_models() -> int:
    """Print the models that are here and those that `pull` can fetch."""
    from safeguard_cli.model.hub import cached_model, cached_repos

    chosen = configured_model() or DEFAULT
    rows = [(DEMO, "here", size_text(_size(find_model(DEMO))), "comes with the program, Apache-2.0")]
    listed: set[Path] = set()
    for name, known in KNOWN.items():
        files = cached_model(HubName(known.repo, known.file))
        listed.update(files or ())
        if files:
            rows.append((name, "here", size_text(sum(map(_size, files))), str(files[0])))
        else:
            rows.append((name, "", f"~{known.gigabytes} GB", f"safeguard pull {name}"))
    for repo, found in cached_repos().items():
        for file, path in found.items():
            if path in listed or ((part := SPLIT_NAME.search(file)) and int(part[1]) != 1):
                continue
            whole = sum(map(_size, model_parts(path)))
            rows.append((f"hf:{repo}:{file}", "here", size_text(whole), str(path)))
    names = [f"{'*' if row[0] == chosen else ' '} {safe(row[0])}" for row in rows]
    width = max(map(cell_len, names)) + 2
    heads = [f"{set_cell_size(name, width)}{row[1]:4}{row[2]:>9}  " for name, row in zip(names, rows, strict=True)]
    room = shutil.get_terminal_size().columns - cell_len(heads[0])
    below = any(cell_len(row[3]) > room for row in rows)
    show_hanging(*(_row(head, row[3], below) for head, row in zip(heads, rows, strict=True)))
    print(f"* is used if --model is not given{'' if chosen in KNOWN or chosen == DEMO else f': {safe(chosen)}'}")
    return errors.OK


def _row(head: str, where: str, below: bool) -> Hanging:
    is_command = where.startswith("safeguard pull ")
    return Hanging(head, "" if is_command else where, where if is_command else "", below)


def _on_the_hub(name: str) -> HubName:
    if name == DEMO:
        raise UsageError("demo comes with the program: there is nothing to fetch or to remove")
    model = hub_name(name)
    if model is None:
        near = nearest(name, KNOWN)
        hint = f"did you mean {near}?" if near else f"use {', '.join(KNOWN)} or hf:OWNER/REPO[:FILE]"
        raise UsageError(f"{quoted(name)} is not on the hub: {hint}")
    return model


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
