"""Every setting healthmon takes from its environment, read once into one frozen value.

Imported by Django's settings, by the runner and by the prober, so it needs the standard library alone.
`.env.example` explains each name; tests/test_environment.py keeps the two in step.
"""

import base64
import binascii
import hashlib
import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

PROJECT = Path(__file__).resolve().parent.parent

SETTINGS = (
    "DATABASE_URL",
    "BROKER_URL",
    "SECRET_KEY",
    "HEALTHMON_FIELD_KEYS",
    "HEALTHMON_PROBE_KEYS",
    "HEALTHMON_PORT",
    "HEALTHMON_DATA_DIR",
    "HEALTHMON_BASE_URL",
    "HEALTHMON_ADMIN_EMAIL",
    "HEALTHMON_ADMIN_PASSWORD",
    "HEALTHMON_ALLOWED_NETS",
    "HEALTHMON_REGION",
    "EMAIL_URL",
    "SENTRY_DSN",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "HEALTHMON_PROBERS",
    "HEALTHMON_RAW_RETENTION_DAYS",
    "HEALTHMON_MAX_MONITORS",
    "HEALTHMON_MIN_INTERVAL_SECONDS",
    "HEALTHMON_RATE_LIMIT_FACTOR",
    "HEALTHMON_TRUSTED_PROXIES",
    "HEALTHMON_OPEN_SIGN_UP",
    "HEALTHMON_REQUIRE_MFA",
    "HEALTHMON_OIDC_ISSUER",
    "HEALTHMON_OIDC_CLIENT_ID",
    "HEALTHMON_OIDC_CLIENT_SECRET",
    "HEALTHMON_OIDC_NAME",
    "HEALTHMON_OIDC_MATCH_EMAIL",
)
MADE_AT_FIRST_START = ("SECRET_KEY", "HEALTHMON_FIELD_KEYS", "HEALTHMON_PROBE_KEYS")
SECRETS_FILE = "secrets.env"  # in the data folder, 0600

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

DATABASE_SCHEMES = {"postgres", "postgresql"}
BROKER_SCHEMES = {"redis", "rediss", "redis+socket", "amqp", "amqps"}
EMAIL_SCHEMES = {
    "smtp",
    "smtps",
    "smtp+tls",
    "smtp+ssl",
    "consolemail",
    "filemail",
    "memorymail",
    "dummymail",
}
WEB_SCHEMES = {"http", "https"}
SIGN_UP = ("no", "sso", "yes")  # sso: whoever the single sign-on lets in; yes: anybody with a mailbox

# A unix socket's path may be 103 bytes (macOS; Linux: 107); the longest name we put behind it is
# supervisord's own "rpc.sock.<pid>".
LONGEST_SOCKET_DIR = 85
# One loop fills one core; a second one also goes on while the first is started anew.
_PROBERS = min(2, os.cpu_count() or 1)


class EnvironmentInvalid(ValueError):
    """One sentence: the setting, its value unless that is a secret, and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What the environment said, defaults filled in. Empty strings and tuples mean "not given"."""

    database_url: str
    broker_url: str
    embedded_database: bool
    embedded_broker: bool
    secret_key: str
    field_keys: tuple[str, ...]  # Fernet keys, the newest first
    probe_keys: tuple[str, ...]  # Fernet keys, the newest first
    port: int
    data_dir: Path
    run_dir: Path  # unix sockets
    base_url: str  # without a slash at its end
    admin_email: str
    admin_password: str
    allowed_nets: tuple[Network, ...]
    region: str
    probers: int  # processes that `make run` starts
    email_url: str
    sentry_dsn: str
    otel_endpoint: str
    raw_retention_days: int
    max_monitors: int  # of each team; 0 for any number
    min_interval_seconds: int
    rate_limit_factor: float  # multiplies the quotas of accounts/limits.py; 0 switches limits off
    trusted_proxies: tuple[Network, ...]  # whose X-Forwarded-For is believed
    open_sign_up: str  # one of SIGN_UP
    require_mfa: bool  # of whoever enters the console
    oidc_issuer: str  # without a slash at its end; "" for no single sign-on
    oidc_client_id: str
    oidc_client_secret: str
    oidc_name: str  # on the button
    oidc_match_email: bool  # an address the issuer has verified stands for the account that has it


