-- The acts of the ledger. Answers: 0 done, 1 done already, -1 done with other content, -2 unknown, -3 not enough money, -4 wrong
-- state, -5 amount out of range, -6 no wallet, -7 wrong network (the whole list: qubix/ledger/model.py).
-- move and post_transfers are the only writers of transfers and balances; no role may call them.

-- STABLE, as convert_to is: declared IMMUTABLE it would not be inlined, and the call alone costs more than the digest.
CREATE FUNCTION transfer_id(p_subject uuid, p_step text) RETURNS uuid LANGUAGE sql STABLE STRICT PARALLEL SAFE AS $$
  SELECT encode(substr(sha256(convert_to(p_subject::text || '/' || p_step, 'UTF8')), 1, 16), 'hex')::uuid
$$;

CREATE FUNCTION wallet_of(p_user uuid, p_asset smallint) RETURNS bigint LANGUAGE sql STABLE AS $$
  SELECT id FROM accounts WHERE owner_id = p_user AND asset = p_asset AND kind = 'wallet'
$$;

CREATE FUNCTION platform_account(p_kind text, p_asset smallint) RETURNS bigint LANGUAGE sql STABLE AS $$
  SELECT id FROM accounts WHERE kind = p_kind AND asset = p_asset AND owner_id IS NULL
$$;

CREATE FUNCTION network_is(p_networks text[]) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT EXISTS (SELECT 1 FROM ledger_network WHERE network = ANY(p_networks))
$$;

-- One transfer, the hot path of fund, faucet, withdrawal and cost. Locks both accounts in id order by one statement, then looks
-- for a repeat: two callers with the same step meet at the lock, and the second finds the first's row.
CREATE FUNCTION move(p_id uuid, p_act text, p_subject uuid, p_debit bigint, p_credit bigint, p_asset smallint, p_amount bigint, p_unheld bigint DEFAULT 0)
RETURNS integer LANGUAGE plpgsql AS $$
DECLARE a accounts; d accounts; c accounts; known transfers;
BEGIN
  FOR a IN SELECT * FROM accounts WHERE id IN (p_debit, p_credit) ORDER BY id FOR NO KEY UPDATE LOOP
    IF a.id = p_debit THEN d := a; ELSE c := a; END IF;
  END LOOP;
  SELECT * INTO known FROM transfers WHERE id = p_id;
  IF FOUND THEN
    RETURN CASE WHEN (known.act, known.subject_id, known.debit_id, known.credit_id, known.amount) = (p_act, p_subject, p_debit, p_credit, p_amount)
                THEN 1 ELSE -1 END;
  END IF;
  IF d.id IS NULL OR c.id IS NULL OR d.closed OR c.closed THEN RETURN -4; END IF;
  IF p_amount IS NULL OR p_amount <= 0 THEN RETURN -5; END IF;
  IF d.kind = 'chain' THEN
    IF d.posted < -9223372036854775807 + p_amount THEN RETURN -5; END IF;
  ELSIF d.posted - d.held + p_unheld < p_amount THEN RETURN -3;
  END IF;
  INSERT INTO transfers (id, act, subject_id, debit_id, credit_id, asset, amount, debit_seq, credit_seq, debit_after, credit_after)
  VALUES (p_id, p_act, p_subject, p_debit, p_credit, p_asset, p_amount, d.seq + 1, c.seq + 1, d.posted - p_amount, c.posted + p_amount);
  UPDATE accounts SET seq = seq + 1, posted = posted + CASE id WHEN p_debit THEN -p_amount ELSE p_amount END,
                      held = held - CASE id WHEN p_debit THEN p_unheld ELSE 0 END
  WHERE id IN (p_debit, p_credit);
  RETURN 0;
END $$;

