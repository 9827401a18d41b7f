from typing import ClassVar

import django_filters as filters

from healthmon.lib.filters import IdFilter
from notifications.models import Delivery


class DeliveryFilter(filters.FilterSet):
    status = filters.MultipleChoiceFilter(choices=Delivery.Status.choices)
    channel = IdFilter(field_name="channel_id")
    incident = IdFilter(field_name="message__incident_id")

    class Meta:
        model = Delivery
        fields: ClassVar = []
