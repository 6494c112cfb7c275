async def mint(connection):
    # ruleid: ledger-rows
    await connection.execute(sa.text("UPDATE accounts SET posted = posted + 1"))
    # ruleid: ledger-rows
    await connection.execute(sa.text("""
        insert into
        transfers VALUES (1)"""))
    # ok: ledger-rows
    await connection.execute(sa.text("SELECT act_fund(:job, 1)"))
    # ok: ledger-rows
    await connection.execute(sa.text("UPDATE accounts_seen SET at = now()"))
