"""qwen_aio.toml after a program has written to it: nothing that a person wrote is lost."""

from __future__ import annotations

import stat
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_aio.errors import InvalidSettings
from qwen_aio.tuning.toml_edit import check_writable, read_settings_file, with_values, write_settings_file

VALUES = {"workers": "2", "max_batch_tokens": 128}
KEYS = ("host", "workers", "kv_mb", "max_batch_tokens", "allowed_hosts")


def test_a_new_file_has_the_heading_and_the_keys(tmp_path):
    path = tmp_path / "home" / "qwen_aio.toml"
    write_settings_file(path, VALUES, heading="found\nhere")
    assert path.read_text() == '# found\n# here\nworkers = "2"\nmax_batch_tokens = 128\n'
    assert read_settings_file(path) == VALUES


def test_comments_order_and_other_keys_stay():
    before = (
        "# mine\n\n"
        'host = "0.0.0.0" # "workers = 3" is below\n'
        'workers = "a#b"   # ask Ann\n'
        "allowed_hosts = [\n  # the shop\n  'shop.lan',\n]\n"
        "kv_mb = 64"
    )
    assert with_values(before, VALUES, heading="found") == (
        "# mine\n\n"
        'host = "0.0.0.0" # "workers = 3" is below\n'
        'workers = "2"   # ask Ann\n'
        "allowed_hosts = [\n  # the shop\n  'shop.lan',\n]\n"
        "kv_mb = 64\n\n# found\nmax_batch_tokens = 128\n"
    )


def test_a_value_that_is_no_number_stays(tmp_path):
    path = tmp_path / "qwen_aio.toml"
    path.write_text("slow_ms = nan\n[table]\nup = -inf\n")
    write_settings_file(path, {"workers": "2"}, heading="found")
    assert path.read_text() == 'slow_ms = nan\n\n# found\nworkers = "2"\n\n[table]\nup = -inf\n'


def test_what_is_set_twice_is_written_once():
    once = with_values("", VALUES, heading="found")
    assert with_values(once, VALUES, heading="found") == once
    assert with_values(once, {"workers": "3"}, heading="found") == once.replace('"2"', '"3"')


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("workers = [\n'a', # one\n'b']# two\nport = 1\n", 'workers = "2"# two\nport = 1\n'),
        ('"workers" = "1"\r\nport = 1\r\n', 'workers = "2"\r\nport = 1\r\n'),
        ("id = '''\nworkers = 9\n'''\nworkers='1'", "id = '''\nworkers = 9\n'''\nworkers = \"2\""),
    ],
)
def test_a_value_may_span_lines_and_look_like_another(before, after):
    assert with_values(before, {"workers": "2"}, heading="found") == after


def test_new_keys_stand_before_the_first_table():
    changed = with_values("[table]\nworkers = 1\n", {"workers": "2"}, heading="found")
    assert tomllib.loads(changed) == {"workers": "2", "table": {"workers": 1}}


@pytest.mark.parametrize("damaged", [b"port = ", b"\xff\xfe", b"workers = 1\nworkers = 2\n"])
def test_a_damaged_file_is_an_error_and_stays_as_it_is(tmp_path, damaged):
    path = tmp_path / "qwen_aio.toml"
    path.write_bytes(damaged)
    for attempt in (read_settings_file, lambda path: write_settings_file(path, VALUES, heading="")):
        with pytest.raises(InvalidSettings, match=r"qwen_aio\.toml .*mend it"):
            attempt(path)
    assert path.read_bytes() == damaged


def test_the_file_is_replaced_as_a_whole_and_a_link_stays_a_link(tmp_path):
    target, link = tmp_path / "real.toml", tmp_path / "qwen_aio.toml"
    target.write_text("port = 1\n")
    target.chmod(0o640)
    link.symlink_to(target)
    held = target.open()  # a process that has the old file open still reads the whole of it
    write_settings_file(link, VALUES, heading="found")
    assert held.read() == "port = 1\n"
    held.close()
    assert link.is_symlink()
    assert tomllib.loads(target.read_text()) == {"port": 1, **VALUES}
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == ["qwen_aio.toml", "real.toml"]


def test_a_place_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidSettings, match="cannot be written"):
        write_settings_file(tmp_path / "file" / "qwen_aio.toml", VALUES, heading="found")


lines = st.sampled_from(
    [
        "",
        "# a comment",
        '   # workers = "9"',
        "host = 'a#b' # c",
        "workers = [\n 'a', # b\n]  # d",
        'kv_mb = 1\t# e\u2028"',
        "max_batch_tokens=0x10",
        'allowed_hosts = """\n# f\nworkers = 1\n"""',
    ]
)


@given(st.lists(lines, unique_by=lambda line: line.split("=")[0].strip() or line), st.sampled_from(["", "\n"]))
def test_any_file_means_the_same_afterwards_but_for_what_was_set(found, end):
    before = "\n".join(found) + end
    after = with_values(before, VALUES, heading="found")
    assert tomllib.loads(after) == {**tomllib.loads(before), **VALUES}
    for line in found:
        if not line.startswith(("workers", "max_batch_tokens")):
            assert line in after


def test_a_byte_order_mark_stays(tmp_path):
    path = tmp_path / "qwen_aio.toml"
    path.write_bytes(b'\xef\xbb\xbfworkers = "1"\r\n')
    assert read_settings_file(path) == {"workers": "1"}
    write_settings_file(path, {"workers": "2"}, heading="found")
    assert path.read_bytes() == b'\xef\xbb\xbfworkers = "2"\r\n'


def test_what_is_no_plain_file_is_refused_before_it_is_read(tmp_path):
    for path in (tmp_path, Path("/dev/zero")):
        with pytest.raises(InvalidSettings, match="is not a plain file"):
            read_settings_file(path)


def test_whether_a_file_can_be_written_is_known_before(tmp_path):
    path = tmp_path / "new" / "qwen_aio.toml"
    check_writable(path)
    assert list(path.parent.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(InvalidSettings, match=r"cannot be written: .* choose another file with --out"):
        check_writable(tmp_path / "file" / "qwen_aio.toml")
