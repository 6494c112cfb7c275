"""A Qubic network in one process, for development and tests: the public RPC's paths, shapes, codes and silences, and test money.

    ledger   accounts, pool and ticks, pure        wire     its own reading of transactions
    faults   what goes wrong, seeded, pure         store    SQLite: what survives a restart
    network  the three together                    rpc, admin, server   HTTP around it

It shares the primitives (keys, identity, signature) with the client and nothing else: two implementations that must agree. What it
simulates, what it does not, and the admin calls: docs/devnet.md.
"""
