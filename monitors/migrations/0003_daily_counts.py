"""Counts of whole days, and the few results that do not count: what the coverage of a window is made of."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("monitors", "0002_result_partitions")]

    operations = [
        migrations.CreateModel(
            name="DailyCount",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "monitor_id", "day", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("day", models.DateField()),
                ("executed", models.IntegerField()),
                (
                    "monitor",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="monitors.monitor",
                    ),
                ),
            ],
            options={"indexes": [models.Index(fields=["day"], name="daily_count_day")]},
        ),
        # On the partitioned table itself, so that every partition to come has it; next to nothing is in it.
        migrations.RunSQL(
            "CREATE INDEX result_not_counted ON monitors_result (monitor_id, scheduled_at)"
            " WHERE urgent OR reason = 'missed'",
            "DROP INDEX result_not_counted",
        ),
    ]
