"""First tables: records, events, claims."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

sequence_type = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    create_record_table("trainings")
    create_record_table("rollouts", sa.Column("holds_endpoint", sa.Boolean, nullable=False), endpoint=True)
    create_record_table("servers", endpoint=True)
    create_record_table("endpoints")
    op.create_index(
        "switchyard_rollouts_one_holder",
        "switchyard_rollouts",
        ["endpoint"],
        unique=True,
        sqlite_where=sa.text("holds_endpoint"),
        postgresql_where=sa.text("holds_endpoint"),
    )
    op.create_table(
        "switchyard_events",
        sa.Column("seq", sequence_type, primary_key=True),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_index("switchyard_events_by_subject", "switchyard_events", ["subject", "seq"])
    op.create_table(
        "switchyard_claims",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("record_id", sa.Text, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
    )
    checks = op.create_table("switchyard_write_checks", sa.Column("count", sa.BigInteger, nullable=False))
    op.bulk_insert(checks, [{"count": 0}])


def create_record_table(plural: str, *columns: sa.Column[object], endpoint: bool = False) -> None:
    name = f"switchyard_{plural}"
    if endpoint:
        columns = (sa.Column("endpoint", sa.Text, nullable=False), *columns)
    op.create_table(
        name,
        sa.Column("seq", sequence_type, primary_key=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("phase", sa.Text, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        *columns,
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_index(f"{name}_by_time", name, ["created_at", "seq"])
    op.create_index(f"{name}_by_phase", name, ["phase", "created_at", "seq"])
    if endpoint:
        op.create_index(f"{name}_by_endpoint", name, ["endpoint", "created_at", "seq"])
