-- The acts of escrows and earnings. Answers as in qubix/ledger/acts.sql, and 2 waiting for the arbiter, -8 not due, -9 not allowed.
-- Locks: escrow, earning, then all accounts by one statement in id order.

CREATE FUNCTION open_escrow(p_escrow uuid, p_user uuid, p_asset smallint) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE payer bigint := wallet_of(p_user, p_asset); account bigint;
BEGIN
  IF payer IS NULL THEN RETURN -6; END IF;
  account := nextval('accounts_id_seq');
  WITH opened AS (
    INSERT INTO escrows (id, asset, payer_id, account_id) VALUES (p_escrow, p_asset, payer, account) ON CONFLICT (id) DO NOTHING RETURNING account_id)
  INSERT INTO accounts (id, asset, kind, owner_id) SELECT account_id, p_asset, 'escrow', p_user FROM opened;
  IF FOUND THEN RETURN 0; END IF;
  RETURN CASE WHEN EXISTS (SELECT 1 FROM escrows WHERE id = p_escrow AND payer_id = payer) THEN 1 ELSE -1 END;
END $$;

-- n = 1 locks the escrow, every further n is a top-up or an extension. After a restore the wallet may have been paid out since the backup (-8): what a
-- job's payee earned could not be taken back, so nothing is funded before the chain was reconciled.
CREATE FUNCTION fund(p_escrow uuid, p_n integer, p_amount bigint) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE e escrows; step uuid := transfer_id(p_escrow, 'fund/' || p_n); known bigint; code integer;
BEGIN
  SELECT * INTO e FROM escrows WHERE id = p_escrow FOR NO KEY UPDATE;
  IF NOT FOUND THEN RETURN -2; END IF;
  IF p_n IS NULL OR p_n < 1 THEN RETURN -5; END IF;
  IF e.state NOT IN ('PENDING','LOCKED') OR (e.state = 'PENDING') <> (p_n = 1) THEN
    SELECT amount INTO known FROM transfers WHERE id = step;
    RETURN CASE WHEN known IS NULL THEN -4 WHEN known = p_amount THEN 1 ELSE -1 END;
  END IF;
  IF is_restored() AND NOT EXISTS (SELECT 1 FROM transfers WHERE id = step) THEN RETURN -8; END IF;
  code := move(step, 'fund', p_escrow, e.payer_id, e.account_id, e.asset, p_amount);
  IF code = 0 THEN
    IF e.state = 'PENDING' THEN UPDATE escrows SET state = 'LOCKED', funded = p_amount WHERE id = p_escrow;
    ELSE UPDATE escrows SET funded = funded + p_amount WHERE id = p_escrow; END IF;
  END IF;
  RETURN code;
END $$;

CREATE FUNCTION cancel_pending_escrow(p_escrow uuid) RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE e escrows;
BEGIN
  SELECT * INTO e FROM escrows WHERE id = p_escrow FOR NO KEY UPDATE;
  IF NOT FOUND THEN RETURN -2; END IF;
  IF e.state = 'REFUNDED' AND e.funded = 0 THEN RETURN 1; END IF;
  IF e.state <> 'PENDING' THEN RETURN -4; END IF;
  UPDATE accounts SET closed = true WHERE id = e.account_id;
  UPDATE escrows SET state = 'REFUNDED', settled_at = clock_timestamp() WHERE id = p_escrow;
  RETURN 0;
END $$;

-- How `p_total` falls on the i-th of some weights: differences of rounded-down running shares. They sum to the total, to the unit,
-- and none exceeds its weight while the total does not exceed their sum.
CREATE FUNCTION share_of(p_total bigint, p_before numeric, p_weight bigint, p_sum numeric) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE WHEN p_sum = 0 THEN 0 ELSE (div(p_total * (p_before + p_weight), p_sum) - div(p_total * p_before, p_sum))::bigint END
$$;

