"""Device leases: for quotes, jobs, reservations and clusters."""
