"""The answer of an unknown server: names, sizes and addresses that are meant to do harm."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from yarl import URL

from qwen_aio.errors import HubRefused, InvalidModel, InvalidSettings
from qwen_aio.models.hub import redirect_target
from qwen_aio.models.listing import Listing, read_listing
from qwen_aio.models.pulling import HubAddress

SHA1, SHA256 = "a" * 40, "b" * 64
NEEDED = ("config.json", "tokenizer.json", "model.safetensors")
HOSTILE_PARTS = st.sampled_from(
    ["..", ".", "", "/", "\\", "C:", "\0", "\n", "\x1b[31m", "~", "%2e%2e", "LICENSE", "README.md", *NEEDED]
)
NAMES = st.one_of(st.text(), st.lists(HOSTILE_PARTS).map("/".join), st.lists(HOSTILE_PARTS).map("".join))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def sibling(name: str, size: object = 1, **more: object) -> dict[str, object]:
    return {"rfilename": name, "size": size, "blobId": SHA1} | more


def listed(*siblings: object, **more: object) -> Listing:
    body = {"sha": SHA1, "siblings": [*map(sibling, NEEDED), *siblings]} | more
    return read_listing(json.dumps(body).encode("utf-8", "surrogatepass"), hub_name="a/b", revision="main")


@given(NAMES)
@example("../config.json")
@example("/etc/LICENSE")
@example("..\\LICENSE")
@example("LICENSE\n")
@example("LICENSE:stream")
def test_a_name_never_leads_out_of_the_folder(name):
    try:
        files = listed(sibling(name)).files
    except (ValueError, InvalidModel):
        return
    for file in files:
        assert PurePosixPath(file.name).name == PureWindowsPath(file.name).name == file.name
        assert (Path("/models/x") / file.name).parent == Path("/models/x")
        assert file.name.isascii() and file.name.isprintable() and file.name not in (".", "..")


@settings(max_examples=50)
@given(
    st.lists(st.fixed_dictionaries({"rfilename": NAMES}, optional={"size": JSON, "lfs": JSON, "blobId": JSON})), JSON
)
def test_any_answer_is_a_listing_or_refused(siblings, card):
    try:
        listing = listed(*siblings, cardData=card)
    except (ValueError, InvalidModel):
        return
    assert listing.licence is None or listing.licence.isprintable()
    assert all(0 <= file.size <= 2**40 for file in listing.files)
    assert Listing.model_validate_json(listing.model_dump_json()) == listing


@pytest.mark.parametrize(
    "wrong",
    [
        sibling("LICENSE", size=-1),
        sibling("LICENSE", size=2**60),
        sibling("LICENSE", size=None),
        sibling("LICENSE", size=True),
        sibling("LICENSE", blobId=None),
        sibling("LICENSE", blobId="x"),
        sibling("LICENSE", lfs={"sha256": SHA1, "size": 1}),
        sibling("config.json"),
    ],
    ids=str,
)
def test_a_file_without_a_sound_size_and_hash_is_refused(wrong):
    with pytest.raises(ValueError, match=r"."):
        listed(wrong)


@pytest.mark.parametrize("sha", ["main", "A" * 40, "", f"{SHA1}/../x"])
def test_a_commit_is_a_hash(sha):
    with pytest.raises(ValueError, match="commit"):
        listed(sha=sha)


@pytest.mark.parametrize(
    ("fields", "licence"),
    [
        ({"cardData": {"license": "other", "license_name": "tongyi-qianwen-research"}}, "tongyi-qianwen-research"),
        ({"cardData": {"license": "apache-2.0"}}, "apache-2.0"),
        ({"tags": ["qwen2", "license:mit"]}, "mit"),
        ({"cardData": {"license": ["mit"]}, "tags": ["license:mit"]}, "mit"),
        ({"cardData": {"license": "a\x1b[31mb"}}, "a?[31mb"),
        ({}, None),
    ],
)
def test_the_licence_is_what_the_card_says(fields, licence):
    assert listed(**fields).licence == licence


def test_the_small_files_come_first():
    names = [file.name for file in listed(sibling("LICENSE"), sibling("vocab.json")).files]
    assert names == ["LICENSE", "config.json", "tokenizer.json", "model.safetensors"]


@given(st.one_of(st.text(), st.text(alphabet="htpsf:/.@a[]%?#&=1 -")))
def test_a_redirect_leads_to_an_address_of_https_or_is_refused(location):
    try:
        target = redirect_target(URL("https://hub.example/a/b"), location, scheme="https")
    except HubRefused:
        return
    assert target.scheme == "https" and target.host
    assert target.origin().is_absolute()


@pytest.mark.parametrize("location", ["http://hub.example/x", "file:///x", "ftp://x/y", "javascript:x", "x\r\ny", "é"])
def test_a_redirect_does_not_leave_https(location):
    with pytest.raises(HubRefused, match="which is not followed"):
        redirect_target(URL("https://hub.example/a"), location, scheme="https")


def test_a_signed_address_stays_as_it_is():
    signed = "https://cdn.example/x%2Fy?Signature=a%2Bb~c%3D&Key=1"
    assert str(redirect_target(URL("https://hub.example/a"), signed, scheme="https")) == signed
    assert str(redirect_target(URL("https://hub.example/a/b"), "/c?d", scheme="https")) == "https://hub.example/c?d"


@given(st.text())
@example("a/b/c")
@example("../b")
@example("a/..")
@example("a/b@")
@example("a/b@-x")
@example("https://huggingface.co/Qwen/Qwen1.5-0.5B-Chat")
def test_only_names_of_models_are_asked_for(text):
    try:
        address = HubAddress.parse(text)
    except InvalidSettings:
        return
    assert all(part not in ("", ".", "..") for part in address.hub_name.split("/"))
    assert text == address.hub_name + (f"@{address.revision}" if address.revision else "")


def test_a_revision_may_have_slashes():
    assert HubAddress.parse("Qwen/Qwen1.5-0.5B-Chat@refs/pr/2") == HubAddress("Qwen/Qwen1.5-0.5B-Chat", "refs/pr/2")
