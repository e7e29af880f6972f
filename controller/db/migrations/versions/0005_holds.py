"""When HOLD stopped the clocks, so that a deadline knows it whoever leads by then."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "holds",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), nullable=False),
        sa.Column("deployment_id", sa.String(36)),
        sa.Column("causes", sa.Text, nullable=False),
        sa.Column("from_ms", sa.BigInteger, nullable=False),
        sa.Column("to_ms", sa.BigInteger),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_holds"),
        sa.ForeignKeyConstraint(
            ["deployment_id"], ["deployments.id"], name="fk_holds_deployment_id_deployments"
        ),
    )
    op.create_index("ix_holds_to_ms", "holds", ["to_ms"])


def downgrade() -> None:
    op.drop_table("holds")
