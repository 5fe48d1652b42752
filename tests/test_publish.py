"""Publishing against a Hub on the loopback, through the real clients: what goes up comes back, and nothing else goes up."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from huggingface_hub import constants

import pipelines.build
from pipelines.build import build
from pipelines.card import kept_sections, write_card
from pipelines.config import BuildConfig
from pipelines.dataset import store
from pipelines.dataset.hub import ATTEMPTS, HubError
from pipelines.dataset.publish import Published, PublishError, publish
from pipelines.dataset.schema import Ledger
from pipelines.gallery import write_gallery
from tests.conftest import COLORS, ROOT, fake_models, folder_bytes, record, scene, write_rows
from tests.hub_server import TOKEN, Fault, Hub, failure

REPO = "me/shapes"
FILES = {f"data/train-0000{n}.parquet" for n in range(3)} | {"rejects.parquet", "manifest.json", "gallery.html", "README.md"}
SECRET = "sk-planted/0123456789&abc"


def build_dataset(folder: Path, **changes: Any) -> Path:
    """Five labelled rows in three shards, and a reject; changes are settings of the build, or new values of row r0's columns."""
    names = list(COLORS) * 2
    row = {name: changes.pop(name) for name in ("question", "license", "traces", "id") if name in changes}
    rows = [record(f"r{n}", color, **(row if n == 0 else {})) for n, color in enumerate(names[:5])] + [record("lost", image="gone.jpg")]
    source = write_rows(folder / "scenes", rows, {f"r{n}.png": scene(color) for n, color in enumerate(names[:5])})
    out = folder / "dataset"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipelines.build, "load_models", lambda config: fake_models())
        build(BuildConfig(source=str(source), out=out, **{"shard_size": 2, **changes}))
    write_gallery(out)
    write_card(out)
    return out


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_dataset(tmp_path_factory.mktemp("built"))


@pytest.fixture
def dataset(built: Path, tmp_path: Path) -> Path:
    """A copy to spoil, in a folder where it can be built again."""
    return Path(shutil.copytree(built.parent, tmp_path / "copy") / "dataset")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty Hub that the clients in this process talk to."""
    with Hub().running() as server:
        point_at(server.url, monkeypatch)
        yield server


def point_at(url: str, patch: pytest.MonkeyPatch) -> None:
    """What the variables of ``environment`` do for a new process."""
    patch.setattr(constants, "ENDPOINT", url)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    patch.setenv("HF_TOKEN", TOKEN)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that were to be waited, by the client and by us; nobody does wait."""
    waited: list[float] = []
    clock = SimpleNamespace(sleep=waited.append)
    monkeypatch.setattr("huggingface_hub.utils._http.time", clock)
    monkeypatch.setattr("pipelines.dataset.hub.time", clock)
    return waited


