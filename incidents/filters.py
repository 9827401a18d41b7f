from typing import ClassVar

import django_filters as filters

from incidents.models import Incident


class IncidentFilter(filters.FilterSet):
    status = filters.MultipleChoiceFilter(choices=Incident.Status.choices)
    monitor = filters.NumberFilter(field_name="monitor_id")

    class Meta:
        model = Incident
        fields: ClassVar = []
