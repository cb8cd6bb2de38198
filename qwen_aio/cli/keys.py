"""Keys: who may use the servers that read this file of keys; running ones notice every change.

qwen-aio keys add alice            prints the key, once
qwen-aio keys add ops --admin      may use the dashboard's buttons, too
qwen-aio keys list
qwen-aio keys revoke alice
"""

from __future__ import annotations

import argparse
import ipaddress
import socket

from qwen_aio.config import PAGE_PORT, Settings, is_loopback, keys_file
from qwen_aio.errors import InvalidSettings
from qwen_aio.serving.access.keys import SERVICE, KeyFile, KeyRole, new_secret, write_private
from qwen_aio.startup.flags import add_settings_flags, settings_from
from qwen_aio.startup.listening import url_of
from qwen_aio.startup.messages import say

ELSEWHERE = "192.0.2.1"  # an address for documentation; nothing is sent to it
CURL = (
    "curl -s {url}/v1/run -H 'Authorization: Bearer {key}' "
    """-H 'Content-Type: application/json' -d '{{"text": "快递太慢了,差评!"}}'"""
)
TOLD = """\
{key}
This is the key of {name} ({role}). It is shown this once and kept nowhere; {file} has its hash.

Others reach this machine at {host}, if the server listens there:
  python app.py --host {listen} --allowed-hosts {host}
In a browser: {url} asks for the key. In a program (a cluster has /v1 on its balancer's port, {balancer_port}):
  {curl}
{travels}"""
UNENCRYPTED = (
    "The key travels unencrypted; over networks that you do not trust, start the server with --tls-certificate "
    "(docs/security.md)."
)
ENCRYPTED = "The key travels encrypted."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    adding = actions.add_parser("add", help="make a key and print it")
    adding.add_argument("name", metavar="NAME", help="whose key it is")
    adding.add_argument("--admin", action="store_true", help="also for the dashboard's buttons and /admin")
    add_settings_flags(adding, "keys_file")
    add_settings_flags(actions.add_parser("list", help="names, roles and days, no keys"), "keys_file")
    revoking = actions.add_parser("revoke", help="end a key, and the sessions of browsers that signed in with it")
    revoking.add_argument("name", metavar="NAME", help="whose key it is")
    add_settings_flags(revoking, "keys_file")


def main(arguments: argparse.Namespace) -> int:
    """Change or show the file; the exit status. Raises InvalidSettings."""
    settings = settings_from(arguments)
    file = KeyFile(keys_file(settings))
    match arguments.action:
        case "add":
            role: KeyRole = "admin" if arguments.admin else "user"
            say(describe_key(_add(file, arguments.name, role), settings, name=arguments.name, role=role))
        case "list":
            for key in file.read():
                print(f"{key.name}  {key.role}  {key.created}")
        case "revoke":
            file.revoke(arguments.name)
            say(f"{arguments.name} is revoked; running servers know it already")
    return 0


def describe_key(secret: str, settings: Settings, *, name: str, role: KeyRole) -> str:
    """What its owner needs to know, the key included."""
    host = public_host(settings)
    has_tls = settings.tls_certificate is not None
    url = url_of(host, settings.port or PAGE_PORT, has_tls=has_tls)
    return TOLD.format(
        key=secret,
        name=name,
        role=role,
        file=keys_file(settings),
        host=host,
        listen="0.0.0.0" if is_loopback(settings.host) else settings.host,
        url=url,
        curl=CURL.format(url=url, key=secret),
        balancer_port=settings.balancer_port,
        travels=ENCRYPTED if has_tls else UNENCRYPTED,
    )


def public_host(settings: Settings) -> str:
    """The name or address under which others reach this machine."""
    if settings.allowed_hosts:
        return settings.allowed_hosts[0]
    if not is_loopback(settings.host) and settings.host not in ("0.0.0.0", "::"):
        return settings.host
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((ELSEWHERE, 9))
            found = str(sock.getsockname()[0])
        except OSError:  # no network at all
            return socket.gethostname()
    return socket.gethostname() if ipaddress.ip_address(found).is_loopback else found


def _add(file: KeyFile, name: str, role: KeyRole) -> str:
    """The new key. With the first one comes that of balancer and page, else they would be refused."""
    if name == SERVICE:
        raise InvalidSettings(
            f"{SERVICE} is the key of balancer and page, made with the first other key; to change it, revoke it and "
            "add any other key"
        )
    if all(key.name != SERVICE for key in file.read()):
        own = new_secret()
        _keep(file, own)  # before it is needed: running servers ask for keys from the next line on
        file.add(SERVICE, SERVICE, own)
    secret = new_secret()
    file.add(name, role, secret)
    return secret


def _keep(file: KeyFile, secret: str) -> None:
    path = file.path.with_name("service.key")
    try:
        write_private(path, f"{secret}\n")
    except OSError as exc:
        raise InvalidSettings(f"the key of balancer and page cannot be written to {path}: {exc.strerror}") from exc
