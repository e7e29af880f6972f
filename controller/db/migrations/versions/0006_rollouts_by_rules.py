"""Which rule decided, what an operator did to a rollout, and what is kept to switch back to."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_ADDED = (
    ("history", "rule", sa.String(64)),
    ("rollouts", "paused_at_ms", sa.BigInteger()),
    ("rollouts", "promote_asked_at_ms", sa.BigInteger()),
    ("deployments", "kept_revision_id", sa.String(36)),
    ("deployments", "kept_until_ms", sa.BigInteger()),
)


def upgrade() -> None:
    for table, name, kind in _ADDED:
        op.add_column(table, sa.Column(name, kind))


def downgrade() -> None:
    for table, name, _ in reversed(_ADDED):
        op.drop_column(table, name)
