-- What the signer signs and what becomes of it. Answers as in ledger/acts.sql. A payment is stored before anything is sent; while it may
-- still execute its holds are in no other one (payment_holds_hold_key), and its source signs nothing else (payments_source_key).

-- A deposit address for a user: the one they have, or a free one; NULL while the signer has made none.
CREATE FUNCTION give_address(p_user uuid) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE found text;
BEGIN
  IF NOT network_is(ARRAY['devnet','mainnet']) THEN RETURN NULL; END IF;
  PERFORM 1 FROM users WHERE id = p_user FOR NO KEY UPDATE;
  SELECT identity INTO found FROM chain_addresses WHERE user_id = p_user;
  IF found IS NOT NULL THEN RETURN found; END IF;
  UPDATE chain_addresses SET user_id = p_user, given_at = clock_timestamp()
  WHERE identity = (SELECT identity FROM chain_addresses WHERE purpose = 'user' AND user_id IS NULL AND retired_at IS NULL ORDER BY made_at LIMIT 1 FOR UPDATE SKIP LOCKED)
  RETURNING identity INTO found;
  RETURN found;
END $$;

-- A user calls a withdrawal off: only while nothing is signed for it that may still execute; after a restore that is not known (-8) until the chain was
-- reconciled. The hold's row is locked as the signer locks it.
CREATE FUNCTION cancel_withdrawal(p_hold uuid, p_user uuid) RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE h holds; said constant text := 'called off by its owner';
BEGIN
  SELECT * INTO h FROM holds WHERE id = p_hold AND account_id IN (SELECT id FROM accounts WHERE owner_id = p_user AND kind = 'wallet') FOR NO KEY UPDATE;
  IF NOT FOUND THEN RETURN -2; END IF;
  IF h.state <> 'OPEN' THEN RETURN CASE WHEN (h.state, h.evidence) = ('VOIDED', said) THEN 1 ELSE -4 END; END IF;
  IF EXISTS (SELECT 1 FROM payment_holds l WHERE l.hold_id = p_hold AND l.live) THEN RETURN -4; END IF;
  IF is_restored() THEN RETURN -8; END IF;
  UPDATE accounts SET held = held - h.amount WHERE id = h.account_id;
  UPDATE holds SET state = 'VOIDED', evidence = said, ended_at = clock_timestamp() WHERE id = p_hold;
  RETURN 0;
END $$;

-- Open holds of QUBIC for which nothing is signed, with what the ceilings are judged by, and when the account was last paid that day (each account
-- is summed once, however many holds it has open). A user's deposit address may be halted alone.
CREATE VIEW payable_holds AS
SELECT h.id, h.account_id, w.owner_id AS user_id, h.amount, h.address, h.created_at, a.hold_id IS NOT NULL AS approved,
       EXISTS (SELECT 1 FROM payout_halts s WHERE s.subject = '*' OR s.subject = d.identity) AS halted,
       coalesce(u.amount, 0) AS user_day,
       (SELECT coalesce(sum(o.amount), 0) FROM payment_holds l JOIN payments p ON p.id = l.payment_id JOIN holds o ON o.id = l.hold_id
        WHERE l.live AND p.signed_at > clock_timestamp() - interval '1 day') AS wallet_day,
       u.signed_at AS user_signed_at,
       a.hold_id IS NULL AND (h.amount > m.payment_max OR coalesce(u.amount, 0) + h.amount > m.user_day_max) AS waits_for_approval
FROM holds h JOIN accounts w ON w.id = h.account_id CROSS JOIN signer_limits m LEFT JOIN payout_approvals a ON a.hold_id = h.id LEFT JOIN chain_addresses d ON d.user_id = w.owner_id
LEFT JOIN (SELECT o.account_id, sum(o.amount) AS amount, max(p.signed_at) AS signed_at
           FROM payment_holds l JOIN payments p ON p.id = l.payment_id JOIN holds o ON o.id = l.hold_id
           WHERE l.live AND p.signed_at > clock_timestamp() - interval '1 day' GROUP BY o.account_id) u ON u.account_id = h.account_id
WHERE h.state = 'OPEN' AND h.asset = 1 AND NOT EXISTS (SELECT 1 FROM payment_holds l WHERE l.hold_id = h.id AND l.live);

