"""Kubernetes' manifests, compose and the image: sound, and about flags, settings, routes and files that there are."""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import pytest
import yaml

from qwen_aio.balancer.workers.discovery import Discovery
from qwen_aio.cli.main import main
from qwen_aio.cli.parser import module_of
from qwen_aio.cluster.supervisor import STOP_S
from qwen_aio.cluster.unit import STAGES
from qwen_aio.config import PAGE_PORT, Settings
from qwen_aio.doorway import TORCH_LINE
from qwen_aio.serving.access.rules import RULES
from tests.campaign import only_in_campaign
from tests.e2e.processes import free_port, running
from tests.fakes import FakeEngine
from tests.prometheus import CONFIG, DEPLOY, ROOT
from tests.served import Worker, served

SCHEMA = json.loads(Path(__file__).with_name("kubernetes.schema.json").read_text(encoding="utf-8"))
FILES = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
DOCUMENTS: list[dict[str, Any]] = [
    each for file in FILES for each in yaml.safe_load_all(file.read_text(encoding="utf-8"))
]
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
CONTAINERFILE = (DEPLOY / "Containerfile").read_text(encoding="utf-8")
PROVISIONING = DEPLOY / "grafana" / "provisioning"
HOME = "/var/lib/qwen-aio"  # in the image
FIELDS = {"status.podIP": "10.0.0.7", "metadata.name": "qwen-aio-workers-5d4-x2x", "metadata.namespace": "default"}


def documents(kind: str) -> list[dict[str, Any]]:
    return [each for each in DOCUMENTS if each["kind"] == kind]


@dataclass(frozen=True)
class Pod:
    """A pod of a Deployment."""

    spec: dict[str, Any]
    labels: dict[str, str]

    @property
    def container(self) -> dict[str, Any]:
        (only,) = self.spec["containers"]
        return dict(only)

    @property
    def port(self) -> int:
        (only,) = self.container["ports"]
        return int(only["containerPort"])

    def environment(self, fields: Mapping[str, str]) -> dict[str, str]:
        """The variables as a process gets them."""
        found: dict[str, str] = {}
        for each in self.container["env"]:
            value = each["value"] if "value" in each else fields[each["valueFrom"]["fieldRef"]["fieldPath"]]
            found[each["name"]] = re.sub(r"\$\((\w+)\)", lambda name: found[name[1]], value)
        return found

    def settings(self) -> Settings:
        """The settings by flags and variables. Fails at a flag or a variable that there is not."""
        stated = {
            name.removeprefix("QWEN_AIO_").lower(): value
            for name, value in self.environment(FIELDS).items()
            if name.startswith("QWEN_AIO_")
        }
        parsed = vars(parsed_by(self.container["args"]))
        typed = {name: value for name, value in parsed.items() if name in Settings.model_fields}
        return Settings.model_validate({**stated, **typed})


PODS = {
    each["metadata"]["name"]: Pod(each["spec"]["template"]["spec"], each["spec"]["template"]["metadata"]["labels"])
    for each in documents("Deployment")
}


def parsed_by(arguments: list[str]) -> argparse.Namespace:
    """Read by the command that they name."""
    parser = argparse.ArgumentParser()
    module_of(arguments[0]).add_arguments(parser)
    return parser.parse_args(arguments[1:])


