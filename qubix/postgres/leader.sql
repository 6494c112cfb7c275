GRANT SELECT, INSERT, UPDATE ON leaders TO qubix_controller, qubix_fabric, qubix_treasury, qubix_signer;
GRANT SELECT ON leaders TO qubix_web;
