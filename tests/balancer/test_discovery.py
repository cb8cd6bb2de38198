import pytest

from qwen_aio.balancer.workers.discovery import Discovery, DnsName
from qwen_aio.errors import InvalidSettings


def test_without_a_setting_all_workers_are_taken():
    assert Discovery.parse(()).takes_all


def test_ids_addresses_and_names():
    found = Discovery.parse(("qwen-1", "far=http://10.0.0.7:7861/", "dns:workers.local:7861"))
    assert found.ids == ("qwen-1",)
    assert found.urls == (("far", "http://10.0.0.7:7861"),)
    assert found.names == (DnsName("workers.local", 7861),)
    assert not found.takes_all


@pytest.mark.parametrize(
    "part",
    [
        "qwen 1",
        "",
        "a=ftp://host:1",
        "a=http://",
        "a=http://host:99999",
        "a=http://host:0",
        "a=http://user@host:1",
        "a=http://host:1/path",
        "a=http://host:1?x",
        "dns:name",
        "dns:name:0",
        "dns:na me:1",
        "ü=http://h:1",
        "=http://h:1",
    ],
)
def test_a_part_that_makes_no_sense_is_named(part):
    with pytest.raises(InvalidSettings, match="--workers"):
        Discovery.parse((part,))


def test_an_id_may_be_named_only_once():
    with pytest.raises(InvalidSettings, match="twice"):
        Discovery.parse(("a", "a=http://h:1"))


@pytest.mark.parametrize(
    ("address", "worker"),
    [
        ("10.0.0.7", ("10.0.0.7-7861", "http://10.0.0.7:7861")),
        ("fd00::7", ("fd00--7-7861", "http://[fd00::7]:7861")),
    ],
)
def test_an_address_of_a_name_becomes_an_id(address, worker):
    assert DnsName("n", 7861).worker(address) == worker
