"""Pull models from the model hub, into its ordinary cache, and know them again.

The revision and the SHA-256 of every file are recorded at the first pull, and what is pulled or
used later must be the same (trust on first use): a model that changes under a course would
change its results. The record lies in the user's data folder, not in the cache, so that it
outlives a cache that was emptied to save space.
"""

import fnmatch
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import httpx2
from huggingface_hub import HfApi, constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from pydantic import TypeAdapter, ValidationError

from labkit.errors import ModelBrokenError, ModelChangedError, ModelError, ModelNotFoundError

_SHA256_HEX: Final = 64


@dataclass(frozen=True, slots=True)
class Source:
    """Files of one repository of the hub."""

    repo: str
    """`owner/name`."""
    files: tuple[str, ...]
    """File names, or patterns of them."""
    main: str = ""
    """The file that the engine is given; empty where it is given the folder that has them all."""
    optional: frozenset[str] = frozenset()
    """Those of `files` that a repository may lack."""


@dataclass(slots=True)
class Pulled:
    """What was recorded of a repository at its first pull."""

    revision: str
    """The commit."""
    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 of each file, in hexadecimal."""


_RECORD: Final = TypeAdapter(dict[str, Pulled])
"""By repository."""


def record_file() -> Path:
    """Where the record lies: in `XDG_DATA_HOME`, by default `~/.local/share`."""
    base = os.environ.get("XDG_DATA_HOME")
    try:
        folder = Path(base) if base else Path.home() / ".local" / "share"
    except RuntimeError:
        raise ModelError("this user has no home folder; set HOME or XDG_DATA_HOME") from None
    return folder / "labkit" / "pulled.json"


def _read_record() -> dict[str, Pulled]:
    path = record_file()
    if not path.exists():
        return {}
    try:
        return _RECORD.validate_json(path.read_bytes())
    except ValidationError as error:
        raise ModelError(
            f"{path} is damaged ({error.errors()[0]['msg']}). "
            "Delete it to record the models anew at the next pull"
        ) from error


def _write_record(record: dict[str, Pulled]) -> None:
    path = record_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_bytes(_RECORD.dump_json(dict(sorted(record.items())), indent=2) + b"\n")
    new.replace(path)


def _cache() -> Path:
    return Path(os.environ.get("HF_HUB_CACHE", constants.HF_HUB_CACHE))


def cached(source: Source) -> Path | None:
    """What the engine is given of `source`, or None where it was not pulled completely.

    The recorded revision is used. File sizes and hashes are checked when pulling, not here:
    hashing a gigabyte at each start would take longer than loading it.
    """
    files = recorded(source)
    if source.main:
        return next((path for path in files if path.as_posix().endswith(f"/{source.main}")), None)
    return next((path.parent for path in files), None)


def recorded(source: Source) -> dict[Path, str]:
    """SHA-256 of each file of `source` as it was first pulled; empty where one is not here."""
    pulled = _read_record().get(source.repo)
    if pulled is None or _missing(source, pulled.files):
        return {}
    files = {}
    for name in _matching(source, pulled.files):
        found = try_to_load_from_cache(source.repo, name, _cache(), pulled.revision)
        if not isinstance(found, str):
            return {}
        files[Path(found)] = pulled.files[name]
    return files


def _matching(source: Source, names: Iterable[str]) -> list[str]:
    return [n for n in sorted(names) if any(fnmatch.fnmatchcase(n, p) for p in source.files)]


def _missing(source: Source, names: Iterable[str]) -> str | None:
    """The first file or pattern that none of `names` fits, of those that have to be there."""
    needed = (pattern for pattern in source.files if pattern not in source.optional)
    return next((pattern for pattern in needed if not fnmatch.filter(names, pattern)), None)


def pull(source: Source) -> Path:
    """Fetch what is missing of `source`; a download that broke off goes on where it stopped.

    The hub's client shows on the terminal how far each file is.

    Returns:
        What the engine is given: the main file, or the folder.

    Raises:
        ModelNotFoundError: The hub has no such repository or file.
        ModelBrokenError: A file arrived truncated or damaged.
        ModelChangedError: The hub has another version than the one first pulled.
        ModelError: The hub cannot be reached.
    """
    record, endpoint = _read_record(), _endpoint()
    known = record.get(source.repo)
    download = partial(hf_hub_download, source.repo, cache_dir=_cache(), endpoint=endpoint)
    with _named_errors(source, known):
        info = HfApi(endpoint).model_info(source.repo, revision=known.revision if known else None)
        there = [sibling.rfilename for sibling in info.siblings or []]
        if missing := _missing(source, there):
            why = f"The repository has no file {missing!r}; check the name"
            raise ModelNotFoundError(source.repo, None, why)
        seen = Pulled(str(info.sha), dict(known.files) if known else {})
        for name in _matching(source, there):
            path = Path(download(name, revision=seen.revision))
            seen.files[name] = _checked(path, seen.files.get(name))
    record[source.repo] = seen
    _write_record(record)
    return path.parents[name.count("/")] / source.main


def _endpoint() -> str:
    """Read at each call, so that setting it later takes effect."""
    return os.environ.get("HF_ENDPOINT", constants.ENDPOINT).rstrip("/")


def _checked(path: Path, recorded: str | None) -> str:
    """The SHA-256 of a file that was fetched.

    Raises:
        ModelBrokenError: It is not what the hub announced; the file is deleted.
        ModelChangedError: It is not what was first pulled.
    """
    found = sha256(path)
    blob = path.resolve()
    # The cache names a large file by the SHA-256 that the hub announced for it.
    if len(blob.name) == _SHA256_HEX and blob.name != found:
        blob.unlink()
        path.unlink(missing_ok=True)
        raise ModelBrokenError(
            path, f"its SHA-256 is {found}, the hub announced {blob.name}", "Pull it again"
        )
    if recorded is not None and recorded != found:
        raise ModelChangedError(path, recorded, found, _ACCEPT)
    return found


def sha256(path: Path) -> str:
    """Of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_ACCEPT: Final = (
    "If the new version is the one you want, remove the entry of its repository from the record "
    "of pulled models and pull again"
)


@contextmanager
def _named_errors(source: Source, known: Pulled | None) -> Iterator[None]:
    """The hub client's errors as labkit's own."""
    try:
        yield
    except RevisionNotFoundError as error:
        revision = known.revision if known else "main"
        raise ModelChangedError(
            Path(source.repo), f"revision {revision}", "no such revision", _ACCEPT
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelNotFoundError(
            source.repo, None, "The hub has no such repository, or it needs a login"
        ) from error
    except (OfflineModeIsEnabled, LocalEntryNotFoundError, httpx2.TransportError) as error:
        raise ModelError(
            f"the model hub at {_endpoint()} cannot be reached. Pulling needs the network; "
            "the embedded models need none"
        ) from error
    except EntryNotFoundError as error:
        raise ModelNotFoundError(source.repo, None, f"The hub says: {error}") from error
    except HfHubHTTPError as error:
        raise ModelError(f"the model hub answered for {source.repo}: {error}") from error
    except OSError as error:
        raise ModelBrokenError(
            Path(source.repo), str(error).splitlines()[0], "Pull it again: it goes on where it was"
        ) from error
