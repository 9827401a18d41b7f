"""The audit: a table, the function that fills it, and the one that keeps what is in it as it is.

Which tables call the function is said by their models and kept up by `healthmon.lib.audit`.
"""

import django.db.models.deletion
from django.db import migrations, models

# Called by row triggers with: the kind of thing; the column that names its team; the table that column points to, if
# the team stands there; the column with its name; the columns looked at; those of them that are secret.
AUDIT = """
CREATE FUNCTION accounts_audit() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    before jsonb := CASE WHEN TG_OP = 'INSERT' THEN '{}' ELSE to_jsonb(OLD) END;
    after jsonb := CASE WHEN TG_OP = 'DELETE' THEN '{}' ELSE to_jsonb(NEW) END;
    present jsonb := CASE WHEN TG_OP = 'DELETE' THEN before ELSE after END;
    secrets text[] := TG_ARGV[5]::text[];
    who jsonb := nullif(current_setting('healthmon.actor', true), '')::jsonb;
    team integer;
    differences jsonb;
BEGIN
    -- A secret is '"changed"', whatever it was and is.
    SELECT jsonb_object_agg(name, CASE WHEN name = ANY (secrets) THEN '"changed"'
                                       ELSE jsonb_build_object('before', was, 'after', is_now) END)
      INTO differences
      FROM (SELECT name, coalesce(before -> name, 'null') AS was, coalesce(after -> name, 'null') AS is_now
              FROM unnest(TG_ARGV[4]::text[]) AS name) seen
     WHERE was <> is_now
       AND NOT (name = ANY (secrets) AND was IN ('null', '""') AND is_now IN ('null', '""'));
    IF differences IS NULL AND TG_OP = 'UPDATE' THEN
        RETURN NULL;
    END IF;

    IF TG_ARGV[1] <> '' THEN
        team := (present ->> TG_ARGV[1])::integer;
        IF TG_ARGV[2] <> '' THEN
            EXECUTE format('SELECT team_id FROM %I WHERE id = $1', TG_ARGV[2]) INTO team USING team;
        END IF;
    END IF;
    INSERT INTO accounts_auditentry (at, actor_kind, actor, user_id, api_key_id, request_id, team_id, kind, object_id,
                                     name, operation, changes)
    VALUES (clock_timestamp(),
            coalesce(who ->> 'kind', 'database'), coalesce(who ->> 'name', 'database: ' || session_user),
            (who ->> 'user_id')::integer, (who ->> 'key_id')::integer, coalesce(who ->> 'request_id', ''),
            team, TG_ARGV[0], (present ->> 'id')::integer, left(coalesce(present ->> TG_ARGV[3], ''), 300),
            CASE TG_OP WHEN 'INSERT' THEN 'created' WHEN 'UPDATE' THEN 'changed' ELSE 'deleted' END,
            coalesce(differences, '{}'));
    RETURN NULL;
END $$;
"""

KEEP = """
CREATE FUNCTION accounts_audit_keep() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND OLD.at < clock_timestamp() - interval '365 days' THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'the audit is not changed, and kept for 365 days' USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER audit_keep BEFORE UPDATE OR DELETE ON accounts_auditentry
    FOR EACH ROW EXECUTE FUNCTION accounts_audit_keep();
"""


class Migration(migrations.Migration):
    dependencies = [("accounts", "0001_initial")]

    operations = [
        migrations.CreateModel(
            name="AuditEntry",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("at", models.DateTimeField()),
                (
                    "actor_kind",
                    models.CharField(
                        choices=[
                            ("person", "Person"),
                            ("key", "API key"),
                            ("system", "System"),
                            ("database", "SQL by hand"),
                            ("nobody", "nobody who was logged in"),
                        ],
                        max_length=8,
                    ),
                ),
                ("actor", models.CharField(max_length=300)),
                ("user_id", models.IntegerField(null=True)),
                ("api_key_id", models.IntegerField(null=True)),
                ("request_id", models.CharField(max_length=128)),
                ("kind", models.CharField(max_length=20)),
                ("object_id", models.IntegerField()),
                ("name", models.CharField(max_length=300)),
                (
                    "operation",
                    models.CharField(
                        choices=[("created", "Created"), ("changed", "Changed"), ("deleted", "Deleted")],
                        max_length=7,
                    ),
                ),
                ("changes", models.JSONField()),
                (
                    "team",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="accounts.team",
                    ),
                ),
            ],
            options={
                "verbose_name_plural": "audit entries",
                "ordering": ["-id"],
                "indexes": [
                    models.Index(fields=["team", "-id"], name="audit_team_newest"),
                    models.Index(fields=["kind", "object_id", "-id"], name="audit_of_object"),
                    models.Index(fields=["at"], name="audit_at"),
                ],
            },
        ),
        migrations.RunSQL(AUDIT, "DROP FUNCTION accounts_audit() CASCADE"),
        migrations.RunSQL(KEEP, "DROP FUNCTION accounts_audit_keep() CASCADE"),
    ]
