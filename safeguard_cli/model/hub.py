"""Finds models and data in the shared Hugging Face cache, fetches them into it, and removes models from it.

huggingface_hub knows the hub's protocol, the cache's layout and its environment variables (HF_HOME, HF_HUB_CACHE,
HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE). Two things it does not do (2.4.0, read in its source): keep a part of a file
when the process ends, and check the hash of a file that came by HTTP. So this module fetches the bytes with its
`http_get` into `blobs/SHA256.incomplete`, checks them, and puts them in place; huggingface_hub then finds the blob and
does the rest.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from safeguard_cli.model import hub_client

# isort: split
import huggingface_hub
from huggingface_hub import constants, errors
from huggingface_hub.file_download import http_get, repo_folder_name
from huggingface_hub.utils import WeakFileLock, build_hf_headers  # type: ignore[attr-defined]

from safeguard_cli.address import without_secrets
from safeguard_cli.errors import SafeguardError, nearest, quoted
from safeguard_cli.files import sha256
from safeguard_cli.model.fingerprint import keep_sha256
from safeguard_cli.model.names import HubName, choose_files, size_text
from safeguard_cli.terminal import note, safe

if TYPE_CHECKING:
    from typing_extensions import Buffer

Kind = Literal["model", "dataset"]

REVISION = "main"
_HASH = re.compile(r"[0-9a-f]{64}|[0-9a-f]{40}")
constants.HF_HUB_DISABLE_TELEMETRY = True  # a pull tells the hub which file it wants, nothing about the machine
LIST_TIMEOUT = 30.0
CHUNK = 1 << 16  # bytes that a broken connection can cost; with the default, 10 MB, five cuts within them end a pull


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file on the hub: its size, and the hash that it must have: a SHA-256, or Git's own for small files."""

    name: str
    size: int
    hash: str


def cached_model(model: HubName) -> tuple[Path, ...] | None:
    """Return the files of a model in the cache, in order; None if it is not there, or not whole."""
    for files in _snapshots(model.repo):
        try:
            names = choose_files(files, model.wanted, model.repo)
        except SafeguardError:
            continue
        return tuple(files[name] for name in names)
    return None


def cached_repos() -> dict[str, dict[str, Path]]:
    """Return the GGUF files in the cache, by repository and name."""
    found: dict[str, dict[str, Path]] = {}
    for repo in _repos():
        files: dict[str, Path] = {}
        for snapshot in _snapshots_of(repo):
            files = {**snapshot, **files}
        if files:
            found[repo.repo_id] = files
    return found


def pull(model: HubName) -> tuple[Path, ...]:
    """Fetch those files of a model that are not here yet; return all of them in order.

    Fetched bytes are kept if the connection breaks or the process ends. Raises SafeguardError.
    """
    logging.getLogger("huggingface_hub").handlers = [_Notes()]
    if constants.HF_HUB_OFFLINE and (here := cached_model(model)):
        return here
    return _pull(model.repo, "model", lambda: _list_files(model))


def pull_data(repo: str, name: str) -> Path:
    """Fetch one file of a dataset's repository, as `pull` does; return it."""
    logging.getLogger("huggingface_hub").handlers = [_Notes()]
    if constants.HF_HUB_OFFLINE and (here := cached_data(repo, name)):
        return here
    return _pull(repo, "dataset", lambda: [_data_file(repo, name)])[0]


def cached_data(repo: str, name: str) -> Path | None:
    """Return a file of a dataset's repository if it is in the cache."""
    try:
        found = huggingface_hub.try_to_load_from_cache(
            repo, name, cache_dir=_cache(), revision=REVISION, repo_type="dataset"
        )
    except (OSError, ValueError, SafeguardError):
        return None
    return Path(found) if isinstance(found, str) and Path(found).is_file() else None


def _pull(repo: str, kind: Kind, list_files: Callable[[], list[RemoteFile]]) -> tuple[Path, ...]:
    shown = repo if kind == "model" else f"datasets/{repo}"
    with _said_plainly(shown, hub_client.prepare()):
        remote = list_files()
        blobs = _repo_folder(repo, kind) / "blobs"
        missing = [file for file in remote if _size(blobs / file.hash) != file.size]
        _check_disk(blobs, missing)
        for file in missing:
            _fetch(repo, kind, file, blobs)
        found = (huggingface_hub.hf_hub_download(repo, file.name, revision=REVISION, repo_type=kind) for file in remote)
        paths = tuple(map(Path, found))
    for path, file in zip(paths, remote, strict=True):
        if path.resolve().name != file.hash:
            raise SafeguardError(f"{shown} changed while {file.name} was fetched; pull it again")
    return paths