-- Many transfers in one statement. The caller has locked all accounts (ORDER BY id, one statement), checked states, repeats and
-- funds; amounts of zero write no row. p_close names the accounts that end here, empty. Raises when anything does not fit.
-- Each account's entries are one window that begins with what the account was before: nothing is joined, so a batch of 256 costs
-- eight of 32, whatever the planner may do in its callers.
CREATE FUNCTION post_batch(p_ids uuid[], p_acts text[], p_subjects uuid[], p_debits bigint[], p_credits bigint[], p_amounts bigint[], p_close bigint[])
RETURNS void LANGUAGE plpgsql AS $$
DECLARE wanted integer; written integer;
BEGIN
  WITH sides AS MATERIALIZED (
    SELECT i.*, s.* FROM unnest(p_ids, p_acts, p_subjects, p_debits, p_credits, p_amounts) WITH ORDINALITY
      AS i (id, act, subject_id, debit_id, credit_id, amount, n), LATERAL (VALUES (i.debit_id, -i.amount, true), (i.credit_id, i.amount, false)) AS s (account_id, change, is_debit)
    WHERE i.amount <> 0),
  totals AS (
    SELECT account_id, sum(change)::bigint AS change, count(*) AS steps FROM sides GROUP BY account_id),
  moved AS (
    UPDATE accounts a SET posted = a.posted + t.change, seq = a.seq + t.steps, closed = a.id = ANY(p_close) FROM totals t
    WHERE a.id = t.account_id AND NOT a.closed
    RETURNING a.id, a.asset, a.posted - t.change AS posted, a.seq - t.steps AS seq),
  running AS (
    SELECT n, id, act, subject_id, debit_id, credit_id, amount, is_debit, sum(step) OVER w AS seq, sum(change) OVER w AS after, first_value(asset) OVER w AS asset
    FROM (SELECT n, id, act, subject_id, debit_id, credit_id, amount, is_debit, account_id, change, 1::bigint AS step, NULL::smallint AS asset FROM sides
          UNION ALL SELECT 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, id, posted, seq, asset FROM moved) x
    WINDOW w AS (PARTITION BY account_id ORDER BY n)),
  written AS (
    INSERT INTO transfers (id, act, subject_id, debit_id, credit_id, asset, amount, debit_seq, credit_seq, debit_after, credit_after)
    SELECT id, act, subject_id, debit_id, credit_id, min(asset), amount, max(seq) FILTER (WHERE is_debit), max(seq) FILTER (WHERE NOT is_debit),
           max(after) FILTER (WHERE is_debit), max(after) FILTER (WHERE NOT is_debit)
    FROM running WHERE n > 0 GROUP BY n, id, act, subject_id, debit_id, credit_id, amount HAVING count(asset) = 2
    RETURNING 1)
  SELECT (SELECT count(*) / 2 FROM sides), (SELECT count(*) FROM written) INTO wanted, written;
  IF written <> wanted THEN
    RAISE EXCEPTION 'ledger: % of % transfers fit', written, wanted USING ERRCODE = 'integrity_constraint_violation';
  END IF;
END $$;

-- Birth: the owner's alone (no role is granted it). The network never changes afterwards.
CREATE FUNCTION found_ledger(p_network text) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE known text;
BEGIN
  INSERT INTO ledger_network (network) VALUES (p_network) ON CONFLICT DO NOTHING;
  IF FOUND THEN RETURN 0; END IF;
  SELECT network INTO known FROM ledger_network;
  RETURN CASE WHEN known = p_network THEN 1 ELSE -1 END;
END $$;

CREATE FUNCTION open_wallets(p_user uuid) RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
  INSERT INTO accounts (asset, kind, owner_id) SELECT id, 'wallet', p_user FROM assets ORDER BY id
  ON CONFLICT (owner_id, asset) WHERE kind = 'wallet' DO NOTHING;
  RETURN CASE WHEN FOUND THEN 0 ELSE 1 END;
END $$;

CREATE FUNCTION faucet(p_user uuid, p_asset smallint, p_amount bigint, p_n text) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE wallet bigint := wallet_of(p_user, p_asset);
BEGIN
  IF NOT network_is(ARRAY['none']) THEN RETURN -7; END IF;
  IF wallet IS NULL THEN RETURN -6; END IF;
  IF p_n IS NULL OR p_amount IS NULL OR p_amount <= 0 OR p_amount > 1000000000000000 THEN RETURN -5; END IF;
  RETURN move(transfer_id(p_user, 'faucet/' || p_n), 'faucet', p_user, platform_account('chain', p_asset), wallet, p_asset, p_amount);
END $$;

REVOKE ALL ON FUNCTION transfer_id, wallet_of, platform_account, network_is, move, post_batch, found_ledger, open_wallets, faucet FROM PUBLIC;
GRANT EXECUTE ON FUNCTION open_wallets, faucet TO qubix_web;
