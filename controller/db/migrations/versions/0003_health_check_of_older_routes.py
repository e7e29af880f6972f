"""A route has the health check of its revision, also where it was made before routes had one.

Fills `routes.health_check` where it is null from the definition stored with the revision, at
`models[i].service.health_check`; a check without a path is none. What cannot be read is left as it
is and said in the log, one line for each revision.
"""

import json
import logging
import re
from collections.abc import Iterator, Mapping
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

log = logging.getLogger("fleetpulse.migration")

BATCH = 500
_BOUNDS = (
    # column, field in the definition, default, lowest, highest
    ("interval_s", "interval", 10.0, 0.1, 1200),
    ("max_wait_time_s", "max_wait_time", 15.0, 0.001, 600),
    ("max_retries", "max_retries", 10, 1, 1000),
    ("healthy_threshold", "healthy_threshold", 1, 1, 1000),
    ("initial_delay_s", "initial_delay", 60.0, 0, 86_400),
)
_PATH = re.compile(r"[!-~]{1,2048}\Z")
_STATUS = re.compile(r"[1-9]\d\d(-[1-9]\d\d)?(,[1-9]\d\d(-[1-9]\d\d)?)*\Z")

_revisions = sa.table(
    "revisions", *(sa.column(name, sa.Text) for name in ("id", "definition", "spec"))
)
_routes = sa.table(
    "routes", *(sa.column(name, sa.Text) for name in ("id", "revision_id", "health_check"))
)


def upgrade() -> None:
    connection = op.get_bind()
    if "health_check" not in {c["name"] for c in sa.inspect(connection).get_columns("routes")}:
        op.add_column("routes", sa.Column("health_check", sa.Text))
    checks: dict[str, str | None] = {}
    for batch in _without_check(connection):
        _read_checks(connection, {row.revision_id for row in batch} - checks.keys(), into=checks)
        filled = [
            {"route": row.id, "check": check}
            for row in batch
            if (check := checks.get(row.revision_id)) is not None
        ]
        if filled:
            connection.execute(
                sa.update(_routes)
                .where(_routes.c.id == sa.bindparam("route"), _routes.c.health_check.is_(None))
                .values(health_check=sa.bindparam("check")),
                filled,
            )


def downgrade() -> None:
    """Keep the column, which the first schema has, and what is right in it."""


def _without_check(connection: sa.Connection) -> Iterator[list[sa.Row[Any, Any]]]:
    last = ""
    while True:
        query = (
            sa.select(_routes.c.id, _routes.c.revision_id)
            .where(_routes.c.health_check.is_(None), _routes.c.id > last)
            .order_by(_routes.c.id)
            .limit(BATCH)
        )
        batch = list(connection.execute(query))
        if not batch:
            return
        yield batch
        last = batch[-1].id


def _read_checks(
    connection: sa.Connection, revision_ids: set[str], *, into: dict[str, str | None]
) -> None:
    if not revision_ids:
        return
    query = sa.select(_revisions).where(_revisions.c.id.in_(sorted(revision_ids)))
    for revision_id, definition, spec in connection.execute(query):
        try:
            into[revision_id] = _check_in(definition, spec)
        except ValueError as error:
            log.warning(
                "revision %s: its routes stay without a health check: %s", revision_id, error
            )
            into[revision_id] = None


def _check_in(definition: str | None, spec: str | None) -> str | None:
    """Return the first check that names a path, as routes store it; None where there is none."""
    for found in (definition, spec):
        for model in _models(_json(found)):
            service = _mapping(model, "model").get("service")
            check = _mapping(service, "service").get("health_check")
            path = _mapping(check, "health_check").get("path")
            if path is not None and path != "":
                return _stored(path, check)
    return None


def _json(text: str | None) -> object:
    """Decode; a definition that was encoded twice counts as itself."""
    value: object = None if text is None else json.loads(text)
    return json.loads(value) if isinstance(value, str) else value


def _models(value: object) -> list[object]:
    """Return the models of a definition, which older rows hold inside their spec."""
    outer = _mapping(value, "definition")
    for place in (outer, outer.get("definition"), outer.get("model_definition")):
        inner = _json(place) if isinstance(place, str) else place
        models = _mapping(inner, "definition").get("models")
        if models is not None:
            if not isinstance(models, list):
                raise ValueError(f"models is {models!r:.80}, not a list")
            return models
    return []


def _mapping(value: object, name: str) -> Mapping[str, object]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"{name} is {value!r:.80}, not an object")  # noqa: TRY004 - told as one
    return value


def _stored(path: object, check: object) -> str:
    given = _mapping(check, "health_check")
    if not isinstance(path, str) or not _PATH.match(path):
        raise ValueError(f"path is {path!r:.80}")
    stored: dict[str, object] = {"path": path if path.startswith("/") else f"/{path}"}
    for column, field, default, lowest, highest in _BOUNDS:
        stored[column] = _number(given.get(field), field, default, lowest, highest)
        if column == "max_wait_time_s":  # in the order in which routes write it
            stored["expected_status_code"] = _status(given.get("expected_status_code"))
    return json.dumps(stored, separators=(",", ":"))


def _number(
    value: object, field: str, default: float, lowest: float, highest: float
) -> int | float:
    """Return a number of the default's kind; digits in quotes are a number, too."""
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{field} is {value!r:.80}, not a number")  # noqa: TRY004 - same
    number = float(value)
    whole = isinstance(default, int)
    if not lowest <= number <= highest or (whole and number != int(number)):
        raise ValueError(f"{field} is {value!r:.80}, not from {lowest} to {highest}")
    return int(number) if whole else number


def _status(value: object) -> str:
    parts = value if isinstance(value, list) else [200 if value is None else value]
    text = ",".join(str(part).strip() for part in parts)
    if not _STATUS.match(text):
        raise ValueError(f"expected_status_code is {value!r:.80}")
    return text