-- Store a signed payout: holds in the order of their places. Refused (-9) past a ceiling without an approval, or while payouts are halted.
CREATE FUNCTION sign_payout(p_id uuid, p_source text, p_destination text, p_amount bigint, p_fee bigint, p_tick bigint, p_input_type integer, p_payload bytea,
                            p_encoded bytea, p_tx_id text, p_before_transfers bigint, p_before_amount bigint, p_holds uuid[])
RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE n integer; total numeric; alone text;
BEGIN
  IF NOT network_is(ARRAY['devnet','mainnet']) THEN RETURN -7; END IF;
  IF coalesce(cardinality(p_holds), 0) NOT BETWEEN 1 AND 25 THEN RETURN -5; END IF;
  IF EXISTS (SELECT 1 FROM payments WHERE id = p_id) THEN
    RETURN CASE WHEN (SELECT tx_id FROM payments WHERE id = p_id) = p_tx_id THEN 1 ELSE -1 END;
  END IF;
  PERFORM 1 FROM holds WHERE id = ANY(p_holds) ORDER BY id FOR NO KEY UPDATE;
  SELECT count(*), sum(amount), min(address) INTO n, total, alone FROM payable_holds WHERE id = ANY(p_holds);
  IF n <> cardinality(p_holds) OR NOT EXISTS (SELECT 1 FROM chain_addresses WHERE identity = p_source AND purpose = 'hot') THEN RETURN -4; END IF;
  IF total + p_fee IS DISTINCT FROM p_amount THEN RETURN -5; END IF;
  IF p_input_type = 0 AND (n <> 1 OR p_fee <> 0 OR p_destination <> alone) THEN RETURN -5; END IF;
  IF EXISTS (
      SELECT 1 FROM (SELECT h.*, sum(amount) OVER (PARTITION BY account_id) AS user_now, sum(amount) OVER () AS wallet_now FROM payable_holds h WHERE id = ANY(p_holds)) b
      CROSS JOIN signer_limits m
      WHERE b.halted OR NOT b.approved AND (b.amount > m.payment_max OR b.user_day + b.user_now > m.user_day_max OR b.wallet_day + b.wallet_now > m.wallet_day_max))
  THEN RETURN -9; END IF;
  INSERT INTO payments (id, kind, source, destination, amount, fee, tick, input_type, payload, encoded, tx_id, before_transfers, before_amount)
  VALUES (p_id, 'payout', p_source, p_destination, p_amount, p_fee, p_tick, p_input_type, p_payload, p_encoded, p_tx_id, p_before_transfers, p_before_amount);
  INSERT INTO payment_holds (payment_id, place, hold_id) SELECT p_id, u.place - 1, u.id FROM unnest(p_holds) WITH ORDINALITY AS u (id, place);
  RETURN 0;
END $$;

-- Store a signed sweep: from one of our deposit addresses to our hot one, and nowhere else, at most what is recorded there.
CREATE FUNCTION sign_sweep(p_id uuid, p_source text, p_destination text, p_amount bigint, p_tick bigint, p_encoded bytea, p_tx_id text,
                           p_before_transfers bigint, p_before_amount bigint)
RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
  IF NOT network_is(ARRAY['devnet','mainnet']) THEN RETURN -7; END IF;
  IF EXISTS (SELECT 1 FROM payments WHERE id = p_id) THEN
    RETURN CASE WHEN (SELECT tx_id FROM payments WHERE id = p_id) = p_tx_id THEN 1 ELSE -1 END;
  END IF;
  IF NOT EXISTS (SELECT 1 FROM chain_addresses WHERE identity = p_source AND purpose <> 'hot')
     OR NOT EXISTS (SELECT 1 FROM chain_addresses WHERE identity = p_destination AND purpose = 'hot') THEN RETURN -4; END IF;
  IF EXISTS (SELECT 1 FROM payout_halts WHERE subject IN ('*', p_source)) THEN RETURN -9; END IF;
  IF p_amount IS NULL OR p_amount <= 0 OR p_amount > (SELECT coalesce(sum(amount), 0) FROM chain_rows WHERE address = p_source) THEN RETURN -5; END IF;
  INSERT INTO payments (id, kind, source, destination, amount, fee, tick, input_type, payload, encoded, tx_id, before_transfers, before_amount)
  VALUES (p_id, 'sweep', p_source, p_destination, p_amount, 0, p_tick, 0, '', p_encoded, p_tx_id, p_before_transfers, p_before_amount);
  RETURN 0;
END $$;

