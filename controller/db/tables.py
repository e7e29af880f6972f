"""The schema as it stands after the newest migration; a test keeps the two equal.

Used by everything in this room and by `controller.lease`. Portable: text, integers and floats
only, times as integer milliseconds (`_ms`), states as their words, typed values as JSON text.
"""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.engine import Dialect

from controller.model import Lifecycle, RouteStatus

metadata: Final = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)


def storable(text: str) -> str:
    """Return the text with what PostgreSQL cannot store replaced."""
    if text.isascii() and "\0" not in text:
        return text
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


class FreeText(TypeDecorator[str]):
    """What people and replicas said: stored whatever is in it.

    A zero, or half a character, would undo the whole transaction on PostgreSQL, and with it the
    changes of every other route.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Return the text with what cannot be stored replaced."""
        return None if value is None else storable(value)


_ID = String(36)
_WORD = String(32)
_NAME = String(128)

GONE: Final = (Lifecycle.DESTROYING.value, Lifecycle.DESTROYED.value)
"""Deployments that nothing brings back (R-38)."""
TERMINAL: Final = (RouteStatus.TERMINATED.value, RouteStatus.FAILED_TO_START.value)
"""Routes that never change again (R-34)."""
LIVE: Final = tuple(status.value for status in RouteStatus if status.value not in TERMINAL)
"""The others, named one by one: an index finds what is asked for, not what is excluded."""

