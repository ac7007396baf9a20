"""Runs, their facts, rows and figures, for `bench list` and whoever asks the database himself."""

import sqlalchemy as alchemy
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    text, number = alchemy.Text, alchemy.Double
    op.create_table(
        "runs",
        alchemy.Column("folder", text, primary_key=True),
        alchemy.Column("id", text, primary_key=True),
        alchemy.Column("stamp", text, nullable=False),
        alchemy.Column("data", text, nullable=False),
    )
    op.create_table(
        "facts",
        alchemy.Column("folder", text, primary_key=True),
        alchemy.Column("run", text, primary_key=True),
        alchemy.Column("of", text, primary_key=True),
        alchemy.Column("data", text, nullable=False),
    )
    op.create_table(
        "rows",
        alchemy.Column("folder", text, primary_key=True),
        alchemy.Column("run", text, primary_key=True),
        alchemy.Column("position", alchemy.Integer, primary_key=True),
        *(alchemy.Column(name, text, nullable=False) for name in ("key", "engine_key", "deployment", "engine", "model", "load")),
        alchemy.Column("level", number),
        *(alchemy.Column(name, text, nullable=False) for name in ("status", "verdict", "reasons")),
    )
    op.create_table(
        "figures",
        alchemy.Column("folder", text, primary_key=True),
        alchemy.Column("run", text, primary_key=True),
        alchemy.Column("position", alchemy.Integer, primary_key=True),
        alchemy.Column("figure", text, primary_key=True),
        alchemy.Column("values", text, nullable=False),
        *(alchemy.Column(name, number) for name in ("value", "low", "high")),
    )
    op.create_index("figures_by_name", "figures", ["folder", "figure"])


def downgrade() -> None:
    for table in ("figures", "rows", "facts", "runs"):
        op.drop_table(table)
