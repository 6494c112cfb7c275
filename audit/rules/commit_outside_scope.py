async def pay(resources, connection, engine):
    async with scope(resources) as s:
        # ok: commit-outside-scope
        await s.ledger.fund(1)
        # ruleid: commit-outside-scope
        await s.connection.commit()
    # ok: commit-outside-scope
    stopwatch.begin()
    # ruleid: commit-outside-scope
    async with engine.begin() as other:
        # ok: commit-outside-scope
        await other.execute(sa.text("SELECT 1"))
        # ruleid: commit-outside-scope
        await other.execute(sa.text("COMMIT"))
