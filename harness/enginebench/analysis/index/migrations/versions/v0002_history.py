"""What `bench history` needs of a row: the deployment and load themselves, and what each restart measured. Runs are read anew."""

import sqlalchemy as alchemy
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("rows", alchemy.Column("subject", alchemy.Text, nullable=False, server_default=""))
    op.add_column("rows", alchemy.Column("cells", alchemy.Text, nullable=False, server_default="[]"))
    op.add_column("figures", alchemy.Column("by_cell", alchemy.Text, nullable=False, server_default="[]"))
    op.execute("update runs set stamp = ''")


def downgrade() -> None:
    op.drop_column("figures", "by_cell")
    op.drop_column("rows", "cells")
    op.drop_column("rows", "subject")
