"""The engine, the embedded server, the outbox, the leader row."""
