from typing import ClassVar

import django_filters as filters

from healthmon.lib.filters import IdFilter
from notifications.models import KIND_CHOICES, Delivery


class DeliveryFilter(filters.FilterSet):
    status = filters.MultipleChoiceFilter(choices=Delivery.Status.choices)
    channel = IdFilter(field_name="channel_id")
    incident = IdFilter(field_name="incident_id")
    kind = filters.MultipleChoiceFilter(choices=KIND_CHOICES, help_text="Of the message.")

    class Meta:
        model = Delivery
        fields: ClassVar = []
