"""The documents say what is there: links, files, names, commands, settings, processes and words."""

import ast
import configparser
import re
from functools import cache
from pathlib import Path

import pytest

from accounts.models import Role, Scope
from healthmon import environment
from incidents.models import Incident, IncidentEvent
from monitors.probing import PROBES
from monitors.probing.outcome import REASONS
from monitors.state import Status
from notifications.messages import KINDS, SEVERITIES
from notifications.models import Delivery, DeliveryAttempt, Subscription
from notifications.routing import Decision
from notifications.transports import CHANNEL_KINDS

ROOT = Path(__file__).parent.parent
APPS = ("monitors", "incidents", "notifications", "accounts")
# Not the whole tree: .venv alone holds thousands of other people's documents.
PAGES = sorted(
    [*ROOT.glob("*.md")]
    + [
        page
        for folder in ROOT.iterdir()
        if folder.is_dir() and not folder.name.startswith(".")
        for page in folder.rglob("*.md")
    ]
)

_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")
_FILE = re.compile(r"[\w.-]+(/[\w.-]+)*(\.(py|md|in|txt|toml|yml|conf|png)|/)|scripts/\w+|\.ci/run")
_NAME = re.compile(r"(healthmon|monitors|incidents|notifications|accounts|tests|bench)((\.\w+)+)(\(\))?")
_MADE_BY_A_RUN = {".venv/", ".data/", ".data/logs/"}
# Celery's names of tasks are names in the code, but for the one whose app may not be imported beside Django.
_TASKS_BY_ANOTHER_NAME = {"monitors.probe"}


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return _FENCED.sub("", page.read_text())


def found(pattern: re.Pattern[str]) -> list[tuple[str, str]]:
    """(page, first group) of every match in the prose of every page."""
    return sorted({(name_of(page), match[1]) for page in PAGES for match in pattern.finditer(prose(page))})


