"""Who changed what, written down by the database itself: bulk updates and SQL by hand are caught like any other.

1. A model says `audited = Audited("monitor", …)`.
2. `install` gives its table two triggers, after every `migrate` that changed something. They call `accounts_audit`,
   a function made by a migration of `accounts`, which writes what changed to `accounts_auditentry`.
3. `acting` says who is at work in this thread. Each statement that writes to an audited table carries that along, as
   a setting that ends with its transaction.

Statements that write to no audited table, and those that only read, are sent as they are.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any

from django.apps import apps
from django.db import connection, models
from psycopg import sql as pg

from healthmon.lib import request_ids

# Columns named like this never show what is in them, only that it changed.
SECRET = re.compile("^sealed_|password|secret|token|hash|digest")
TIMES = {"created_at", "updated_at"}  # an entry has a time of its own
PERSON, KEY, SYSTEM, DATABASE, NOBODY = KINDS = ("person", "key", "system", "database", "nobody")
MAX_CHARS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who does it. `name` is for people to read: an e-mail address, a key's name, `system: monitors.tasks.tick`."""

    kind: str  # of KINDS
    name: str
    user_id: int | None = None
    key_id: int | None = None

    def setting(self) -> str:
        """As the trigger reads it."""
        return json.dumps(
            {
                "kind": self.kind,
                "name": _storable(self.name),
                "user_id": self.user_id,
                "key_id": self.key_id,
                "request_id": request_ids.current() or "",
            },
            ensure_ascii=False,
        )


def _storable(text: str) -> str:
    """No NUL and no half surrogate: neither is kept by the database, and a name is no reason to refuse a write."""
    return text.replace("\0", "").encode(errors="replace").decode()[:MAX_CHARS]


def system(name: str) -> Actor:
    """A task, or a command that somebody gave on the machine itself."""
    return Actor(kind=SYSTEM, name=f"system: {name}")


@dataclass(frozen=True, slots=True)
class Audited:
    """What of a model is written down."""

    kind: str  # the word for one of them
    machine: frozenset[str] = frozenset()  # columns that machines write: not looked at, and free
    team: str = "team_id"  # the column; "" if it belongs to none
    team_of: str = ""  # the table that column points to, if the team stands there
    label: str = ""  # the column by which people know one


# --- who ----------------------------------------------------------------------------------------------

_actor: ContextVar[Callable[[], Actor] | None] = ContextVar("actor", default=None)


@contextmanager
def acting(who: Callable[[], Actor]) -> Iterator[None]:
    """This will have what is written in this block, by this thread, be `who`'s, who is asked at each write: a request
    is let in before it is known whose it is."""
    before = _actor.set(who)
    try:
        if _tell in connection.execute_wrappers:
            yield
        else:
            with connection.execute_wrapper(_tell):
                yield
    finally:
        _actor.reset(before)


def _tell(execute: Callable, sql: Any, params: Any, many: bool, context: dict[str, Any]) -> Any:
    """
    Around every statement: those that write to an audited table go out behind a `set_config` in the same message, so
    in the same transaction, with which it ends. Nothing to remember, to undo, or to leak to the next request.
    """
    who = _actor.get()
    if who is None or not _audited(sql):
        return execute(sql, params, many, context)
    if many:  # sent once for each of the parameters
        with connection.cursor() as cursor:
            cursor.execute("SELECT set_config('healthmon.actor', %s, true)", [who().setting()])
        return execute(sql, params, many, context)
    setting = pg.Literal(who().setting()).as_string()
    if params is not None:
        setting = setting.replace("%", "%%")
    answer = execute(f"SELECT set_config('healthmon.actor', {setting}, true); {sql}", params, many, context)
    while context["cursor"].cursor.nextset():  # on to the answer of the statement itself
        pass
    return answer


def _audited(sql: Any) -> bool:
    # What reads begins so; the others are looked through, as deep as a table's name can stand.
    if not isinstance(sql, str) or _READS.match(sql):
        return False
    return _writes().search(sql, 0, 5_000) is not None


