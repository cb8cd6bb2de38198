import pytest

from qwen_aio.balancer.balancer import Balancer
from qwen_aio.balancer.workers.clients import WorkerClients
from qwen_aio.balancer.workers.discovery import Discovery, DnsName
from qwen_aio.config import Settings
from qwen_aio.egress.guard import EgressGuard
from qwen_aio.egress.peers import Peers
from qwen_aio.errors import InvalidSettings
from qwen_aio.serving.admission import AdmissionGate


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


async def test_the_egress_guard_lets_through_the_workers_of_now_and_no_others():
    peers = Peers()
    clients = WorkerClients(peers)
    clients.to("http://10.0.0.7:7861")
    clients.to("http://10.0.0.8:7861")
    assert peers.may_reach("10.0.0.7", 7861)
    assert not peers.may_reach("10.0.0.7", 7862)
    await clients.keep({"http://10.0.0.8:7861"})
    assert not peers.may_reach("10.0.0.7", 7861)
    assert peers.may_reach("10.0.0.8", 7861)


def test_the_egress_guard_lets_the_names_of_workers_be_looked_up(tmp_path):
    egress = EgressGuard()
    Balancer(Settings(workers=("dns:workers.lan:7861",)), AdmissionGate(), status_dir=tmp_path, egress=egress)
    assert egress.peers.may_look_up("workers.lan")
    assert not egress.peers.may_look_up("others.lan")
