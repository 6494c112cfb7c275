GRANT SELECT, INSERT, DELETE ON uploads TO qubix_web;
GRANT SELECT ON uploads TO qubix_controller;