_READS = re.compile(r"\s*\(?SELECT\b")


@cache
def _writes() -> re.Pattern[str]:
    tables = "|".join(model._meta.db_table for model, _ in audited_models())
    return re.compile(
        rf'(?:INSERT\s+INTO|UPDATE|DELETE\s+FROM)\s+(?:ONLY\s+)?"?(?:{tables})\b', re.IGNORECASE
    )


# --- what ---------------------------------------------------------------------------------------------


def audited_models() -> list[tuple[type[models.Model], Audited]]:
    return [(model, model.audited) for model in apps.get_models() if hasattr(model, "audited")]


def watched(model: type[models.Model], audited: Audited) -> list[str]:
    """This will return the columns whose changes are written down."""
    return [
        field.column
        for field in model._meta.concrete_fields
        if field.column is not None
        and not field.primary_key
        and not field.generated
        and field.column not in TIMES
        and field.column not in audited.machine
    ]


def install(*, plan: Sequence = (), **_: Any) -> None:
    """This will make the triggers anew, if migrations were run or one is missing; a receiver of `post_migrate`.

    Not in migrations: a list of columns there would be out of date with the next field, and would keep it quiet.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regproc('accounts_audit')")
        if cursor.fetchone() == (None,) or not (plan or len(_present(cursor)) < 2 * len(audited_models())):
            return
        cursor.execute(
            "SELECT table_name::text, column_name::text FROM information_schema.columns"
            " WHERE table_schema = ANY (current_schemas(false))"
        )
        there = set(cursor.fetchall())  # not all of them, if it was migrated to some way back
        for model, audited in audited_models():
            table = model._meta.db_table
            columns = [column for column in watched(model, audited) if (table, column) in there]
            if columns:
                for statement in _triggers(table, columns, audited):
                    cursor.execute(statement)


def uninstall(*, plan: Sequence = (), **_: Any) -> None:
    """This will drop the triggers, if migrations are about to run; a receiver of `pre_migrate`.

    PostgreSQL changes the type of no column that a trigger names, and drops the trigger together with such a column.
    """
    if not plan:
        return
    with connection.cursor() as cursor:
        for name, table in _present(cursor):
            cursor.execute(pg.SQL("DROP TRIGGER {} ON {}").format(pg.Identifier(name), pg.Identifier(table)))


def _present(cursor: Any) -> list[tuple[str, str]]:
    cursor.execute(
        "SELECT t.tgname::text, c.relname::text FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid"
        " WHERE t.tgname IN ('audit_row', 'audit_change')"
    )
    return cursor.fetchall()


def _triggers(name: str, columns: Sequence[str], audited: Audited) -> list[pg.Composed]:
    secret = [column for column in columns if SECRET.search(column)]
    call = pg.SQL("EXECUTE FUNCTION accounts_audit({})").format(
        pg.SQL(", ").join(
            pg.Literal(text)
            for text in (
                audited.kind,
                audited.team,
                audited.team_of,
                audited.label,
                f"{{{','.join(columns)}}}",
                f"{{{','.join(secret)}}}",
            )
        )
    )
    table = pg.Identifier(name)
    names = [pg.Identifier(column) for column in columns]

    def row(which: str) -> pg.Composed:
        return pg.SQL(", ").join(pg.SQL(f"{which}.{{}}").format(name) for name in names)

    return [
        pg.SQL("CREATE OR REPLACE TRIGGER audit_row AFTER INSERT OR DELETE ON {} FOR EACH ROW {}").format(
            table, call
        ),
        # Named columns: an UPDATE of others does not so much as look at the trigger.
        pg.SQL(
            "CREATE OR REPLACE TRIGGER audit_change AFTER UPDATE OF {} ON {} FOR EACH ROW"
            " WHEN (ROW({}) IS DISTINCT FROM ROW({})) {}"
        ).format(pg.SQL(", ").join(names), table, row("OLD"), row("NEW"), call),
    ]
