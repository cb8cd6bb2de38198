import json

import pytest

from qwen_aio.balancer.workers.admin import AdminFile
from qwen_aio.errors import InvalidSettings, StatusUnwritable


def test_what_was_decided_survives(tmp_path):
    AdminFile(tmp_path).write({"qwen-1": "maint", "qwen-2": "drain"})
    assert AdminFile(tmp_path).read() == {"qwen-1": "maint", "qwen-2": "drain"}


def test_a_byte_order_mark_changes_nothing(tmp_path):
    (tmp_path / "admin.json").write_text('{"qwen-1": "drain"}', encoding="utf-8-sig")
    assert AdminFile(tmp_path).read() == {"qwen-1": "drain"}


def test_nothing_was_decided_before_the_first_time(tmp_path):
    assert AdminFile(tmp_path).read() == {}


@pytest.mark.parametrize(
    "content",
    ["[" * 100_000, "", "null", "[]", "{", '{"a": 1}', '{"a": "asleep"}', "\ud800".encode("utf-8", "replace")],
)
def test_a_damaged_file_counts_as_nothing_decided(tmp_path, content):
    path = tmp_path / "admin.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert AdminFile(tmp_path).read() == {}


def test_a_folder_instead_of_the_file_is_reported(tmp_path):
    (tmp_path / "admin.json").mkdir()
    assert AdminFile(tmp_path).read() == {}
    with pytest.raises(StatusUnwritable, match=r"admin\.json"):
        AdminFile(tmp_path).write({"a": "maint"})


def test_a_second_balancer_on_the_same_folder_is_refused_until_the_first_ends(tmp_path):
    first, second = AdminFile(tmp_path), AdminFile(tmp_path)
    with first.owned(), pytest.raises(InvalidSettings, match="another balancer"), second.owned():
        pass
    with AdminFile(tmp_path).owned():
        pass


def test_a_folder_that_cannot_be_used_is_reported(tmp_path):
    (tmp_path / "status").write_text("a file")
    with pytest.raises(InvalidSettings, match="--status-dir"), AdminFile(tmp_path / "status").owned():
        pass


def test_the_file_is_plain_json_for_people(tmp_path):
    AdminFile(tmp_path).write({"qwen-1": "maint"})
    assert json.loads((tmp_path / "admin.json").read_text()) == {"qwen-1": "maint"}
