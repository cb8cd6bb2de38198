"""A model at a hub becomes a folder that can be loaded, whatever the network does; or nothing does."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from filelock import FileLock

from qwen_aio.cli.main import main
from qwen_aio.engine.choice import choose_engine, size_of
from qwen_aio.engine.weights.folder import Folder
from qwen_aio.errors import ConnectionLost, HubRefused, InvalidModel, InvalidSettings, ServerUnreachable
from qwen_aio.models.hub import MAX_FAILURES, Hub
from qwen_aio.models.listing import HubFile, Listing
from qwen_aio.models.manifest import differences, read_manifest
from qwen_aio.models.pulling import HubAddress, check_pulled, pull_model, staged
from tests.e2e.processes import ROOT
from tests.models.fake_hub import COMMIT, NAME, WEIGHTS, FakeHub, breaks_after, ranged, serving, tiny_checkpoint

ADDRESS = HubAddress.parse(NAME)
SIZE = len(tiny_checkpoint()[WEIGHTS])
TOKEN = "hf_secret"


class Told:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.num_bytes = 0
        self.begun: list[tuple[Listing, int]] = []
        self.ended: list[str] = []

    def begin(self, listing: Listing, target: Path, *, num_there: int) -> None:
        self.begun.append((listing, num_there))
        self.num_bytes = num_there

    def advance(self, num_bytes: int) -> None:
        self.num_bytes += num_bytes

    def end_file(self, file: HubFile) -> None:
        self.ended.append(file.name)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy") or name.startswith("HF_")]:
        monkeypatch.delenv(name)


@pytest.fixture
async def hub() -> AsyncIterator[FakeHub]:
    async with serving(FakeHub()) as hub:
        yield hub


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "models" / "tiny-chat"


async def pulled(hub: FakeHub, target: Path, address: HubAddress = ADDRESS) -> tuple[Told, list[float]]:
    """What was told, and the waits between attempts."""
    told, waits = Told(), []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    async with Hub(hub.url, token=TOKEN, sleep=sleep) as client:
        await pull_model(
            client,
            address,
            target,
            progress=told,
            check_small=lambda folder: size_of(folder, choose_engine(folder, asked="auto").kind),
            verify=lambda folder: Folder.open(folder).tokenizer,
        )
    return told, waits


async def refused(hub: FakeHub, target: Path, kind: type[Exception] = HubRefused) -> str:
    """Nothing appears but what the next pull goes on with."""
    with pytest.raises(kind) as caught:
        await pulled(hub, target)
    assert not target.parent.exists() or {path.name for path in target.parent.iterdir()} <= {f".pull-{target.name}"}
    message = str(caught.value)
    assert TOKEN not in message and ".pull-" not in message and "\n" not in message
    return message


def assert_is_the_model(folder: Path) -> None:
    assert {
        path.name: path.read_bytes() for path in folder.iterdir() if path.name != "manifest.json"
    } == tiny_checkpoint()
    manifest = read_manifest(folder)
    assert manifest is not None and differences(folder, manifest) == ()
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


async def test_a_model_is_pulled_with_what_is_read_and_what_is_known_of_it(hub, target):
    hub.files |= {
        "pytorch_model.bin": b"x",
        "onnx/model.onnx": b"x",
        "model.safetensors.index.json": b"{}",
        ".gitattributes": b"x",
    }
    told, waits = await pulled(hub, target)
    assert_is_the_model(target)
    manifest = read_manifest(target)
    assert (manifest.source, manifest.hub_name, manifest.revision) == (f"{hub.url}/{NAME}", NAME, "main")
    assert (manifest.commit, manifest.licence) == (COMMIT, "tiny-research")
    total = sum(map(len, tiny_checkpoint().values()))
    assert (told.num_bytes, told.begun[0][0].num_bytes, waits) == (total, total, [])
    assert told.ended[-1] == WEIGHTS and sorted(told.ended) == sorted(tiny_checkpoint())
    assert {each.path.split("/")[4] for each in hub.seen if "/resolve/" in each.path} == {COMMIT}


async def test_the_token_is_sent_to_the_hub_alone(hub, target):
    await pulled(hub, target)
    assert {each.token for each in hub.seen if not each.path.startswith("/lfs/")} == {f"Bearer {TOKEN}"}
    assert {each.token for each in hub.seen if each.path.startswith("/lfs/")} == {None}


async def test_what_breaks_off_goes_on_where_it_was(hub, target):
    content = hub.files[WEIGHTS]
    hub.faults[WEIGHTS] = deque([breaks_after(1000, content), breaks_after(500, content)])
    hub.faults["tokenizer.json"] = deque([breaks_after(7, hub.files["tokenizer.json"])])
    told, waits = await pulled(hub, target)
    assert_is_the_model(target)
    assert [each.range for each in hub.asked_for(WEIGHTS)] == [None, "bytes=1000-", "bytes=1500-"]
    assert [each.range for each in hub.asked_for("tokenizer.json")] == [None, "bytes=7-"]
    assert told.num_bytes == told.begun[0][0].num_bytes
    assert waits == [1.0, 1.0, 2.0]


async def test_a_server_without_ranges_begins_anew(hub, target):
    content = hub.files[WEIGHTS]
    hub.faults[WEIGHTS] = deque([breaks_after(1000, content), lambda _: web.Response(body=content)])
    told, _ = await pulled(hub, target)
    assert_is_the_model(target)
    assert told.num_bytes == told.begun[0][0].num_bytes


async def test_attempts_end_and_the_next_pull_goes_on_with_the_same_commit(hub, target):
    content = hub.files[WEIGHTS]
    hub.faults[WEIGHTS] = deque([breaks_after(1000, content)] * MAX_FAILURES)
    message = await refused(hub, target, ConnectionLost)
    assert "127.0.0.1" in message
    ((listing, num_there),) = staged(target.parent)
    others = sum(len(content) for name, content in hub.files.items() if name != WEIGHTS)
    assert (listing.hub_name, num_there) == (NAME, others + 1000 * MAX_FAILURES)

    hub.seen.clear()
    hub.commit = "d1" * 20  # main has moved
    told, _ = await pulled(hub, target)
    assert_is_the_model(target)
    assert read_manifest(target).commit == COMMIT
    assert [(each.path, each.range) for each in hub.seen if each.path.startswith("/lfs/")] == [
        (f"/lfs/{WEIGHTS}", f"bytes={1000 * MAX_FAILURES}-")
    ]
    assert not any(each.path.startswith("/api/") for each in hub.seen)
    assert (told.begun[0][1], told.num_bytes) == (num_there, listing.num_bytes)


@pytest.mark.parametrize("name", [WEIGHTS, "config.json"])
async def test_a_changed_byte_is_found_and_cured_by_the_next_pull(hub, target, name):
    content = hub.files[name]
    hub.faults[name].append(lambda request: ranged(request, content[:-1] + b"?"))
    message = await refused(hub, target)
    assert message.startswith(f"{name} is not the file that the hub lists")
    await pulled(hub, target)
    assert_is_the_model(target)


async def test_a_changed_byte_of_an_earlier_run_is_found(hub, target):
    hub.faults[WEIGHTS] = deque([breaks_after(1000, hub.files[WEIGHTS])] * MAX_FAILURES)
    await refused(hub, target, ConnectionLost)
    path = target.parent / ".pull-tiny-chat" / "tiny-chat" / WEIGHTS
    path.write_bytes(b"?" + path.read_bytes()[1:])
    assert message_names(await refused(hub, target), WEIGHTS)
    await pulled(hub, target)
    assert_is_the_model(target)


def message_names(message: str, name: str) -> bool:
    return message.startswith(f"{name} ")


async def test_what_came_of_a_listing_that_cannot_be_read_is_not_in_the_model(hub, target):
    staging = target.with_name(f".pull-{target.name}")
    (staging / target.name).mkdir(parents=True)
    (staging / target.name / "chat_template.jinja").write_text("of another commit")
    (staging / "listing.json").write_text("{")
    await pulled(hub, target)
    assert_is_the_model(target)


async def test_another_size_than_the_listed_one_is_refused(hub, target):
    content = hub.files[WEIGHTS]
    hub.faults[WEIGHTS].append(lambda _: web.Response(body=content + b"x"))
    assert f"would bring {SIZE + 1} bytes, where the hub lists {SIZE}" in await refused(hub, target)

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 100_000)

    hub.faults[WEIGHTS].append(endless)
    assert f"more bytes than the {SIZE}" in await refused(hub, target)


async def test_other_bytes_than_those_asked_for_are_refused(hub, target):
    content = hub.files[WEIGHTS]
    told = {"Content-Range": f"bytes 0-{SIZE - 1}/{SIZE}"}
    hub.faults[WEIGHTS] = deque(
        [breaks_after(1000, content), lambda _: web.Response(status=206, body=content, headers=told)]
    )
    assert "asked for its bytes from 1000" in await refused(hub, target)


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (404, "RepoNotFound", "has no model Owner/Tiny-Chat, or it is private"),
        (401, "RepoNotFound", "has no model Owner/Tiny-Chat, or it is private"),
        (404, "RevisionNotFound", "Owner/Tiny-Chat has no revision main"),
        (401, "GatedRepo", "accept the terms at"),
        (403, "GatedRepo", "accept the terms at"),
        (400, "", "answers 400"),
        (304, "", "answers 304"),
    ],
)
async def test_a_refusal_says_what_to_do(hub, target, status, code, said):
    hub.refusal = lambda _: web.Response(status=status, headers={"X-Error-Code": code})
    message = await refused(hub, target)
    assert said in message and hub.url.removeprefix("http://").partition(":")[0] in message
    assert not target.parent.exists() or not list(target.parent.iterdir())


async def test_a_gated_model_is_known_by_its_first_file(hub, target):
    gated = web.Response(status=403, headers={"X-Error-Code": "GatedRepo"})
    hub.faults["LICENSE"].append(lambda _: gated)
    assert "HF_TOKEN to a token of that account (the one that is set does not suffice)" in await refused(hub, target)


async def test_a_server_that_asks_for_patience_gets_it(hub, target):
    hub.faults[WEIGHTS] = deque(
        [lambda _: web.Response(status=429, headers={"Retry-After": "7"}), lambda _: web.Response(status=503)]
    )
    _, waits = await pulled(hub, target)
    assert waits == [7, 2.0]
    assert_is_the_model(target)


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/x", "", "/a b"])
async def test_a_redirect_to_elsewhere_is_not_followed(hub, target, location):
    hub.refusal = lambda _: web.Response(status=302, headers={"Location": location})
    assert "which is not followed" in await refused(hub, target)


async def test_redirects_end(hub, target):
    hub.refusal = lambda request: web.Response(status=307, headers={"Location": request.path_qs})
    assert "redirects more than 5 times" in await refused(hub, target)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<html>", "not as a model hub does"),
        (b"[" * 200_000, "not as a model hub does"),
        (b'{"sha": "main", "siblings": []}', "holds neither"),
        (json.dumps({"sha": COMMIT, "siblings": [{"rfilename": "x"}] * 10_001}).encode(), "not as a model hub does"),
        (b" " * 16_000_001, "more files of Owner/Tiny-Chat than any model has"),
    ],
    ids=["html", "deep", "empty", "many", "large"],
)
async def test_an_answer_that_is_no_listing_is_refused(hub, target, body, said):
    hub.refusal = lambda _: web.Response(body=body)
    assert said in await refused(hub, target, (HubRefused, InvalidModel))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["pytorch_model.bin"], "pytorch_model.bin: pickles, which can run code and are not pulled"),
        (["a-q4.gguf", "b-q8.gguf"], "a-q4.gguf, b-q8.gguf: GGUF (llama.cpp)"),
        (["adapter_config.json", "adapter_model.safetensors"], "an adapter (LoRA)"),
        (["model.safetensors"], "lacks config.json and tokenizer.json"),
    ],
)
async def test_a_repository_without_a_model_is_refused_before_anything_is_fetched(hub, target, files, said):
    hub.files = dict.fromkeys(files, b"x")
    assert said in await refused(hub, target, InvalidModel)
    assert [each.path for each in hub.seen if not each.path.startswith("/api/")] == []


async def test_quantized_weights_are_refused_before_they_are_fetched(hub, target):
    config = json.loads(hub.files["config.json"]) | {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    hub.files["config.json"] = json.dumps(config).encode()
    assert "Owner/Tiny-Chat/config.json: the weights are quantized with GPTQ to 4 bits" in await refused(
        hub, target, InvalidModel
    )
    assert hub.asked_for(WEIGHTS) == []
    assert list(target.parent.iterdir()) == []


async def test_what_cannot_be_loaded_leaves_nothing(hub, target):
    hub.files[WEIGHTS] = b"x" * 100
    assert "Owner/Tiny-Chat/model.safetensors is damaged" in await refused(hub, target, InvalidModel)
    assert list(target.parent.iterdir()) == []


async def test_a_full_disk_is_known_before(hub, target):
    siblings = hub.answer()["siblings"]
    huge = [{"rfilename": f"LICENSE-{number}", "size": 2**40, "blobId": "a" * 40} for number in range(1000)]
    hub.listing = {"siblings": [*siblings, *huge]}
    assert "1099511.6 GB" in await refused(hub, target, InvalidModel)
    assert not any("/resolve/" in each.path for each in hub.seen)


async def test_shards_are_pulled_and_other_weights_left(hub, target):
    content = hub.files.pop(WEIGHTS)
    shard = "model-00001-of-00001.safetensors"
    names = ["model.embed_tokens.weight"]
    hub.files |= {shard: content, "consolidated.safetensors": b"x"}
    hub.files["model.safetensors.index.json"] = json.dumps({"weight_map": dict.fromkeys(names, shard)}).encode()
    told, _ = await pulled(hub, target)
    assert told.ended[-1] == shard and "consolidated.safetensors" not in told.ended


async def test_another_pull_of_the_same_model_is_refused_meanwhile(hub, target):
    staging = target.parent / ".pull-tiny-chat"
    staging.mkdir(parents=True)
    with FileLock(staging / "lock"), pytest.raises(InvalidModel, match="another pull is writing"):
        await pulled(hub, target)
    await pulled(hub, target)
    assert_is_the_model(target)


async def test_an_unfinished_pull_of_another_revision_is_kept(hub, target):
    hub.faults[WEIGHTS] = deque([breaks_after(1000, hub.files[WEIGHTS])] * MAX_FAILURES)
    await refused(hub, target, ConnectionLost)
    with pytest.raises(InvalidModel, match="unfinished pull of Owner/Tiny-Chat@main"):
        await pulled(hub, target, HubAddress.parse(f"{NAME}@v2"))
    await pulled(hub, target)
    assert_is_the_model(target)


async def test_a_model_that_is_here_is_compared_without_the_network(hub, target):
    await pulled(hub, target, HubAddress.parse(f"{NAME}@v1"))
    for revision in (None, "v1", COMMIT):
        assert check_pulled(target, HubAddress(NAME, revision)).commit == COMMIT
    with pytest.raises(InvalidModel, match=r"holds commit c0c0\w+ \(v1\); for v2 choose another name"):
        check_pulled(target, HubAddress(NAME, "v2"))
    with pytest.raises(InvalidModel, match="was not pulled from Other/Tiny-Chat"):
        check_pulled(target, HubAddress("Other/Tiny-Chat", None))
    (target / WEIGHTS).write_bytes(b"?" * SIZE)
    (target / "config.json").unlink()
    (target / "extra.txt").write_text("x")
    with pytest.raises(InvalidModel) as caught:
        check_pulled(target, ADDRESS)
    assert "config.json is missing; model.safetensors is wrong: its SHA-256" in caught.value.message
    assert "extra.txt was added" in caught.value.message


async def test_a_machine_that_is_offline_is_told_so_at_once(target):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        offline = FakeHub(url=f"http://127.0.0.1:{closed.getsockname()[1]}")
        message = await refused(offline, target, ServerUnreachable)
        assert "127.0.0.1 cannot be reached (Connection refused); pulling needs a network" in message
    assert list(target.parent.iterdir()) == []


async def test_the_proxy_of_the_environment_is_used(hub, target, monkeypatch):
    monkeypatch.setenv("http_proxy", hub.url)
    hub.url = "http://hub.invalid"
    await pulled(hub, target)
    assert_is_the_model(target)


async def test_a_host_that_needs_no_proxy_gets_none(hub, target, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert "127.0.0.1 cannot be reached through the proxy 127.0.0.1:9 (" in await refused(
        hub, target, ServerUnreachable
    )
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    await pulled(hub, target)
    assert_is_the_model(target)


async def test_a_proxy_that_refuses_is_named_without_its_password(hub, target, monkeypatch):
    proxy, hub.url = hub.url, "http://hub.invalid"
    hub.refusal = lambda _: web.Response(status=407)
    monkeypatch.setenv("http_proxy", proxy)
    assert "the proxy asks for a name" in await refused(hub, target, ServerUnreachable)
    hub.url = "https://hub.invalid"
    monkeypatch.setenv("https_proxy", proxy.replace("http://", "http://me:secret@"))
    message = await refused(hub, target, ServerUnreachable)
    assert "no way to hub.invalid through the proxy 127.0.0.1:" in message and "secret" not in message
    monkeypatch.setenv("https_proxy", "socks5://127.0.0.1:9")
    assert "as HTTPS_PROXY should be" in await refused(hub, target, InvalidSettings)


@pytest.mark.parametrize(
    "endpoint", ["", "huggingface.co", "ftp://x", "https://me:secret@x", "https://x?y=1", "https://"]
)
def test_an_endpoint_is_an_address(endpoint):
    with pytest.raises(InvalidSettings, match="HF_ENDPOINT is no address") as caught:
        Hub(endpoint)
    assert "secret" not in caught.value.message


def test_a_token_that_breaks_a_header_is_refused():
    with pytest.raises(InvalidSettings, match="HF_TOKEN has characters"):
        Hub("https://x", token="a\nb")


def _num_bytes(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


COMMAND = (sys.executable, "-m", "qwen_aio.cli.main", "models", "pull", NAME)


async def test_a_killed_process_goes_on_where_it_was(hub, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("QWEN_AIO_HOME", str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    content, partial = hub.files[WEIGHTS], tmp_path / "models" / ".pull-tiny-chat" / "tiny-chat" / WEIGHTS
    is_held = asyncio.Event()

    async def held(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = SIZE
        await response.prepare(request)
        await response.write(content[: SIZE // 2])
        is_held.set()
        await asyncio.Event().wait()
        return response

    hub.faults[WEIGHTS].append(held)
    process = await asyncio.create_subprocess_exec(*COMMAND, cwd=ROOT, stdout=asyncio.subprocess.DEVNULL)
    await is_held.wait()
    while not _num_bytes(partial):  # noqa: ASYNC110  the file signals nothing
        await asyncio.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert await process.wait() == -signal.SIGKILL
    kept = _num_bytes(partial)
    assert [path.name for path in (tmp_path / "models").iterdir()] == [".pull-tiny-chat"]

    assert await asyncio.to_thread(main, ["models", "pull", NAME]) == 0
    assert hub.asked_for(WEIGHTS)[-1].range == f"bytes={kept}-"
    assert_is_the_model(tmp_path / "models" / "tiny-chat")
    output = capsys.readouterr().out
    assert "licence: tiny-research; see" in output and "are here already" in output
    assert output.index("licence") < output.index("as listed")

    hub.seen.clear()
    assert await asyncio.to_thread(main, ["models", "pull", NAME]) == 0
    assert f"is here, commit {COMMIT}: 5 files are as recorded" in capsys.readouterr().out
    assert hub.seen == []
