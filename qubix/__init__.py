"""Qubix: a GPU marketplace on Ray."""

__version__ = "0.1.0"
