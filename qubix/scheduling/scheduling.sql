GRANT SELECT, INSERT, UPDATE ON sweeper_beats TO qubix_controller;
GRANT SELECT ON sweeper_beats TO qubix_web;