def read(environ: Mapping[str, str], *, secrets_file: bool = True) -> Environment:
    """This function will turn a mapping such as `os.environ` into an `Environment`.

    Keys that are not given are taken from the file `make run` keeps in the data folder, so that
    `manage.py` works by hand. A prober passes `secrets_file=False`: that file holds more than it may know.

    Raises EnvironmentInvalid at the first setting that makes no sense.
    """
    given = {name: environ.get(name, "").strip() for name in SETTINGS}
    data_dir = _data_dir(given["HEALTHMON_DATA_DIR"])
    if secrets_file:
        kept = read_file(data_dir / SECRETS_FILE)
        for name in MADE_AT_FIRST_START:
            given[name] = given[name] or kept.get(name, "")

    port = _whole_number("HEALTHMON_PORT", given["HEALTHMON_PORT"] or "8000", 1, 65535)
    run_dir = _run_dir(data_dir)
    return Environment(
        database_url=_url("DATABASE_URL", given["DATABASE_URL"], DATABASE_SCHEMES)
        or f"postgresql://postgres@/healthmon?host={quote(str(run_dir), safe='/')}",
        broker_url=_url("BROKER_URL", given["BROKER_URL"], BROKER_SCHEMES)
        or f"redis+socket://{quote(str(run_dir / 'broker.sock'), safe='/')}",
        embedded_database=not given["DATABASE_URL"],
        embedded_broker=not given["BROKER_URL"],
        secret_key=_secret_key(given["SECRET_KEY"]),
        field_keys=_fernet_keys("HEALTHMON_FIELD_KEYS", given["HEALTHMON_FIELD_KEYS"]),
        probe_keys=_fernet_keys("HEALTHMON_PROBE_KEYS", given["HEALTHMON_PROBE_KEYS"]),
        port=port,
        data_dir=data_dir,
        run_dir=run_dir,
        base_url=_base_url(given["HEALTHMON_BASE_URL"] or f"http://127.0.0.1:{port}"),
        admin_email=_email(given["HEALTHMON_ADMIN_EMAIL"] or "admin@healthmon.local"),
        admin_password=given["HEALTHMON_ADMIN_PASSWORD"],
        allowed_nets=_networks("HEALTHMON_ALLOWED_NETS", given["HEALTHMON_ALLOWED_NETS"]),
        region=_region(given["HEALTHMON_REGION"] or "default"),
        email_url=_url("EMAIL_URL", given["EMAIL_URL"], EMAIL_SCHEMES),
        sentry_dsn=_sentry_dsn(given["SENTRY_DSN"]),
        otel_endpoint=_url("OTEL_EXPORTER_OTLP_ENDPOINT", given["OTEL_EXPORTER_OTLP_ENDPOINT"], WEB_SCHEMES),
        probers=_whole_number("HEALTHMON_PROBERS", given["HEALTHMON_PROBERS"] or str(_PROBERS), 1, 64),
        raw_retention_days=_whole_number(
            "HEALTHMON_RAW_RETENTION_DAYS", given["HEALTHMON_RAW_RETENTION_DAYS"] or "30", 1, 3650
        ),
        max_monitors=_whole_number(
            "HEALTHMON_MAX_MONITORS", given["HEALTHMON_MAX_MONITORS"] or "0", 0, 10_000_000
        ),
        min_interval_seconds=_whole_number(
            "HEALTHMON_MIN_INTERVAL_SECONDS", given["HEALTHMON_MIN_INTERVAL_SECONDS"] or "5", 1, 86_400
        ),
        rate_limit_factor=_factor(given["HEALTHMON_RATE_LIMIT_FACTOR"] or "1"),
        trusted_proxies=_networks("HEALTHMON_TRUSTED_PROXIES", given["HEALTHMON_TRUSTED_PROXIES"]),
        open_sign_up=_sign_up(given),
        require_mfa=_yes("HEALTHMON_REQUIRE_MFA", given["HEALTHMON_REQUIRE_MFA"]),
        oidc_issuer=_oidc_issuer(given),
        oidc_client_id=given["HEALTHMON_OIDC_CLIENT_ID"],
        oidc_client_secret=given["HEALTHMON_OIDC_CLIENT_SECRET"],
        oidc_name=given["HEALTHMON_OIDC_NAME"] or "single sign-on",
        oidc_match_email=_yes("HEALTHMON_OIDC_MATCH_EMAIL", given["HEALTHMON_OIDC_MATCH_EMAIL"]),
    )


