"""Qubix: a GPU marketplace on Ray."""

__version__ = "0.1.0"
RELEASE_BEFORE: str | None = None
"""The release whose agents are served too, while an upgrade goes from node to node; None before the second release.

Whoever raises __version__ puts the old one here if this release reads every frame of its agents and sends them none that they refuse, and if its fabric
daemon can call the actors of the old one's nodes (qubix.fabric.agent_actor: constructor, `start`, `enrol`, `stop`), whose code is the node's own.
"""
