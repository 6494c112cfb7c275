GRANT SELECT, INSERT, UPDATE ON leaders TO qubix_controller, qubix_fabric;
GRANT SELECT ON leaders TO qubix_web;
