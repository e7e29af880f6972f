"""What Alembic runs to reach a database: only ever on the connection `controller.db.migrate` gives.

There is no offline mode and no ini file: the schema changes through `fleetpulse db upgrade`.
"""

from alembic import context

from controller.db.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
