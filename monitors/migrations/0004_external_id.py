from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("monitors", "0003_daily_counts"),
    ]

    operations = [
        migrations.AddField(
            model_name="monitor",
            name="external_id",
            field=models.CharField(
                blank=True,
                help_text="What your own files or programs call it; once in a team.",
                max_length=200,
                null=True,
            ),
        ),
        migrations.AddConstraint(
            model_name="monitor",
            constraint=models.UniqueConstraint(
                fields=("team", "external_id"), name="monitor_external_id_once"
            ),
        ),
    ]
