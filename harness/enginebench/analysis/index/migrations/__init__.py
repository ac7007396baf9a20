"""Alembic's migrations of the shared index. Each is a step; none that was released is changed again."""
