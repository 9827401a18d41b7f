from typing import ClassVar

import django_filters as filters

from accounts.models import AuditEntry, User
from healthmon.lib.audit import audited_models
from healthmon.lib.filters import IdFilter

AUDITED = sorted(audited.kind for _, audited in audited_models())


class UserFilter(filters.FilterSet):
    email = filters.CharFilter(lookup_expr="iexact")
    is_active = filters.BooleanFilter()
    is_staff = filters.BooleanFilter()
    is_superuser = filters.BooleanFilter()

    class Meta:
        model = User
        fields: ClassVar = []


class AuditFilter(filters.FilterSet):
    object = IdFilter(
        field_name="object_id", help_text="The id of what was changed; with `kind`, of one thing."
    )
    kind = filters.MultipleChoiceFilter(choices=[(kind, kind) for kind in AUDITED])
    actor = filters.CharFilter(lookup_expr="iexact", help_text="As in `actor`: an e-mail address, say.")
    since = filters.IsoDateTimeFilter(field_name="at", lookup_expr="gte")
    until = filters.IsoDateTimeFilter(field_name="at", lookup_expr="lt")

    class Meta:
        model = AuditEntry
        fields: ClassVar = []
