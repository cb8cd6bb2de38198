"""A real nginx with deploy/nginx or the blocks of docs/reverse-proxy.md, in a folder of its own and without any rights."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
SITE = Path(__file__).resolve().parents[1] / "deploy" / "nginx" / "qwen-aio.conf"
DOCS = tuple(Path("docs") / name for name in ("reverse-proxy.md", "reverse-proxy.zh-CN.md"))
PAGE, BALANCER = "127.0.0.1:7860", "127.0.0.1:8000"  # as the documents name them
HOST_LINE = "    proxy_set_header Host $http_host;\n"
UP_WITHIN_S = 30.0

CONFIG = """
daemon off;
{user}
pid nginx.pid;
events {{}}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    {site}
}}
"""
LISTEN = "listen 80;"
SERVER = """
server {{
    listen 80;
    location = /favicon.ico {{ return 204; }}  # a browser asks for it at the root of a site, which is not ours
    {locations}
}}
"""


def documented(path: Path = DOCS[0]) -> str:
    """The block that the document gives."""
    found = re.findall(r"```nginx\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
    assert len(found) == 1
    return str(found[0])


@contextmanager
def nginx(folder: Path, locations: str, servers: Mapping[str, str]) -> Iterator[int]:
    """As `nginx_with`, with these locations in a server of ours."""
    with nginx_with(folder, SERVER.format(locations=locations), servers) as port:
        yield port


@contextmanager
def nginx_with(folder: Path, site: str, servers: Mapping[str, str]) -> Iterator[int]:
    """Run one with `site`, in which addresses are replaced by those of real `servers`; its port."""
    assert NGINX is not None, "no nginx: run scripts/install-nginx"
    port = _free_port()
    for shown, address in {**servers, LISTEN: f"listen 127.0.0.1:{port};"}.items():
        site = site.replace(shown, address)
    folder.mkdir(parents=True, exist_ok=True)
    user = "user root;" if os.geteuid() == 0 else ""  # else its workers may not enter the folder
    config, log = folder / "nginx.conf", folder / "error.log"
    config.write_text(CONFIG.format(user=user, site=site), encoding="utf-8")
    process = subprocess.Popen([NGINX, "-p", folder, "-c", config, "-e", log], stderr=subprocess.DEVNULL)
    try:
        _wait_up(process, port, log)
        yield port
    finally:
        process.terminate()
        process.wait()


def _wait_up(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + UP_WITHIN_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