def remove(model: HubName) -> int:
    """Remove a model's files from the cache, but no others of its repository; return the number of bytes freed."""
    cache, folder = _cache().resolve(), _repo_folder(model.repo)
    freed = 0
    for files in _snapshots(model.repo):
        try:
            names = choose_files(files, model.wanted, model.repo)
        except SafeguardError:
            continue
        for pointer in (files[name] for name in names):
            blob = pointer.resolve()
            if not pointer.parent.resolve().is_relative_to(cache):
                raise SafeguardError(f"{pointer} lies outside the cache {cache}; it is left alone")
            pointer.unlink()
            still_used = any(path.resolve() == blob for other in _snapshots(model.repo) for path in other.values())
            if blob.is_relative_to(cache) and not still_used and blob.is_file():
                freed += blob.stat().st_size
                blob.unlink()
    for partial in (folder / "blobs").glob("*.incomplete"):
        freed += partial.stat().st_size
        partial.unlink()
    if not any(path.is_file() for path in (folder / "blobs").glob("*")) and folder.resolve().is_relative_to(cache):
        shutil.rmtree(folder, ignore_errors=True)
    return freed


def _cache() -> Path:
    """Return the hub's cache. Raises SafeguardError for a user without a home, as in containers run under a number."""
    if constants.HF_HUB_CACHE.startswith("~"):  # huggingface_hub would make a folder named ~ in the working folder
        raise SafeguardError(
            "there is no folder for models, because this user has no home: set HF_HOME to a folder, or name a GGUF file"
        )
    return Path(constants.HF_HUB_CACHE)


def _repo_folder(repo: str, kind: Kind = "model") -> Path:
    return _cache() / repo_folder_name(repo_id=repo, repo_type=kind)


def _repos() -> list[huggingface_hub.CachedRepoInfo]:
    try:
        found = huggingface_hub.scan_cache_dir(_cache())
    except (errors.CacheNotFound, OSError, ValueError, SafeguardError):
        return []
    return sorted((repo for repo in found.repos if repo.repo_type == "model"), key=lambda repo: repo.repo_id)


def _snapshots(repo: str) -> Iterator[dict[str, Path]]:
    for found in _repos():
        if found.repo_id == repo:
            yield from _snapshots_of(found)


def _snapshots_of(repo: huggingface_hub.CachedRepoInfo) -> Iterator[dict[str, Path]]:
    """Yield the GGUF files of each revision in the cache: that of `main` first, then the newest."""
    for revision in sorted(repo.revisions, key=lambda r: (REVISION in r.refs, r.last_modified), reverse=True):
        files = {file.file_path.relative_to(revision.snapshot_path).as_posix(): file for file in revision.files}
        yield {name: file.file_path for name, file in files.items() if name.lower().endswith(".gguf")}


def _list_files(model: HubName) -> list[RemoteFile]:
    """Return what the hub reports of a model's files."""
    info = huggingface_hub.HfApi().model_info(model.repo, files_metadata=True, timeout=LIST_TIMEOUT)
    siblings = {file.rfilename: file for file in info.siblings or ()}
    remote = []
    for name in choose_files(siblings, model.wanted, model.repo):
        lfs = siblings[name].lfs
        if lfs is None or len(lfs.sha256) != 64 or not set(lfs.sha256) <= set("0123456789abcdef") or lfs.size < 0:
            raise SafeguardError(f"the hub gives no checksum for {name} of {model.repo}; it is not fetched")
        if lfs.size > constants.MAX_HTTP_DOWNLOAD_SIZE:
            raise SafeguardError(
                f"{name} ({size_text(lfs.size)}) is larger than the hub serves over HTTP: fetch it with"
                f" `hf download {model.repo} {name}`; it is then found in the cache"
            )
        remote.append(RemoteFile(name, lfs.size, lfs.sha256))
    return remote


def _data_file(repo: str, name: str) -> RemoteFile:
    """Return what the hub reports of a dataset's file."""
    info = huggingface_hub.HfApi().dataset_info(repo, files_metadata=True, timeout=LIST_TIMEOUT)
    siblings = {file.rfilename: file for file in info.siblings or ()}
    if (file := siblings.get(name)) is None:
        near = nearest(name, siblings)
        hint = f"did you mean {quoted(near)}? " if near else ""
        listed = ", ".join(sorted(siblings)[:20]) or "none"
        raise SafeguardError(f"datasets/{repo} has no file {quoted(name)}; {hint}its files are {listed}")
    size, digest = (file.lfs.size, file.lfs.sha256) if file.lfs else (file.size, file.blob_id)
    if not isinstance(digest, str) or not _HASH.fullmatch(digest) or not isinstance(size, int) or size < 0:
        raise SafeguardError(f"the hub gives no checksum for {quoted(name)} of datasets/{repo}; it is not fetched")
    return RemoteFile(name, size, digest)


def git_hash(path: Path) -> str:
    """Return the hash that Git gives a file."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while data := file.read(1 << 20):
            digest.update(data)
    return digest.hexdigest()


def _check_disk(blobs: Path, missing: list[RemoteFile]) -> None:
    """Raise SafeguardError, before the first byte is fetched, if the disk cannot hold the files."""
    needed = sum(file.size - _size(_partial(blobs, file)) for file in missing)
    folder = next(folder for folder in blobs.parents if folder.is_dir())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise SafeguardError(
            f"not enough room: {size_text(needed)} are to be fetched, {_cache()} has {size_text(free)} free;"
            " free some space, or set HF_HOME to a folder on another disk"
        )


def _partial(blobs: Path, file: RemoteFile) -> Path:
    return blobs / f"{file.hash}.incomplete"


def _size(path: Path) -> int:
    """Return the bytes of a file, 0 if there is none; a file of another size than the hub's is not whole."""
    return path.stat().st_size if path.is_file() else 0