# ---- Kubernetes ----


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda each: f"{each['kind']} {each['metadata']['name']}")
def test_every_document_is_one_of_kubernetes(document: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(document)


def test_a_slip_of_the_pen_would_be_found() -> None:
    wrong = {**documents("Service")[0], "metdata": {}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(SCHEMA).validate(wrong)


def test_workers_and_balancer_are_two_deployments() -> None:
    assert {name: pod.container["args"][0] for name, pod in PODS.items()} == {
        "qwen-aio-workers": "serve",
        "qwen-aio-balancer": "balance",
    }


@pytest.mark.parametrize("name", PODS)
def test_flags_and_variables_are_settings_and_the_port_is_the_server_s(name: str) -> None:
    pod = PODS[name]
    settings = pod.settings()
    assert settings.port == pod.port
    assert "QWEN_AIO_HOST" in pod.environment(FIELDS) or settings.host == "0.0.0.0"
    assert not settings.insecure and settings.keys_file == Path("/etc/qwen-aio/keys.json")


@pytest.mark.parametrize("name", PODS)
def test_probes_ask_routes_that_need_no_key_at_the_port_of_the_server(name: str) -> None:
    container = PODS[name].container
    probes = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
    assert {kind: probe["path"] for kind, probe in probes.items()} == {
        "startup": "/livez",
        "liveness": "/livez",
        "readiness": "/readyz",
    }
    assert all(RULES[probe["path"]] is None for probe in probes.values())
    assert {probe["port"] for probe in probes.values()} == {container["ports"][0]["name"]}


@pytest.mark.parametrize("name", PODS)
def test_a_pod_has_time_to_finish_its_requests(name: str) -> None:
    pod = PODS[name]
    waits = pod.container.get("lifecycle", {"preStop": {"exec": {"command": ["sleep", "0"]}}})
    seconds = int(waits["preStop"]["exec"]["command"][1])
    assert pod.spec["terminationGracePeriodSeconds"] >= STOP_S + seconds


@pytest.mark.parametrize("name", PODS)
def test_what_is_mounted_is_there_and_what_is_written_is_writable(name: str) -> None:
    pod = PODS[name]
    volumes = {each["name"]: each for each in pod.spec["volumes"]}
    mounts = {each["mountPath"]: each for each in pod.container["volumeMounts"]}
    assert {each["name"] for each in mounts.values()} == set(volumes)
    assert "emptyDir" in volumes[mounts[HOME]["name"]] and "emptyDir" in volumes[mounts["/tmp"]["name"]]
    claims = {each["metadata"]["name"] for each in documents("PersistentVolumeClaim")}
    for volume in volumes.values():
        assert volume.get("persistentVolumeClaim", {"claimName": "qwen-aio-models"})["claimName"] in claims


@pytest.mark.parametrize("service", documents("Service"), ids=lambda each: str(each["metadata"]["name"]))
def test_every_service_has_pods_with_its_port(service: dict[str, Any]) -> None:
    spec = service["spec"]
    (pod,) = (pod for pod in PODS.values() if spec["selector"].items() <= pod.labels.items())
    assert [port["targetPort"] for port in spec["ports"]] == [port["name"] for port in pod.container["ports"]]


@pytest.mark.parametrize("deployment", documents("Deployment"), ids=lambda each: str(each["metadata"]["name"]))
def test_a_deployment_has_its_own_pods(deployment: dict[str, Any]) -> None:
    assert deployment["spec"]["selector"]["matchLabels"] == deployment["spec"]["template"]["metadata"]["labels"]


def test_the_balancer_looks_for_the_workers_where_they_are() -> None:
    (name,) = Discovery.parse(PODS["qwen-aio-balancer"].settings().workers).names
    (service,) = (each for each in documents("Service") if each["metadata"]["name"] == name.name)
    assert service["spec"]["clusterIP"] == "None"  # else the name had one address for all of them
    assert name.port == PODS["qwen-aio-workers"].port  # and no port is translated


def test_the_balancer_answers_to_the_names_of_its_service() -> None:
    name = next(each["metadata"]["name"] for each in documents("Service") if "clusterIP" not in each["spec"])
    allowed = PODS["qwen-aio-balancer"].settings().allowed_hosts
    assert allowed == (name, f"{name}.default", f"{name}.default.svc", f"{name}.default.svc.cluster.local")


def test_workers_get_the_hashes_of_keys_alone() -> None:
    (keys,) = (each["secret"] for each in PODS["qwen-aio-workers"].spec["volumes"] if "secret" in each)
    assert keys["items"] == [{"key": "keys.json", "path": "keys.json"}]


@only_in_campaign
def test_the_commands_of_both_pods_serve_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """With an address that is no usual name of a server, as that of a pod is not."""
    monkeypatch.setenv("QWEN_AIO_HOME", str(tmp_path / "keys"))
    assert main(["keys", "add", "alice"]) == 0
    key = capsys.readouterr().out.splitlines()[0]
    monkeypatch.delenv("QWEN_AIO_HOME")
    fields, port = {**FIELDS, "status.podIP": "127.0.0.2"}, free_port()
    replaced = {"/etc/qwen-aio": str(tmp_path / "keys"), "qwen-aio-workers:7861": f"127.0.0.2:{port}"}

    def start(name: str, program: str, own_port: int) -> Any:
        environment = PODS[name].environment(fields)
        for before, after in replaced.items():
            environment = {each: value.replace(before, after) for each, value in environment.items()}
        flags = PODS[name].container["args"][1:]
        flags[flags.index("--port") + 1] = str(own_port)
        return running(tmp_path / name, *flags, port=None, program=program, wait=False, environment=environment)

    own_port = free_port()
    with start("qwen-aio-workers", "app.py", port), start("qwen-aio-balancer", "balancer.py", own_port) as balancer:
        balancer.wait_until("ready", balancer.is_ready)
        bearer = {"Authorization": f"Bearer {key}", "Host": "qwen-aio.default.svc"}
        status, body = balancer.post("/v1/run", {"text": "快递太慢了,差评!"}, headers=bearer)
        assert (status, body["label"]) == (200, "negative")
        assert balancer.post("/v1/run", {"text": "hi"})[0] == 401


# ---- compose ----


def mounts_of(service: str) -> dict[str, str]:
    """Where it is mounted -> what, a path here or a volume."""
    return {
        target: source for source, target in (each.split(":")[:2] for each in COMPOSE["services"][service]["volumes"])
    }


def test_every_mounted_file_exists_and_every_volume_is_declared() -> None:
    sources = {source for service in COMPOSE["services"] for source in mounts_of(service).values()}
    files = {source for source in sources if source.startswith(".")}
    assert [file for file in files if not (DEPLOY / file).exists()] == []
    assert sources - files == set(COMPOSE["volumes"])


@pytest.mark.parametrize("service", COMPOSE["services"])
def test_nothing_is_open_to_the_network_and_nobody_has_rights(service: str) -> None:
    spec = COMPOSE["services"][service]
    assert all(port.startswith("127.0.0.1:") for port in spec.get("ports", []))
    assert (spec["read_only"], spec["cap_drop"]) == (True, ["ALL"])
    assert spec["security_opt"] == ["no-new-privileges:true"]


def test_the_cluster_of_compose_is_the_one_that_prometheus_scrapes() -> None:
    arguments = COMPOSE["services"]["qwen-aio"]["command"]
    assert parsed_by(arguments).workers == "3"
    jobs = {
        job["job_name"]: job["static_configs"][0]["targets"]
        for job in yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["scrape_configs"]
    }
    settings = Settings()
    assert jobs["qwen-aio-balancer"] == [f"127.0.0.1:{settings.balancer_port}"]
    assert jobs["qwen-aio-worker"] == [f"127.0.0.1:{settings.worker_port + 100 * number}" for number in range(3)]
    ports = [port.split(":")[1] for port in COMPOSE["services"]["qwen-aio"]["ports"]]
    assert ports == [str(PAGE_PORT), str(settings.balancer_port), "9090"]
    assert COMPOSE["services"]["prometheus"]["network_mode"] == "service:qwen-aio"  # workers listen on loopback
    assert mounts_of("prometheus")["/etc/prometheus"] == "./prometheus"
    assert mounts_of("qwen-aio")[HOME] == "home"
    assert int(COMPOSE["services"]["qwen-aio"]["stop_grace_period"].removesuffix("s")) >= STAGES * STOP_S


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    (source,) = yaml.safe_load((PROVISIONING / "datasources" / "prometheus.yml").read_text())["datasources"]
    url = urlsplit(source["url"])
    assert (source["type"], url.hostname, url.port) == ("prometheus", "qwen-aio", 9090)
    (provider,) = yaml.safe_load((PROVISIONING / "dashboards" / "qwen-aio.yml").read_text())["providers"]
    places = mounts_of("grafana")
    assert places["/etc/grafana/provisioning"] == "./grafana/provisioning"
    assert places[f"{provider['options']['path']}/dashboard.json"] == "./grafana/dashboard.json"


# ---- the image ----


def test_the_image_runs_without_rights_and_without_a_compiler() -> None:
    build, final = CONTAINERFILE.split("\nFROM ")[1:]
    assert "g++" in build and "g++" not in final and "apt-get" not in final
    (user,) = re.findall(r"^USER (\d+):\d+$", final, flags=re.MULTILINE)
    assert {int(user)} == {pod.spec["securityContext"]["runAsUser"] for pod in PODS.values()}
    assert f"RUN {TORCH_LINE.replace('install', 'install --no-cache-dir')}\n" in build
    assert f"QWEN_AIO_HOME={HOME}\n" in final and f"VOLUME {HOME}\n" in final
    (command,) = re.findall(r"^CMD (\[.*\])$", final, flags=re.MULTILINE)
    assert parsed_by(json.loads(command)).host == "0.0.0.0"  # so it does not start without keys


def test_only_what_is_built_from_goes_into_the_image() -> None:
    kept = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert {"pyproject.toml", "setup.py", "README.md", "LICENSE", "qwen_aio", "native", "prompts"} <= set(kept)
    assert set(kept) & {"models", "state", "status", "keys.json", "qwen_aio.toml", ".git", ".venv"} == set()


@pytest.mark.parametrize(("is_open", "status"), [(True, 0), (False, 1)])
async def test_the_health_check_is_the_readiness_of_the_server(is_open: bool, status: int) -> None:
    (text,) = re.findall(r"^HEALTHCHECK .*? CMD (\[.*?\])$", CONTAINERFILE.replace("\\\n", ""), flags=re.MULTILINE)
    _, *flags = json.loads(text)
    async with served(Worker(FakeEngine(), is_open=is_open)) as there:
        flags[-1] = flags[-1].replace("127.0.0.1:8000", f"127.0.0.1:{there.port}")
        check = await asyncio.create_subprocess_exec(
            sys.executable, *flags, stderr=asyncio.subprocess.DEVNULL, env={"http_proxy": "http://127.0.0.1:9"}
        )
        assert await check.wait() == status
