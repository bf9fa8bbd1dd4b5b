"""Adapters to and from the Hugging Face hub. What goes up is listed first, what comes down is only what an adapter has.

Uploads are one commit through huggingface_hub, which sends no file a second time. Downloads are made here, in byte
ranges, because huggingface_hub (1.33) starts an interrupted file from nothing and takes whatever size the server
sends: a file is held to the size and the hash that the hub states, and continues where it stopped.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters import adapter_files
from adapters.adapter_files import CONFIG, WEIGHTS, Adapter
from adapters.card_check import check_card
from adapters.printable import short
from adapters.shareable import SharedFile, check_number, check_size, limit_of, shared_files
from configs.errors import UserError
from data_prep.safe_write import check_new, flush_folder, missing_parents, remove, storing, take_back

if TYPE_CHECKING:
    import httpx

CHUNK = 2**18
Progress = Callable[[str, int, int], None]
"""Called with a file's name, bytes there and bytes in all."""


@dataclass(frozen=True)
class RemoteFile:
    """A file on the hub: its size, and a hash of it: sha256 of large files, git's blob id of small ones."""

    name: str
    n_bytes: int
    sha256: str | None
    blob_id: str | None


def plan_push(folder: Path) -> list[SharedFile]:
    """Check an adapter and list exactly what `push` would upload.

    Raises:
        UserError: the adapter or its card is not sound.
    """
    adapter = adapter_files.load(folder)
    files = shared_files(folder)
    check_card(folder, adapter)
    return files


