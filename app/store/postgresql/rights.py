"""What the role must be allowed to do in the database."""

from typing import Any

from app.errors import StartupError

TABLES = (
    "audit",
    "embedding_models",
    "embedding_queue",
    "embeddings",
    "idempotency_keys",
    "import_findings",
    "imports",
    "keys",
    "memories",
    "schema_migrations",
    "word_frequencies",
    "word_totals",
)
"""Of the service, as the newest migration leaves them."""

RIGHTS = """
SELECT current_user, current_database(), coalesce(has_schema_privilege(current_schema(), 'CREATE'), false)
"""

CLOSED = """
SELECT string_agg(DISTINCT name, ', ' ORDER BY name)
FROM unnest($1::text[]) AS name, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS needed (privilege)
WHERE NOT has_table_privilege(to_regclass(name), needed.privilege)
"""
"""Tables that are not there yet do not count."""

FOREIGN = """
SELECT string_agg(format('ALTER TABLE %I OWNER TO %I', relname, current_user), ';' ORDER BY relname)
FROM pg_class
WHERE oid = ANY (ARRAY(SELECT to_regclass(name) FROM unnest($1::text[]) AS name))
  AND NOT pg_has_role(relowner, 'USAGE')
"""
"""What makes the role the owner of those tables that it does not own, itself or as a member of another.

Without blanks behind the semicolons: the last one that has such stands before what is to be done.
"""


async def refuse_missing(connection: Any) -> str:
    """The name of the role, which may do all that the service does.

    Raises:
        StartupError: it may not; says what an administrator must run.
    """
    user, database, may_create = await connection.fetchrow(RIGHTS)
    if not may_create:
        raise StartupError(
            f"the role {user} may not create tables: no right to create in the schema; an administrator must run: "
            f'psql -d {database} -c "GRANT CREATE ON SCHEMA public TO {user}"'
        )
    if closed := await connection.fetchval(CLOSED, TABLES):
        raise StartupError(
            f"the role {user} may not read and write the tables {closed}; an administrator must run: "
            f'psql -d {database} -c "GRANT ALL ON ALL TABLES IN SCHEMA public TO {user}"'
        )
    return str(user)


async def not_all_owned(connection: Any) -> str | None:
    """Says what a role cannot do to whom some of the tables do not belong, and what an administrator must run.

    The service runs all the same: the index of the vectors can be built by another, and new tables are rare.
    """
    mend = await connection.fetchval(FOREIGN, TABLES)
    if mend is None:
        return None
    user, database, _ = await connection.fetchrow(RIGHTS)
    return (
        f"the role {user} does not own all tables of the service, and so can neither build the index of the vectors "
        f'nor bring the tables up to date; an administrator must run: psql -d {database} -c "{mend}"'
    )


def not_owner(user: str, reason: str) -> StartupError:
    """What to say when a migration changes a table that belongs to another role."""
    return StartupError(
        f"the role {user} may not bring the tables up to date: {reason}; start the service once as the owner of the "
        "tables, by AFTERIMAGE_PG_USER or AFTERIMAGE_DATABASE_URL"
    )
