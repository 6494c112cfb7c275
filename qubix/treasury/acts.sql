-- Chain money. A chain row and its transfer are one transaction, made by one act; the row's CHECKs demand both proofs.

CREATE FUNCTION chain_row_id(p_kind text, p_asset smallint, p_tx_id text, p_index integer) RETURNS uuid LANGUAGE sql STABLE AS $$
  SELECT encode(substr(sha256(convert_to(p_kind || '/' || p_asset || '/' || p_tx_id || '/' || p_index, 'UTF8')), 1, 16), 'hex')::uuid
$$;

-- Deposits as a set: one code per item, in the items' order. The chain account is locked by every batch, so of two batches with
-- the same deposit the second sees the first's row. Whose it is follows from the address alone: its user's wallet, the house for the
-- house's address, suspense for any other; it is never refused.
CREATE FUNCTION deposit(p_tx_ids text[], p_indexes integer[], p_assets smallint[], p_amounts bigint[], p_addresses text[], p_ticks bigint[], p_proofs text[], p_payers text[])
RETURNS integer[] LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE ids uuid[]; targets bigint[]; chains bigint[]; codes integer[];
BEGIN
  IF coalesce(cardinality(p_tx_ids), 0) = 0 THEN RETURN '{}'; END IF;
  IF NOT network_is(ARRAY['devnet','mainnet']) THEN RETURN array_fill(-7, ARRAY[cardinality(p_tx_ids)]); END IF;
  WITH p AS MATERIALIZED (
    SELECT asset, max(id) FILTER (WHERE kind = 'suspense') AS suspense, max(id) FILTER (WHERE kind = 'house') AS house, max(id) FILTER (WHERE kind = 'chain') AS chain
    FROM accounts WHERE owner_id IS NULL GROUP BY asset)
  SELECT array_agg(chain_row_id('deposit', i.asset, i.tx_id, i.index) ORDER BY i.n), array_agg(CASE a.purpose WHEN 'house' THEN p.house ELSE coalesce(w.id, p.suspense) END ORDER BY i.n),
         array_agg(p.chain ORDER BY i.n)
  INTO ids, targets, chains
  FROM unnest(p_tx_ids, p_indexes, p_assets, p_addresses) WITH ORDINALITY AS i (tx_id, index, asset, address, n)
  LEFT JOIN chain_addresses a ON a.identity = i.address
  LEFT JOIN LATERAL (SELECT id FROM accounts w WHERE w.owner_id = a.user_id AND w.asset = i.asset AND w.kind = 'wallet') w ON true
  LEFT JOIN p ON p.asset = i.asset;
  PERFORM 1 FROM accounts WHERE id = ANY(targets || chains) ORDER BY id FOR NO KEY UPDATE;
  codes := deposit_codes(ids, p_assets, p_amounts, p_addresses, targets);
  IF array_position(codes, 0) IS NULL THEN RETURN codes; END IF;
  INSERT INTO chain_rows (id, kind, tx_id, index, asset, amount, address, counterparty, tick, archived_at, second_proof)
  SELECT i.id, 'deposit', i.tx_id, i.index, i.asset, i.amount, i.address, i.payer, i.tick, clock_timestamp(), i.proof
  FROM unnest(codes, ids, p_tx_ids, p_indexes, p_assets, p_amounts, p_addresses, p_ticks, p_proofs, p_payers)
    AS i (code, id, tx_id, index, asset, amount, address, tick, proof, payer) WHERE i.code = 0;
  PERFORM post_batch(array_agg(transfer_id(i.id, 'deposit')), array_agg('deposit'::text), array_agg(i.id), array_agg(i.chain), array_agg(i.target),
                     array_agg(i.amount), '{}'::bigint[])
  FROM unnest(codes, ids, chains, targets, p_amounts) AS i (code, id, chain, target, amount) WHERE code = 0;
  RETURN codes;
END $$;