def environment(hub: Hub, home: Path) -> dict[str, str]:
    settings = {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": TOKEN, "HF_HOME": str(home), "OMP_NUM_THREADS": "1"}
    return {**os.environ, **settings}


def start(hub: Hub, home: Path, out: Path, *flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "flows.publish_dataset", str(out), "--repo", REPO, *flags]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment(hub, home),
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def commits(hub: Hub) -> int:
    return len(hub.repos[REPO].commits) - 1  # the Hub itself makes the first


def edit_section(card: str, name: str, text: str) -> str:
    return re.sub(rf"(<!-- keep: {name} -->\n).*?(\n<!-- /keep -->)", rf"\g<1>{text}\g<2>", card, flags=re.S)


def edit_on_the_hub(hub: Hub, name: str, text: str) -> None:
    card = hub.repos[REPO].files["README.md"].data.decode()
    hub.edit(REPO, "README.md", edit_section(card, name, text).encode())


def sections_on_the_hub(hub: Hub) -> dict[str, str]:
    return kept_sections(hub.repos[REPO].files["README.md"].data.decode())


COME_BACK = """
import sys
from pathlib import Path
from datasets import load_dataset
from pipelines.dataset import store
from pipelines.dataset.features import FEATURES
rows = load_dataset(sys.argv[1], split="train")
assert rows.features == FEATURES, rows.features
assert rows.with_format("arrow")[:].to_pylist() == list(store.read_rows(Path(sys.argv[2])))
print(rows[0]["image"].size, len(rows))
"""


def test_what_the_command_publishes_comes_back_the_same(hub: Hub, dataset: Path, tmp_path: Path) -> None:
    (dataset / "notes.txt").write_text("private")
    process = start(hub, tmp_path / "home", dataset)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    assert f'load_dataset("{REPO}")' in output
    assert f"{hub.url}/datasets/{REPO} (private)" in output
    assert hub.repos[REPO].private
    assert set(hub.repos[REPO].files) == FILES | {".gitattributes"}
    loaded = subprocess.run(
        [sys.executable, "-c", COME_BACK, REPO, str(dataset)],
        cwd=ROOT,
        env=environment(hub, tmp_path / "home"),
        capture_output=True,
        text=True,
    )
    assert (loaded.returncode, loaded.stdout) == (0, "(64, 48) 5\n"), loaded.stderr


def test_publishing_again_changes_nothing(hub: Hub, dataset: Path) -> None:
    first = publish(dataset, REPO)
    before, uploads = hub.content(REPO), hub.uploads.copy()
    again = publish(dataset, REPO)
    assert first.commit == hub.repos[REPO].head
    assert again.commit is None
    assert {file.state for file in again.files} == {"unchanged"}
    assert (hub.content(REPO), hub.uploads, commits(hub)) == (before, uploads, 1)


def test_a_dry_run_touches_nothing(hub: Hub, dataset: Path) -> None:
    before = folder_bytes(dataset, hidden=True)
    planned = publish(dataset, REPO, dry_run=True)
    assert {(f.path, f.state) for f in planned.files} == {(path, "new") for path in FILES}
    assert (planned.private, planned.commit) == (True, None)
    assert all(line.startswith("GET") for line in hub.requests)
    done = publish(dataset, REPO)
    assert [f.size for f in done.files] == [f.size for f in planned.files]
    shutil.rmtree(dataset / ".work" / "published")
    assert {k: v for k, v in folder_bytes(dataset, hidden=True).items() if k != "README.md"} == {
        k: v for k, v in before.items() if k != "README.md"
    }


def test_only_what_changed_goes_up_and_what_is_gone_goes(hub: Hub, dataset: Path) -> None:
    publish(dataset, REPO)
    hub.edit(REPO, "LICENSE", b"the text of a licence")
    hub.uploads.clear()
    build_dataset(dataset.parent, question="What is the square's colour?")
    states = {f.path: f.state for f in publish(dataset, REPO).files}
    assert {path for path, state in states.items() if path.startswith("data/") and state != "unchanged"} == {"data/train-00000.parquet"}
    assert set(hub.uploads) == {hub.content(REPO)["data/train-00000.parquet"]}
    build_dataset(dataset.parent, question="What is the square's colour?", limit=3)
    before = commits(hub)
    assert [f.path for f in publish(dataset, REPO).having("removed")] == ["data/train-00002.parquet"]
    assert set(hub.repos[REPO].files) == FILES - {"data/train-00002.parquet"} | {".gitattributes", "LICENSE"}
    assert commits(hub) == before + 1


def test_row_groups_are_small_enough_for_the_viewer(hub: Hub, dataset: Path) -> None:
    rows = [{**row, "id": f"{row['id']}-{n}"} for n in range(30) for row in store.read_rows(dataset)]
    manifest = store.read_manifest(dataset)
    shutil.rmtree(dataset / "data")
    ledger = Ledger()
    ledger.counts["rows_in"] = len(rows)
    shard = store.write_shard(dataset, "train-00000", "key", rows, ledger)
    store.finish(dataset, [shard], {name: manifest[name] for name in ("config", "config_sha256", "code_version", "models")})
    publish(dataset, REPO)
    (path := dataset.parent / "back.parquet").write_bytes(hub.repos[REPO].files["data/train-00000.parquet"].data)
    groups = pq.ParquetFile(path).metadata
    assert [groups.row_group(n).num_rows for n in range(groups.num_row_groups)] == [100, 50]


def test_a_private_repository_stays_private_and_that_is_said(hub: Hub, dataset: Path) -> None:
    said: list[str] = []
    assert publish(dataset, REPO).private
    assert publish(dataset, REPO, public=True, say=said.append).private
    assert hub.repos[REPO].private
    assert any("exists and is private; publishing does not change that" in line for line in said)


def test_a_public_repository_is_written_to_only_if_that_is_meant(hub: Hub, dataset: Path) -> None:
    assert not publish(dataset, REPO, public=True).private
    with pytest.raises(PublishError, match=r"is public: everybody could read.*--public"):
        publish(dataset, REPO)
    assert not publish(dataset, REPO, public=True).private


@pytest.mark.parametrize("license", ["unknown", " Unknown ", "none"])
def test_no_licence_no_publishing(hub: Hub, tmp_path: Path, license: str) -> None:
    with pytest.raises(PublishError, match=r"1 rows .* state no licence, the first is 'r0'; .* --license"):
        publish(build_dataset(tmp_path, license=license), REPO)
    assert hub.requests == []


def drop_a_shard(out: Path) -> None:
    (out / "data" / "train-00001.parquet").unlink()


def leave_half_a_shard(out: Path) -> None:
    (out / "data" / "train-00003.parquet.tmp").write_text("half of it")


def change_a_shard(out: Path) -> None:
    shutil.copy(out / "data" / "train-00000.parquet", out / "data" / "train-00001.parquet")


@pytest.mark.parametrize("spoil", [drop_a_shard, leave_half_a_shard, change_a_shard])
def test_a_broken_promise_is_not_published(hub: Hub, dataset: Path, spoil: Callable[[Path], None]) -> None:
    spoil(dataset)
    with pytest.raises(PublishError, match=r"does not keep its promises: files: data/train-0000.*pipelines\.validate"):
        publish(dataset, REPO)
    assert hub.requests == []


def test_an_unfinished_build_is_not_published(hub: Hub, dataset: Path) -> None:
    with store.exclusive(dataset), pytest.raises(store.StoreError, match="a build is writing"):
        publish(dataset, REPO)
    (dataset / "manifest.json").unlink()
    with pytest.raises(store.StoreError, match="no finished dataset"):
        publish(dataset, REPO)
    assert hub.requests == []


def test_a_gallery_that_is_missing_is_written(hub: Hub, dataset: Path) -> None:
    (dataset / "gallery.html").unlink()
    assert publish(dataset, REPO, dry_run=True).files[5].size is None
    publish(dataset, REPO)
    assert hub.repos[REPO].files["gallery.html"].data == (dataset / "gallery.html").read_bytes()


def test_the_published_card(hub: Hub, dataset: Path) -> None:
    publish(dataset, REPO)
    stale = hub.repos[REPO].files["README.md"].data.replace(b"---\n", b"---\ndataset_info: {features: [{name: old, dtype: string}]}\n", 1)
    hub.edit(REPO, "README.md", stale)
    publish(dataset, REPO)
    card = hub.repos[REPO].files["README.md"].data.decode()
    assert f'load_dataset("{REPO}", split="train")' in card
    assert "dataset_info" not in yaml.safe_load(card.split("---")[1])


def test_sections_edited_on_the_hub_survive(hub: Hub, dataset: Path) -> None:
    publish(dataset, REPO)
    for words in ("First words.", "Second thoughts."):  # the second time the section here is what was published, not the template's
        edit_on_the_hub(hub, "summary", words)
        edit_on_the_hub(hub, "limitations", f"- {words}")
        publish(dataset, REPO)
        assert sections_on_the_hub(hub)["summary"] == words
        assert kept_sections((dataset / "README.md").read_text())["limitations"] == f"- {words}"


def test_where_both_edited_the_section_here_goes_up_and_this_is_said(hub: Hub, dataset: Path) -> None:
    publish(dataset, REPO)
    edit_on_the_hub(hub, "summary", "Theirs.")
    edit_on_the_hub(hub, "limitations", "- Theirs.")
    (dataset / "README.md").write_text(edit_section((dataset / "README.md").read_text(), "summary", "Ours."))
    said: list[str] = []
    publish(dataset, REPO, say=said.append)
    assert sections_on_the_hub(hub)["summary"] == "Ours."
    assert sections_on_the_hub(hub)["limitations"] == "- Theirs."
    assert [line for line in said if "'summary' was edited both" in line]
    assert not [line for line in said if "'limitations'" in line]


def test_an_edit_on_the_hub_while_we_publish_survives(hub: Hub, dataset: Path, waits: list[float]) -> None:
    publish(dataset, REPO)
    build_dataset(dataset.parent, limit=3)

    def edit_once(line: str) -> None:
        if "/preupload/" in line:
            hub.watch = lambda line: None
            edit_on_the_hub(hub, "summary", "In the nick of time.")

    hub.watch = edit_once
    publish(dataset, REPO)
    assert sections_on_the_hub(hub)["summary"] == "In the nick of time."
    assert "data/train-00002.parquet" not in hub.repos[REPO].files


SURVIVED = [
    Fault("PUT /objects/", times=2),
    Fault("PUT /objects/", failure(500), times=2),
    Fault("POST .*/batch", failure(504)),
    Fault("POST .*/preupload", failure(429, **{"Retry-After": "7"})),
    Fault("POST .*/preupload", failure(429)),
    Fault("POST /api/repos/create", failure(503)),
    Fault("POST /api/repos/create", lost=True),
    Fault("GET /api/datasets/me/shapes$", failure(429, **{"Retry-After": "7"}), times=ATTEMPTS - 1),
    Fault("GET /api/datasets/me/shapes$"),
    Fault("POST .*/commit/", failure(504)),
    Fault("POST .*/commit/", failure(429, **{"Retry-After": "7"})),
    Fault("POST .*/commit/"),
    Fault("POST .*/commit/", lost=True),
]


@pytest.mark.parametrize("fault", SURVIVED, ids=lambda f: f"{f.pattern} {f.answer[:2] if f.answer else 'lost' if f.lost else 'broken'}")
def test_passing_trouble_is_waited_out(hub: Hub, dataset: Path, waits: list[float], fault: Fault) -> None:
    fault = Fault(fault.pattern, fault.answer, fault.times, fault.lost)
    hub.faults = [fault]
    publish(dataset, REPO)
    assert fault.times == 0
    assert set(hub.repos[REPO].files) == FILES | {".gitattributes"}
    assert commits(hub) == 1
    assert set(hub.uploads.values()) == {1}
    assert waits
    if fault.answer and "Retry-After" in fault.answer[1]:
        assert set(waits) <= {7.0, 8.0}  # the client adds a second


def test_the_card_on_the_hub_is_not_lost_to_passing_trouble(hub: Hub, dataset: Path, waits: list[float]) -> None:
    publish(dataset, REPO)
    edit_on_the_hub(hub, "summary", "Their words.")
    hub.faults = [Fault("HEAD .*/README.md", times=2), Fault("HEAD .*/README.md", failure(503), times=2)]
    publish(dataset, REPO)
    assert sections_on_the_hub(hub)["summary"] == "Their words."
    assert sum(fault.times for fault in hub.faults) == 0


LASTING = [
    (Fault(".", failure(401, "Invalid credentials in Authorization header"), 99), "does not accept the token.*hf auth login.*HF_TOKEN"),
    (Fault("commit", failure(401, "Invalid credentials in Authorization header"), 99), "does not accept the token"),
    (Fault("create", failure(403), 99), r"may not write to me/shapes \(403\).*hf auth login"),
    (Fault("commit", failure(403), 99), r"may not write to me/shapes \(403\)"),
    (Fault("GET /api/datasets", failure(429), 99), r"limits requests \(429\).*same command"),
    (Fault("GET /api/datasets", failure(504), 99), "answered 504 to every attempt.*same command"),
    (Fault("PUT", failure(503), 99), "answered 503 to every attempt.*same command"),
    (Fault("PUT", None, 99), "cannot reach http://127.0.0.1.*same command"),
    (Fault("GET /api/datasets", None, 99), "cannot reach http://127.0.0.1.*check the network"),
    (Fault("commit", failure(400, f"what is {TOKEN}?"), 99), r"refused the request for me/shapes \(400\).*\[HF_TOKEN\]"),
]


@pytest.mark.parametrize(("fault", "message"), LASTING, ids=[f"{f.pattern} {f.answer[0] if f.answer else 'broken'}" for f, _ in LASTING])
def test_lasting_trouble_is_one_clear_sentence(hub: Hub, dataset: Path, waits: list[float], fault: Fault, message: str) -> None:
    hub.faults = [Fault(fault.pattern, fault.answer, fault.times)]
    with pytest.raises(HubError, match=message) as caught:
        publish(dataset, REPO)
    assert TOKEN not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__suppress_context__
    assert len(hub.requests) < 40  # what the client has repeated is not repeated again


@pytest.mark.parametrize("repo", ["shapes", "me/shapes/more", "me/sha pes", "me/-shapes", "me//shapes", ""])
def test_a_malformed_name_is_refused(hub: Hub, dataset: Path, repo: str) -> None:
    with pytest.raises(HubError, match=r"is no name of a repository.*USER/NAME"):
        publish(dataset, repo)


def test_without_a_token_or_a_network(hub: Hub, dataset: Path, tmp_path: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    point_at("http://127.0.0.1:9", monkeypatch)
    with pytest.raises(HubError, match=r"cannot reach http://127\.0\.0\.1:9 .*HF_ENDPOINT"):
        publish(dataset, REPO)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
        publish(dataset, REPO)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    with pytest.raises(HubError, match="no token for the Hub; log in with `hf auth login`"):
        publish(dataset, REPO)


def test_a_dry_run_without_a_token_does_its_local_half(hub: Hub, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    before, said = folder_bytes(dataset), []
    published = publish(dataset, REPO, dry_run=True, say=said.append)
    assert {file.path for file in published.files} == FILES
    assert {file.state for file in published.files} == {"not compared"}
    assert "there is no token for the Hub" in said[-1]
    assert folder_bytes(dataset) == before
    drop_a_shard(dataset)
    with pytest.raises((PublishError, store.StoreError)):
        publish(dataset, REPO, dry_run=True)


def in_a_trace(folder: Path) -> Path:
    return build_dataset(folder, traces=[{"text": f"I used {SECRET}. There is a red square. The answer is red.", "model": "writer"}])


def in_a_rejected_row(folder: Path) -> Path:
    return build_dataset(folder, traces=[{"text": f"There is a red square. The answer is {SECRET}.", "model": "writer"}])


def in_an_id(folder: Path) -> Path:
    return build_dataset(folder, id=SECRET)


def in_the_card(folder: Path) -> Path:
    out = build_dataset(folder)
    (out / "README.md").write_text(edit_section((out / "README.md").read_text(), "summary", f"Ask with {SECRET}."))
    return out


def in_a_broken_row(folder: Path) -> Path:
    """The finding that refuses the dataset would quote it."""
    out = in_an_id(folder)
    shard = store.data_path(out, "train-00000")
    rows = [{**row, "answer": ""} for row in pq.read_table(shard).to_pylist()]
    counts = Ledger()
    counts.counts["rows_in"] = len(rows)
    manifest = store.read_manifest(out)
    shutil.rmtree(out / "data")
    made = store.write_shard(out, "train-00000", "key", rows, counts)
    store.finish(out, [made], {name: manifest[name] for name in ("config", "config_sha256", "code_version", "models")})
    return out


@pytest.mark.parametrize(
    ("plant", "place"),
    [
        (in_a_trace, r"data/train-00000\.parquet, row 0 \(id 'r0'\)"),
        (in_a_rejected_row, r"rejects\.parquet, row \d \(id 'r0'\)"),
        (in_an_id, r"data/train-00000\.parquet, row 0 \(id '\[SOME_SERVICE_API_KEY\]'\)"),
        (in_the_card, r"README\.md, line \d+"),
        (in_a_broken_row, r"does not keep its promises: text: row \[SOME_SERVICE_API_KEY\]"),
    ],
)
def test_a_secret_is_refused_and_never_shown(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], plant: Callable[[Path], Path], place: str
) -> None:
    from flows.publish_dataset import main

    out = plant(tmp_path)
    monkeypatch.setenv("SOME_SERVICE_API_KEY", SECRET)
    monkeypatch.setenv("COLUMNS", "500")  # a line that is broken could hide it
    with pytest.raises(SystemExit) as ended:
        main([str(out), "--repo", REPO])
    output = "".join(capsys.readouterr())
    assert ended.value.code == 2
    assert re.search(place, output)
    assert "SOME_SERVICE_API_KEY" in output or "promises" in output
    assert SECRET not in output
    assert not [line for line in hub.requests if line.startswith(("POST", "PUT"))]


def test_the_token_itself_is_a_secret(hub: Hub, dataset: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    (dataset / "README.md").write_text(edit_section((dataset / "README.md").read_text(), "summary", f"My token is {TOKEN}."))
    with pytest.raises(PublishError, match=r"README\.md, line \d+, holds the value of the Hub token in use"):
        publish(dataset, REPO)


def kill_and_resume(built: Path, folder: Path, at: int) -> bool:
    """Publish, kill -9 at a request, and publish again: the same repository, nothing sent twice. Whether the kill came in time."""
    out, home = Path(shutil.copytree(built, folder / "dataset")), folder / "home"
    with Hub().running() as hub:
        killed: list[str] = []

        def strike(line: str) -> None:
            if len(hub.requests) == at and not killed:
                killed.append(line)
                os.killpg(process.pid, signal.SIGKILL)

        hub.watch = strike
        process = start(hub, home, out)
        process.communicate(timeout=120)
        output = (again := start(hub, home, out)).communicate(timeout=120)[0]
        assert again.returncode == 0, output
        assert hub.content(REPO) == published_whole(built, folder / "whole")
        assert set(hub.uploads.values()) == {1}, killed
        assert commits(hub) == 1
        return process.returncode == -signal.SIGKILL


def published_whole(built: Path, folder: Path) -> dict[str, str]:
    """What an undisturbed publish leaves on a Hub."""
    with Hub().running() as hub, pytest.MonkeyPatch.context() as patch:
        point_at(hub.url, patch)
        publish(Path(shutil.copytree(built, folder / "dataset")), REPO)
        return hub.content(REPO)


def test_killed_while_sending_and_resumed(built: Path, tmp_path: Path) -> None:
    assert kill_and_resume(built, tmp_path, at=13)


@pytest.mark.slow
def test_killed_at_ten_moments_and_resumed(built: Path, tmp_path: Path) -> None:
    with Hub().running() as hub:
        start(hub, tmp_path / "home", Path(shutil.copytree(built, tmp_path / "dataset"))).communicate(timeout=120)
        before_the_last = range(1, len(hub.requests) - 2)  # behind these a publish has ended before the kill comes
        moments = random.Random(0).sample(before_the_last, 10)
    assert sum(kill_and_resume(built, tmp_path / str(at), at) for at in moments) == len(moments)


def test_the_dry_run_of_the_command(hub: Hub, dataset: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.publish_dataset import main

    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    assert isinstance(main([str(dataset), "--repo", REPO, "--public", "--dry-run"]), Published)
    output = capsys.readouterr().out
    assert all(path in output for path in FILES)
    assert f"{hub.url}/datasets/{REPO}, public; this was a dry run" in output
    assert hub.repos == {}


@pytest.mark.slow
def test_the_flow_publishes_and_links(hub: Hub, dataset: Path) -> None:
    from prefect.artifacts import Artifact
    from prefect.testing.utilities import prefect_test_harness

    from flows.publish_dataset import publish_dataset

    with prefect_test_harness(server_startup_timeout=120):
        published = publish_dataset(out=str(dataset), repo=REPO)
        link, table = (Artifact.get(f"publish-dataset-{name}") for name in ("repository", "files"))
    assert published.commit == hub.repos[REPO].head
    assert link is not None
    assert table is not None
    assert f"{hub.url}/datasets/{REPO}" in str(link.data)
    assert {row["file"] for row in json.loads(str(table.data))} == FILES
