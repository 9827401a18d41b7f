"""What the OpenAPI schema promises. That it is drawn without a warning, and is 3.1, is in test_urls."""

import pytest
from django.test import Client

from notifications.transports import CHANNEL_KINDS

# What a GET answers that is neither one object nor a list of them.
NO_LISTS = {"/api/v1/me/", "/api/v1/monitors/{id}/uptime/", "/api/v1/incidents/{id}/explain/"}
PROMISED = {
    # path                       verbs
    "monitors/":                 {"get", "post"},
    "monitors/{id}/":            {"get", "put", "patch", "delete"},
    "monitors/bulk/":            {"post"},
    "monitors/by-external-id/{external_id}/": {"put"},
    "monitors/{id}/pause/":      {"post"},
    "monitors/{id}/resume/":     {"post"},
    "monitors/{id}/check/":      {"post"},
    "monitors/{id}/results/":    {"get"},
    "monitors/{id}/uptime/":     {"get"},
    "monitors/{id}/recipients/": {"get"},
    "incidents/":                {"get"},
    "incidents/{id}/":           {"get"},
    "incidents/{id}/acknowledge/": {"post"},
    "incidents/{id}/resolve/":   {"post"},
    "incidents/{id}/comment/":   {"post"},
    "incidents/{id}/timeline/":  {"get"},
    "incidents/{id}/explain/":   {"get"},
    "channels/":                 {"get", "post"},
    "channels/{id}/":            {"get", "put", "patch", "delete"},
    "channels/{id}/test/":       {"post"},
    "subscriptions/":            {"get", "post"},
    "subscriptions/{id}/":       {"get", "put", "patch", "delete"},
    "message-templates/":        {"get", "post"},
    "message-templates/{id}/":   {"get", "put", "patch", "delete"},
    "deliveries/":               {"get"},
    "deliveries/{id}/":          {"get"},
    "deliveries/replay/":        {"post"},
    "deliveries/{id}/replay/":   {"post"},
    "regions/":                  {"get", "post"},
    "regions/{id}/":             {"get", "patch"},
    "probers/":                  {"get"},
    "users/":                    {"get", "post"},
    "users/{id}/":               {"get", "patch"},
    "users/{id}/take-second-factors-away/": {"post"},
    "audit/":                    {"get"},
    "auth/logout-everywhere/":   {"post"},
    "me/password/":              {"post"},
    "teams/":                    {"get", "post"},
    "teams/{id}/":               {"get", "patch"},
    "teams/{team_id}/members/":  {"get"},
    "teams/{team_id}/members/{user_id}/": {"patch", "delete"},
    "teams/{team_id}/invitations/": {"get", "post"},
    "teams/{team_id}/invitations/{id}/": {"delete"},
    "teams/{team_id}/invitations/{id}/resend/": {"post"},
    "invitations/accept/":       {"post"},
    "api-keys/":                 {"get", "post"},
    "api-keys/{id}/":            {"get", "delete"},
}  # fmt: skip
FILTERS = {
    "monitors/": {"status", "tag", "kind", "severity", "external_id", "search", "ordering"},
    "monitors/{id}/results/": {"since", "until", "region"},
    "monitors/{id}/uptime/": {"window"},
    "monitors/{id}/recipients/": {"kind", "at"},
    "incidents/": {"status", "severity", "monitor"},
    "users/": {"email", "is_active", "is_staff", "is_superuser"},
    "audit/": {"object", "kind", "actor", "since", "until"},
    "deliveries/": {"status", "channel", "incident", "kind"},
    "deliveries/replay/": {"status", "channel", "incident", "kind"},
}
PAGING = {"cursor", "limit"}


@pytest.fixture(scope="module")
def schema() -> dict:
    return Client().get("/api/v1/schema/?format=json").json()


def resolved(schema: dict, node: dict) -> dict:
    while "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        node = schema["components"]["schemas"][name]
    return node


def asked_with(schema: dict, path: str, verb: str) -> set[str]:
    parameters = schema["paths"][path][verb].get("parameters", [])
    return {each["name"] for each in parameters if each.get("in") == "query"}


def test_has_every_path_that_was_promised(schema):
    for path, verbs in PROMISED.items():
        assert set(schema["paths"][f"/api/v1/{path}"]) == verbs, path


def test_every_list_is_paged_by_cursor(schema):
    lists = 0
    for path, operations in schema["paths"].items():
        if "get" not in operations or path in NO_LISTS or path.endswith("{id}/"):
            continue
        answer = operations["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        assert set(resolved(schema, answer)["properties"]) == {"next", "previous", "results"}, path
        assert asked_with(schema, path, "get") >= PAGING, path
        lists += 1
    assert lists >= 7


@pytest.mark.parametrize("path", FILTERS)
def test_names_the_filters(schema, path):
    [verb] = PROMISED[path] & {"get"} or PROMISED[path]
    assert asked_with(schema, f"/api/v1/{path}", verb) - PAGING == FILTERS[path]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("monitors/", "201"),
        ("monitors/bulk/", "200"),
        ("monitors/{id}/check/", "202"),
        ("monitors/{id}/pause/", "200"),
        ("incidents/{id}/comment/", "201"),
        ("channels/", "201"),
        ("channels/{id}/test/", "202"),
        ("deliveries/{id}/replay/", "200"),
        ("api-keys/", "201"),
        ("teams/", "201"),
        ("teams/{team_id}/invitations/", "201"),
        ("teams/{team_id}/invitations/{id}/resend/", "200"),
        ("invitations/accept/", "201"),
        ("auth/logout-everywhere/", "204"),
    ],
)
def test_tells_the_status_that_is_answered(schema, path, status):
    assert set(schema["paths"][f"/api/v1/{path}"]["post"]["responses"]) == {status, "default"}


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("Monitor", {"status", "offset_seconds", "sealed_headers", "created_at", "id"}),
        (
            "Channel",
            {"sealed_secrets", "disabled_reason", "id", "team", "destination", "failures", "for_owners"},
        ),
        ("Subscription", {"id", "created_at"}),
        ("MessageTemplate", {"id", "team", "updated_at"}),
    ],
)
def test_does_not_ask_for_what_cannot_be_written(schema, name, fields):
    assert not fields & set(schema["components"]["schemas"][f"{name}Request"]["properties"])


def test_says_what_each_kind_of_channel_needs(schema):
    kinds = {
        each["title"]: each
        for each in schema["components"]["schemas"]["Channel"]["properties"]["config"]["anyOf"]
    }
    assert set(kinds) == set(CHANNEL_KINDS)
    assert kinds["webhook"]["required"] == ["url"]
    assert set(kinds["webhook"]["properties"]) == {"url", "secret"}
    assert "Never shown again" in kinds["webhook"]["properties"]["secret"]["description"]
