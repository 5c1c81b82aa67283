"""The image's file and the compose file say what the command line, the service and each other understand."""

import importlib.metadata
import ipaddress
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from deploy.files import DEPLOY, ROOT, TOKEN, Image, command_of, is_ours, parse, read_compose
from mimctr.recipes import serve
from mimctr.recipes.config import load_config

SERVICES = read_compose()["services"]
OURS = {name: one for name, one in SERVICES.items() if is_ours(one)}
SERVERS = {name: one for name, one in SERVICES.items() if name.startswith("redis-")}
SCORERS = {name: one for name, one in SERVICES.items() if name.startswith("scorer-")}
CREATION = SERVICES["cluster"]["command"][-1]


def options(words: list[str]) -> dict[str, str]:
    """Return ``--name value`` pairs."""
    return {name: value for name, value in itertools.pairwise(words) if name.startswith("--")}


def settings(service: dict) -> serve.Config:
    """Return what a scorer's command sets."""
    found = parse(command_of(service))
    return load_config(serve.Config, None, section="serve", assignments=found["settings"])


def num_bytes(told: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([kmg])b?", told).groups()
    return int(number) * 1024 ** (" kmg".index(unit))


def seconds(told: str) -> int:
    return int(re.fullmatch(r"(\d+)s", told)[1])


def volumes(service: dict) -> dict[str, str]:
    """Return where a service has which source."""
    return {parts[1]: parts[0] for parts in (one.split(":") for one in service.get("volumes", []))}


def test_the_compose_file_follows_the_compose_specification():
    """Compose's own schema, from the last release of it that was a Python package."""
    try:
        held = importlib.metadata.files("docker-compose")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("docker-compose is not installed: 'make test' installs it")
    (path,) = [one for one in held if one.name == "compose_spec.json"]
    schema = json.loads(Path(path.locate()).read_text())
    whole = read_compose()
    assert whole.pop("name") == "mimctr"  # came into the specification after that
    jsonschema.Draft7Validator(schema).validate(whole)


def test_a_token_must_be_set():
    """Mutant: an empty token is a default."""
    with pytest.raises(KeyError, match="MIMCTR_TOKEN"):
        read_compose({})
    assert all(
        one["environment"]["MIMCTR_TOKEN"] == TOKEN["MIMCTR_TOKEN"]
        for one in (*SCORERS.values(), SERVICES["rim"])
    )
    assert "secret" not in (DEPLOY / "compose.yaml").read_text()


@pytest.mark.parametrize("name", OURS)
def test_every_command_parses_and_every_setting_exists(name):
    found = parse(command_of(OURS[name]))
    assert found["command"].split()[1] in ("serve", "center")
    if "settings" in found and name.startswith(("scorer", "rim")):
        settings(OURS[name])
    check = OURS[name].get("healthcheck", {}).get("test")
    if check is not None:
        assert check[:2] == ["CMD", "mimctr"]
        parse(check[2:])


def test_a_word_that_the_command_line_does_not_know_is_found():
    """Mutant: the parser of these tests takes anything."""
    for words, told in (
        (["center", "publsh", "/center"], "No such command"),
        (["center", "publish", "/center", "--folow"], "No such option"),
        (["export"], "Missing parameter"),
    ):
        with pytest.raises(Exception, match=told):  # of click, which typer brings its own copy of
            parse(words)


def test_commands_in_the_comments_and_pages_name_what_exists():
    """Mutant: a service is renamed, and the steps above it are not."""
    told = (DEPLOY / "compose.yaml").read_text()
    told += "".join((ROOT / "docs" / page).read_text() for page in ("serving.md", "runbook.md"))
    named = re.findall(r"compose run (?:--entrypoint \S+ |--(?!entrypoint)\S+ )*([a-z][\w-]*)", told)
    for line in re.findall(r"compose (?:stop|start|restart|logs|exec|kill)((?: [a-z][\w-]+)+)", told):
        named += line.split()
    assert len(named) > 10
    assert set(named) <= set(SERVICES)


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_service_names_is_there(name):
    whole, one = read_compose(), SERVICES[name]
    assert set(one.get("depends_on", {})) <= set(SERVICES)
    for needed, how in one.get("depends_on", {}).items():
        assert how["condition"] in ("service_healthy", "service_completed_successfully")
        assert how["condition"] != "service_healthy" or "healthcheck" in SERVICES[needed]
    assert set(one.get("networks", [])) <= set(whole["networks"])
    for source in volumes(one).values():
        assert source in whole["volumes"] or source.startswith("./")
    used = {source for service in SERVICES.values() for source in volumes(service).values()}
    assert set(whole["volumes"]) <= used


@pytest.mark.parametrize("name", OURS)
def test_every_folder_that_a_command_names_is_mounted(name):
    """Mutant: the command reads /bundle, the volume is /bundles."""
    words = command_of(OURS[name])
    paths = [Path(word) for word in words if word.startswith("/")]
    targets = [Path(target) for target in volumes(OURS[name])]
    assert paths
    for path in paths:
        assert any(path.is_relative_to(target) for target in targets), path


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_bounded_and_can_do_little(name):
    one = SERVICES[name]
    assert num_bytes(one["mem_limit"]) > 0
    assert (one["read_only"], one["cap_drop"]) == (True, ["ALL"])
    assert one["security_opt"] == ["no-new-privileges:true"]
    assert one["logging"]["options"].keys() == {"max-size", "max-file"}
    runs_on = name.startswith(("redis-", "scorer-", "publisher", "rim"))
    assert one.get("restart") == ("unless-stopped" if runs_on else None)
    if runs_on:
        # What serves has the check of the image.
        assert name.startswith(("scorer-", "rim")) or "interval" in one["healthcheck"]


def test_six_servers_are_a_cluster_that_keeps_what_it_has():
    wanted = {
        "--cluster-enabled": "yes",
        "--appendonly": "yes",
        "--maxmemory-policy": "noeviction",
        "--min-replicas-to-write": "0",
    }
    addresses = set()
    whole = read_compose()
    for name, one in SERVERS.items():
        given = options(one["command"])
        assert wanted.items() <= given.items()
        # As 'mimctr center plan' fills a machine: the rest is Redis's own.
        assert num_bytes(given["--maxmemory"]) <= 0.7 * num_bytes(one["mem_limit"])
        assert volumes(one) == {given["--dir"]: name}
        place = one["networks"]["vectors"]
        assert place["aliases"] == ["vectors"]
        addresses.add(f"{place['ipv4_address']}:{given['--port']}")
        assert "ports" not in one  # there is no password: nobody from outside may reach it
    assert len(addresses) == 6
    assert set(re.findall(r"[\d.]+:\d+", CREATION)) == addresses
    assert "--cluster-replicas 1" in CREATION
    subnet = ipaddress.ip_network(whole["networks"]["vectors"]["ipam"]["config"][0]["subnet"])
    assert all(ipaddress.ip_address(one.split(":")[0]) in subnet for one in addresses)
    assert whole["networks"]["vectors"]["internal"] is True


def test_everybody_means_the_same_store():
    """Mutant: scorers read under another name than the publisher writes."""
    named = read_compose(TOKEN | {"MIMCTR_NAME": "other"})["services"]
    publisher = parse(command_of(named["publisher"]))
    (url,) = publisher["store"]
    assert re.fullmatch(r"redis\+cluster://vectors:6379", url)
    sealed = parse(command_of(named["center-seal"]))
    assert (sealed["store"], sealed["name"]) == ([url], "other")
    for name in SCORERS:
        found = settings(named[name])
        assert (found.store, found.histories, found.name) == (url, url, publisher["name"])


def test_scorers_are_reached_where_they_listen():
    image, taken = Image(), set()
    (check,) = image.values("HEALTHCHECK")
    asked = re.search(r"http://127.0.0.1:(\d+)/health/ready", check)[1]
    for one in (*SCORERS.values(), SERVICES["rim"]):
        found = settings(one)
        ((address, outside, inside),) = [port.rsplit(":", 2) for port in one["ports"]]
        assert inside == str(found.port) == asked == image.values("EXPOSE")[0]
        assert found.host == "0.0.0.0"
        assert address == "127.0.0.1"  # unless somebody says more
        assert "outside" in one["networks"]
        assert seconds(one["stop_grace_period"]) > found.shutdown_seconds
        taken.add(outside)
    assert len(taken) == len(SCORERS) + 1 == 3


def test_the_image_runs_as_nobody_and_stops_when_told():
    image = Image()
    (user,) = image.values("USER")
    assert user == "10001:10001"
    assert f"--uid {user.split(':')[0]}" in image.values("RUN")[0]
    assert image.values("STOPSIGNAL") == ["SIGTERM"]
    assert image.words("ENTRYPOINT") == ["mimctr"]
    (copied,) = image.values("COPY")
    assert copied.split() == ["--from=build", "/opt/mimctr", "/opt/mimctr"]
    given = parse(image.words("CMD"))
    load_config(serve.Config, None, section="serve", assignments=given["settings"])
    for folder in (Path(given["bundle"]).parent, given["center"]):
        assert str(folder) in image.values("RUN")[0]


def test_the_image_installs_what_is_tested():
    """PyTorch's CPU build in the version of the constraints, from its own index; extras that exist."""
    project = (ROOT / "pyproject.toml").read_text()
    installs = [value for name, value in Image().all if name == "RUN" and "pip install" in value]
    (torch, package) = installs
    assert "--index-url https://download.pytorch.org/whl/cpu" in torch
    assert all("--constraint constraints.txt" in one for one in installs)
    (extras,) = re.findall(r'"\.\[([\w,]+)\]"', package)
    for extra in extras.split(","):
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE), extra
    copied = [word for name, value in Image().all if name == "COPY" for word in value.split()[:-1]]
    for word in copied:
        assert word.startswith(("--from", "/opt")) or (ROOT / word).exists(), word
    sent = set((ROOT / ".dockerignore").read_text().split("\n"))
    assert "*" in sent
    assert {f"!{word}" for word in copied if not word.startswith(("--from", "/opt"))} <= sent
    (readme,) = re.findall(r'^readme = "(.+)"', project, re.MULTILINE)
    assert {readme, "LICENSE", "src"} <= set(copied)


