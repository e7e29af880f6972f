"""First schema: deployments, revisions, rollouts, routes, history, the leader's lease."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ID = sa.String(36)
_WORD = sa.String(32)
_NAME = sa.String(128)


def upgrade() -> None:
    _deployments()
    _revisions()
    _rollouts()
    _routes()
    _history()
    _leader_lease()


def downgrade() -> None:
    for table in ("leader_lease", "history", "routes", "rollouts", "revisions", "deployments"):
        op.drop_table(table)


def _deployments() -> None:
    op.create_table(
        "deployments",
        sa.Column("id", _ID, nullable=False),
        sa.Column("name", _NAME, nullable=False),
        sa.Column("lifecycle", _WORD, nullable=False),
        sa.Column("sub_step", _WORD),
        sa.Column("replicas", sa.Integer, nullable=False),
        sa.Column("desired_replicas", sa.Integer),
        sa.Column("policy", sa.Text, nullable=False),
        sa.Column("cleanup_target_statuses", sa.Text, nullable=False),
        sa.Column("current_revision_id", _ID),
        sa.Column("deploying_revision_id", _ID),
        sa.Column("rollout_id", _ID),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("phase_entered_at_ms", sa.BigInteger, nullable=False),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
        sa.Column("updated_at_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_deployments"),
    )
    op.create_index("ix_deployments_lifecycle_sub_step", "deployments", ["lifecycle", "sub_step"])
    alive = sa.text("lifecycle != 'destroyed'")
    op.create_index(
        "uq_deployments_name_alive",
        "deployments",
        ["name"],
        unique=True,
        sqlite_where=alive,
        postgresql_where=alive,
    )


def _revisions() -> None:
    op.create_table(
        "revisions",
        sa.Column("id", _ID, nullable=False),
        sa.Column("deployment_id", _ID, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("spec", sa.Text, nullable=False),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_revisions"),
        _points_at("revisions", "deployment_id", "deployments"),
        sa.UniqueConstraint("deployment_id", "number", name="uq_revisions_deployment_id_number"),
    )


def _rollouts() -> None:
    op.create_table(
        "rollouts",
        sa.Column("id", _ID, nullable=False),
        sa.Column("deployment_id", _ID, nullable=False),
        sa.Column("revision_id", _ID, nullable=False),
        sa.Column("from_revision_id", _ID),
        sa.Column("policy", sa.Text, nullable=False),
        sa.Column("started_at_ms", sa.BigInteger, nullable=False),
        sa.Column("deadline_at_ms", sa.BigInteger, nullable=False),
        sa.Column("actor", _NAME, nullable=False),
        sa.Column("outcome", _WORD),
        sa.Column("ended_at_ms", sa.BigInteger),
        sa.Column("message", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_rollouts"),
        _points_at("rollouts", "deployment_id", "deployments"),
        _points_at("rollouts", "revision_id", "revisions"),
        _points_at("rollouts", "from_revision_id", "revisions"),
    )
    op.create_index(
        "ix_rollouts_deployment_id_started_at_ms", "rollouts", ["deployment_id", "started_at_ms"]
    )
    op.create_index("ix_rollouts_revision_id", "rollouts", ["revision_id"])


def _routes() -> None:
    op.create_table(
        "routes",
        sa.Column("id", _ID, nullable=False),
        sa.Column("deployment_id", _ID, nullable=False),
        sa.Column("revision_id", _ID, nullable=False),
        sa.Column("rollout_id", _ID),
        sa.Column("status", _WORD, nullable=False),
        sa.Column("stage", _WORD),
        sa.Column("health", _WORD, nullable=False),
        sa.Column("traffic", _WORD, nullable=False),
        sa.Column("traffic_ratio", sa.Float, nullable=False),
        sa.Column("health_check", sa.Text),
        sa.Column("session_id", sa.String(255)),
        sa.Column("host", sa.String(253)),
        sa.Column("port", sa.Integer),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
        sa.Column("entered_at_ms", sa.BigInteger, nullable=False),
        sa.Column("ready_since_ms", sa.BigInteger),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_routes"),
        _points_at("routes", "deployment_id", "deployments"),
        _points_at("routes", "revision_id", "revisions"),
        _points_at("routes", "rollout_id", "rollouts"),
    )
    for column in ("status", "deployment_id", "rollout_id"):
        op.create_index(f"ix_routes_{column}", "routes", [column])


def _history() -> None:
    op.create_table(
        "history",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), nullable=False),
        sa.Column("subject", _ID, nullable=False),
        sa.Column("deployment_id", _ID, nullable=False),
        sa.Column("route_id", _ID),
        sa.Column("rollout_id", _ID),
        sa.Column("category", sa.String(64), nullable=False),
        sa.Column("phase", sa.String(64), nullable=False),
        sa.Column("from_state", sa.String(128), nullable=False),
        sa.Column("to_state", sa.String(128), nullable=False),
        sa.Column("result", sa.String(64), nullable=False),
        sa.Column("error_code", sa.String(64), nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("epoch", sa.BigInteger),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
        sa.Column("updated_at_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_history"),
        _points_at("history", "deployment_id", "deployments"),
        _points_at("history", "route_id", "routes"),
        _points_at("history", "rollout_id", "rollouts"),
    )
    op.create_index("ix_history_subject_category_id", "history", ["subject", "category", "id"])
    op.create_index("ix_history_deployment_id_id", "history", ["deployment_id", "id"])


def _leader_lease() -> None:
    op.create_table(
        "leader_lease",
        sa.Column("name", _NAME, nullable=False),
        sa.Column("holder", _NAME, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_leader_lease"),
        sa.UniqueConstraint("name", "epoch", name="uq_leader_lease_name_epoch"),
    )


def _points_at(table: str, column: str, other: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [f"{other}.id"], name=f"fk_{table}_{column}_{other}")
