_COLUMNS = "id, state"
# ok: sql-from-text
_JOBS = sa.text(f"SELECT {_COLUMNS} FROM jobs WHERE id = :id")


# ok: sql-from-text
_ONE = sa.text(_COLUMNS + " FROM jobs WHERE id = :id")


async def find(connection, name, order):
    # ruleid: sql-from-text
    await connection.execute(sa.text(f"SELECT {_COLUMNS} FROM jobs WHERE name = '{name}'"))
    # ruleid: sql-from-text
    await connection.execute(sa.text("SELECT * FROM jobs ORDER BY " + order))
    # ruleid: sql-from-text
    await connection.execute(sa.text("SELECT * FROM jobs WHERE name = '%s'" % name))
    # ruleid: sql-from-text
    await connection.execute(f"DROP TABLE {name}")
    # ok: sql-from-text
    await connection.execute(sa.text("SELECT * FROM jobs WHERE name = :name"), {"name": name})
