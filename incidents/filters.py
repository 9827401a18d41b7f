from typing import ClassVar

import django_filters as filters

from healthmon.lib.filters import IdFilter
from incidents.models import Incident
from notifications.messages import SEVERITIES


class IncidentFilter(filters.FilterSet):
    status = filters.MultipleChoiceFilter(choices=Incident.Status.choices)
    severity = filters.MultipleChoiceFilter(choices=[(severity, severity) for severity in SEVERITIES])
    monitor = IdFilter(field_name="monitor_id")

    class Meta:
        model = Incident
        fields: ClassVar = []
