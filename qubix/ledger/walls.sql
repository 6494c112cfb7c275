-- Walls around the ledger's tables that hold against any statement, an act's own mistake included.

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER transfers_keep BEFORE UPDATE OR DELETE ON transfers FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER transfers_keep_all BEFORE TRUNCATE ON transfers FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER ledger_network_keep BEFORE UPDATE OR DELETE ON ledger_network FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER ledger_network_keep_all BEFORE TRUNCATE ON ledger_network FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER assets_keep BEFORE UPDATE OR DELETE ON assets FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER assets_keep_all BEFORE TRUNCATE ON assets FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
-- Column-wise, with WHEN, and AFTER (a BEFORE trigger locks each row once more), so that the moving columns cost nothing.
CREATE TRIGGER accounts_keep AFTER DELETE OR UPDATE OF id, asset, kind, owner_id ON accounts FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER accounts_keep_closed AFTER UPDATE ON accounts FOR EACH ROW WHEN (OLD.closed) EXECUTE FUNCTION refuse_change();
CREATE TRIGGER accounts_keep_all BEFORE TRUNCATE ON accounts FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER holds_keep BEFORE DELETE OR UPDATE OF id, account_id, asset, amount, address, created_at ON holds
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER holds_keep_ended BEFORE UPDATE ON holds FOR EACH ROW WHEN (OLD.state <> 'OPEN') EXECUTE FUNCTION refuse_change();
CREATE TRIGGER holds_keep_all BEFORE TRUNCATE ON holds FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
REVOKE ALL ON FUNCTION refuse_change FROM PUBLIC;

INSERT INTO assets (id, code, decimals) VALUES (1, 'QUBIC', 0), (2, 'USDC', 6);
INSERT INTO accounts (asset, kind) SELECT a.id, k.kind FROM assets a CROSS JOIN unnest(ARRAY['chain','fee','house','suspense']) AS k (kind) ORDER BY 1, 2;

GRANT SELECT ON assets, ledger_network, accounts, transfers, holds TO qubix_web, qubix_controller, qubix_treasury, qubix_signer;