deployments: Final = Table(
    "deployments",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("name", _NAME, nullable=False),
    Column("lifecycle", _WORD, nullable=False),
    Column("sub_step", _WORD),
    Column("replicas", Integer, nullable=False),
    Column("desired_replicas", Integer),
    Column("policy", Text, nullable=False),
    Column("cleanup_target_statuses", Text, nullable=False),
    # No foreign keys on these three: they would form a ring with the tables that point here,
    # and every writer reads the row it points at in the same transaction.
    Column("current_revision_id", _ID),
    Column("deploying_revision_id", _ID),
    Column("rollout_id", _ID),
    # Until when an operator lets evictions pass the safety rules here (S21); null: never.
    Column("forced_until_ms", BigInteger),
    # Whose replicas stay without traffic after a promotion, to switch back to; and until when.
    Column("kept_revision_id", _ID),
    Column("kept_until_ms", BigInteger),
    Column("version", Integer, nullable=False),
    Column("phase_entered_at_ms", BigInteger, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("updated_at_ms", BigInteger, nullable=False),
    Index(None, "lifecycle", "sub_step"),
)
_alive = text(f"lifecycle != '{Lifecycle.DESTROYED.value}'")
Index(
    "uq_deployments_name_alive",
    deployments.c.name,
    unique=True,
    sqlite_where=_alive,
    postgresql_where=_alive,
)

revisions: Final = Table(
    "revisions",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("deployment_id", _ID, ForeignKey("deployments.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("spec", Text, nullable=False),
    # The model definition as it was resolved when the revision was added; null: it had none.
    Column("definition", Text),
    Column("created_at_ms", BigInteger, nullable=False),
    UniqueConstraint("deployment_id", "number"),
)

rollouts: Final = Table(
    "rollouts",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("deployment_id", _ID, ForeignKey("deployments.id"), nullable=False),
    Column("revision_id", _ID, ForeignKey("revisions.id"), nullable=False),
    Column("from_revision_id", _ID, ForeignKey("revisions.id")),
    Column("policy", Text, nullable=False),
    Column("started_at_ms", BigInteger, nullable=False),
    Column("deadline_at_ms", BigInteger, nullable=False),
    Column("actor", _NAME, nullable=False),
    Column("outcome", _WORD),
    Column("ended_at_ms", BigInteger),
    # What an operator did to it: since when its clocks stand, and when it was promoted by hand.
    Column("paused_at_ms", BigInteger),
    Column("promote_asked_at_ms", BigInteger),
    Column("message", FreeText, nullable=False),
    Index(None, "deployment_id", "started_at_ms"),
    Index(None, "revision_id"),
)

routes: Final = Table(
    "routes",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("deployment_id", _ID, ForeignKey("deployments.id"), nullable=False),
    Column("revision_id", _ID, ForeignKey("revisions.id"), nullable=False),
    Column("rollout_id", _ID, ForeignKey("rollouts.id")),
    Column("status", _WORD, nullable=False),
    Column("stage", _WORD),
    Column("health", _WORD, nullable=False),
    Column("traffic", _WORD, nullable=False),
    Column("traffic_ratio", Float, nullable=False),
    Column("health_check", Text),
    Column("session_id", String(255)),
    Column("host", String(253)),
    Column("port", Integer),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("entered_at_ms", BigInteger, nullable=False),
    Column("ready_since_ms", BigInteger),
    Column("version", Integer, nullable=False),
    Column("reason", FreeText, nullable=False),
    Index(None, "status"),
    Index(None, "deployment_id"),
    Index(None, "rollout_id"),
)

history: Final = Table(
    "history",
    metadata,
    # SQLite numbers rows by itself only in a column of exactly this type.
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("subject", _ID, nullable=False),
    Column("deployment_id", _ID, ForeignKey("deployments.id"), nullable=False),
    # No foreign key: history is kept longer than its routes.
    Column("route_id", _ID),
    Column("rollout_id", _ID, ForeignKey("rollouts.id")),
    Column("category", String(64), nullable=False),
    Column("phase", String(64), nullable=False),
    Column("from_state", String(128), nullable=False),
    Column("to_state", String(128), nullable=False),
    Column("result", String(64), nullable=False),
    Column("error_code", String(64), nullable=False),
    Column("rule", String(64)),
    Column("message", FreeText, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("epoch", BigInteger),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("updated_at_ms", BigInteger, nullable=False),
    Index(None, "subject", "category", "id"),
    Index(None, "deployment_id", "id"),
)

leader_lease: Final = Table(
    "leader_lease",
    metadata,
    Column("name", _NAME, primary_key=True),
    Column("holder", _NAME, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("expires_at_ms", BigInteger, nullable=False),
    # Makes the epoch part of a key: a server with row locks then lets a renewal pass a writer
    # that shares the key, and makes a takeover wait for it.
    UniqueConstraint("name", "epoch"),
)

publications: Final = Table(
    "publications",
    metadata,
    Column("deployment_id", _ID, ForeignKey("deployments.id"), primary_key=True),
    # Grows with every other table of routes, for as long as the deployment lives.
    Column("generation", BigInteger, nullable=False),
    Column("content", Text, nullable=False),
    # Why it became what it is: what S16 asks for before it lets a table shrink.
    Column("cause", _WORD, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("updated_at_ms", BigInteger, nullable=False),
)

outbox: Final = Table(
    "outbox",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("kind", _WORD, nullable=False),
    Column("subject", String(255), nullable=False),
    # The receiver refuses what is older than what it has, by (epoch, version).
    Column("version", BigInteger, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("payload", Text, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    # Only the newest effect on a subject is worth delivering.
    UniqueConstraint("kind", "subject"),
)

evictions: Final = Table(
    "evictions",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("deployment_id", _ID, ForeignKey("deployments.id"), nullable=False),
    Column("route_id", _ID, nullable=False),
    Column("cause", _WORD, nullable=False),
    # What was believed: the status's writer, its number, and its age at the commit (S14).
    Column("prober", _NAME, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("evidence_age_ms", BigInteger, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Index(None, "at_ms"),
)

holds: Final = Table(
    "holds",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    # Null: the whole fleet was held.
    Column("deployment_id", _ID, ForeignKey("deployments.id")),
    Column("causes", Text, nullable=False),
    Column("from_ms", BigInteger, nullable=False),
    # Null: it lasts. Deadlines that rest on evidence are that much longer (S15).
    Column("to_ms", BigInteger),
    Column("epoch", BigInteger, nullable=False),
    Index(None, "to_ms"),
)

audit: Final = Table(
    "audit",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("actor", _NAME, nullable=False),
    Column("verb", _WORD, nullable=False),
    Column("deployment_id", _ID),
    Column("route_id", _ID),
    Column("reason", FreeText, nullable=False),
    Column("detail", FreeText, nullable=False),
    Index(None, "at_ms"),
    Index(None, "deployment_id", "id"),
)
