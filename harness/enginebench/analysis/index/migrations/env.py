"""Run by Alembic, on the connection that `enginebench.analysis.index.sql` gives it. Imported by anything else it does nothing."""

from typing import Any

from alembic import context

config: Any = getattr(context, "config", None)
if config is not None:
    context.configure(connection=config.attributes["connection"])
    with context.begin_transaction():
        context.run_migrations()