def _fetch(repo: str, kind: Kind, file: RemoteFile, blobs: Path) -> None:
    """Fetch one file, resuming with what is there of it, and put it in place if its hash is right."""
    partial = _partial(blobs, file)
    locks = _cache() / ".locks" / blobs.parent.name
    for folder in (blobs, locks, (blobs / file.hash).parent):
        folder.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(locks / f"{file.hash}.lock"):
        if _size(blobs / file.hash) == file.size:
            return  # another process was faster
        if partial.is_symlink() or not partial.is_file():  # a cache can be shared: write to nobody else's file
            partial.unlink(missing_ok=True)
        have = _size(partial)
        if have > file.size:
            partial.unlink()
            have = 0
        going_on = f", resuming at {size_text(have)}" if have else ""
        note(f"fetching {file.name} ({size_text(file.size)}) from {repo}{going_on}")
        constants.DOWNLOAD_CHUNK_SIZE = CHUNK
        with _Exactly(partial, file.size) as out:
            http_get(
                huggingface_hub.hf_hub_url(repo, file.name, revision=REVISION, repo_type=kind),
                out,
                resume_size=have,
                headers=build_hf_headers(library_name="safeguard"),
                expected_size=file.size,
                displayed_filename=safe(file.name),
            )
            os.fsync(out.fileno())
        note(f"checking {file.name}")
        if (sha256(partial) if len(file.hash) == 64 else git_hash(partial)) != file.hash:
            partial.unlink()
            raise SafeguardError(
                f"{file.name} arrived damaged (its hash is not the hub's) and was thrown away; pull it again"
            )
        partial.replace(blobs / file.hash)
        if kind == "model":
            keep_sha256(blobs / file.hash, file.hash)  # the end of a run names it, and need not read the model again


class _Exactly(io.FileIO):
    """A file that is appended to, and that takes no more than `size` bytes in all."""

    def __init__(self, path: Path, size: int) -> None:
        super().__init__(path, "ab")
        self._size = size

    def write(self, data: Buffer) -> int:
        """Write all of `data`. Raises SafeguardError if the file would become too large."""
        rest = memoryview(data)
        if self.tell() + len(rest) > self._size:
            raise SafeguardError(f"the hub sends more than the {self._size:,} bytes that it announced")
        while rest:
            rest = rest[super().write(rest) or 0 :]
        return len(memoryview(data))


@contextmanager
def _said_plainly(repo: str, endpoint: str) -> Iterator[None]:
    """Turn what huggingface_hub raises into one sentence that tells what to do and holds no secret part of a URL.

    `endpoint` is the hub's address as it may be shown.
    """
    again = "what has arrived is kept, and `safeguard pull` resumes from there"
    try:
        yield
    except errors.OfflineModeIsEnabled:
        raise SafeguardError("HF_HUB_OFFLINE is set: nothing is fetched; unset it to pull a model") from None
    except errors.RepositoryNotFoundError:  # also raised for 401, and its subclass GatedRepoError for gated ones
        raise SafeguardError(
            f"the hub has no {repo}, or does not show it without a login; check the name, and for a gated or private"
            f" one accept its terms at {endpoint}/{repo} and log in with `hf auth login` or HF_TOKEN"
        ) from None
    except errors.HfHubHTTPError as error:
        code = error.response.status_code
        advice = {
            401: "log in with `hf auth login`, or set HF_TOKEN",
            403: "your login may not read it; accept its terms on the hub",
            404: "the file is not there; check its name",
            429: "too many requests; wait a few minutes, or log in with `hf auth login` for a higher limit",
        }.get(code, "the hub may be down; try again later")
        raise SafeguardError(f"the hub answered {code} for {repo}: {advice} ({again})") from None
    except errors.LocalEntryNotFoundError:  # raised when the connection is lost at the very end
        raise SafeguardError(f"cannot reach the hub at {endpoint}; check the connection, {again}") from None
    except errors.EntryNotFoundError:
        raise SafeguardError(f"a file of {repo} is no longer on the hub; pull it again") from None
    except SafeguardError:
        raise
    except OSError as error:
        reason = error.strerror or without_secrets(str(error).split("\n")[0])
        raise SafeguardError(f"cannot fetch {repo}: {reason}; {again}") from None
    except errors.HTTPError as error:  # type: ignore[attr-defined]
        reason = without_secrets(str(error)) or type(error).__name__
        raise SafeguardError(
            f"cannot reach the hub at {endpoint}: {reason}; check the connection and the proxy, {again}"
        ) from None
    except Exception as error:  # huggingface_hub may raise anything on an answer of another form
        raise SafeguardError(f"the hub's answer cannot be used ({type(error).__name__}); {again}") from None


class _Notes(logging.Handler):
    """Prints huggingface_hub's messages, such as that it tries again, made harmless on our console."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            note(without_secrets(" ".join(record.getMessage().split())))