def anchors(page: Path) -> set[str]:
    """What GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ +(.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def table(page: str, first_column: str) -> dict[str, list[str]]:
    """The rows of the table whose head begins with `first_column`: first cell → the others."""
    head = re.compile(rf"^\| {first_column} \|.*\n\|---.*\n((?:\|.*\n)+)", re.MULTILINE)
    rows = {}
    for row in head.search((ROOT / page).read_text())[1].splitlines():
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        rows[cells[0].strip("`")] = cells[1:]
    return rows


LINKS = [(page, link) for page, link in found(_LINK) if not re.match(r"[a-z]+:", link)]


@pytest.mark.parametrize(("page", "link"), LINKS)
def test_leads_where_its_links_say(page, link):
    path, _, anchor = link.partition("#")
    target = (ROOT / page).parent / path if path else ROOT / page
    assert target.exists(), f"{page}: there is no {link}"
    assert not anchor or anchor in anchors(target), f"{page}: {target.name} has no heading #{anchor}"


@pytest.mark.parametrize(
    ("page", "file"),
    [
        (page, code)
        for page, code in found(_CODE)
        if _FILE.fullmatch(code)
        # `monitors/bulk/` and the like are addresses of the API.
        and not (code.endswith("/") and code.split("/")[0] not in {"docs", "tests", "healthmon", "scripts"})
    ],
)
def test_names_files_that_are_there(page, file):
    # A bare `services.py` is that of any app, and decisions name each other without their folder.
    folders = [ROOT, (ROOT / page).parent, *(() if "/" in file else map(ROOT.joinpath, APPS))]
    assert file in _MADE_BY_A_RUN or any((folder / file).exists() for folder in folders)


@cache
def defined_in(module: Path) -> set[str]:
    """Every name that a module defines, at any depth."""
    names = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


@pytest.mark.parametrize(
    ("page", "name"),
    [(page, code) for page, code in found(_CODE) if _NAME.fullmatch(code) and not _FILE.fullmatch(code)],
)
def test_names_code_that_is_there(page, name):
    if name in _TASKS_BY_ANOTHER_NAME:
        return
    place, parts = ROOT, name.removesuffix("()").split(".")
    while parts and (place / parts[0]).is_dir():
        place /= parts.pop(0)
    module = place / "__init__.py"
    if parts and (place / f"{parts[0]}.py").exists():
        module = place / f"{parts.pop(0)}.py"
    assert set(parts) <= defined_in(module), f"{page}: {name_of(module)} has no {'.'.join(parts)}"


def test_names_commands_that_are_there():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    # In code alone, inline or at the beginning of a line of a block: prose may make a mistake.
    named = {
        (name_of(page), target)
        for page in PAGES
        for target in re.findall(r"(?:`|^)make ([a-z]+)", page.read_text(), re.MULTILINE)
    }
    assert {"run", "demo", "test", "check"} <= {target for _, target in named}
    assert not {(page, target) for page, target in named if target not in targets}


def test_lists_every_decision():
    listed = set(re.findall(r"\]\((\d{4}-[\w-]+\.md)\)", (ROOT / "docs/adr/README.md").read_text()))
    files = sorted(file.name for file in (ROOT / "docs/adr").glob("[0-9]*.md"))
    assert listed == set(files)
    assert [file[:4] for file in files] == [f"{number:04}" for number in range(1, len(files) + 1)]


@pytest.mark.parametrize("page", sorted((ROOT / "docs/adr").glob("[0-9]*.md")), ids=lambda page: page.name)
def test_a_decision_says_what_why_and_what_else(page):
    text = page.read_text()
    assert re.match(
        rf"# {page.name[:4]} \S.*\n\n\d{{4}}-\d\d-\d\d · (accepted|superseded by \[\d{{4}}\])", text
    )
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == [
        "Context",
        "Decision",
        "Consequences",
        "Alternatives",
    ]


def test_explains_every_setting_and_no_other():
    explained = table("docs/install.md", "setting")
    assert set(explained) == set(environment.SETTINGS)
    assert all(cells[1] for cells in explained.values())


def test_mentions_no_setting_that_is_not_one():
    mentioned = {name for page in PAGES for name in re.findall(r"HEALTHMON_[A-Z_]+[A-Z]", page.read_text())}
    assert mentioned <= set(environment.SETTINGS)


VOCABULARIES = {
    "monitor status": [str(status) for status in Status],
    "reason": list(REASONS),
    "incident status": Incident.Status.values,
    "resolution": Incident.Resolution.values,
    "timeline event": IncidentEvent.Kind.values,
    "delivery status": Delivery.Status.values,
    "message kind": list(KINDS),
    "severity": list(SEVERITIES),
    "routing decision": [str(decision) for decision in Decision],
    "outcome of a try": DeliveryAttempt.Outcome.values,
    "subscription scope": Subscription.Scope.values,
    "team role": Role.values,
    "key scope": Scope.values,
    "monitor kind": list(PROBES),
    "channel kind": list(CHANNEL_KINDS),
}


def test_knows_the_closed_vocabularies():
    written = {
        name: re.findall(r"`([^`]+)`", cells[0])
        for name, cells in table("docs/glossary.md", "vocabulary").items()
    }
    assert written == VOCABULARIES


def test_says_what_every_reason_means():
    assert list(table("docs/glossary.md", "reason")) == list(REASONS)


def test_knows_the_processes_and_the_queues_they_read():
    file = configparser.RawConfigParser(inline_comment_prefixes=(";",), strict=True)
    file.read(ROOT / "healthmon/processes.conf")
    ours = file["group:healthmon"]["programs"].split(",")
    commands = {name: file[f"program:{name}"]["command"] for name in ours}
    compose = (ROOT / "docker-compose.yml").read_text()
    written = {
        name: re.findall(r"`([^`]+)`", cells[1])
        for name, cells in table("docs/architecture.md", "process").items()
    }
    assert list(written) == ours
    for name, queues in written.items():
        option = re.search(r"-Q (\S+)", commands[name])
        read = option[1] if option else ""
        assert queues == [q for q in read.replace("%(ENV_HEALTHMON_REGION)s", "<region>").split(",") if q]
        assert read.replace("%(ENV_HEALTHMON_REGION)s", "${HEALTHMON_REGION:-default}") in compose
