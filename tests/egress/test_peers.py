"""Which addresses pass: those of this machine, and peers by exact host and port."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_aio.egress.peers import MAX_ADDRESSES, Peers, is_here, plain_host

PORTS = st.integers(0, 65535)
LOOPBACK = st.ip_addresses(v=4, network="127.0.0.0/8")
IPV4 = st.ip_addresses(v=4)
IPV6 = st.ip_addresses(v=6)
FOREIGN = st.one_of(IPV4, IPV6).filter(lambda address: not address.is_loopback and not of_loopback(address))
LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
NAMES = st.lists(LABEL, min_size=1, max_size=4).map(".".join).filter(lambda name: not is_numeric(name))


def of_loopback(address: IPv4Address | IPv6Address) -> bool:
    return isinstance(address, IPv6Address) and address.ipv4_mapped is not None and address.ipv4_mapped.is_loopback


def is_numeric(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def peers(*urls: str) -> Peers:
    found = Peers()
    for url in urls:
        found.add(url)
    return found


def in_url(address: IPv4Address | IPv6Address) -> str:
    return f"[{address}]" if address.version == 6 else str(address)


@given(LOOPBACK, PORTS)
def test_every_loopback_address_passes_in_every_spelling(address, port):
    spellings = (str(address), f"::ffff:{address}", f"::FFFF:{address}", f"::ffff:{address}%lo", str(address).encode())
    assert all(Peers().may_reach(spelling, port) for spelling in spellings)


@pytest.mark.parametrize("host", ["::1", "0:0:0:0:0:0:0:1", "::1%lo", "::1%1", "localhost", "LocalHost.", b"localhost"])
def test_this_machine_passes_by_its_other_names(host):
    assert Peers().may_reach(host, 80)
    assert Peers().may_look_up(host)


@given(FOREIGN, PORTS)
def test_no_other_address_passes_in_any_spelling(address, port):
    spellings = {str(address), str(address).encode(), address.exploded, plain_host(str(address))}
    if address.version == 4:
        spellings |= {f"::ffff:{address}", f"64:ff9b::{address}"}
    else:
        spellings |= {f"{address}%eth0", f"{address}%2"}
    assert not any(Peers().may_reach(spelling, port) for spelling in spellings)
    assert not any(Peers().may_ask_about(spelling) for spelling in spellings)


@pytest.mark.parametrize(
    "host",
    [
        *("", "0.0.0.0", "::", "127.1", "0x7f.1", "2130706433", "127.0.0.1.", "127.0.0.1.example.org", "[::1]"),
        *("localhost.example.org", "xlocalhost", "localhost..", "<broadcast>", "255.255.255.255", "fe80::1%lo"),
        *("127.0.0.1\0", " 127.0.0.1", "127.0.0.1%lo", "１２７.0.0.1", None, 2130706433),
    ],
)
def test_what_only_looks_like_this_machine_does_not_pass(host):
    assert not Peers().may_reach(host, 80)


@given(NAMES)
def test_names_are_looked_up_for_peers_alone(name):
    there = peers(f"http://{name}:7861")
    assert there.may_look_up(name)
    assert there.may_look_up(f"{name.upper()}.")
    assert there.may_look_up(name.encode())
    assert not there.may_look_up(f"x.{name}")
    assert not there.may_look_up(f"{name}.x")
    assert Peers().may_look_up(name) == (name == "localhost")


@given(st.one_of(FOREIGN.map(in_url), NAMES), st.integers(1, 65535), st.integers(1, 65535))
def test_a_peer_passes_at_its_own_port_alone(host, port, other):
    there = peers(f"http://{host}:{port}")
    assert there.may_reach(host.strip("[]"), port)
    assert there.may_reach(host.strip("[]"), other) == (other == port or is_here(plain_host(host.strip("[]"))))


@given(FOREIGN, FOREIGN)
def test_an_address_is_no_other_address(address, other):
    there = peers(f"http://{in_url(address)}:7861")
    assert there.may_reach(str(other), 7861) == (plain_host(str(other)) == plain_host(str(address)))


@given(st.text())
def test_any_host_has_an_answer(host):
    assert Peers().may_reach(host, 80) == is_here(plain_host(host))
    assert peers(host).may_reach("192.0.2.1", 80) is False


def test_a_peer_of_a_name_is_where_its_look_ups_led():
    there = peers("http://worker.lan:7861")
    assert not there.may_reach("10.0.0.7", 7861)
    there.learn("Worker.lan", ["10.0.0.7", "fd00::7"])
    there.learn("other.lan", ["10.0.0.9"])
    assert there.may_reach("10.0.0.7", 7861)
    assert there.may_reach("fd00::7", 7861)
    assert not there.may_reach("10.0.0.7", 22)
    assert not there.may_reach("10.0.0.9", 7861)


def test_addresses_of_a_name_are_bounded_and_the_newest_stay():
    there = peers("http://worker.lan:7861")
    for number in range(MAX_ADDRESSES + 1):
        there.learn("worker.lan", [f"10.0.0.{number}"])
    assert not there.may_reach("10.0.0.0", 7861)
    assert there.may_reach(f"10.0.0.{MAX_ADDRESSES}", 7861)


def test_a_peer_that_has_left_passes_no_more():
    there = peers("http://worker.lan:7861", "http://10.0.0.8:7861")
    there.learn("worker.lan", ["10.0.0.7"])
    there.remove("http://worker.lan:7861")
    assert not there.may_look_up("worker.lan")
    assert not there.may_reach("10.0.0.7", 7861)
    assert there.may_reach("10.0.0.8", 7861)


def test_a_worker_that_begins_to_speak_tls_stays_a_peer():
    there = peers("http://10.0.0.7:7861", "https://10.0.0.7:7861")
    there.remove("http://10.0.0.7:7861")
    assert there.may_reach("10.0.0.7", 7861)


@pytest.mark.parametrize(("url", "port"), [("http://far.lan", 80), ("https://far.lan/", 443)])
def test_a_url_without_a_port_has_the_port_of_its_scheme(url, port):
    assert peers(url).may_reach("far.lan", port)
    assert not peers(url).may_reach("far.lan", 523 - port)


def test_a_name_beyond_ascii_is_the_same_in_both_spellings():
    there = peers("http://wörker.lan:7861")
    assert there.may_look_up("xn--wrker-jua.lan")
    assert there.may_reach("WÖRKER.lan", 7861)
