"""Programs that measure both sides in one run and print one JSON line per case."""
