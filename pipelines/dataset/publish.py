"""Publish a finished dataset folder to the Hugging Face Hub.

What goes up is the shards, ``rejects.parquet``, ``manifest.json``, ``gallery.html`` and the card, and shards that the dataset no longer has
go in the same commit; nothing else of the folder leaves the machine. Refused are folders that break a promise or are being built, rows
without a licence, and files that hold a secret. Files are compared with those on the Hub first: publishing again after a kill sends what
is missing, and publishing the same again commits nothing.

    from pipelines.dataset.publish import publish

    published = publish(Path("dataset"), "me/shapes")  # private, unless public=True
    print(published.url)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from huggingface_hub import HfApi, constants
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile
from rich.filesize import decimal

from pipelines.card import kept_sections, merge_kept, render_card
from pipelines.dataset import hub, store
from pipelines.dataset.licenses import is_stated
from pipelines.dataset.secrets import find_secrets, known_secrets
from pipelines.gallery import write_gallery
from pipelines.validate import validate
from rewardlib.redact import redact

SHARDS = "data/*.parquet"
OTHERS = ("rejects.parquet", "manifest.json", "gallery.html", "README.md")
State = Literal["new", "changed", "unchanged", "removed", "not compared"]
Say = Callable[[str], None]


class PublishError(RuntimeError):
    """The dataset cannot be published as it is; the message says why and what to do."""


@dataclass(frozen=True)
class File:
    """One file of the repository: its size in bytes (None where it is yet to be written) and what publishing does to it."""

    path: str
    size: int | None
    state: State


@dataclass(frozen=True)
class Published:
    """What lies on the Hub now, or would after a dry run."""

    repo: str
    url: str
    private: bool
    commit: str | None  # None: nothing was committed, because nothing had changed or because this was a dry run
    files: tuple[File, ...]

    def having(self, *states: State) -> list[File]:
        return [file for file in self.files if file.state in states]


def publish(out: Path, repo: str, *, public: bool = False, dry_run: bool = False, say: Say = lambda line: None) -> Published:
    """Bring a dataset folder to the dataset repository ``USER/NAME``, which is made if it does not exist.

    Args:
        out: A finished dataset folder.
        repo: The repository's full name.
        public: Make a new repository public, or write to one that is; an existing one keeps the visibility it has.
        dry_run: Check everything and compare with the Hub, where there is a token for it, but write nothing, neither there nor here.
        say: Called with a line for every step, and for every wait.

    Raises:
        PublishError: the dataset cannot be published as it is.
        hub.HubError: the Hub did not do what it was asked for.
        store.StoreError: the folder is no finished dataset, or a build is writing it.
    """
    with _keeping_secrets():
        hub.check_name(repo)
        if not dry_run:
            hub.log_in()  # before the checks, which take their time
        with store.at_rest(out):
            manifest = store.read_manifest(out)
            say(f"checking {manifest['rows']} rows in {len(manifest['shards'])} shards")
            check_dataset(out)
            if not dry_run and not _is_current(out / "gallery.html", out / "manifest.json"):
                write_gallery(out)
            refuse_secrets(path for path in _local_files(out, manifest) if path.exists())
            if dry_run and not hub.has_token():
                say("there is no token for the Hub: what lies there was not looked at; log in with `hf auth login` to compare")
                return _unseen(out, repo, public)
            api = hub.log_in()
            with hub.explained(repo, api.endpoint):
                return hub.patiently(lambda: _bring(api, out, repo, public, dry_run, say), say)


@contextmanager
def _keeping_secrets() -> Iterator[None]:
    """No message shows a secret, whatever row, file or server it quotes."""
    try:
        yield
    except (PublishError, hub.HubError, store.StoreError) as error:
        raise type(error)(redact(str(error), *known_secrets())) from None


def check_dataset(out: Path) -> None:
    """``PublishError`` if the dataset breaks a promise, is empty, or has a row whose licence is not stated."""
    result = validate(out)
    if not result["valid"]:
        more = sum(result["findings"].values()) - 1
        raise PublishError(
            f"{out} does not keep its promises: {result['examples'][0]}{f', and {more} more' if more else ''}; "
            f"`python -m pipelines.validate {out}` lists them. Run the build again, finished shards are reused"
        )
    if not result["rows"]:
        raise PublishError(f"{out} has no rows; rejects.parquet says why each was dropped")
    silent = [row["id"] for row in store.read_rows(out, columns=["id", "license"]) if not is_stated(row["license"])]
    if silent:
        raise PublishError(
            f"{len(silent)} rows of {out} state no licence, the first is {silent[0]!r}; give the source's in its column `license`, "
            "or build again with --license, for example --license cc-by-4.0"
        )


def refuse_secrets(paths: Iterable[Path]) -> None:
    """``PublishError`` if a file holds a secret; names the place and whose secret it is, never the secret."""
    secrets = known_secrets()
    for path in paths:
        for place, name in find_secrets(path, secrets):
            raise PublishError(
                f"{path}, {place}, holds the value of {name}; take it out of the source and build again, and replace the key: "
                "it has been written to disk"
            )


def _is_current(page: Path, manifest: Path) -> bool:
    return page.exists() and page.stat().st_mtime_ns >= manifest.stat().st_mtime_ns


def _local_files(out: Path, manifest: dict[str, Any]) -> list[Path]:
    return [out / name for name in (*(shard["file"] for shard in manifest["shards"]), *OTHERS)]


def _unseen(out: Path, repo: str, public: bool) -> Published:
    """What would go up, where nobody can say what the Hub has of it already."""
    here = kept_sections((out / "README.md").read_text(encoding="utf-8")) if (out / "README.md").exists() else {}
    files = [replace(file, state="not compared") for file in _compare(out, render_card(out, repo, here), {})]
    return Published(repo, f"{constants.ENDPOINT}/datasets/{repo}", not public, None, tuple(files))


def _bring(api: HfApi, out: Path, repo: str, public: bool, dry_run: bool, say: Say) -> Published:
    """Everything that needs the Hub. May be done again from the start: what is there is found there."""
    info = _find_or_make(api, repo, public, dry_run, say)
    head = info.sha if info else None
    remote = _remote_files(api, repo, head)
    theirs = _card_on_the_hub(api, repo, head) if "README.md" in remote else ""
    card = _merged_card(out, repo, theirs, say)
    if not dry_run:
        store.write_text(out / "README.md", card)
        refuse_secrets([out / "README.md"])
    files = _compare(out, card, remote)
    private = bool(info.private) if info else not public
    published = Published(repo, f"{api.endpoint}/datasets/{repo}", private, None, tuple(files))
    to_send, stale = published.having("new", "changed"), published.having("removed")
    if not dry_run and (to_send or stale):
        say(f"sending {len(to_send)} files, {decimal(sum(f.size or 0 for f in to_send))}, and removing {len(stale)}")
        commit = api.upload_folder(
            repo_id=repo,
            repo_type="dataset",
            folder_path=out,
            allow_patterns=[SHARDS, *OTHERS],
            delete_patterns=SHARDS,
            commit_message=f"Publish {store.read_manifest(out)['rows']} rows",
            parent_commit=head,  # fails, and is tried again from the start, if somebody has edited the card since we read it
        )
        published = replace(published, commit=commit.oid)
    if not dry_run:
        store.write_text(_last_card(out, repo), card)
    return published


def _find_or_make(api: HfApi, repo: str, public: bool, dry_run: bool, say: Say) -> Any:
    """What the Hub knows of a repository; None in a dry run where there is none yet."""
    try:
        info = api.dataset_info(repo)
    except RepositoryNotFoundError as error:
        if error.response.status_code == 401:  # so the Hub answers a token that it does not know
            raise
        if dry_run:
            return None
        api.create_repo(repo, repo_type="dataset", private=not public, exist_ok=True)
        say(f"made {repo}, {'public' if public else 'private'}")
        return api.dataset_info(repo)
    if not info.private and not public:
        raise PublishError(
            f"{repo} exists and is public: everybody could read what goes up. Give --public if that is meant, or another --repo"
        )
    note = "; publishing does not change that, its settings on the Hub do" if public and info.private else ""
    say(f"{repo} exists and is {'private' if info.private else 'public'}{note}")
    return info


def _merged_card(out: Path, repo: str, theirs: str, say: Say) -> str:
    """The card to be published: from the manifest, with the sections that a person has edited here or on the Hub."""
    here, last = out / "README.md", _last_card(out, repo)
    ours = kept_sections(render_card(out, repo, kept_sections(here.read_text(encoding="utf-8")) if here.exists() else {}))
    published = kept_sections(last.read_text(encoding="utf-8")) if last.exists() else {}
    merged, conflicts = merge_kept(ours, kept_sections(theirs), kept_sections(render_card(out, repo, {})), published)
    for name in conflicts:
        say(f"the card's section {name!r} was edited both in {here} and on the Hub; the one here goes up, the Hub's stays in its history")
    return render_card(out, repo, merged)


def _last_card(out: Path, repo: str) -> Path:
    """A copy of the card as it was last published: what differs from it on the Hub was edited there."""
    return out / ".work" / "published" / f"{repo.replace('/', '--')}.md"


def _card_on_the_hub(api: HfApi, repo: str, head: str | None) -> str:
    with TemporaryDirectory() as cache:
        path = api.hf_hub_download(repo, "README.md", repo_type="dataset", revision=head, cache_dir=cache)
        return Path(path).read_text(encoding="utf-8", errors="replace")


def _remote_files(api: HfApi, repo: str, head: str | None) -> dict[str, RepoFile]:
    if head is None:
        return {}
    tree = api.list_repo_tree(repo, repo_type="dataset", recursive=True, revision=head)
    return {file.path: file for file in tree if isinstance(file, RepoFile)}


def _compare(out: Path, card: str, remote: dict[str, RepoFile]) -> list[File]:
    """Every file that publishing concerns: those here, and shards on the Hub that are not here any more."""
    manifest = store.read_manifest(out)
    hashes = {shard["file"]: shard["sha256"] for shard in manifest["shards"]}  # the checks have found them true
    files = []
    for path in _local_files(out, manifest):
        name = path.relative_to(out).as_posix()
        data: bytes | Path = card.encode() if name == "README.md" else path
        size = len(data) if isinstance(data, bytes) else path.stat().st_size if path.exists() else None
        same = size is not None and name in remote and _same(remote[name], data, hashes.get(name))
        files.append(File(name, size, "unchanged" if same else "changed" if name in remote else "new"))
    stale = [f for name, f in sorted(remote.items()) if name not in hashes and fnmatch(name, SHARDS)]
    return [*files, *(File(f.path, f.size, "removed") for f in stale)]


def _same(remote: RepoFile, data: bytes | Path, sha256: str | None) -> bool:
    """Whether a file on the Hub has these bytes. Large files are known there by SHA-256, others by their git hash."""
    if remote.lfs is not None and sha256 is not None:
        return bool(remote.lfs.sha256 == sha256)
    data = data.read_bytes() if isinstance(data, Path) else data
    if remote.lfs is not None:
        return bool(remote.lfs.sha256 == hashlib.sha256(data).hexdigest())
    return bool(remote.blob_id == hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest())