-- A repeat within the batch is judged against the batch's first, a repeat of a recorded row against that row. Judged one by one only
-- where something is not plain.
CREATE FUNCTION deposit_codes(p_ids uuid[], p_assets smallint[], p_amounts bigint[], p_addresses text[], p_targets bigint[]) RETURNS integer[] LANGUAGE plpgsql AS $$
DECLARE codes integer[];
BEGIN
  IF NOT EXISTS (SELECT 1 FROM chain_rows WHERE id = ANY(p_ids)) AND NOT EXISTS (
      SELECT 1 FROM (SELECT count(*) AS items, count(DISTINCT id) AS ids, min(amount) AS least, sum(amount::numeric) AS total, count(amount) AS given,
                            count(target) AS targets FROM unnest(p_ids, p_amounts, p_targets) AS i (id, amount, target)) b
      JOIN accounts c ON c.kind = 'chain' AND c.owner_id IS NULL AND c.asset = ANY(p_assets)
      WHERE items <> ids OR items <> given OR items <> targets OR least <= 0 OR c.posted - total < -9223372036854775807)
    AND array_position(p_assets, NULL) IS NULL AND array_position(p_addresses, NULL) IS NULL
  THEN RETURN array_fill(0, ARRAY[cardinality(p_ids)]); END IF;
  WITH items AS (
    SELECT i.*, first_value(i.n) OVER same AS first_n, first_value(i.amount) OVER same AS first_amount, first_value(i.address) OVER same AS first_address,
           first_value(i.target) OVER same AS first_target, sum(i.amount::numeric) OVER (PARTITION BY i.asset ORDER BY i.n) AS so_far
    FROM unnest(p_ids, p_assets, p_amounts, p_addresses, p_targets) WITH ORDINALITY AS i (id, asset, amount, address, target, n)
    WINDOW same AS (PARTITION BY i.id ORDER BY i.n))
  SELECT array_agg(CASE
      WHEN i.amount IS NULL OR i.amount <= 0 OR i.id IS NULL OR i.target IS NULL OR i.address IS NULL THEN -5
      WHEN k.id IS NOT NULL THEN CASE WHEN (k.amount, k.address, t.credit_id) = (i.amount, i.address, i.target) THEN 1 ELSE -1 END
      WHEN i.n <> i.first_n THEN CASE WHEN (i.amount, i.address, i.target) = (i.first_amount, i.first_address, i.first_target) THEN 1 ELSE -1 END
      WHEN c.posted - i.so_far < -9223372036854775807 THEN -5
      ELSE 0 END ORDER BY i.n)
  INTO codes
  FROM items i LEFT JOIN chain_rows k ON k.id = i.id LEFT JOIN transfers t ON t.id = transfer_id(k.id, 'deposit')
  LEFT JOIN accounts c ON c.kind = 'chain' AND c.asset = i.asset AND c.owner_id IS NULL;
  RETURN codes;
END $$;

-- Refused (-8) after a restore, until the chain was reconciled: what is in the wallet may have been paid out since the backup.
CREATE FUNCTION withdraw(p_hold uuid, p_user uuid, p_asset smallint, p_amount bigint, p_address text) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
  IF is_restored() AND NOT EXISTS (SELECT 1 FROM holds WHERE id = p_hold) THEN RETURN -8; END IF;
  RETURN make_hold(p_hold, p_user, p_asset, p_amount, p_address);
END $$;

CREATE FUNCTION make_hold(p_hold uuid, p_user uuid, p_asset smallint, p_amount bigint, p_address text) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE wallet accounts; known holds;
BEGIN
  IF NOT network_is(ARRAY['devnet','mainnet']) THEN RETURN -7; END IF;
  SELECT * INTO wallet FROM accounts WHERE id = wallet_of(p_user, p_asset) FOR NO KEY UPDATE;
  IF NOT FOUND THEN RETURN -6; END IF;
  SELECT * INTO known FROM holds WHERE id = p_hold;
  IF FOUND THEN
    RETURN CASE WHEN (known.account_id, known.amount, known.address) = (wallet.id, p_amount, p_address) THEN 1 ELSE -1 END;
  END IF;
  IF p_amount IS NULL OR p_amount <= 0 OR coalesce(p_address, '') = '' THEN RETURN -5; END IF;
  IF EXISTS (SELECT 1 FROM chain_addresses WHERE identity = p_address) THEN RETURN -9; END IF;
  IF wallet.posted - wallet.held < p_amount THEN RETURN -3; END IF;
  INSERT INTO holds (id, account_id, asset, amount, address) VALUES (p_hold, wallet.id, p_asset, p_amount, p_address);
  UPDATE accounts SET held = held + p_amount WHERE id = wallet.id;
  RETURN 0;
END $$;