def test_the_health_check_is_python_that_runs(tmp_path):
    """It is what the image runs: status 0 for 200, and not 0 for nobody there."""
    (check,) = Image().values("HEALTHCHECK")
    words = json.loads(check[check.index("[") :])
    code = words[2].replace("127.0.0.1:8080", "127.0.0.1:9")
    assert words[:2] == ["python", "-c"]
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert asked.returncode == 1
    assert "refused" in asked.stderr


def test_anchors_are_all_used():
    """Mutant: a block that nobody merges."""
    text = (DEPLOY / "compose.yaml").read_text()
    anchors = set(re.findall(r"&(\w+)", text))
    assert anchors == set(re.findall(r"(?<=: )\*(\w+)", text))
    assert all(isinstance(one, yaml.Token) for one in yaml.scan(text))


@pytest.mark.slow
def test_the_package_installs_as_the_image_installs_it(tmp_path):
    """A wheel without its requirements: built, put into an empty environment, and asked for help."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    wheels, site = tmp_path / "wheels", tmp_path / "site"
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", wheels, ROOT], check=True)
    (wheel,) = wheels.glob("mimctr-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", site, wheel], check=True)
    installed = site / "mimctr"
    for path in (ROOT / "src" / "mimctr").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert (installed / path.relative_to(ROOT / "src" / "mimctr")).is_file(), path
    env = {"PYTHONPATH": str(site), "PATH": ""}
    shown = [
        subprocess.run(
            [sys.executable, *words], env=env, cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout
        for words in (["-c", "import mimctr; print(mimctr.__file__)"], ["-m", "mimctr", "--help"])
    ]
    assert shown[0].startswith(str(installed))
    assert "Usage:" in shown[1]