-- The job's end. Lines come from the attempts; the rest goes home; each line that earned becomes a pending earning. A disputed
-- escrow waits: the first call leaves its lines as the proposal, and once the arbiter has ruled (or the time for it is over) the
-- same call settles, paying the payees at most what was ruled.
CREATE FUNCTION settle(p_escrow uuid, p_outcome text, p_lines text[], p_payees uuid[], p_gross bigint[], p_metered_ms bigint[], p_fee_bps integer, p_window interval, p_decision interval)
RETURNS integer LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
  e escrows; ruled rulings; digest_now bytea; total numeric; paying bigint; state_now text; matures timestamptz; line_count integer := cardinality(p_lines);
  wallets bigint[]; amounts bigint[]; purses bigint[];
BEGIN
  SELECT * INTO e FROM escrows WHERE id = p_escrow FOR NO KEY UPDATE;
  IF NOT FOUND THEN RETURN -2; END IF;
  IF p_outcome IS NULL OR p_outcome NOT IN ('COMPLETED','FAILED','CANCELLED') OR line_count IS NULL OR p_window IS NULL OR p_window < interval '0'
     OR p_decision IS NULL OR p_fee_bps IS NULL OR p_fee_bps NOT BETWEEN 0 AND 10000
     OR (cardinality(p_payees), cardinality(p_gross), cardinality(p_metered_ms)) IS DISTINCT FROM (line_count, line_count, line_count)
     OR EXISTS (SELECT 1 FROM unnest(p_lines, p_payees, p_gross, p_metered_ms) AS l (line, payee, gross, ms)
                WHERE line IS NULL OR payee IS NULL OR gross IS NULL OR ms IS NULL OR gross < 0 OR ms < 0 OR line = '')
     OR (SELECT count(DISTINCT line) FROM unnest(p_lines) AS l (line)) <> line_count THEN RETURN -5; END IF;
  SELECT sha256(convert_to(p_outcome || '|' || p_fee_bps || coalesce(string_agg(format('|%s|%s|%s|%s', length(line), line, payee, gross), '' ORDER BY line), ''), 'UTF8')),
         coalesce(sum(gross), 0)
  INTO digest_now, total FROM unnest(p_lines, p_payees, p_gross) AS l (line, payee, gross);
  IF e.digest IS NOT NULL AND e.digest <> digest_now THEN RETURN -1; END IF;
  IF escrow_is_final(e.state) THEN RETURN CASE WHEN e.digest IS NULL THEN -4 ELSE 1 END; END IF;
  IF e.state = 'PENDING' THEN RETURN -4; END IF;
  IF total > e.funded THEN RETURN -5; END IF;
  SELECT array_agg(w.id ORDER BY l.n) INTO wallets FROM unnest(p_payees) WITH ORDINALITY AS l (payee, n)
  LEFT JOIN accounts w ON w.owner_id = l.payee AND w.asset = e.asset AND w.kind = 'wallet';
  IF array_position(wallets, NULL) IS NOT NULL THEN RETURN -6; END IF;

  paying := total; matures := now() + p_window;
  IF e.state = 'DISPUTED' THEN
    SELECT * INTO ruled FROM rulings WHERE escrow_id = p_escrow;
    IF NOT FOUND AND e.disputed_at + p_decision > now() THEN
      IF e.digest IS NULL THEN
        UPDATE escrows SET digest = digest_now, proposal = jsonb_build_object('outcome', p_outcome, 'fee_bps', p_fee_bps, 'lines',
          (SELECT coalesce(jsonb_agg(jsonb_build_object('line', line, 'payee', payee, 'gross', gross, 'metered_ms', ms) ORDER BY line), '[]')
           FROM unnest(p_lines, p_payees, p_gross, p_metered_ms) AS l (line, payee, gross, ms))) WHERE id = p_escrow;
      END IF;
      RETURN 2;
    END IF;
    paying := least(total, ruled.to_payee); matures := now();
  END IF;
  SELECT array_agg(share_of(paying, before, gross, total) ORDER BY n) INTO amounts
  FROM (SELECT gross, n, coalesce(sum(gross) OVER (ORDER BY line ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before
        FROM unnest(p_lines, p_gross) WITH ORDINALITY AS l (line, gross, n)) s;

  PERFORM 1 FROM accounts WHERE id IN (e.payer_id, e.account_id) ORDER BY id FOR NO KEY UPDATE;
  SELECT array_agg(CASE WHEN amount > 0 THEN nextval('accounts_id_seq') END ORDER BY i) INTO purses
  FROM unnest(amounts) WITH ORDINALITY AS a (amount, i);
  INSERT INTO accounts (id, asset, kind, owner_id)
  SELECT purse, e.asset, 'earning', payee FROM unnest(purses, p_payees) AS l (purse, payee) WHERE purse IS NOT NULL;
  INSERT INTO escrow_lines (escrow_id, line, payee_user_id, metered_gross, gross, metered_ms)
  SELECT p_escrow, line, payee, metered, amount, ms FROM unnest(p_lines, p_payees, p_gross, amounts, p_metered_ms) AS l (line, payee, metered, amount, ms);
  INSERT INTO earnings (id, escrow_id, line, asset, payee_id, account_id, gross, fee_bps, fee, matures_at)
  SELECT transfer_id(p_escrow, 'line/' || line), p_escrow, line, e.asset, wallet, purse, amount, p_fee_bps, div(amount::numeric * p_fee_bps, 10000)::bigint, matures
  FROM unnest(p_lines, wallets, purses, amounts) AS l (line, wallet, purse, amount) WHERE amount > 0;
  PERFORM post_batch(array_agg(transfer_id(p_escrow, step)), array_agg(act), array_agg(p_escrow), array_agg(e.account_id), array_agg(target),
                     array_agg(amount), ARRAY[e.account_id])
  FROM (SELECT 'pay/' || line AS step, 'pay' AS act, purse AS target, amount, i FROM unnest(p_lines, purses, amounts) WITH ORDINALITY AS l (line, purse, amount, i)
        WHERE amount > 0
        UNION ALL SELECT 'rest', 'rest', e.payer_id, e.funded - paying, line_count + 1 ORDER BY i) steps;
  state_now := CASE WHEN paying = total AND p_outcome = 'COMPLETED' THEN 'RELEASED' WHEN paying = 0 THEN 'REFUNDED' ELSE 'SPLIT' END;
  UPDATE escrows SET state = state_now, paid = paying, refunded = funded - paying, digest = digest_now, settled_at = clock_timestamp() WHERE id = p_escrow;
  RETURN 0;
END $$;

-- Earnings whose window is over, as a set: one code per id, in the ids' order.
CREATE FUNCTION mature(p_earnings uuid[]) RETURNS integer[] LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE codes integer[]; due uuid[];
BEGIN
  PERFORM 1 FROM earnings WHERE id = ANY(p_earnings) ORDER BY id FOR NO KEY UPDATE;
  SELECT array_agg(CASE WHEN g.id IS NULL THEN -2 WHEN g.state = 'PAID' THEN 1 WHEN g.state <> 'PENDING' THEN -4
                        WHEN g.matures_at > clock_timestamp() THEN -8 WHEN i.again > 1 THEN 1 ELSE 0 END ORDER BY i.n),
         array_agg(g.id ORDER BY i.n) FILTER (WHERE g.state = 'PENDING' AND g.matures_at <= clock_timestamp() AND i.again = 1)
  INTO codes, due
  FROM (SELECT id, n, row_number() OVER (PARTITION BY id ORDER BY n) AS again FROM unnest(p_earnings) WITH ORDINALITY AS u (id, n)) i
  LEFT JOIN earnings g ON g.id = i.id;
  IF due IS NULL THEN RETURN coalesce(codes, '{}'); END IF;
  PERFORM 1 FROM accounts WHERE id IN (
      SELECT unnest(ARRAY[g.account_id, g.payee_id]) FROM earnings g WHERE g.id = ANY(due)
      UNION SELECT platform_account('fee', g.asset) FROM earnings g WHERE g.id = ANY(due) AND g.fee > 0)
  ORDER BY id FOR NO KEY UPDATE;
  PERFORM post_batch(array_agg(transfer_id(id, act)), array_agg(act), array_agg(id), array_agg(account_id), array_agg(target), array_agg(amount), array_agg(account_id))
  FROM (SELECT g.id, g.account_id, s.* FROM earnings g
        CROSS JOIN LATERAL (VALUES ('fee', platform_account('fee', g.asset), g.fee), ('net', g.payee_id, g.gross - g.fee)) AS s (act, target, amount)
        WHERE g.id = ANY(due) AND s.amount > 0 ORDER BY g.id, s.act) steps;
  UPDATE earnings SET state = 'PAID', to_payee = gross, ended_at = clock_timestamp() WHERE id = ANY(due);
  RETURN codes;
END $$;

-- The payer's objection, with evidence: a running job's escrow, or what was released and is still in its window. Once per escrow.
CREATE FUNCTION dispute(p_escrow uuid, p_user uuid, p_evidence text) RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE e escrows; known disputes;
BEGIN
  SELECT * INTO e FROM escrows WHERE id = p_escrow FOR NO KEY UPDATE;
  IF NOT FOUND OR e.payer_id IS DISTINCT FROM wallet_of(p_user, e.asset) THEN RETURN -2; END IF;
  IF coalesce(btrim(p_evidence), '') = '' OR length(p_evidence) > 10000 THEN RETURN -5; END IF;
  SELECT * INTO known FROM disputes WHERE escrow_id = p_escrow;
  IF FOUND THEN RETURN CASE WHEN known.evidence = p_evidence THEN 1 ELSE -1 END; END IF;
  IF e.state = 'LOCKED' THEN
    UPDATE escrows SET state = 'DISPUTED', disputed_at = clock_timestamp() WHERE id = p_escrow;
  ELSE
    PERFORM 1 FROM earnings WHERE escrow_id = p_escrow ORDER BY id FOR NO KEY UPDATE;
    UPDATE earnings SET state = 'FROZEN', frozen_at = clock_timestamp() WHERE escrow_id = p_escrow AND state = 'PENDING' AND matures_at > clock_timestamp();
    IF NOT FOUND THEN RETURN -4; END IF;
  END IF;
  INSERT INTO disputes (escrow_id, user_id, evidence) VALUES (p_escrow, p_user, p_evidence);
  RETURN 0;
END $$;

-- The arbiter's row: at most `p_to_payee` of what was metered goes to the payees (NULL: as metered). It moves nothing by itself.
CREATE FUNCTION rule(p_escrow uuid, p_arbiter uuid, p_to_payee bigint, p_reason text) RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE e escrows; known rulings;
BEGIN
  SELECT * INTO e FROM escrows WHERE id = p_escrow FOR NO KEY UPDATE;
  IF NOT FOUND THEN RETURN -2; END IF;
  IF NOT EXISTS (SELECT 1 FROM users WHERE id = p_arbiter AND 'arbiter' = ANY(roles) AND disabled_at IS NULL)
     OR e.payer_id = wallet_of(p_arbiter, e.asset)
     OR EXISTS (SELECT 1 FROM earnings WHERE escrow_id = p_escrow AND payee_id = wallet_of(p_arbiter, e.asset))
     OR EXISTS (SELECT 1 FROM jsonb_array_elements(e.proposal -> 'lines') AS l WHERE (l ->> 'payee')::uuid = p_arbiter) THEN RETURN -9; END IF;
  SELECT * INTO known FROM rulings WHERE escrow_id = p_escrow;
  IF FOUND THEN
    RETURN CASE WHEN known.to_payee IS NOT DISTINCT FROM p_to_payee AND known.arbiter_id = p_arbiter THEN 1 ELSE -1 END;
  END IF;
  IF e.state <> 'DISPUTED' AND NOT EXISTS (SELECT 1 FROM earnings WHERE escrow_id = p_escrow AND state = 'FROZEN') THEN RETURN -4; END IF;
  -- While the job still runs nobody can tell who its payees will be, so an arbiter could judge their own case.
  IF e.state = 'DISPUTED' AND e.proposal IS NULL THEN RETURN -4; END IF;
  IF p_to_payee < 0 OR p_to_payee > (CASE e.state WHEN 'DISPUTED' THEN e.funded ELSE e.paid END) OR coalesce(btrim(p_reason), '') = '' THEN RETURN -5; END IF;
  INSERT INTO rulings (escrow_id, arbiter_id, to_payee, reason) VALUES (p_escrow, p_arbiter, p_to_payee, p_reason);
  RETURN 0;
END $$;

-- The end of a frozen earning, by the arbiter's row; where none came in time, as metered. The fee is taken on the payee's part only.
CREATE FUNCTION resolve(p_earning uuid, p_decision interval) RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE g earnings; ruled rulings; e escrows; part bigint; fee_part bigint; fee_account bigint; before numeric;
BEGIN
  SELECT x.* INTO e FROM escrows x WHERE x.id = (SELECT escrow_id FROM earnings WHERE id = p_earning) FOR NO KEY UPDATE;
  SELECT * INTO g FROM earnings WHERE id = p_earning FOR NO KEY UPDATE;
  IF NOT FOUND THEN RETURN -2; END IF;
  IF g.state <> 'FROZEN' THEN RETURN CASE WHEN g.frozen_at IS NOT NULL THEN 1 ELSE -4 END; END IF;
  SELECT * INTO ruled FROM rulings WHERE escrow_id = g.escrow_id;
  IF NOT FOUND AND (p_decision IS NULL OR g.frozen_at + p_decision > now()) THEN RETURN -8; END IF;
  SELECT coalesce(sum(gross), 0) INTO before FROM earnings WHERE escrow_id = g.escrow_id AND line < g.line;
  part := coalesce(share_of(ruled.to_payee, before, g.gross, e.paid), g.gross);
  fee_part := div(part::numeric * g.fee_bps, 10000)::bigint;
  fee_account := platform_account('fee', g.asset);
  PERFORM 1 FROM accounts WHERE id IN (g.account_id, g.payee_id, e.payer_id, CASE WHEN fee_part > 0 THEN fee_account END) ORDER BY id FOR NO KEY UPDATE;
  PERFORM post_batch(ARRAY[transfer_id(p_earning, 'fee'), transfer_id(p_earning, 'net'), transfer_id(p_earning, 'back')], ARRAY['fee','net','back'],
                     ARRAY[p_earning, p_earning, p_earning], ARRAY[g.account_id, g.account_id, g.account_id], ARRAY[fee_account, g.payee_id, e.payer_id],
                     ARRAY[fee_part, part - fee_part, g.gross - part], ARRAY[g.account_id]);
  UPDATE earnings SET state = CASE part WHEN g.gross THEN 'PAID' WHEN 0 THEN 'REVERSED' ELSE 'SPLIT' END, to_payee = part, ended_at = clock_timestamp()
  WHERE id = p_earning;
  RETURN 0;
END $$;

REVOKE ALL ON FUNCTION open_escrow, fund, cancel_pending_escrow, share_of, settle, mature, dispute, rule, resolve FROM PUBLIC;
GRANT EXECUTE ON FUNCTION open_escrow, fund, cancel_pending_escrow TO qubix_web, qubix_controller;
GRANT EXECUTE ON FUNCTION settle, mature, resolve TO qubix_controller;
GRANT EXECUTE ON FUNCTION dispute, rule TO qubix_web;
GRANT SELECT ON escrows, earnings, escrow_lines, disputes, rulings TO qubix_web, qubix_controller;
