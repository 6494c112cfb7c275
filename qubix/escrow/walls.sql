-- Walls of escrows and earnings: transitions, finality, and the end condition, checked again by the database at every commit.

CREATE FUNCTION escrow_is_final(p_state text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$ SELECT p_state IN ('RELEASED','REFUNDED','SPLIT') $$;

-- The tables of qubix/escrow/model.py, once more. PENDING to LOCKED and PENDING to PAID, the hot ones, are let through by the WHEN.
CREATE FUNCTION refuse_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (TG_TABLE_NAME, OLD.state, NEW.state) IN (
    ('escrows','PENDING','LOCKED'), ('escrows','PENDING','REFUNDED'), ('escrows','LOCKED','DISPUTED'),
    ('escrows','LOCKED','RELEASED'), ('escrows','LOCKED','REFUNDED'), ('escrows','LOCKED','SPLIT'),
    ('escrows','DISPUTED','RELEASED'), ('escrows','DISPUTED','REFUNDED'), ('escrows','DISPUTED','SPLIT'),
    ('earnings','PENDING','PAID'), ('earnings','PENDING','FROZEN'), ('earnings','FROZEN','PAID'), ('earnings','FROZEN','REVERSED'),
    ('earnings','FROZEN','SPLIT')) THEN RETURN NEW;
  END IF;
  RAISE EXCEPTION '%: no way from % to %', TG_TABLE_NAME, OLD.state, NEW.state USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER escrows_way AFTER UPDATE OF state ON escrows FOR EACH ROW
  WHEN (OLD.state <> NEW.state AND NOT (OLD.state = 'PENDING' AND NEW.state = 'LOCKED')) EXECUTE FUNCTION refuse_transition();
CREATE TRIGGER earnings_way AFTER UPDATE OF state ON earnings FOR EACH ROW
  WHEN (OLD.state <> NEW.state AND NOT (OLD.state = 'PENDING' AND NEW.state = 'PAID')) EXECUTE FUNCTION refuse_transition();

CREATE TRIGGER escrows_keep AFTER DELETE OR UPDATE OF id, asset, payer_id, account_id, created_at ON escrows FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER escrows_keep_final AFTER UPDATE ON escrows FOR EACH ROW WHEN (OLD.state IN ('RELEASED','REFUNDED','SPLIT')) EXECUTE FUNCTION refuse_change();
CREATE TRIGGER escrows_keep_all BEFORE TRUNCATE ON escrows FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER earnings_keep AFTER DELETE OR UPDATE OF id, escrow_id, line, asset, payee_id, account_id, gross, fee, fee_bps, matures_at, created_at ON earnings
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER earnings_keep_final AFTER UPDATE ON earnings FOR EACH ROW WHEN (OLD.state IN ('PAID','REVERSED','SPLIT')) EXECUTE FUNCTION refuse_change();
CREATE TRIGGER earnings_keep_all BEFORE TRUNCATE ON earnings FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER escrow_lines_keep BEFORE UPDATE OR DELETE ON escrow_lines FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER escrow_lines_keep_all BEFORE TRUNCATE ON escrow_lines FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER disputes_keep BEFORE UPDATE OR DELETE ON disputes FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER disputes_keep_all BEFORE TRUNCATE ON disputes FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER rulings_keep BEFORE UPDATE OR DELETE ON rulings FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER rulings_keep_all BEFORE TRUNCATE ON rulings FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- The end condition: the state is final exactly when the account is closed. Deferred, so an act may take its steps in any order;
-- it fires where either becomes true (neither ever becomes false again), and looks whether the other is.
CREATE FUNCTION final_is_closed() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE other boolean;
BEGIN
  IF TG_TABLE_NAME <> 'accounts' THEN SELECT closed INTO other FROM accounts WHERE id = NEW.account_id;
  ELSIF NEW.kind = 'escrow' THEN SELECT state IN ('RELEASED','REFUNDED','SPLIT') INTO other FROM escrows WHERE account_id = NEW.id;
  ELSE SELECT state IN ('PAID','REVERSED','SPLIT') INTO other FROM earnings WHERE account_id = NEW.id;
  END IF;
  IF other IS NOT TRUE THEN
    RAISE EXCEPTION 'end condition: % %: final and closed must go together', TG_TABLE_NAME, NEW.id USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER escrows_end AFTER INSERT OR UPDATE OF state ON escrows DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
  WHEN (NEW.state IN ('RELEASED','REFUNDED','SPLIT')) EXECUTE FUNCTION final_is_closed();
CREATE CONSTRAINT TRIGGER earnings_end AFTER INSERT OR UPDATE OF state ON earnings DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
  WHEN (NEW.state IN ('PAID','REVERSED','SPLIT')) EXECUTE FUNCTION final_is_closed();
CREATE CONSTRAINT TRIGGER accounts_end AFTER INSERT OR UPDATE OF closed ON accounts DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
  WHEN (NEW.closed) EXECUTE FUNCTION final_is_closed();
REVOKE ALL ON FUNCTION escrow_is_final, refuse_transition, final_is_closed FROM PUBLIC;