def push(files: list[SharedFile], repo: str, *, private: bool = True) -> str:
    """Upload these files as one commit, making the repository where it is not there; returns the commit's address.

    Raises:
        UserError: no login, no right to write there, or the hub cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    with hub_errors(repo):
        api = HfApi(library_name="woodshed")
        api.create_repo(repo, repo_type="model", private=private, exist_ok=True)
        added = [CommitOperationAdd(file.name, str(file.path)) for file in files]
        done = api.create_commit(repo, added, commit_message="Upload adapter")
    return str(done.commit_url)


def pull(repo: str, out: Path, *, revision: str | None = None, progress: Progress | None = None) -> Adapter:
    """Fetch an adapter into the new folder `out`, checked, all of it or nothing; returns it.

    What has arrived when the network breaks stays beside `out` and is not fetched again.

    Raises:
        UserError: no adapter there, files too large or other than the hub says, or the adapter is not sound.
    """
    check_new(out)
    with hub_errors(repo):
        commit, files = plan_pull(repo, revision)
        partial = out.with_name(f".{out.name}.{commit[:12]}.partial")
        made = missing_parents(out)
        try:
            for file in files:
                _fetch(repo, commit, file, partial / file.name, progress or (lambda *_: None))
            adapter = adapter_files.load(partial)
        except UserError as error:  # a check or the disk has failed; a connection that broke is no UserError yet
            remove(partial)
            take_back(made)
            raise UserError(error.what, where=f"{repo}: {error.where}", fix=error.fix) from error
    with storing(out):
        flush_folder(partial)
        partial.rename(out)
    return replace(adapter, folder=out)


def plan_pull(repo: str, revision: str | None = None) -> tuple[str, list[RemoteFile]]:
    """The commit, and the files of an adapter in it; other files are left where they are.

    Raises:
        UserError: it holds no adapter, or files larger than an adapter's.
    """
    from huggingface_hub import HfApi

    info = HfApi(library_name="woodshed").model_info(repo, revision=revision, files_metadata=True)
    files = [_remote(sibling) for sibling in info.siblings or [] if limit_of(sibling.rfilename) is not None]
    names = [file.name for file in files]
    if not {WEIGHTS, CONFIG} <= set(names):
        raise UserError(
            f"{repo} holds no adapter in PEFT's layout.",
            where=f"it has no {WEIGHTS if WEIGHTS not in names else CONFIG}",
            fix="Ask its author for safetensors; pickles are not fetched.",
        )
    for file in files:
        check_size(file.name, file.n_bytes, repo)
    check_number(names, repo)
    commit = info.sha or ""
    if not commit.isalnum():
        raise UserError(f"The hub does not say which commit of {repo} this is.", where=short(commit))
    return commit, sorted(files, key=lambda file: file.n_bytes)


@contextmanager
def hub_errors(repo: str) -> Iterator[None]:
    """What the hub's errors mean for the person; errors that nobody foresaw come through as they are.

    Raises:
        UserError: in place of them.
    """
    try:
        yield
    except Exception as error:
        # huggingface_hub wraps what happens in its upload threads in a RuntimeError.
        first = error.__cause__ if isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception) else error
        meaning = None if isinstance(error, UserError) else _meaning(first, repo)
        if meaning is None:
            raise
        raise meaning from error


def _meaning(error: Exception, repo: str) -> UserError | None:
    import httpx
    from huggingface_hub import errors

    text = short(str(error))
    if isinstance(error, errors.HFValidationError):
        return UserError(f"{repo!r} is no id on the hub.", fix="It is owner/name, e.g. ada/blues-lora.")
    if isinstance(error, errors.GatedRepoError):
        return UserError(f"Access to {repo} must be granted first.", fix="Accept its terms on its page on the hub.")
    if isinstance(error, (errors.RepositoryNotFoundError, errors.RevisionNotFoundError)):
        fix = "Check the spelling; for a private one: `hf auth login`."
        return UserError(f"There is no {repo} on the hub, or not this revision of it.", fix=fix)
    if isinstance(error, (errors.LocalTokenNotFoundError, errors.OfflineModeIsEnabled)):
        return UserError(f"The hub cannot be used: {text}", fix="Connect to the network; `hf auth login` where asked.")
    if isinstance(error, errors.HfHubHTTPError):
        denied = error.response is not None and error.response.status_code in (401, 403)
        fix = "`hf auth login` with a token that may write there." if denied else "Try again later."
        return UserError(f"The hub refused: {text}", where=repo, fix=fix)
    if isinstance(error, httpx.HTTPError):
        fix = "Try again: what has arrived is kept, and not sent twice."
        return UserError(f"The connection broke: {text}", where=repo, fix=fix)
    return None


def _remote(sibling: Any) -> RemoteFile:
    lfs = sibling.lfs
    size = lfs.size if lfs is not None else sibling.size
    sha256 = lfs.sha256 if lfs is not None else None
    return RemoteFile(sibling.rfilename, size if isinstance(size, int) else -1, sha256, sibling.blob_id)


def _fetch(repo: str, commit: str, file: RemoteFile, target: Path, progress: Progress) -> None:
    """One file, from where it stopped; whole and with the hash that the hub states, or an error."""
    from huggingface_hub import get_session, hf_hub_url
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

    if target.is_file() and target.stat().st_size == file.n_bytes and _is_right(target, file):
        return
    part = target.with_name(f"{target.name}.part")
    there = part.stat().st_size if part.is_file() and part.stat().st_size < file.n_bytes else 0
    headers = {**build_hf_headers(library_name="woodshed"), "Accept-Encoding": "identity"}
    headers |= {"Range": f"bytes={there}-"} if there else {}
    url = hf_hub_url(repo, file.name, revision=commit)
    with get_session().stream("GET", url, headers=headers, follow_redirects=True) as response:
        hf_raise_for_status(response)
        there = there if response.status_code == 206 else 0
        with storing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            with part.open("r+b" if there else "wb") as written:
                written.seek(there)
                _receive(response, written, file, there, progress)
    if part.stat().st_size != file.n_bytes or not _is_right(part, file):
        raise UserError(f"{file.name} is not what the hub says it is.", where=repo, fix="Try again.")
    part.rename(target)


def _receive(response: "httpx.Response", written: Any, file: RemoteFile, there: int, progress: Progress) -> None:
    for chunk in response.iter_raw():
        there += len(chunk)
        if there > file.n_bytes:
            break  # more than was stated: the size will not be right
        written.write(chunk)
        progress(file.name, there, file.n_bytes)
    written.truncate()


def _is_right(path: Path, file: RemoteFile) -> bool:
    with path.open("rb") as read:
        if file.sha256 is not None:
            return hashlib.file_digest(read, "sha256").hexdigest() == file.sha256
        if file.blob_id is None:
            return False
        digest = hashlib.sha1(b"blob %d\0" % file.n_bytes, usedforsecurity=False)  # git's name of a small file
        while chunk := read.read(CHUNK):
            digest.update(chunk)
        return digest.hexdigest() == file.blob_id