-- The end of a hold: captured whole, by the payment that was signed for it and no other transaction, or void while no payment for it
-- may still execute. Nothing else ends it, and no time does.
CREATE FUNCTION withdrawn(p_hold uuid, p_captured boolean, p_tx_id text, p_tick bigint, p_proof text) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE h holds; paid record; said text := CASE WHEN p_captured THEN 'tx ' || p_tx_id ELSE p_proof END; code integer;
BEGIN
  IF p_captured IS NULL OR coalesce(p_proof, '') = '' OR said IS NULL THEN RETURN -5; END IF;
  SELECT * INTO h FROM holds WHERE id = p_hold FOR NO KEY UPDATE;
  IF NOT FOUND THEN RETURN -2; END IF;
  IF h.state <> 'OPEN' THEN
    RETURN CASE WHEN (h.state = 'CAPTURED') = p_captured AND (NOT p_captured OR h.evidence = said) THEN 1 ELSE -1 END;
  END IF;
  SELECT p.tx_id, p.tick, p.source, l.place INTO paid FROM payment_holds l JOIN payments p ON p.id = l.payment_id WHERE l.hold_id = p_hold AND l.live;
  IF p_captured THEN
    IF paid IS NULL OR (paid.tx_id, paid.tick) IS DISTINCT FROM (p_tx_id, p_tick) THEN RETURN -9; END IF;
    code := move(transfer_id(p_hold, 'end'), 'withdrawal', p_hold, h.account_id, platform_account('chain', h.asset), h.asset, h.amount, h.amount);
    IF code <> 0 THEN RAISE EXCEPTION 'ledger: capture of % answered %', p_hold, code USING ERRCODE = 'integrity_constraint_violation'; END IF;
    INSERT INTO chain_rows (id, kind, tx_id, index, asset, amount, address, counterparty, tick, archived_at, second_proof)
    VALUES (chain_row_id('withdrawal', h.asset, p_tx_id, paid.place), 'withdrawal', p_tx_id, paid.place, h.asset, -h.amount, paid.source, h.address, p_tick,
            clock_timestamp(), p_proof);
  ELSE
    IF paid IS NOT NULL THEN RETURN -4; END IF;
    UPDATE accounts SET held = held - h.amount WHERE id = h.account_id;
  END IF;
  UPDATE holds SET state = CASE WHEN p_captured THEN 'CAPTURED' ELSE 'VOIDED' END, evidence = said, ended_at = clock_timestamp() WHERE id = p_hold;
  RETURN 0;
END $$;

CREATE FUNCTION cost(p_tx_id text, p_asset smallint, p_amount bigint, p_address text, p_tick bigint, p_proof text) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE row_id uuid := chain_row_id('cost', p_asset, p_tx_id, 0); code integer;
BEGIN
  IF NOT network_is(ARRAY['devnet','mainnet']) THEN RETURN -7; END IF;
  IF NOT EXISTS (SELECT 1 FROM payments p WHERE (p.tx_id, p.fee, p.source, p.tick) = (p_tx_id, p_amount, p_address, p_tick) AND p.state <> 'DEAD') THEN RETURN -9; END IF;
  code := move(transfer_id(row_id, 'fee'), 'cost', row_id, platform_account('house', p_asset), platform_account('chain', p_asset), p_asset, p_amount);
  IF code = 0 THEN
    INSERT INTO chain_rows (id, kind, tx_id, index, asset, amount, address, tick, archived_at, second_proof)
    VALUES (row_id, 'cost', p_tx_id, 0, p_asset, -p_amount, p_address, p_tick, clock_timestamp(), p_proof);
  END IF;
  RETURN code;
END $$;

-- R2: what the recorded chain rows say we hold is what the chain account says. On network none the faucet stands in for the chain.
CREATE VIEW treasury_audit AS
SELECT 'recorded chain rows sum to what the chain account says' AS rule, count(*) AS n, min(x.asset::text) AS example
FROM (SELECT c.asset FROM accounts c WHERE c.kind = 'chain'
        AND -c.posted <> (SELECT coalesce(sum(r.amount), 0) FROM chain_rows r WHERE r.asset = c.asset)
                       + (SELECT coalesce(sum(t.amount), 0) FROM transfers t WHERE t.debit_id = c.id AND t.act = 'faucet')) x
UNION ALL
SELECT 'every recorded chain row has its transfer', count(*), min(r.id::text) FROM chain_rows r
WHERE r.kind IN ('deposit','cost') AND NOT EXISTS (
  SELECT 1 FROM transfers t WHERE t.id = transfer_id(r.id, CASE r.kind WHEN 'deposit' THEN 'deposit' ELSE 'fee' END) AND t.amount = abs(r.amount))
UNION ALL
SELECT 'what a sweep took from one address arrived at another', count(*), min(x.tx_id)
FROM (SELECT tx_id FROM chain_rows WHERE kind = 'sweep' GROUP BY tx_id HAVING sum(amount) <> 0 OR count(*) <> 2) x
UNION ALL
SELECT 'every captured hold has its payment, every payment that paid has captured its holds', count(*), min(h.id::text)
FROM holds h LEFT JOIN payment_holds l ON l.hold_id = h.id AND l.live LEFT JOIN payments p ON p.id = l.payment_id
WHERE (h.state = 'CAPTURED' AND (p.id IS NULL OR p.state = 'DEAD' OR h.evidence <> 'tx ' || p.tx_id))
   OR (h.state <> 'CAPTURED' AND p.state = 'PAID') OR (h.state = 'VOIDED' AND p.id IS NOT NULL);

REVOKE ALL ON FUNCTION chain_row_id, deposit_codes, deposit, withdraw, make_hold, withdrawn, cost FROM PUBLIC;
GRANT EXECUTE ON FUNCTION withdraw TO qubix_web;
GRANT EXECUTE ON FUNCTION deposit, withdrawn, cost TO qubix_treasury;
