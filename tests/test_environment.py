import base64
import dataclasses
import os
from ipaddress import ip_network

import pytest

from healthmon import environment
from healthmon.environment import EnvironmentInvalid

KEY = base64.urlsafe_b64encode(bytes(range(32))).decode()
OTHER_KEY = base64.urlsafe_b64encode(bytes(32)).decode()


def read(tmp_path, **given):
    return environment.read({"HEALTHMON_DATA_DIR": str(tmp_path), **given})


NONSENSE = [
    # setting, value, what its sentence says
    ("DATABASE_URL", "hunter2", "not a URL; give one that starts with postgres:// or postgresql://"),
    ("DATABASE_URL", "sqlite:///db.sqlite3", "starts with 'sqlite://'"),
    ("DATABASE_URL", "postgres://u:p@h:port/db", "its port is not a number"),
    ("DATABASE_URL", "postgres://u:p@h:99999/db", "its port is not a number from 0 to 65535"),
    ("DATABASE_URL", "postgres://u:p@[::1/db", "its host is malformed"),
    ("DATABASE_URL", "postgres://u:p w@h/db", "has a space in it"),
    ("DATABASE_URL", "postgres://u:p@h", "names no database"),
    ("BROKER_URL", "memory://", "starts with 'memory://'"),
    ("BROKER_URL", "localhost:6379", "not a URL"),
    ("SECRET_KEY", "short", "has 5 characters; give 32 random ones or more"),
    ("HEALTHMON_FIELD_KEYS", "nonsense", "key 1, is not a Fernet key"),
    ("HEALTHMON_FIELD_KEYS", f"{KEY},{KEY[:-4]}", "key 2, is not a Fernet key"),
    ("HEALTHMON_PROBE_KEYS", "schlüssel", "key 1, is not a Fernet key"),
    ("HEALTHMON_PORT", "http", "is 'http'; give a whole number from 1 to 65535"),
    ("HEALTHMON_PORT", "0", "from 1 to 65535"),
    ("HEALTHMON_PORT", "65536", "from 1 to 65535"),
    ("HEALTHMON_PORT", "8_000", "from 1 to 65535"),
    ("HEALTHMON_DATA_DIR", __file__, "which is not a folder"),
    ("HEALTHMON_BASE_URL", "health.example.com", "not a URL"),
    ("HEALTHMON_BASE_URL", "ftp://health.example.com", "starts with 'ftp://'"),
    ("HEALTHMON_BASE_URL", "https://", "names no host"),
    ("HEALTHMON_BASE_URL", "https://h.example/?a=b", "give scheme and host alone"),
    ("HEALTHMON_ADMIN_EMAIL", "admin", "is 'admin', which is not an address"),
    ("HEALTHMON_ALLOWED_NETS", "10.0.0.0/8,everything", "has 'everything', which is not a network"),
    ("HEALTHMON_ALLOWED_NETS", "10.1.2.3/8", "write it as 10.0.0.0/8"),
    ("HEALTHMON_REGION", "EU West", "lower-case letters, digits and dashes"),
    ("EMAIL_URL", "mail.example.com:25", "not a URL"),
    ("EMAIL_URL", "pop3://mail.example.com", "starts with 'pop3://'"),
    ("SENTRY_DSN", "https://sentry.io/1", "lacks its key or project"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317", "not a URL"),
    ("HEALTHMON_RAW_RETENTION_DAYS", "0", "from 1 to 3650"),
    ("HEALTHMON_RAW_RETENTION_DAYS", "-1", "from 1 to 3650"),
    ("HEALTHMON_MAX_MONITORS", "many", "from 0 to"),
    ("HEALTHMON_MIN_INTERVAL_SECONDS", "0", "from 1 to 86400"),
    ("HEALTHMON_RATE_LIMIT_FACTOR", "-1", "a number such as 1, 0.5 or 10, or 0 for no limits"),
    ("HEALTHMON_RATE_LIMIT_FACTOR", "nan", "a number such as 1, 0.5 or 10"),
    ("HEALTHMON_TRUSTED_PROXIES", "proxy", "HEALTHMON_TRUSTED_PROXIES has 'proxy', which is not a network"),
]


NONSENSE += [
    ("HEALTHMON_OPEN_SIGN_UP", "maybe", "no, sso or yes"),
    ("HEALTHMON_OPEN_SIGN_UP", "yes", "EMAIL_URL"),
    ("HEALTHMON_OPEN_SIGN_UP", "sso", "HEALTHMON_OIDC_ISSUER"),
    ("HEALTHMON_REQUIRE_MFA", "2", "yes or no"),
    ("HEALTHMON_OIDC_MATCH_EMAIL", "always", "yes or no"),
    ("HEALTHMON_OIDC_ISSUER", "login.example.com", "https://"),
    ("HEALTHMON_OIDC_ISSUER", "ldap://login.example.com", "https://"),
    ("HEALTHMON_OIDC_ISSUER", "https://login.example.com", "HEALTHMON_OIDC_CLIENT_ID"),
    ("HEALTHMON_OIDC_CLIENT_ID", "x", "HEALTHMON_OIDC_ISSUER"),
    ("HEALTHMON_OIDC_CLIENT_SECRET", "x", "HEALTHMON_OIDC_ISSUER"),
]


@pytest.mark.parametrize(
    ("issuer", "says"),
    [
        ("http://login.example.com", "https://"),
        ("https://me@login.example.com", "a user"),
        ("https://login.example.com/?x=1", "a query"),
    ],
)
def test_refuses_an_issuer_that_cannot_be_one(tmp_path, issuer, says):
    given = {"HEALTHMON_OIDC_CLIENT_ID": "x", "HEALTHMON_OIDC_CLIENT_SECRET": "hunter2"}
    with pytest.raises(EnvironmentInvalid, match=says) as raised:
        read(tmp_path, HEALTHMON_OIDC_ISSUER=issuer, **given)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(("name", "value", "says"), NONSENSE)
def test_refuses_nonsense_with_one_sentence_that_names_the_setting(tmp_path, name, value, says):
    with pytest.raises(EnvironmentInvalid) as raised:
        read(tmp_path, **{name: value})
    sentence = str(raised.value)
    assert name in sentence
    assert says in sentence
    assert "\n" not in sentence


SECRETS = [
    # A mistake in a secret is reported without repeating it.
    ("DATABASE_URL", "hunter2"),
    ("DATABASE_URL", "postgres://user:hunter2@host:port/db"),
    ("DATABASE_URL", "postgres://user:hunter2/x@host/db"),
    ("BROKER_URL", "http://:hunter2@host"),
    ("SECRET_KEY", "hunter2"),
    ("HEALTHMON_FIELD_KEYS", "hunter2"),
    ("HEALTHMON_PROBE_KEYS", "hunter2"),
    ("SENTRY_DSN", "https://hunter2@sentry.io/"),
    ("EMAIL_URL", "user:hunter2@host"),
]


@pytest.mark.parametrize(("name", "value"), SECRETS)
def test_does_not_repeat_a_secret(tmp_path, name, value):
    with pytest.raises(EnvironmentInvalid) as raised:
        read(tmp_path, **{name: value})
    assert "hunter2" not in str(raised.value)


def test_fills_in_the_defaults(tmp_path):
    settings = read(tmp_path)
    assert settings.embedded_database and settings.embedded_broker
    assert settings.database_url == f"postgresql://postgres@/healthmon?host={tmp_path}/run"
    assert settings.broker_url == f"redis+socket://{tmp_path}/run/broker.sock"
    assert (settings.port, settings.base_url) == (8000, "http://127.0.0.1:8000")
    assert settings.admin_email == "admin@healthmon.local"
    assert settings.raw_retention_days == 30
    assert settings.region == "default"
    assert settings.allowed_nets == () == settings.field_keys


def test_takes_what_is_given(tmp_path):
    settings = read(
        tmp_path,
        DATABASE_URL="postgres://u:p%40ss@db:5432/healthmon",
        BROKER_URL="rediss://:pw@broker:6380/0",
        HEALTHMON_FIELD_KEYS=f"{KEY}, {OTHER_KEY}",
        HEALTHMON_PORT=" 9000 ",
        HEALTHMON_ALLOWED_NETS="10.0.0.0/8, fd00::/8, 192.0.2.1",
        HEALTHMON_BASE_URL="https://health.example.com/",
    )
    assert not settings.embedded_database and not settings.embedded_broker
    assert settings.field_keys == (KEY, OTHER_KEY)
    assert settings.port == 9000
    assert settings.allowed_nets == tuple(map(ip_network, ("10.0.0.0/8", "fd00::/8", "192.0.2.1")))
    assert settings.base_url == "https://health.example.com"


def test_keeps_sockets_elsewhere_when_the_data_folder_s_path_is_too_long_for_them(tmp_path):
    settings = read(tmp_path, HEALTHMON_DATA_DIR=str(tmp_path / ("x" * 90)))
    assert str(settings.run_dir).startswith("/tmp/healthmon-")
    assert len(os.fsencode(settings.run_dir)) <= environment.LONGEST_SOCKET_DIR


def test_escapes_a_folder_with_a_space(tmp_path):
    settings = read(tmp_path, HEALTHMON_DATA_DIR=str(tmp_path / "my data"))
    assert "my%20data" in settings.database_url
    assert "my%20data" in settings.broker_url


def test_completes_missing_keys_from_the_data_folder(tmp_path):
    (tmp_path / "secrets.env").write_text(f"SECRET_KEY={'k' * 50}\nHEALTHMON_PROBE_KEYS={KEY}\n")
    settings = read(tmp_path, HEALTHMON_PROBE_KEYS=OTHER_KEY)
    assert settings.secret_key == "k" * 50
    assert settings.probe_keys == (OTHER_KEY,)  # what is given wins


def test_leaves_the_file_of_keys_closed_for_a_prober(tmp_path):
    (tmp_path / "secrets.env").write_text(f"SECRET_KEY={'k' * 50}\n")
    given = {"HEALTHMON_DATA_DIR": str(tmp_path)}
    assert environment.read(given, secrets_file=False).secret_key == ""


def test_reads_the_usual_forms_of_an_env_file(tmp_path):
    file = tmp_path / ".env"
    file.write_text("# comment\n\nA=1\nexport B='two words'\nC = \"x=y\"\nD=\n")
    assert environment.read_file(file) == {"A": "1", "B": "two words", "C": "x=y", "D": ""}
    assert environment.read_file(tmp_path / "missing") == {}


def test_names_the_line_of_an_env_file_that_makes_no_sense(tmp_path):
    file = tmp_path / ".env"
    file.write_text("A=1\nnonsense\n")
    with pytest.raises(EnvironmentInvalid, match=r"\.env, line 2, is not NAME=value"):
        environment.read_file(file)


def test_is_explained_setting_by_setting_in_the_example_file():
    example = (environment.PROJECT / ".env.example").read_text().splitlines()
    named = [line.partition("=")[0] for line in example if line and not line.startswith("#")]
    assert sorted(named) == sorted(environment.SETTINGS)
    for name in named:
        above = example[next(i for i, line in enumerate(example) if line.startswith(f"{name}=")) - 1]
        assert above.startswith(("# ", "HEALTHMON_ADMIN_EMAIL=")), f"{name} has no explanation"


def test_is_frozen(tmp_path):
    with pytest.raises(dataclasses.FrozenInstanceError):
        read(tmp_path).port = 1
