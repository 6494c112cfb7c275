GRANT USAGE ON SCHEMA public TO qubix_web, qubix_controller, qubix_fabric, qubix_treasury, qubix_signer;
GRANT SELECT, INSERT ON events TO qubix_web, qubix_controller, qubix_treasury;
GRANT UPDATE (position) ON events TO qubix_web, qubix_controller;
GRANT DELETE ON events TO qubix_controller;
