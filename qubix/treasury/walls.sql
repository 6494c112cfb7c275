-- Walls around chain money that hold against any statement, an act's own mistake included.

CREATE TRIGGER chain_rows_keep BEFORE UPDATE OR DELETE ON chain_rows FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER chain_rows_keep_all BEFORE TRUNCATE ON chain_rows FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER chain_addresses_keep BEFORE DELETE OR UPDATE OF identity, purpose, made_at ON chain_addresses FOR EACH ROW EXECUTE FUNCTION refuse_change();
-- An address is given once, and stays its user's.
CREATE TRIGGER chain_addresses_keep_given BEFORE UPDATE ON chain_addresses FOR EACH ROW WHEN (OLD.user_id IS NOT NULL) EXECUTE FUNCTION refuse_change();
CREATE TRIGGER chain_addresses_keep_all BEFORE TRUNCATE ON chain_addresses FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER signer_keys_keep BEFORE DELETE OR UPDATE OF identity ON signer_keys FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER signer_keys_keep_all BEFORE TRUNCATE ON signer_keys FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
-- What was signed stays as it was signed; what became of it is said once.
CREATE TRIGGER payments_keep BEFORE DELETE OR UPDATE OF id, kind, source, destination, amount, fee, tick, input_type, payload, encoded, tx_id,
  before_transfers, before_amount, signed_at ON payments FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER payments_keep_ended BEFORE UPDATE ON payments FOR EACH ROW WHEN (OLD.ended_at IS NOT NULL) EXECUTE FUNCTION refuse_change();
CREATE TRIGGER payments_keep_all BEFORE TRUNCATE ON payments FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER payment_holds_keep BEFORE DELETE OR UPDATE OF payment_id, place, hold_id ON payment_holds FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER payment_holds_keep_dead BEFORE UPDATE ON payment_holds FOR EACH ROW WHEN (NOT OLD.live) EXECUTE FUNCTION refuse_change();
CREATE TRIGGER payment_holds_keep_all BEFORE TRUNCATE ON payment_holds FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE TRIGGER strangers_keep BEFORE DELETE OR UPDATE ON strangers FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER strangers_keep_all BEFORE TRUNCATE ON strangers FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
-- What was proved stays.
CREATE TRIGGER lost_verdicts_keep BEFORE DELETE OR UPDATE OF tx_id ON lost_verdicts FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER lost_verdicts_keep_proved BEFORE UPDATE ON lost_verdicts FOR EACH ROW WHEN (OLD.paid IS NOT NULL) EXECUTE FUNCTION refuse_change();
CREATE TRIGGER lost_verdicts_keep_all BEFORE TRUNCATE ON lost_verdicts FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

INSERT INTO signer_limits (payment_max, user_day_max, wallet_day_max) VALUES (1000000000, 5000000000, 20000000000);

GRANT SELECT ON chain_rows, chain_addresses, payments, payment_holds, payout_halts, payout_approvals, chain_state, incoming
  TO qubix_web, qubix_controller, qubix_treasury, qubix_signer;
-- The signer alone knows keys, limits and approvals; an approval is given on its machine, not through the web layer.
GRANT SELECT, INSERT ON signer_keys TO qubix_signer;
GRANT SELECT, UPDATE (payment_max, user_day_max, wallet_day_max) ON signer_limits TO qubix_signer;
GRANT INSERT (hold_id, approved_by) ON payout_approvals TO qubix_signer;
GRANT INSERT (identity, purpose) ON chain_addresses TO qubix_signer;
-- The treasury watches the chain.
GRANT INSERT, UPDATE ON chain_state TO qubix_treasury;
GRANT INSERT, UPDATE ON incoming TO qubix_treasury;
GRANT SELECT ON strangers TO qubix_treasury, qubix_signer;
GRANT INSERT ON strangers TO qubix_treasury;
GRANT SELECT, INSERT, UPDATE ON lost_verdicts TO qubix_treasury;
GRANT INSERT, UPDATE, DELETE ON payout_halts TO qubix_treasury;
GRANT UPDATE (broadcasts, broadcast_at, reason, raw) ON payments TO qubix_treasury;
