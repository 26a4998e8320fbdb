"""Dockerfile and docker-compose.yml, checked as far as it goes without a Docker engine."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE_FILE = ROOT / "docker-compose.yml"


def instructions(name: str) -> list[str]:
    """What follows each Dockerfile instruction ``name``, continued lines joined."""
    joined = re.sub(r"\\\n\s*", " ", DOCKERFILE)
    return re.findall(rf"^{name}\s+(.*)$", joined, re.MULTILINE)


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    return yaml.safe_load(COMPOSE_FILE.read_text())["services"]


def test_dockerfile_passes_hadolint() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    result = subprocess.run(
        [hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_image_runs_as_a_numbered_user_that_is_not_root() -> None:
    assert re.fullmatch(r"[1-9]\d+", instructions("USER")[-1])


def test_processes_start_without_a_shell_so_that_they_hear_signals() -> None:
    assert instructions("ENTRYPOINT") == ['["riverrun"]']
    assert [text[0] for text in instructions("CMD") + instructions("ENTRYPOINT")] == ["[", "["]
    [check] = instructions("HEALTHCHECK")
    assert re.search(r'CMD \["python", "-c", .*/healthz', check)


def test_final_image_takes_the_environment_only() -> None:
    final_stage = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]

    assert re.findall(r"^COPY.*", final_stage, re.MULTILINE) == [
        "COPY --from=build /opt/riverrun /opt/riverrun"
    ]


def test_what_the_build_copies_exists_and_is_not_ignored() -> None:
    let_through = set(re.findall(r"^!(.*)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    sources = {
        source
        for copy in instructions("COPY")
        if not copy.startswith("--from")
        for source in copy.split()[:-1]
    }

    assert sources == let_through
    assert [source for source in sources if not (ROOT / source).exists()] == []


def test_compose_file_is_accepted_by_docker_where_there_is_one() -> None:
    """Without the compose plugin its own checks are done below, and this reads YAML only."""
    docker = shutil.which("docker")
    plugin = (
        docker is not None
        and not subprocess.run(
            [docker, "compose", "version"], capture_output=True, timeout=30, check=False
        ).returncode
    )
    if not plugin:
        assert yaml.safe_load(COMPOSE_FILE.read_text())["name"] == "riverrun"
        return
    result = subprocess.run(
        [str(docker), "compose", "-f", str(COMPOSE_FILE), "config", "--quiet"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_compose_has_kafka_a_store_two_workers_and_a_producer(
    services: dict[str, dict[str, Any]],
) -> None:
    assert set(services) == {
        "kafka", "topics", "s3", "bucket", "worker-1", "worker-2", "producer"
    }  # fmt: skip
    assert services["kafka"]["image"].startswith("apache/kafka:4.1.")
    assert services["worker-1"]["command"] == services["worker-2"]["command"]


def test_every_image_is_pinned_and_every_service_restarts(
    services: dict[str, dict[str, Any]],
) -> None:
    for name, service in services.items():
        image = service["image"]
        assert "build" in service or re.search(r":[\w.-]*\d", image), f"{name}: pin {image}"
        assert service["restart"] in {"unless-stopped", "on-failure"}, name


def test_services_wait_for_what_they_need(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        for needed, how in service.get("depends_on", {}).items():
            assert needed in services, f"{name} depends on {needed}"
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[needed], f"{needed} is never healthy"


def test_workers_share_no_state_directory(services: dict[str, dict[str, Any]]) -> None:
    mounts = {
        name: [mount for mount in service["volumes"] if mount.endswith(":/state")]
        for name, service in services.items()
        if name.startswith("worker-")
    }

    assert mounts == {"worker-1": ["state-1:/state"], "worker-2": ["state-2:/state"]}
    declared = yaml.safe_load(COMPOSE_FILE.read_text())["volumes"]
    named = {
        mount.split(":")[0]
        for service in services.values()
        for mount in service.get("volumes", [])
        if not mount.startswith(".")
    }
    assert named == set(declared)


def test_passwords_come_from_the_environment(services: dict[str, dict[str, Any]]) -> None:
    secrets = re.compile(r"(SECRET|PASSWORD|ACCESS_KEY|TOKEN|ROOT_USER)")
    for name, service in services.items():
        for variable, value in service.get("environment", {}).items():
            if secrets.search(variable):
                assert re.fullmatch(r"\$\{\w+:-[\w-]+\}", value), f"{name}: {variable}"


def test_ports_are_open_to_this_machine_only(services: dict[str, dict[str, Any]]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]

    assert ports != []
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


def test_workers_start_with_options_that_riverrun_has(
    services: dict[str, dict[str, Any]],
) -> None:
    command = services["worker-1"]["command"]
    printed = subprocess.run(
        [sys.executable, "-m", "riverrun", command[0], "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout

    options = [word for word in command if word.startswith("--")]
    assert options != []
    assert [option for option in options if option not in printed] == []
