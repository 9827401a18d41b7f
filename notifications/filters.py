from typing import ClassVar

import django_filters as filters

from notifications.models import Delivery


class DeliveryFilter(filters.FilterSet):
    status = filters.MultipleChoiceFilter(choices=Delivery.Status.choices)
    channel = filters.NumberFilter(field_name="channel_id")
    incident = filters.NumberFilter(field_name="message__incident_id")

    class Meta:
        model = Delivery
        fields: ClassVar = []