def read_file(path: Path) -> dict[str, str]:
    """This function will return the `NAME=value` lines of a file, or nothing if there is no such file.

    Blank lines, `#` comments, a leading `export` and one pair of quotes are allowed; nothing is expanded.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise EnvironmentInvalid(f"{path} cannot be read ({reason}); correct or remove it.") from error
    values = {}
    for number, line in enumerate(lines, start=1):
        line = line.strip().removeprefix("export ").strip()
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name.strip()):
            raise EnvironmentInvalid(
                f"{path}, line {number}, is not NAME=value; correct or remove that line."
            )
        value = value.strip()
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        values[name.strip()] = value
    return values


def _data_dir(value: str) -> Path:
    path = Path(value).expanduser().absolute() if value else PROJECT / ".data"
    if path.exists() and not path.is_dir():
        raise EnvironmentInvalid(
            f"HEALTHMON_DATA_DIR is {str(path)!r}, which is not a folder; name a folder."
        )
    return path


def _run_dir(data_dir: Path) -> Path:
    inside = data_dir / "run"
    if len(os.fsencode(inside)) <= LONGEST_SOCKET_DIR:
        return inside
    return Path("/tmp") / f"healthmon-{hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:12]}"


def _url(name: str, value: str, schemes: set[str]) -> str:
    if not value:
        return ""
    expected = f"one that starts with {' or '.join(f'{scheme}://' for scheme in sorted(schemes))}"
    scheme, separator, _ = value.partition("://")
    if not separator:
        # Not echoed: a pasted password is a likely mistake here.
        raise EnvironmentInvalid(f"{name} is not a URL; give {expected}.")
    if scheme.lower() not in schemes:
        raise EnvironmentInvalid(f"{name} starts with {scheme + '://'!r}; give {expected}.")
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError as error:
        raise EnvironmentInvalid(
            f"{name} is not a well-formed URL ({_reason(error)}); give {expected}."
        ) from error
    if re.search(r"\s", value):
        raise EnvironmentInvalid(f"{name} has a space in it; write it as %20, or remove it.")
    if schemes is WEB_SCHEMES and not parts.hostname:
        raise EnvironmentInvalid(f"{name} is {value!r}, which names no host; give {expected} and a host.")
    if schemes is DATABASE_SCHEMES and not parts.path.strip("/"):
        raise EnvironmentInvalid(f"{name} names no database; end it with one, such as …/healthmon.")
    return value


def _reason(error: ValueError) -> str:
    """urllib quotes the offending part, which may be a password with a slash in it."""
    return "its port is not a number from 0 to 65535" if "ort " in str(error) else "its host is malformed"


def _base_url(value: str) -> str:
    parts = urlsplit(_url("HEALTHMON_BASE_URL", value, WEB_SCHEMES))
    if parts.query or parts.fragment or parts.username is not None or parts.path.strip("/"):
        raise EnvironmentInvalid(
            f"HEALTHMON_BASE_URL is {value!r}; give scheme and host alone, such as https://health.example.com."
        )
    return value.rstrip("/")


def _sentry_dsn(value: str) -> str:
    _url("SENTRY_DSN", value, WEB_SCHEMES)
    parts = urlsplit(value)
    if value and not (parts.username and parts.path.strip("/")):
        raise EnvironmentInvalid(
            "SENTRY_DSN lacks its key or project; copy it again from Sentry (https://key@host/1)."
        )
    return value


def _sign_up(given: Mapping[str, str]) -> str:
    value = given["HEALTHMON_OPEN_SIGN_UP"].lower() or "no"
    if value not in SIGN_UP:
        raise EnvironmentInvalid(f"HEALTHMON_OPEN_SIGN_UP is {value!r}; give no, sso or yes.")
    if value == "yes" and not given["EMAIL_URL"]:
        raise EnvironmentInvalid(
            "HEALTHMON_OPEN_SIGN_UP is yes and EMAIL_URL is empty; give one: new addresses are verified by mail."
        )
    if value == "sso" and not given["HEALTHMON_OIDC_ISSUER"]:
        raise EnvironmentInvalid("HEALTHMON_OPEN_SIGN_UP is sso; give HEALTHMON_OIDC_ISSUER as well.")
    return value


def _yes(name: str, value: str) -> bool:
    if value.lower() not in {"", "no", "false", "0", "yes", "true", "1"}:
        raise EnvironmentInvalid(f"{name} is {value!r}; give yes or no.")
    return value.lower() in {"yes", "true", "1"}


def _oidc_issuer(given: Mapping[str, str]) -> str:
    value = _url("HEALTHMON_OIDC_ISSUER", given["HEALTHMON_OIDC_ISSUER"], WEB_SCHEMES)
    belongings = ("HEALTHMON_OIDC_CLIENT_ID", "HEALTHMON_OIDC_CLIENT_SECRET")
    for name in belongings:
        if given[name] and not value:
            raise EnvironmentInvalid(f"{name} is given without HEALTHMON_OIDC_ISSUER; give both or neither.")
        if value and not given[name]:
            raise EnvironmentInvalid(f"HEALTHMON_OIDC_ISSUER needs {name}; the issuer gave it to you.")
    parts = urlsplit(value)
    if parts.query or parts.fragment or parts.username is not None:
        raise EnvironmentInvalid(
            "HEALTHMON_OIDC_ISSUER has a query, a fragment or a user in it; give the issuer alone."
        )
    if parts.scheme == "http" and parts.hostname not in {"localhost", "127.0.0.1", "::1"}:
        raise EnvironmentInvalid(
            f"HEALTHMON_OIDC_ISSUER is {value!r}; give one with https://, or whoever listens signs in as anybody."
        )
    return value


def _secret_key(value: str) -> str:
    # 32 bytes is what RFC 7518 asks of an HS256 key, and SECRET_KEY signs the JWTs.
    if value and len(value.encode()) < 32:
        raise EnvironmentInvalid(
            f"SECRET_KEY has {len(value)} characters; give 32 random ones or more, or none at all."
        )
    return value


def _list(value: str) -> list[str]:
    return [item.strip() for item in value.split(",") if item.strip()]


def _fernet_keys(name: str, value: str) -> tuple[str, ...]:
    keys = tuple(_list(value))
    for position, key in enumerate(keys, start=1):
        try:
            length = len(base64.b64decode(key, altchars=b"-_", validate=True))
        except (binascii.Error, ValueError):
            length = 0
        if length != 32:
            raise EnvironmentInvalid(
                f"{name}, key {position}, is not a Fernet key (32 bytes in URL-safe base64); make one with "
                '`python -c "from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())"`.'
            )
    return keys


def _networks(name: str, value: str) -> tuple[Network, ...]:
    return tuple(_network(name, item) for item in _list(value))


def _network(name: str, item: str) -> Network:
    try:
        return ipaddress.ip_network(item)
    except ValueError:
        pass
    try:
        meant = ipaddress.ip_network(item, strict=False)
    except ValueError as error:
        raise EnvironmentInvalid(
            f"{name} has {item!r}, which is not a network; write one as 10.0.0.0/8."
        ) from error
    raise EnvironmentInvalid(f"{name} has {item!r}; write it as {meant}, or one address as /32.")


def _email(value: str) -> str:
    if not re.fullmatch(r"[^@\s]+@[^@\s]+", value):
        raise EnvironmentInvalid(
            f"HEALTHMON_ADMIN_EMAIL is {value!r}, which is not an address; write name@host."
        )
    return value


def _region(value: str) -> str:
    # It becomes part of queue names and metric labels.
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", value):
        raise EnvironmentInvalid(
            f"HEALTHMON_REGION is {value!r}; use lower-case letters, digits and dashes, such as eu-west-1."
        )
    return value


def _whole_number(name: str, value: str, lowest: int, highest: int) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", value) or not lowest <= int(value) <= highest:
        raise EnvironmentInvalid(f"{name} is {value!r}; give a whole number from {lowest} to {highest}.")
    return int(value)


def _factor(value: str) -> float:
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", value):
        raise EnvironmentInvalid(
            f"HEALTHMON_RATE_LIMIT_FACTOR is {value!r}; give a number such as 1, 0.5 or 10, or 0 for no limits."
        )
    return float(value)
