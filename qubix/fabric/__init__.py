"""The only place in qubix that imports ray."""
