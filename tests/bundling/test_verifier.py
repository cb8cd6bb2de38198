"""The installer's look at an unpacked bundle: whatever differs is named, and no name leads out of the folder."""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import re
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from string import Formatter

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from qwen_aio.bundling.archive import Entry, write_archive
from qwen_aio.bundling.top import installer
from qwen_aio.errors import BundleFailed
from qwen_aio.startup.language import operators_language

FILES = {
    "app.py": b"print()",
    "bundle.json": b"{}",
    "prompts/chat/task.toml": b"kind = 'generate'",
    "wheels/tinydep-1.0+cpu-py3-none-any.whl": bytes(range(256)),
    "licenses/SUMMARY.txt": b"",
}
names = st.sampled_from(sorted(FILES))


@contextmanager
def bundle() -> Iterator[Path]:
    """An unpacked one; hypothesis needs a new folder for each example."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name, content in FILES.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        lines = [f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in FILES.items()]
        (folder / "MANIFEST").write_text("".join(lines))
        yield folder


def wrong(folder: Path, *, may_have_more: bool = False) -> list[str]:
    return installer.wrong_files(folder, installer.listed_files(folder), may_have_more=may_have_more)


@pytest.fixture(autouse=True)
def _in_english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C.UTF-8")


def test_nothing_is_wrong_with_what_was_bundled():
    with bundle() as folder:
        assert wrong(folder) == []


@given(name=names, position=st.integers(0, 255), flip=st.integers(1, 255))
def test_a_flipped_byte_is_named(name, position, flip):
    assume(position < len(FILES[name]))
    with bundle() as folder:
        content = bytearray(FILES[name])
        content[position] ^= flip
        (folder / name).write_bytes(content)
        assert wrong(folder) == [f"{name} is wrong: its SHA-256 differs"]


@given(name=names, more=st.binary(min_size=1, max_size=9), cut=st.integers(1, 300))
def test_bytes_that_are_added_or_cut_off_are_named(name, more, cut):
    with bundle() as folder:
        (folder / name).write_bytes(FILES[name] + more)
        assert wrong(folder) == [f"{name} is wrong: its SHA-256 differs"]
        (folder / name).write_bytes(FILES[name][:-cut])
        assert wrong(folder) == ([f"{name} is wrong: its SHA-256 differs"] if FILES[name] else [])


@given(missing=st.sets(names, min_size=1))
def test_missing_files_are_named(missing):
    with bundle() as folder:
        for name in missing:
            (folder / name).unlink()
        assert wrong(folder) == [f"{name} is missing" for name in sorted(missing)]


part = st.text("abcXY09._-+ é,", min_size=1, max_size=8).filter(lambda name: name not in (".", ".."))


@given(parts=st.lists(part, min_size=1, max_size=3))
def test_added_files_are_named(parts):
    name = "/".join(parts)
    assume(name not in FILES and not any(listed.startswith(f"{name}/") for listed in FILES))
    assume(not any(name.startswith(f"{listed}/") for listed in FILES))
    assume(name not in (*installer.SETTINGS, *installer.MARKS))
    with bundle() as folder:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
        assert wrong(folder) == [f"{name} was added"]
        assert wrong(folder, may_have_more=True) == []


@pytest.mark.parametrize("name", ["wheels", "app.py", "wheels/tinydep-1.0+cpu-py3-none-any.whl"])
def test_a_link_is_no_file_of_the_bundle_though_the_right_bytes_are_behind_it(name, tmp_path):
    with bundle() as folder:
        (folder / name).rename(tmp_path / "moved")
        (folder / name).symlink_to(tmp_path / "moved")
        assert any(line.startswith((f"{name} is no plain file", f"{name} was added")) for line in wrong(folder))


def test_settings_and_marks_may_lie_there_before():
    with bundle() as folder:
        for name in (*installer.SETTINGS, *installer.MARKS[1:], ".venv/bin/python"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(b"")
        assert wrong(folder) == []


PATH = st.one_of(
    st.text(max_size=20),
    st.lists(st.sampled_from(["..", ".", "", "a", "C:", "\\", "a\\..", "~", "a:b", "\0", "wheels"]), max_size=4).map(
        "/".join
    ),
)


@given(path=PATH)
def test_no_name_in_a_manifest_leads_out_of_the_folder(path):
    with bundle() as folder:
        with (folder / "MANIFEST").open("a", encoding="utf-8", errors="surrogatepass", newline="") as file:
            file.write(f"{'0' * 64}  {path}\n")
        try:
            listed = installer.listed_files(folder)
        except installer.Refused as exc:
            assert "MANIFEST" in str(exc)
            return
        assert all(re.fullmatch(r"[\w.+-]+(/[\w.+-]+)*", name) for name in listed)
        assert all(not part.startswith(".") for name in listed for part in name.split("/"))


@given(
    content=st.one_of(st.binary(max_size=200), st.text(max_size=100).map(lambda text: text.encode("utf-8", "replace")))
)
def test_a_damaged_manifest_is_refused(content):
    with bundle() as folder:
        (folder / "MANIFEST").write_bytes(content)
        with pytest.raises(installer.Refused):
            wrong(folder)


@given(path=st.one_of(PATH, st.lists(part, min_size=1, max_size=3).map("/".join)))
def test_a_name_that_the_archive_takes_is_one_that_the_installer_takes(path):
    with tempfile.TemporaryDirectory() as place:
        tar = Path(place, "out.tar")
        try:
            write_archive(tar, [Entry(path, b"content")], top="top")
        except BundleFailed as exc:
            assert "is no name that an installer takes" in str(exc)
            return
        with tarfile.open(tar) as archive:
            archive.extractall(place, filter="data")
        assert wrong(Path(place, "top")) == []


def test_a_file_that_is_listed_twice_is_refused():
    with bundle() as folder:
        with (folder / "MANIFEST").open("a") as file:
            file.write(f"{'0' * 64}  app.py\n")
        with pytest.raises(installer.Refused, match=r"line 6 .* is damaged"):
            installer.listed_files(folder)


# ---- a model that was unpacked into the folder, with its own record ----


def with_model(folder: Path, record: object) -> Path:
    model = folder / "models/mine"
    model.mkdir(parents=True)
    (model / "config.json").write_bytes(b"{}")
    (model / "manifest.json").write_text(json.dumps(record))
    return model


RIGHT = {"files": {"config.json": {"size": 2, "sha256": hashlib.sha256(b"{}").hexdigest()}}}


def test_an_added_model_is_compared_with_its_own_record():
    with bundle() as folder:
        model = with_model(folder, RIGHT)
        assert wrong(folder) == []
        (model / "more.bin").write_bytes(b"")
        (model / "config.json").write_bytes(b"[]")
        assert wrong(folder) == [
            "models/mine/more.bin was added",
            "models/mine/config.json is wrong: its SHA-256 differs",
        ]
        (model / "config.json").unlink()
        assert "models/mine/config.json is missing" in wrong(folder)


leaf = st.one_of(st.none(), st.integers(), st.text(max_size=5))
known = leaf | st.dictionaries(st.sampled_from(["sha256", "size"]), leaf)
files = leaf | st.lists(leaf, max_size=2) | st.dictionaries(st.sampled_from(["config.json", "a/../../b", ""]), known)


@given(record=leaf | st.lists(leaf, max_size=2) | st.dictionaries(st.sampled_from(["files", "version"]), files))
def test_a_record_of_any_shape_is_refused_in_words(record):
    with bundle() as folder:
        with_model(folder, record)
        assert wrong(folder)


@pytest.mark.parametrize("name", installer.MESSAGES)
def test_every_message_says_the_same_in_both_languages(name):
    english, chinese = installer.MESSAGES[name]
    assert not re.search("[\u4e00-\u9fff]", english) and re.search("[\u4e00-\u9fff]", chinese)
    assert holes_of(english) == holes_of(chinese)


def holes_of(message: str) -> set[str]:
    return {hole for _, hole, _, _ in Formatter().parse(message) if hole}


def test_every_message_is_there_and_used():
    calls = [node for node in ast.walk(ast.parse(inspect.getsource(installer))) if isinstance(node, ast.Call)]
    named = [call.args[0] for call in calls if getattr(call.func, "id", "") in ("text", "tell")]
    words = [node.value for each in named for node in ast.walk(each) if isinstance(node, ast.Constant)]
    assert set(words) == set(installer.MESSAGES)


@pytest.mark.parametrize(
    ("environment", "is_chinese"),
    [
        ({"LC_ALL": "zh_CN.UTF-8"}, True),
        ({"LC_ALL": "en_GB.UTF-8", "LANG": "zh_CN.UTF-8"}, False),
        ({"LC_ALL": "", "LC_MESSAGES": "", "LANG": "zh_TW"}, True),
        ({"LC_ALL": "zh_CN.UTF-8", "QWEN_AIO_LANG": "en"}, False),
        ({"QWEN_AIO_LANG": "zh"}, True),
    ],
)
def test_the_language_is_the_one_that_the_program_takes(monkeypatch, environment, is_chinese):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert (installer.text("next") == "接下来：") == is_chinese == (operators_language() == "zh")


def test_a_flag_settles_the_language(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(installer, "__file__", str(tmp_path / "installer.py"))
    monkeypatch.setenv("QWEN_AIO_LANG", "en")  # so that it is put back
    assert installer.main(["--lang", "zh"]) == 1
    assert capsys.readouterr().err == f"install.sh: 无法读取 {tmp_path.resolve()}/MANIFEST：请重新解压安装包\n"