-- Neither paid nor dead by what is known: it stays as it is, is asked about again, and a person is told.
CREATE FUNCTION payment_unknown(p_id uuid, p_reason text) RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
  UPDATE payments SET state = 'UNKNOWN', reason = p_reason WHERE id = p_id AND ended_at IS NULL;
  RETURN CASE WHEN FOUND THEN 0 WHEN EXISTS (SELECT 1 FROM payments WHERE id = p_id) THEN -4 ELSE -2 END;
END $$;

-- The end of a payment, once. Paid: after its holds are captured and its fee is booked (by withdrawn and cost), or with the sweep's two rows.
-- Dead: nothing moved and nothing can any more; its holds may be signed for again.
CREATE FUNCTION payment_ended(p_id uuid, p_paid boolean, p_proof text) RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE p payments;
BEGIN
  IF p_paid IS NULL OR coalesce(p_proof, '') = '' THEN RETURN -5; END IF;
  PERFORM 1 FROM holds WHERE id IN (SELECT hold_id FROM payment_holds WHERE payment_id = p_id) ORDER BY id FOR NO KEY UPDATE;
  SELECT * INTO p FROM payments WHERE id = p_id FOR NO KEY UPDATE;
  IF NOT FOUND THEN RETURN -2; END IF;
  IF p.ended_at IS NOT NULL THEN RETURN CASE WHEN (p.state = 'PAID') = p_paid THEN 1 ELSE -1 END; END IF;
  IF p_paid AND p.kind = 'payout' THEN
    IF EXISTS (SELECT 1 FROM payment_holds l JOIN holds h ON h.id = l.hold_id WHERE l.payment_id = p_id AND (h.state, h.evidence) IS DISTINCT FROM ('CAPTURED', 'tx ' || p.tx_id))
       OR p.fee > 0 AND NOT EXISTS (SELECT 1 FROM chain_rows WHERE id = chain_row_id('cost', 1::smallint, p.tx_id, 0)) THEN RETURN -4; END IF;
  ELSIF p_paid THEN
    INSERT INTO chain_rows (id, kind, tx_id, index, asset, amount, address, counterparty, tick, archived_at, second_proof)
    VALUES (chain_row_id('sweep', 1::smallint, p.tx_id, 0), 'sweep', p.tx_id, 0, 1, -p.amount, p.source, p.destination, p.tick, clock_timestamp(), p_proof),
           (chain_row_id('sweep', 1::smallint, p.tx_id, 1), 'sweep', p.tx_id, 1, 1, p.amount, p.destination, p.source, p.tick, clock_timestamp(), p_proof);
  ELSE
    IF EXISTS (SELECT 1 FROM payment_holds l JOIN holds h ON h.id = l.hold_id WHERE l.payment_id = p_id AND h.state <> 'OPEN') THEN RETURN -4; END IF;
    UPDATE payment_holds SET live = false WHERE payment_id = p_id;
  END IF;
  UPDATE payments SET state = CASE WHEN p_paid THEN 'PAID' ELSE 'DEAD' END, reason = p_proof, ended_at = clock_timestamp() WHERE id = p_id;
  RETURN 0;
END $$;

-- After a restore the chain shows payments that the backup did not know yet. Each is written down as what it was, by a person and only while payouts stand
-- still for that; then it ends as any other: its holds captured by withdrawn, its fee booked by cost, its end said by payment_ended.
CREATE FUNCTION is_restored() RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
  SELECT EXISTS (SELECT 1 FROM payout_halts WHERE subject = '*' AND needs_person AND figures ? 'restored')
$$;

-- A withdrawal that was asked for after the backup was taken, again: by the same rules.
CREATE FUNCTION recover_hold(p_hold uuid, p_user uuid, p_amount bigint, p_address text) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
  IF NOT is_restored() THEN RETURN -9; END IF;
  RETURN make_hold(p_hold, p_user, 1::smallint, p_amount, p_address);
END $$;

