GRANT SELECT, INSERT, UPDATE, DELETE ON device_leases, device_quarantines TO qubix_web, qubix_controller;
GRANT SELECT ON device_leases, device_quarantines TO qubix_fabric;
