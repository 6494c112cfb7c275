"""Topics, events and the live hub."""