-- Holds in the order of their places; none for a sweep.
CREATE FUNCTION recover_payment(p_id uuid, p_tx_id text, p_fee bigint, p_holds uuid[]) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE s strangers; n integer; total numeric; alone text; from_hot boolean; to_hot boolean;
BEGIN
  IF NOT is_restored() THEN RETURN -9; END IF;
  SELECT * INTO s FROM strangers WHERE tx_id = p_tx_id;
  IF NOT FOUND THEN RETURN -2; END IF;
  IF EXISTS (SELECT 1 FROM payments WHERE tx_id = p_tx_id) THEN RETURN 1; END IF;
  IF EXISTS (SELECT 1 FROM lost_verdicts WHERE tx_id = p_tx_id AND NOT paid) OR EXISTS (SELECT 1 FROM payments WHERE source = s.source AND ended_at IS NULL)
     OR EXISTS (SELECT 1 FROM chain_rows WHERE id = chain_row_id('cost', 1::smallint, p_tx_id, 0)) THEN RETURN -4; END IF;
  SELECT purpose = 'hot' INTO from_hot FROM chain_addresses WHERE identity = s.source;
  to_hot := EXISTS (SELECT 1 FROM chain_addresses WHERE identity = s.destination AND purpose = 'hot');
  IF coalesce(cardinality(p_holds), 0) = 0 THEN
    IF from_hot OR NOT to_hot OR p_fee <> 0 THEN RETURN -5; END IF;
  ELSE
    PERFORM 1 FROM holds WHERE id = ANY(p_holds) ORDER BY id FOR NO KEY UPDATE;
    SELECT count(*), sum(amount), min(address) INTO n, total, alone FROM holds h
    WHERE h.id = ANY(p_holds) AND h.state = 'OPEN' AND h.asset = 1 AND NOT EXISTS (SELECT 1 FROM payment_holds l WHERE l.hold_id = h.id AND l.live);
    IF NOT from_hot OR n <> cardinality(p_holds) OR n > 25 THEN RETURN -4; END IF;
    IF total + p_fee IS DISTINCT FROM s.amount OR s.input_type = 0 AND (n <> 1 OR alone <> s.destination) THEN RETURN -5; END IF;
  END IF;
  INSERT INTO payments (id, kind, source, destination, amount, fee, tick, input_type, payload, encoded, tx_id, before_transfers, before_amount, state, reason)
  VALUES (p_id, CASE WHEN n IS NULL THEN 'sweep' ELSE 'payout' END, s.source, s.destination, s.amount, p_fee, s.tick, s.input_type, s.payload, s.encoded, s.tx_id, 0, 0,
          'UNKNOWN', 'signed before the restore, found on the chain after it');
  INSERT INTO payment_holds (payment_id, place, hold_id) SELECT p_id, u.place - 1, u.id FROM unnest(p_holds) WITH ORDINALITY AS u (id, place);
  RETURN 0;
END $$;

-- What nobody's wallet can be charged with any more is the platform's loss.
CREATE FUNCTION recover_cost(p_tx_id text, p_proof text) RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE s strangers; row_id uuid := chain_row_id('cost', 1::smallint, p_tx_id, 0); code integer;
BEGIN
  IF NOT is_restored() THEN RETURN -9; END IF;
  SELECT * INTO s FROM strangers WHERE tx_id = p_tx_id;
  IF NOT FOUND THEN RETURN -2; END IF;
  IF EXISTS (SELECT 1 FROM lost_verdicts WHERE tx_id = p_tx_id AND NOT paid) OR EXISTS (SELECT 1 FROM payments WHERE tx_id = p_tx_id) THEN RETURN -4; END IF;
  code := move(transfer_id(row_id, 'fee'), 'cost', row_id, platform_account('house', 1::smallint), platform_account('chain', 1::smallint), 1::smallint, s.amount);
  IF code = 0 THEN
    INSERT INTO chain_rows (id, kind, tx_id, index, asset, amount, address, counterparty, tick, archived_at, second_proof)
    VALUES (row_id, 'cost', p_tx_id, 0, 1, -s.amount, s.source, s.destination, s.tick, clock_timestamp(), p_proof);
  END IF;
  RETURN code;
END $$;

REVOKE ALL ON FUNCTION give_address, cancel_withdrawal, sign_payout, sign_sweep, payment_unknown, payment_ended, is_restored, recover_hold, recover_payment, recover_cost
  FROM PUBLIC;
GRANT EXECUTE ON FUNCTION give_address, cancel_withdrawal TO qubix_web;
GRANT EXECUTE ON FUNCTION sign_payout, sign_sweep TO qubix_signer;
GRANT EXECUTE ON FUNCTION payment_unknown, payment_ended, is_restored, recover_hold, recover_payment, recover_cost TO qubix_treasury;
GRANT SELECT ON payable_holds TO qubix_web, qubix_treasury, qubix_signer;
