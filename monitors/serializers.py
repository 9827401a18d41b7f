"""A monitor as the API shows and takes it."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.conf import settings
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from healthmon.lib.addresses import Guard, url_problem
from healthmon.lib.api import QuickModelSerializer, StrictModelSerializer, StrictSerializer, one_line
from monitors import headers as header_secrets
from monitors.models import DEFAULT_REGION, INTERVALS, MAX_BODY_CHARS, Monitor, Prober, Region, Result
from monitors.probing.expectations import parse_expected_status
from notifications.routing import ROUTED
from notifications.transports import CHANNEL_KINDS

MOST_HEADERS = 50
MOST_TAGS = 20
MOST_IN_BULK = 1000
# Part of an address: nothing that would have to be escaped there, and no dots that a client would resolve.
EXTERNAL_ID = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._:~@-]{1,200}")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
# What the connection itself needs; set by hand they would make requests that no two servers read alike.
_NOT_BY_HAND = {
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "upgrade",
    "expect",
}


@extend_schema_field(
    {
        "type": "object",
        "additionalProperties": {
            "oneOf": [
                {"type": "string"},
                {
                    "type": "object",
                    "properties": {"value": {"type": "string"}, "secret": {"type": "boolean"}},
                },
            ]
        },
        "example": {"Accept": "application/json", "X-Tenant": {"value": "t0p", "secret": True}},
    }
)
class HeadersField(serializers.Field):
    """`{"Accept": "…"}`, or `{"X-Key": {"value": "…", "secret": true}}`, of which only the name is shown again.

    Names that speak for themselves (Authorization, Cookie, anything with `token` …) are secret without saying so.
    Sent back as it was shown, a secret keeps its value. Internally: {name: (value or None to keep, secret)}.
    """

    def to_internal_value(self, data: Any) -> dict[str, tuple[str | None, bool]]:
        if not isinstance(data, Mapping):
            raise serializers.ValidationError("An object of header names and values is needed.")
        if len(data) > MOST_HEADERS:
            raise serializers.ValidationError(f"At most {MOST_HEADERS} headers can be sent.")
        if len({str(name).lower() for name in data}) < len(data):
            raise serializers.ValidationError("A header is there twice, in different case.")
        return {name: self._header(name, given) for name, given in data.items()}

    def _header(self, name: str, given: Any) -> tuple[str | None, bool]:
        if not _HEADER_NAME.fullmatch(name):
            raise serializers.ValidationError({name[:100]: "This is not a header name."})
        if name.lower() in _NOT_BY_HAND:
            raise serializers.ValidationError(
                {name: "This header belongs to the connection and cannot be set."}
            )
        value, secret = given, False
        if isinstance(given, Mapping):
            if unknown := set(given) - {"value", "secret"}:
                raise serializers.ValidationError({name: f"There is no {sorted(unknown)[0]!r} here."})
            value, secret = given.get("value"), given.get("secret", True)
            if not isinstance(secret, bool):
                raise serializers.ValidationError({name: "`secret` is true or false."})
        secret = secret or header_secrets.looks_secret(name)
        if value is None and secret:
            return None, True
        if not isinstance(value, str) or len(value) > 8000:
            raise serializers.ValidationError({name: "A text of at most 8,000 characters is needed."})
        if not value.isprintable() or not value.isascii():
            raise serializers.ValidationError({name: "A header value is one line of printable ASCII."})
        if secret and value.startswith("***"):
            return None, True  # the mask we show, sent back
        return value, secret

    def get_attribute(self, instance: Monitor) -> Monitor:
        return instance

    def to_representation(self, monitor: Monitor) -> dict[str, Any]:
        shown: dict[str, Any] = dict(monitor.headers)
        for name, value in header_secrets.readable(monitor.team_id, monitor.sealed_headers).items():
            shown[name] = {"value": header_secrets.masked(value), "secret": True}
        return shown


def without_comma(text: str) -> None:
    # The console and its filters write several tags with commas between them.
    if "," in text:
        raise serializers.ValidationError("A tag holds no comma.")


class TagsField(serializers.ListField):
    child = serializers.CharField(max_length=50, validators=[one_line, without_comma])

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=MOST_TAGS, **kwargs)

    def to_internal_value(self, data: Any) -> list[str]:
        return list(dict.fromkeys(super().to_internal_value(data)))


class RegionsField(serializers.ListField):
    """The slugs of the regions that a monitor is probed from."""

    child = serializers.CharField(max_length=40)

    def get_attribute(self, instance: Monitor) -> list[str]:
        return instance.glimpse.regions

    def to_representation(self, slugs: list[str]) -> list[str]:
        return slugs

    def to_internal_value(self, data: Any) -> list[str]:
        slugs = list(dict.fromkeys(super().to_internal_value(data)))
        if not slugs:
            raise serializers.ValidationError("At least one region is needed.")
        known = self.context.get("regions") or set(Region.objects.values_list("slug", flat=True))
        if unknown := [slug for slug in slugs if slug not in known]:
            raise serializers.ValidationError(
                f"There is no region {unknown[0]!r}; there are: {', '.join(sorted(known))}."
            )
        return slugs


class MonitorSerializer(StrictModelSerializer):
    headers = HeadersField(required=False)
    tags = TagsField(required=False)
    regions = RegionsField(required=False)
    interval_seconds = serializers.ChoiceField(choices=INTERVALS, required=False)
    body = serializers.CharField(
        max_length=MAX_BODY_CHARS, required=False, allow_blank=True, trim_whitespace=False
    )
    # What `selectors.glimpsed` set on it.
    last_checked_at = serializers.DateTimeField(source="glimpse.checked_at", read_only=True, allow_null=True)
    last_reason = serializers.CharField(source="glimpse.reason", read_only=True, allow_null=True)
    last_total_ms = serializers.FloatField(source="glimpse.total_ms", read_only=True, allow_null=True)
    certificate_expires_at = serializers.DateTimeField(
        source="glimpse.certificate_expires_at", read_only=True, allow_null=True
    )

    class Meta:
        model = Monitor
        fields = [
            "id", "external_id", "name", "kind", "url", "method", "headers", "body", "interval_seconds",
            "timeout_seconds", "expected_status", "follow_redirects", "verify_tls", "degraded_after_ms",
            "failures_to_open", "successes_to_close", "recheck_seconds", "connection", "regions", "tags", "severity",
            "description", "runbook_url", "enabled", "status", "status_changed_at", "last_checked_at", "last_reason",
            "last_total_ms", "certificate_expires_at", "created_at", "updated_at",
        ]  # fmt: skip
        read_only_fields = ["status", "status_changed_at", "created_at", "updated_at"]
        extra_kwargs = {
            "name": {"validators": [one_line]},
            "degraded_after_ms": {"min_value": 1, "max_value": 60_000},
        }

    def validate_external_id(self, external_id: str | None) -> str | None:
        if external_id is not None and not EXTERNAL_ID.fullmatch(external_id):
            raise serializers.ValidationError(
                "1 to 200 of the letters A to Z, digits and . _ : ~ @ - are needed; null for none."
            )
        return external_id

    def validate_interval_seconds(self, interval: int) -> int:
        shortest = settings.HEALTHMON_MIN_INTERVAL_SECONDS
        if interval < shortest and interval != getattr(self.instance, "interval_seconds", None):
            raise serializers.ValidationError(
                f"The shortest interval here is {shortest} s (HEALTHMON_MIN_INTERVAL_SECONDS)."
            )
        return interval

    def validate_url(self, url: str) -> str:
        if problem := url_problem(url):
            raise serializers.ValidationError(f"This URL {problem}.")
        if refusal := Guard(settings.HEALTHMON_ALLOWED_NETS).url_refusal(url):
            raise serializers.ValidationError(
                f"This URL may not be probed: {refusal}. HEALTHMON_ALLOWED_NETS opens ranges."
            )
        return url

    def validate_runbook_url(self, url: str) -> str:
        if url and (problem := url_problem(url)):
            raise serializers.ValidationError(f"This URL {problem}.")
        return url

    def validate_expected_status(self, expected: str) -> str:
        try:
            parse_expected_status(expected)
        except ValueError as problem:
            raise serializers.ValidationError(f"{problem}. Such as 200-299,301 is needed.") from None
        return expected

    @property
    def _whole(self) -> bool:
        """Whether what is not given is the default, and not what it was: for a new one, and for one to replace."""
        return self.instance is None or self.context.get("replacing", False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if self._whole and "interval_seconds" not in attrs:
            attrs["interval_seconds"] = _default_interval()
        timeout = self._value(attrs, "timeout_seconds")
        interval = self._value(attrs, "interval_seconds")
        if timeout > interval:
            if "timeout_seconds" not in attrs and self._whole:
                attrs["timeout_seconds"] = interval  # the default of 10 s for those probed every 5 s
            else:
                raise serializers.ValidationError(
                    {
                        "timeout_seconds": f"The timeout ({timeout:g} s) is longer than the interval ({interval} s)."
                    }
                )
        if self.context.get("replacing"):
            attrs = self._defaults() | attrs
        if "headers" in attrs:
            attrs |= self._split(attrs.pop("headers"))
        return attrs

    def _defaults(self) -> dict[str, Any]:
        """What a monitor that is replaced has where nothing is given. Whether it is paused is a deed, and stays."""
        kept = {"enabled", "external_id", "regions"}
        writable = [name for name, field in self.fields.items() if not field.read_only and name not in kept]
        defaults = {name: Monitor._meta.get_field(name).get_default() for name in writable}
        return defaults | {"regions": [DEFAULT_REGION]}

    def _value(self, attrs: Mapping[str, Any], name: str) -> Any:
        if name in attrs:
            return attrs[name]
        return Monitor._meta.get_field(name).default if self._whole else getattr(self.instance, name)

    def _split(self, given: Mapping[str, tuple[str | None, bool]]) -> dict[str, Any]:
        kept: Mapping[str, str] = {}
        if self.instance:
            kept = header_secrets.readable(self.instance.team_id, self.instance.sealed_headers)
        in_any_case = {name.lower(): value for name, value in kept.items()}
        secret = {}
        for name, (value, is_secret) in given.items():
            if not is_secret:
                continue
            if value is None and name.lower() not in in_any_case:
                raise serializers.ValidationError({"headers": {name: "This secret header has no value yet."}})
            secret[name] = in_any_case[name.lower()] if value is None else value
        return {
            "headers": {name: value for name, (value, is_secret) in given.items() if not is_secret},
            "secret_headers": secret,
        }


def _default_interval() -> int:
    default = Monitor._meta.get_field("interval_seconds").default
    shortest = settings.HEALTHMON_MIN_INTERVAL_SECONDS
    return default if default >= shortest else min(each for each in INTERVALS if each >= shortest)


class ResultSerializer(QuickModelSerializer):
    region = serializers.CharField(source="region_slug", read_only=True)

    class Meta:
        model = Result
        fields = [
            "scheduled_at", "started_at", "region", "reason", "status_code", "total_ms", "dns_ms", "connect_ms",
            "tls_ms", "first_byte_ms", "urgent", "reused", "detail",
        ]  # fmt: skip


class UptimeSerializer(serializers.Serializer):
    uptime = serializers.FloatField(allow_null=True)
    coverage = serializers.FloatField(allow_null=True)
    downtime_seconds = serializers.IntegerField()
    incidents = serializers.IntegerField()


class RecipientsAskedSerializer(StrictSerializer):
    """What a preview is of: `kind` of message, and `at` what moment."""

    kind = serializers.ChoiceField(choices=ROUTED, default="opened", help_text="Of the message.")
    at = serializers.DateTimeField(required=False, help_text="When it happens. Without it, now.")

    def validate_at(self, at: datetime) -> datetime:
        if not 2000 <= at.year < 2200:
            raise serializers.ValidationError("A moment between the years 2000 and 2200 is needed.")
        return at


class RecipientSerializer(serializers.Serializer):
    """Whether a channel would be told, by which of its subscriptions, and why or why not."""

    channel = serializers.IntegerField()
    channel_name = serializers.CharField()
    channel_kind = serializers.ChoiceField(choices=CHANNEL_KINDS)
    subscription = serializers.IntegerField(allow_null=True)
    told = serializers.BooleanField()
    why = serializers.CharField()


class RegionSerializer(StrictModelSerializer):
    name = serializers.CharField(max_length=100, validators=[one_line])

    class Meta:
        model = Region
        fields = ["id", "slug", "name", "enabled"]

    def validate_slug(self, slug: str) -> str:
        if self.instance is not None and slug != self.instance.slug:
            raise serializers.ValidationError("It names queues that probers read, and stays as it is.")
        return slug


class ProberSerializer(QuickModelSerializer):
    class Meta:
        model = Prober
        fields = ["id", "name", "region", "seen_at"]
        read_only_fields = fields


class BulkSerializer(StrictSerializer):
    """Rows are judged one by one by the view, so that each error names its row."""

    create = serializers.ListField(child=serializers.DictField(), required=False, default=list)
    update = serializers.ListField(child=serializers.DictField(), required=False, default=list)
    upsert = serializers.ListField(child=serializers.DictField(), required=False, default=list)
    delete = serializers.ListField(child=serializers.IntegerField(min_value=1), required=False, default=list)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if sum(map(len, attrs.values())) > MOST_IN_BULK:
            raise serializers.ValidationError(f"At most {MOST_IN_BULK} monitors at once, over all lists.")
        return attrs


class BulkDoneSerializer(serializers.Serializer):
    """What `bulk/` answers: the monitors made and changed, and the ids of those deleted, in the order asked."""

    created = MonitorSerializer(many=True)
    updated = MonitorSerializer(many=True)
    upserted = MonitorSerializer(many=True)
    deleted = serializers.ListField(child=serializers.IntegerField())


def columns_and_regions(validated: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """This will part what goes into a monitor's row from where it is probed."""
    columns = dict(validated)
    regions = columns.pop("regions", [DEFAULT_REGION])
    return columns, regions
