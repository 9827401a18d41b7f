from typing import ClassVar

import django_filters as filters

from healthmon.lib.filters import IdFilter
from incidents.models import Incident


class IncidentFilter(filters.FilterSet):
    status = filters.MultipleChoiceFilter(choices=Incident.Status.choices)
    monitor = IdFilter(field_name="monitor_id")

    class Meta:
        model = Incident
        fields: ClassVar = []
