"""What is published, what is still to be delivered, what was evicted, and who asked for what."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_ID = sa.String(36)
_WORD = sa.String(32)
_NAME = sa.String(128)
_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.add_column("deployments", sa.Column("forced_until_ms", sa.BigInteger))
    op.add_column("revisions", sa.Column("definition", sa.Text))
    _publications()
    _outbox()
    _evictions()
    _audit()


def downgrade() -> None:
    for table in ("audit", "evictions", "outbox", "publications"):
        op.drop_table(table)
    op.drop_column("revisions", "definition")
    op.drop_column("deployments", "forced_until_ms")


def _publications() -> None:
    op.create_table(
        "publications",
        sa.Column("deployment_id", _ID, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("cause", _WORD, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("updated_at_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("deployment_id", name="pk_publications"),
        sa.ForeignKeyConstraint(
            ["deployment_id"],
            ["deployments.id"],
            name="fk_publications_deployment_id_deployments",
        ),
    )


def _outbox() -> None:
    op.create_table(
        "outbox",
        sa.Column("id", _NUMBER, nullable=False),
        sa.Column("kind", _WORD, nullable=False),
        sa.Column("subject", sa.String(255), nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
        sa.UniqueConstraint("kind", "subject", name="uq_outbox_kind_subject"),
    )


def _evictions() -> None:
    op.create_table(
        "evictions",
        sa.Column("id", _NUMBER, nullable=False),
        sa.Column("deployment_id", _ID, nullable=False),
        sa.Column("route_id", _ID, nullable=False),
        sa.Column("cause", _WORD, nullable=False),
        sa.Column("prober", _NAME, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("evidence_age_ms", sa.BigInteger, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_evictions"),
        sa.ForeignKeyConstraint(
            ["deployment_id"], ["deployments.id"], name="fk_evictions_deployment_id_deployments"
        ),
        sa.ForeignKeyConstraint(["route_id"], ["routes.id"], name="fk_evictions_route_id_routes"),
    )
    op.create_index("ix_evictions_at_ms", "evictions", ["at_ms"])


def _audit() -> None:
    op.create_table(
        "audit",
        sa.Column("id", _NUMBER, nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("actor", _NAME, nullable=False),
        sa.Column("verb", _WORD, nullable=False),
        sa.Column("deployment_id", _ID),
        sa.Column("route_id", _ID),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
    )
    op.create_index("ix_audit_at_ms", "audit", ["at_ms"])
    op.create_index("ix_audit_deployment_id_id", "audit", ["deployment_id", "id"])
