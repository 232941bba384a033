"""What Alembic executes for every migration: run it in the transaction that the catalog holds."""

from alembic import context

from kryonix_backup.catalog.schema import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
with context.begin_transaction():
    context.run_migrations()
