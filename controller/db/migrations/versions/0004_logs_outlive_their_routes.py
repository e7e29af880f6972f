"""History and evictions name routes that are pruned before them: no foreign key holds those.

Without an index the key also cost a scan of the whole history for each route that goes.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_LOGS = ("history", "evictions")
_routes = sa.table("routes", sa.column("id"))


def upgrade() -> None:
    for log in _LOGS:
        with op.batch_alter_table(log) as table:
            table.drop_constraint(f"fk_{log}_route_id_routes", type_="foreignkey")


def downgrade() -> None:
    connection = op.get_bind()
    history = sa.table("history", sa.column("route_id"))
    gone = history.c.route_id.not_in(sa.select(_routes.c.id))
    connection.execute(sa.update(history).where(gone).values(route_id=None))
    evictions = sa.table("evictions", sa.column("route_id"))
    gone = evictions.c.route_id.not_in(sa.select(_routes.c.id))
    connection.execute(sa.delete(evictions).where(gone))
    for log in _LOGS:
        with op.batch_alter_table(log) as table:
            table.create_foreign_key(f"fk_{log}_route_id_routes", "routes", ["route_id"], ["id"])
