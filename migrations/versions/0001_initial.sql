SET LOCAL check_function_bodies = off;
CREATE FUNCTION public.attempt_is_funded() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
DECLARE escrow_state text; job_fence bigint;
BEGIN
  SELECT fence INTO job_fence FROM jobs WHERE id = NEW.job_id FOR UPDATE;
  IF job_fence IS DISTINCT FROM NEW.fence THEN
    RAISE EXCEPTION 'attempt % has fence %, its job %', NEW.id, NEW.fence, job_fence USING ERRCODE = 'check_violation';
  END IF;
  SELECT state INTO escrow_state FROM escrows WHERE id = NEW.job_id FOR SHARE;
  IF escrow_state IS DISTINCT FROM 'LOCKED' THEN
    RAISE EXCEPTION 'job % has no locked escrow (%)', NEW.job_id, coalesce(escrow_state, 'none') USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE FUNCTION public.attempt_moves() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
  IF OLD.state NOT IN ('CREATED', 'ACCEPTED', 'RUNNING') AND NEW.state <> OLD.state THEN
    RAISE EXCEPTION 'attempt % has ended as % and cannot become %', OLD.id, OLD.state, NEW.state USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.fence <> OLD.fence OR NEW.job_id <> OLD.job_id OR NEW.node_id <> OLD.node_id THEN
    RAISE EXCEPTION 'attempt % keeps its job, node and fence', OLD.id USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE FUNCTION public.audit() RETURNS TABLE(rule text, n bigint, example text)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
  SELECT * FROM ledger_audit UNION ALL SELECT * FROM treasury_audit UNION ALL SELECT * FROM escrow_audit
$$;
CREATE FUNCTION public.begin_request(p_user uuid, p_key text, p_hash bytea, OUT outcome text, OUT status integer, OUT response jsonb) RETURNS record
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    SET lock_timeout TO '5s'
    AS $$
DECLARE known idempotency_keys;
BEGIN
  BEGIN
    INSERT INTO idempotency_keys (user_id, key, request_hash) VALUES (p_user, p_key, p_hash) ON CONFLICT (user_id, key) DO NOTHING;
    IF FOUND THEN outcome := 'started'; RETURN; END IF;
  EXCEPTION WHEN lock_not_available THEN outcome := 'in_progress'; RETURN;
  END;
  SELECT * INTO known FROM idempotency_keys k WHERE k.user_id = p_user AND k.key = p_key;
  IF NOT FOUND THEN outcome := 'in_progress';
  ELSIF known.request_hash <> p_hash THEN outcome := 'mismatch';
  ELSIF known.status IS NULL THEN outcome := 'in_progress';
  ELSE outcome := 'replay'; status := known.status; response := known.response;
  END IF;
END $$;
CREATE FUNCTION public.cancel_pending_escrow(p_escrow uuid) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
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
CREATE FUNCTION public.cancel_withdrawal(p_hold uuid, p_user uuid) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
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
CREATE FUNCTION public.chain_row_id(p_kind text, p_asset smallint, p_tx_id text, p_index integer) RETURNS uuid
    LANGUAGE sql STABLE
    AS $$
  SELECT encode(substr(sha256(convert_to(p_kind || '/' || p_asset || '/' || p_tx_id || '/' || p_index, 'UTF8')), 1, 16), 'hex')::uuid
$$;
CREATE FUNCTION public.cost(p_tx_id text, p_asset smallint, p_amount bigint, p_address text, p_tick bigint, p_proof text) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
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
CREATE FUNCTION public.count_attempt() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
  UPDATE providers SET attempts_ended = attempts_ended + 1, attempts_faulted = attempts_faulted + (NEW.fault IS NOT DISTINCT FROM 'provider')::integer
  WHERE id = NEW.provider_id;
  RETURN NULL;
END $$;
CREATE FUNCTION public.deposit(p_tx_ids text[], p_indexes integer[], p_assets smallint[], p_amounts bigint[], p_addresses text[], p_ticks bigint[], p_proofs text[], p_payers text[]) RETURNS integer[]
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    AS $$
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
CREATE FUNCTION public.deposit_codes(p_ids uuid[], p_assets smallint[], p_amounts bigint[], p_addresses text[], p_targets bigint[]) RETURNS integer[]
    LANGUAGE plpgsql
    AS $$
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
CREATE FUNCTION public.dispute(p_escrow uuid, p_user uuid, p_evidence text) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
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
CREATE FUNCTION public.drop_metric_partitions(p_keep_days integer) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    SET lock_timeout TO '1s'
    AS $_$
DECLARE name text; gone integer := 0; oldest date := (now() AT TIME ZONE 'UTC')::date - greatest(p_keep_days, 1);
BEGIN
  FOR name IN SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
              WHERE i.inhparent = 'device_metrics'::regclass AND c.relname ~ '^device_metrics_\d{8}$' LOOP
    IF to_date(right(name, 8), 'YYYYMMDD') < oldest THEN EXECUTE format('DROP TABLE %I', name); gone := gone + 1; END IF;
  END LOOP;
  DELETE FROM device_metrics_default WHERE at < oldest::timestamp AT TIME ZONE 'UTC';
  RETURN gone;
END $_$;
CREATE FUNCTION public.escrow_is_final(p_state text) RETURNS boolean
    LANGUAGE sql IMMUTABLE
    AS $$ SELECT p_state IN ('RELEASED','REFUNDED','SPLIT') $$;
CREATE FUNCTION public.faucet(p_user uuid, p_asset smallint, p_amount bigint, p_n text) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
DECLARE wallet bigint := wallet_of(p_user, p_asset);
BEGIN
  IF NOT network_is(ARRAY['none']) THEN RETURN -7; END IF;
  IF wallet IS NULL THEN RETURN -6; END IF;
  IF p_n IS NULL OR p_amount IS NULL OR p_amount <= 0 OR p_amount > 1000000000000000 THEN RETURN -5; END IF;
  RETURN move(transfer_id(p_user, 'faucet/' || p_n), 'faucet', p_user, platform_account('chain', p_asset), wallet, p_asset, p_amount);
END $$;
CREATE FUNCTION public.final_is_closed() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
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
CREATE FUNCTION public.found_ledger(p_network text) RETURNS integer
    LANGUAGE plpgsql
    AS $$
DECLARE known text;
BEGIN
  INSERT INTO ledger_network (network) VALUES (p_network) ON CONFLICT DO NOTHING;
  IF FOUND THEN RETURN 0; END IF;
  SELECT network INTO known FROM ledger_network;
  RETURN CASE WHEN known = p_network THEN 1 ELSE -1 END;
END $$;
CREATE FUNCTION public.fund(p_escrow uuid, p_n integer, p_amount bigint) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
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
CREATE FUNCTION public.give_address(p_user uuid) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
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
CREATE FUNCTION public.is_restored() RETURNS boolean
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
  SELECT EXISTS (SELECT 1 FROM payout_halts WHERE subject = '*' AND needs_person AND figures ? 'restored')
$$;
CREATE FUNCTION public.issue_join_token(p_provider uuid, OUT token text, OUT expires_at timestamp with time zone) RETURNS record
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM providers WHERE id = p_provider) THEN RETURN; END IF;
  token := 'qj_' || replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', '');
  INSERT INTO join_tokens (id, provider_id, token_hash, expires_at, by_label)
  VALUES (gen_random_uuid(), p_provider, sha256(token::bytea), now() + interval '30 minutes', true) RETURNING join_tokens.expires_at INTO expires_at;
END $$;
CREATE FUNCTION public.job_moves() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
  IF OLD.state IN ('COMPLETED', 'FAILED', 'CANCELLED') AND NEW.state <> OLD.state THEN
    RAISE EXCEPTION 'job % has ended as % and cannot become %', OLD.id, OLD.state, NEW.state USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.fence < OLD.fence THEN
    RAISE EXCEPTION 'the fence of job % cannot fall from % to %', OLD.id, OLD.fence, NEW.fence USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.progress < OLD.progress THEN
    RAISE EXCEPTION 'the progress of job % cannot fall from % to %', OLD.id, OLD.progress, NEW.progress USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE FUNCTION public.make_hold(p_hold uuid, p_user uuid, p_asset smallint, p_amount bigint, p_address text) RETURNS integer
    LANGUAGE plpgsql
    AS $$
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
CREATE FUNCTION public.make_metric_partitions(p_days integer) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    SET lock_timeout TO '1s'
    AS $$
DECLARE day date; made integer := 0; name text;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('qubix metric partitions'));
  FOR day IN SELECT (now() AT TIME ZONE 'UTC')::date + n FROM generate_series(0, least(greatest(p_days, 0), 60)) AS n LOOP
    name := 'device_metrics_' || to_char(day, 'YYYYMMDD');
    CONTINUE WHEN to_regclass(name) IS NOT NULL;
    BEGIN
      EXECUTE format('CREATE TABLE %I PARTITION OF device_metrics FOR VALUES FROM (%L) TO (%L)',
                     name, day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC');
      made := made + 1;
    EXCEPTION WHEN check_violation THEN NULL;
    END;
  END LOOP;
  RETURN made;
END $$;
CREATE FUNCTION public.mature(p_earnings uuid[]) RETURNS integer[]
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    AS $$
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
CREATE FUNCTION public.move(p_id uuid, p_act text, p_subject uuid, p_debit bigint, p_credit bigint, p_asset smallint, p_amount bigint, p_unheld bigint DEFAULT 0) RETURNS integer
    LANGUAGE plpgsql
    AS $$
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
CREATE FUNCTION public.network_is(p_networks text[]) RETURNS boolean
    LANGUAGE sql STABLE
    AS $$
  SELECT EXISTS (SELECT 1 FROM ledger_network WHERE network = ANY(p_networks))
$$;
CREATE FUNCTION public.node_dead(p_ray_node_id text) RETURNS uuid
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
  UPDATE nodes SET dead_at = coalesce(dead_at, clock_timestamp()) WHERE ray_node_id = p_ray_node_id RETURNING id
$$;
CREATE FUNCTION public.node_seen(p_worker_id text, p_ray_node_id text) RETURNS uuid
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
  UPDATE nodes SET ray_node_id = p_ray_node_id, dead_at = NULL WHERE worker_id = p_worker_id AND state <> 'left' RETURNING id
$$;
CREATE FUNCTION public.node_window(p_node uuid, p_at timestamp with time zone, OUT is_open boolean, OUT changes_at timestamp with time zone) RETURNS record
    LANGUAGE sql STABLE
    SET search_path TO 'public', 'pg_temp'
    AS $$
  WITH spans AS (
    SELECT (day + make_interval(mins => w.opens)) AT TIME ZONE 'UTC' AS opens, (day + make_interval(mins => w.closes)) AT TIME ZONE 'UTC' AS closes
    FROM node_windows w, generate_series(0, 7) AS n, LATERAL (SELECT date_trunc('day', p_at AT TIME ZONE 'UTC') + make_interval(days => n) AS day) d
    WHERE w.node_id = p_node AND extract(isodow FROM d.day) - 1 = w.weekday)
  SELECT count(*) = 0 OR bool_or(opens <= p_at AND p_at < closes),
         least(min(opens) FILTER (WHERE opens > p_at), min(closes) FILTER (WHERE closes > p_at))
  FROM spans
$$;
CREATE FUNCTION public.offer_live(p_node uuid, p_model text, OUT gpus integer, OUT gpus_free integer, OUT recount_at timestamp with time zone) RETURNS record
    LANGUAGE plpgsql STABLE
    SET search_path TO 'public', 'pg_temp'
    AS $$
DECLARE at timestamptz := clock_timestamp(); win record;
BEGIN
  SELECT count(*) FILTER (WHERE d.usable), count(*) FILTER (WHERE d.usable AND q.device_id IS NULL AND l.now IS NOT TRUE), min(l.next)
  INTO gpus, gpus_free, recount_at
  FROM devices d LEFT JOIN device_quarantines q ON q.device_id = d.id
  LEFT JOIN LATERAL (SELECT bool_or(x.during @> at) AS now, min(CASE WHEN lower(x.during) > at THEN lower(x.during) ELSE upper(x.during) END) AS next
                     FROM device_leases x WHERE int8range(x.device_id, x.device_id, '[]') && int8range(d.id, d.id, '[]') AND upper(x.during) > at) l ON true
  WHERE d.node_id = p_node AND d.model = p_model AND d.gone_at IS NULL;
  IF EXISTS (SELECT FROM node_windows w WHERE w.node_id = p_node) THEN
    SELECT * INTO win FROM node_window(p_node, at);
    IF NOT win.is_open THEN gpus_free := 0; END IF;
    recount_at := least(recount_at, win.changes_at);
  END IF;
END $$;
CREATE FUNCTION public.offers_follow_device() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN PERFORM refresh_offers(ARRAY[NEW.node_id]); RETURN NULL; END $$;
CREATE FUNCTION public.offers_follow_devices() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
DECLARE due uuid[] := nullif(current_setting('qubix.offers_due', true), '')::uuid[];
BEGIN
  IF due IS NOT NULL THEN  -- the first row's trigger does it for all
    PERFORM set_config('qubix.offers_due', '', true);
    PERFORM refresh_offers(due);
  END IF;
  RETURN NULL;
END $$;
CREATE FUNCTION public.offers_follow_node() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN PERFORM refresh_offers(ARRAY[NEW.id]); RETURN NULL; END $$;
CREATE FUNCTION public.offers_follow_provider() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN PERFORM refresh_offers(ARRAY(SELECT id FROM nodes WHERE provider_id = NEW.id)); RETURN NULL; END $$;
CREATE FUNCTION public.offers_follow_reputation() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN INSERT INTO reputations_due (provider_id) VALUES (NEW.id); RETURN NULL; END $$;
CREATE FUNCTION public.offers_note_devices() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
  PERFORM set_config('qubix.offers_due', (noted || ARRAY(SELECT DISTINCT d.node_id FROM changed c JOIN devices d ON d.id = c.device_id))::text, true)
  FROM coalesce(nullif(current_setting('qubix.offers_due', true), '')::uuid[], '{}') AS noted;
  RETURN NULL;
END $$;
CREATE FUNCTION public.offers_stay_fresh() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
  UPDATE offers SET fresh_until = coalesce(NEW.metrics_at + interval '60 seconds', '-infinity') WHERE node_id = NEW.id;
  IF EXISTS (SELECT FROM offers WHERE node_id = NEW.id AND stale_told AND fresh_until > clock_timestamp()) THEN PERFORM refresh_offers(ARRAY[NEW.id]); END IF;
  RETURN NULL;
END $$;
CREATE FUNCTION public.open_escrow(p_escrow uuid, p_user uuid, p_asset smallint) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
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
CREATE FUNCTION public.open_wallets(p_user uuid) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
  INSERT INTO accounts (asset, kind, owner_id) SELECT id, 'wallet', p_user FROM assets ORDER BY id
  ON CONFLICT (owner_id, asset) WHERE kind = 'wallet' DO NOTHING;
  RETURN CASE WHEN FOUND THEN 0 ELSE 1 END;
END $$;
CREATE FUNCTION public.payment_ended(p_id uuid, p_paid boolean, p_proof text) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
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
CREATE FUNCTION public.payment_request_moves() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
  IF NEW.confirmations < OLD.confirmations OR (OLD.extended AND NOT NEW.extended)
     OR (OLD.paid_at IS NOT NULL AND (NEW.paid_at, NEW.tx_ids) IS DISTINCT FROM (OLD.paid_at, OLD.tx_ids)) THEN
    RAISE EXCEPTION 'what was shown of the payment for job % stays', OLD.job_id USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE FUNCTION public.payment_unknown(p_id uuid, p_reason text) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
  UPDATE payments SET state = 'UNKNOWN', reason = p_reason WHERE id = p_id AND ended_at IS NULL;
  RETURN CASE WHEN FOUND THEN 0 WHEN EXISTS (SELECT 1 FROM payments WHERE id = p_id) THEN -4 ELSE -2 END;
END $$;
CREATE FUNCTION public.platform_account(p_kind text, p_asset smallint) RETURNS bigint
    LANGUAGE sql STABLE
    AS $$
  SELECT id FROM accounts WHERE kind = p_kind AND asset = p_asset AND owner_id IS NULL
$$;
CREATE FUNCTION public.post_batch(p_ids uuid[], p_acts text[], p_subjects uuid[], p_debits bigint[], p_credits bigint[], p_amounts bigint[], p_close bigint[]) RETURNS void
    LANGUAGE plpgsql
    AS $$
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
CREATE FUNCTION public.recover_cost(p_tx_id text, p_proof text) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
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
CREATE FUNCTION public.recover_hold(p_hold uuid, p_user uuid, p_amount bigint, p_address text) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
  IF NOT is_restored() THEN RETURN -9; END IF;
  RETURN make_hold(p_hold, p_user, 1::smallint, p_amount, p_address);
END $$;
CREATE FUNCTION public.recover_payment(p_id uuid, p_tx_id text, p_fee bigint, p_holds uuid[]) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
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
CREATE FUNCTION public.refresh_due_offers(p_most integer) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
DECLARE due uuid[]; went_stale integer; since uuid; until uuid; moment timestamptz := clock_timestamp();  -- a value, so that the index is searched for it
BEGIN
  WITH told AS (DELETE FROM reputations_due WHERE id IN (SELECT id FROM reputations_due ORDER BY id LIMIT p_most FOR UPDATE SKIP LOCKED) RETURNING provider_id)
  SELECT array_agg(DISTINCT n.id) INTO due FROM told JOIN nodes n ON n.provider_id = told.provider_id;
  due := due || ARRAY(SELECT DISTINCT node_id FROM (SELECT node_id FROM offers WHERE recount_at <= moment ORDER BY recount_at LIMIT p_most) x);
  IF cardinality(due) > 0 THEN PERFORM refresh_offers(due); END IF;
  SELECT after INTO since FROM offers_walk FOR UPDATE;
  SELECT id INTO until FROM offers WHERE id > since ORDER BY id OFFSET 19999 LIMIT 1;
  WITH picked AS (SELECT id FROM offers WHERE id > since AND id <= coalesce(until, 'ffffffff-ffff-ffff-ffff-ffffffffffff') AND listed
                    AND stale_told <> (fresh_until <= clock_timestamp()) ORDER BY id LIMIT p_most FOR NO KEY UPDATE),
  turned AS (UPDATE offers o SET stale_told = NOT o.stale_told FROM picked WHERE o.id = picked.id RETURNING o.*),
  told AS (INSERT INTO events (type, topics, subject_id, payload)
    SELECT 'MARKETPLACE_UPDATE', ARRAY['marketplace'], id, jsonb_build_object('offer_id', id, 'node_id', node_id, 'provider_id', provider_id, 'model', model,
      'price_per_hour', price_per_hour, 'gpus', gpus, 'gpus_free', gpus_free, 'status', CASE WHEN stale_told THEN 'stale' ELSE status END, 'region', region)
    FROM turned RETURNING 1)
  SELECT count(*) INTO went_stale FROM told;
  IF went_stale < p_most THEN  -- as many as were asked for: this part may hold more
    UPDATE offers_walk SET after = coalesce(until, '00000000-0000-0000-0000-000000000000') WHERE after IS DISTINCT FROM coalesce(until, '00000000-0000-0000-0000-000000000000');
  END IF;
  RETURN coalesce(cardinality(due), 0) + went_stale;
END $$;
CREATE FUNCTION public.refresh_offers(p_nodes uuid[]) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
  PERFORM FROM offers WHERE node_id = ANY (p_nodes) ORDER BY id FOR NO KEY UPDATE;
  IF NOT FOUND THEN RETURN; END IF;
  WITH facts AS (
    SELECT o.id, o.told AS told_was, p.id AS provider_id, p.name AS provider, n.region, n.cpu_model, n.cpu_cores, n.ram_bytes, live.gpus, live.gpus_free, live.recount_at,
      coalesce(d.vram_bytes, o.vram_bytes) AS vram_bytes, coalesce(d.detected_by, o.detected_by) AS detected_by, coalesce(d.verified, false) AS verified,
      n.state = 'online' AND NOT n.paused AND NOT n.draining AND n.sandbox ->> 'ok' IS DISTINCT FROM 'no' AND live.gpus > 0 AS listed,
      CASE WHEN n.state <> 'online' THEN n.state WHEN n.draining THEN 'draining' WHEN n.paused THEN 'paused'
           WHEN n.sandbox ->> 'ok' = 'no' THEN 'no_sandbox' WHEN live.gpus = 0 THEN 'overheating' ELSE 'available' END AS status,
      coalesce(n.metrics_at + interval '60 seconds', '-infinity') AS fresh_until,
      CASE WHEN p.attempts_ended > 0 THEN (p.attempts_ended - p.attempts_faulted)::float8 / p.attempts_ended END AS reliability, p.attempts_ended
    FROM offers o JOIN nodes n ON n.id = o.node_id JOIN providers p ON p.id = n.provider_id, offer_live(o.node_id, o.model) AS live,
      LATERAL (SELECT min(x.vram_bytes) AS vram_bytes, min(x.detected_by) AS detected_by, bool_and(x.verified) AS verified
               FROM devices x WHERE x.node_id = o.node_id AND x.model = o.model AND x.gone_at IS NULL) d
    WHERE o.node_id = ANY (p_nodes)),
  changed AS (
    UPDATE offers o SET provider_id = f.provider_id, provider = f.provider, region = f.region, cpu_model = f.cpu_model, cpu_cores = f.cpu_cores,
      ram_bytes = f.ram_bytes, gpus = f.gpus, gpus_free = f.gpus_free, recount_at = f.recount_at, vram_bytes = f.vram_bytes, detected_by = f.detected_by,
      verified = f.verified, listed = f.listed, status = f.status, fresh_until = f.fresh_until, stale_told = f.fresh_until <= clock_timestamp(), reliability = f.reliability, attempts = f.attempts_ended,
      search = lower(concat_ws(' ', o.model, replace(o.model, '_', ' '), f.provider, f.region, f.cpu_model)),
      card = (SELECT left(row_to_json(c)::text, -1) FROM (SELECT o.id, o.node_id, f.provider_id, f.provider, o.model, f.gpus, f.vram_bytes, o.price_per_hour,
        'QUBIC' AS asset, f.region, f.cpu_model, f.cpu_cores, f.ram_bytes, o.tflops, f.reliability, f.attempts_ended AS attempts, f.verified, f.detected_by) c),
      told = concat_ws('|', f.status, f.fresh_until <= clock_timestamp(), f.gpus_free, f.gpus, o.price_per_hour, f.region, f.provider, f.vram_bytes, f.verified)
    FROM facts f WHERE o.id = f.id
    RETURNING o.id, o.node_id, o.provider_id, o.model, o.price_per_hour, o.gpus, o.gpus_free, o.region, o.told, f.told_was,
      CASE WHEN o.status = 'available' AND o.stale_told THEN 'stale' ELSE o.status END AS status)
  INSERT INTO events (type, topics, subject_id, payload)
  SELECT 'MARKETPLACE_UPDATE', ARRAY['marketplace'], c.id, jsonb_build_object('offer_id', c.id, 'node_id', c.node_id, 'provider_id', c.provider_id,
    'model', c.model, 'price_per_hour', c.price_per_hour, 'gpus', c.gpus, 'gpus_free', c.gpus_free, 'status', c.status, 'region', c.region)
  FROM changed c WHERE c.told IS DISTINCT FROM c.told_was;
END $$;
CREATE FUNCTION public.refuse_change() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
  RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'restrict_violation';
END $$;
CREATE FUNCTION public.refuse_transition() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
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
CREATE FUNCTION public.resolve(p_earning uuid, p_decision interval) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
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
CREATE FUNCTION public.rule(p_escrow uuid, p_arbiter uuid, p_to_payee bigint, p_reason text) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
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
CREATE FUNCTION public.set_email(p_user uuid, p_email text, OUT outcome text) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
  UPDATE users SET email = p_email WHERE id = p_user AND (email IS NULL OR email = p_email);
  outcome := CASE WHEN FOUND THEN 'set' ELSE 'kept' END;
EXCEPTION WHEN unique_violation THEN outcome := 'taken';
END $$;
CREATE FUNCTION public.settle(p_escrow uuid, p_outcome text, p_lines text[], p_payees uuid[], p_gross bigint[], p_metered_ms bigint[], p_fee_bps integer, p_window interval, p_decision interval) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    AS $$
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
CREATE FUNCTION public.share_of(p_total bigint, p_before numeric, p_weight bigint, p_sum numeric) RETURNS bigint
    LANGUAGE sql IMMUTABLE
    AS $$
  SELECT CASE WHEN p_sum = 0 THEN 0 ELSE (div(p_total * (p_before + p_weight), p_sum) - div(p_total * p_before, p_sum))::bigint END
$$;
CREATE FUNCTION public.sign_payout(p_id uuid, p_source text, p_destination text, p_amount bigint, p_fee bigint, p_tick bigint, p_input_type integer, p_payload bytea, p_encoded bytea, p_tx_id text, p_before_transfers bigint, p_before_amount bigint, p_holds uuid[]) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
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
CREATE FUNCTION public.sign_sweep(p_id uuid, p_source text, p_destination text, p_amount bigint, p_tick bigint, p_encoded bytea, p_tx_id text, p_before_transfers bigint, p_before_amount bigint) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
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
CREATE FUNCTION public.transfer_id(p_subject uuid, p_step text) RETURNS uuid
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
    AS $$
  SELECT encode(substr(sha256(convert_to(p_subject::text || '/' || p_step, 'UTF8')), 1, 16), 'hex')::uuid
$$;
CREATE FUNCTION public.wallet_of(p_user uuid, p_asset smallint) RETURNS bigint
    LANGUAGE sql STABLE
    AS $$
  SELECT id FROM accounts WHERE owner_id = p_user AND asset = p_asset AND kind = 'wallet'
$$;
CREATE FUNCTION public.web_beat(p_begun boolean, p_gap_max_s double precision) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
DECLARE
  b sweeper_beats;
  paused boolean;
BEGIN
  INSERT INTO sweeper_beats (name, at) VALUES ('web', clock_timestamp()) ON CONFLICT DO NOTHING;
  SELECT * INTO b FROM sweeper_beats WHERE name = 'web' FOR UPDATE;
  paused := b.at < clock_timestamp() - make_interval(secs => p_gap_max_s);
  UPDATE sweeper_beats SET at = clock_timestamp(), gap_s = extract(epoch FROM clock_timestamp() - b.at),
    resumed_at = CASE WHEN paused THEN clock_timestamp() ELSE resumed_at END WHERE name = 'web';
  IF paused AND p_begun THEN
    UPDATE nodes SET socket_open = false WHERE socket_open AND last_status_at < b.at;
  END IF;
END $$;
CREATE FUNCTION public.withdraw(p_hold uuid, p_user uuid, p_asset smallint, p_amount bigint, p_address text) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
  IF is_restored() AND NOT EXISTS (SELECT 1 FROM holds WHERE id = p_hold) THEN RETURN -8; END IF;
  RETURN make_hold(p_hold, p_user, p_asset, p_amount, p_address);
END $$;
CREATE FUNCTION public.withdrawn(p_hold uuid, p_captured boolean, p_tx_id text, p_tick bigint, p_proof text) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
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
CREATE TABLE public.accounts (
    id bigint NOT NULL,
    asset smallint NOT NULL,
    kind text NOT NULL,
    owner_id uuid,
    posted bigint DEFAULT '0'::bigint NOT NULL,
    held bigint DEFAULT '0'::bigint NOT NULL,
    seq bigint DEFAULT '0'::bigint NOT NULL,
    closed boolean DEFAULT false NOT NULL,
    CONSTRAINT accounts_closed_is_empty_check CHECK (((NOT closed) OR ((kind = ANY (ARRAY['escrow'::text, 'earning'::text])) AND (posted = 0) AND (held = 0)))),
    CONSTRAINT accounts_held_check CHECK (((held >= 0) AND ((held = 0) OR (kind = 'wallet'::text)))),
    CONSTRAINT accounts_kind_check CHECK ((kind = ANY (ARRAY['chain'::text, 'wallet'::text, 'escrow'::text, 'earning'::text, 'fee'::text, 'house'::text, 'suspense'::text]))),
    CONSTRAINT accounts_no_overdraft_check CHECK (
CASE kind
    WHEN 'chain'::text THEN ((posted >= '-9223372036854775807'::bigint) AND (posted <= 0))
    ELSE (posted >= held)
END),
    CONSTRAINT accounts_owned_check CHECK (((kind = ANY (ARRAY['wallet'::text, 'escrow'::text, 'earning'::text])) = (owner_id IS NOT NULL))),
    CONSTRAINT accounts_seq_check CHECK ((seq >= 0))
)
WITH (fillfactor='50');
COMMENT ON COLUMN public.accounts.owner_id IS 'whose money it is, or becomes: payer of an escrow, payee of an earning';
ALTER TABLE public.accounts ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.accounts_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE public.api_keys (
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    name text NOT NULL,
    prefix text NOT NULL,
    key_hash bytea NOT NULL,
    scopes text[] NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    last_used_at timestamp with time zone,
    CONSTRAINT api_keys_key_hash_check CHECK ((length(key_hash) = 32))
);
CREATE TABLE public.artefacts (
    attempt_id uuid NOT NULL,
    job_id uuid NOT NULL,
    name text NOT NULL,
    sha256 text NOT NULL,
    size bigint NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
CREATE TABLE public.assets (
    id smallint NOT NULL,
    code text NOT NULL,
    decimals smallint NOT NULL
);
CREATE TABLE public.attempt_blobs (
    attempt_id uuid NOT NULL,
    sha256 text NOT NULL
);
CREATE TABLE public.attempts (
    id uuid NOT NULL,
    job_id uuid NOT NULL,
    number integer NOT NULL,
    fence bigint NOT NULL,
    node_id uuid NOT NULL,
    provider_id uuid NOT NULL,
    offer_id uuid NOT NULL,
    rate bigint NOT NULL,
    limit_ms bigint NOT NULL,
    state text DEFAULT 'CREATED'::text NOT NULL,
    device_uuids text[] NOT NULL,
    counted boolean DEFAULT true NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    accepted_at timestamp with time zone,
    running_at timestamp with time zone,
    renewed_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    start_deadline_at timestamp with time zone,
    reported_at timestamp with time zone,
    storage_failed_at timestamp with time zone,
    ended_at timestamp with time zone,
    exit text,
    exit_code integer,
    signal integer,
    reason text,
    reason_detail text,
    fault text,
    agent_ms bigint,
    metered_ms bigint,
    charge bigint,
    restore_attempt_id uuid,
    resumed_from integer,
    restore_failed boolean DEFAULT false NOT NULL,
    progress double precision DEFAULT '0'::double precision NOT NULL,
    CONSTRAINT attempts_amounts_check CHECK (((rate > 0) AND (limit_ms > 0) AND (metered_ms >= 0) AND (charge >= 0))),
    CONSTRAINT attempts_ended_check CHECK (((ended_at IS NULL) = (state = ANY (ARRAY['CREATED'::text, 'ACCEPTED'::text, 'RUNNING'::text])))),
    CONSTRAINT attempts_fault_check CHECK ((fault = ANY (ARRAY['none'::text, 'consumer'::text, 'provider'::text, 'platform'::text]))),
    CONSTRAINT attempts_metered_check CHECK ((metered_ms <= limit_ms)),
    CONSTRAINT attempts_state_check CHECK ((state = ANY (ARRAY['CREATED'::text, 'ACCEPTED'::text, 'RUNNING'::text, 'SUCCEEDED'::text, 'FAILED'::text, 'CANCELLED'::text, 'LOST'::text])))
);
CREATE TABLE public.blobs (
    sha256 text NOT NULL,
    size bigint NOT NULL,
    unreferenced_since timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT blobs_sha256_check CHECK ((sha256 ~ '^[0-9a-f]{64}$'::text)),
    CONSTRAINT blobs_size_check CHECK ((size >= 0))
);
CREATE TABLE public.chain_addresses (
    identity text NOT NULL,
    purpose text NOT NULL,
    user_id uuid,
    made_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    given_at timestamp with time zone,
    retired_at timestamp with time zone,
    CONSTRAINT chain_addresses_given_check CHECK (((user_id IS NULL) = (given_at IS NULL))),
    CONSTRAINT chain_addresses_identity_check CHECK ((identity ~ '^[A-Z]{60}$'::text)),
    CONSTRAINT chain_addresses_owned_check CHECK (((purpose = 'user'::text) OR (user_id IS NULL))),
    CONSTRAINT chain_addresses_purpose_check CHECK ((purpose = ANY (ARRAY['user'::text, 'hot'::text, 'house'::text])))
);
COMMENT ON COLUMN public.chain_addresses.purpose IS 'hot pays out; house takes the operator''s float; user: one user''s deposits';
COMMENT ON COLUMN public.chain_addresses.user_id IS 'whose deposits these are; NULL: not given to anybody yet';
COMMENT ON COLUMN public.chain_addresses.retired_at IS 'free when a backup was restored: somebody may have been given it since, so nobody else ever is';
CREATE TABLE public.chain_rows (
    id uuid NOT NULL,
    kind text NOT NULL,
    tx_id text NOT NULL,
    index integer NOT NULL,
    asset smallint NOT NULL,
    amount bigint NOT NULL,
    address text NOT NULL,
    counterparty text,
    tick bigint NOT NULL,
    archived_at timestamp with time zone NOT NULL,
    second_proof text NOT NULL,
    recorded_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT chain_rows_amount_check CHECK (
CASE kind
    WHEN 'deposit'::text THEN (amount > 0)
    WHEN 'sweep'::text THEN (amount <> 0)
    ELSE (amount < 0)
END),
    CONSTRAINT chain_rows_kind_check CHECK ((kind = ANY (ARRAY['deposit'::text, 'withdrawal'::text, 'cost'::text, 'sweep'::text]))),
    CONSTRAINT chain_rows_proved_check CHECK ((((length(tx_id) >= 1) AND (length(tx_id) <= 200)) AND (index >= 0) AND (tick >= 0) AND (length(second_proof) > 0)))
);
COMMENT ON COLUMN public.chain_rows.id IS 'also the subject of the transfer that goes with it';
COMMENT ON COLUMN public.chain_rows.index IS 'the place in a send-many; of a sweep 0 for what left, 1 for what arrived';
COMMENT ON COLUMN public.chain_rows.amount IS 'what it did to the money that we hold at this address';
COMMENT ON COLUMN public.chain_rows.address IS 'ours';
COMMENT ON COLUMN public.chain_rows.counterparty IS 'whose it was before, or is now';
COMMENT ON COLUMN public.chain_rows.archived_at IS 'when the archive showed it, n ticks past its own';
COMMENT ON COLUMN public.chain_rows.second_proof IS 'what agreed with the archive';
CREATE TABLE public.chain_state (
    the_only boolean DEFAULT true NOT NULL,
    cursor bigint NOT NULL,
    peeked bigint NOT NULL,
    head bigint DEFAULT '0'::bigint NOT NULL,
    processed bigint DEFAULT '0'::bigint NOT NULL,
    tick_s double precision DEFAULT '1'::double precision NOT NULL,
    epoch integer DEFAULT 0 NOT NULL,
    epoch_advanced_at timestamp with time zone,
    advanced_at timestamp with time zone,
    CONSTRAINT chain_state_cursor_check CHECK (((cursor >= 0) AND (peeked >= cursor))),
    CONSTRAINT chain_state_the_only_check CHECK (the_only)
);
COMMENT ON COLUMN public.chain_state.cursor IS 'the last tick whose deposits are all in the ledger';
COMMENT ON COLUMN public.chain_state.peeked IS 'the last tick looked at ahead of the cursor, to show what is coming';
COMMENT ON COLUMN public.chain_state.epoch_advanced_at IS 'when the archive was first seen to advance in this epoch; NULL: not known';
COMMENT ON COLUMN public.chain_state.advanced_at IS 'when the archive was last seen to advance';
CREATE TABLE public.checkpoints (
    attempt_id uuid NOT NULL,
    n integer NOT NULL,
    sha256 text NOT NULL,
    size bigint NOT NULL,
    progress double precision NOT NULL,
    ran_ms bigint NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT checkpoints_numbers_check CHECK (((n > 0) AND (size >= 0) AND (ran_ms >= 0)))
);
CREATE TABLE public.device_leases (
    id bigint NOT NULL,
    device_id bigint NOT NULL,
    purpose text NOT NULL,
    holder_id uuid NOT NULL,
    during tstzrange NOT NULL,
    CONSTRAINT device_leases_during_check CHECK (((NOT isempty(during)) AND (NOT upper_inf(during)) AND (NOT lower_inf(during)))),
    CONSTRAINT device_leases_purpose_check CHECK ((purpose = ANY (ARRAY['quote'::text, 'job'::text, 'reservation'::text, 'cluster'::text])))
);
ALTER TABLE public.device_leases ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.device_leases_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE public.device_metrics (
    device_id bigint NOT NULL,
    at timestamp with time zone NOT NULL,
    node_at timestamp with time zone NOT NULL,
    utilisation_pct real,
    memory_used_bytes bigint,
    temperature_c real,
    power_w real,
    cpu_pct real,
    ram_used_bytes bigint
)
PARTITION BY RANGE (at);
CREATE TABLE public.device_metrics_default (
    device_id bigint CONSTRAINT device_metrics_device_id_not_null NOT NULL,
    at timestamp with time zone CONSTRAINT device_metrics_at_not_null NOT NULL,
    node_at timestamp with time zone CONSTRAINT device_metrics_node_at_not_null NOT NULL,
    utilisation_pct real,
    memory_used_bytes bigint,
    temperature_c real,
    power_w real,
    cpu_pct real,
    ram_used_bytes bigint
);
CREATE TABLE public.device_quarantines (
    device_id bigint NOT NULL,
    attempt_id uuid NOT NULL,
    generation bigint NOT NULL,
    since timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
CREATE TABLE public.devices (
    id bigint NOT NULL,
    node_id uuid NOT NULL,
    uuid text NOT NULL,
    model text NOT NULL,
    vram_bytes bigint NOT NULL,
    detected_by text NOT NULL,
    verified boolean DEFAULT false NOT NULL,
    overheating boolean DEFAULT false NOT NULL,
    heat text DEFAULT 'normal'::text NOT NULL,
    gone_at timestamp with time zone,
    usable boolean GENERATED ALWAYS AS (((gone_at IS NULL) AND (NOT overheating))) STORED NOT NULL,
    sample jsonb,
    sampled_at timestamp with time zone,
    CONSTRAINT devices_detected_by_check CHECK ((detected_by = ANY (ARRAY['nvml'::text, 'webgpu'::text, 'webgl'::text, 'declared'::text]))),
    CONSTRAINT devices_heat_check CHECK ((heat = ANY (ARRAY['normal'::text, 'hot'::text, 'over_limit'::text, 'critical'::text]))),
    CONSTRAINT devices_verified_check CHECK (((NOT verified) OR (detected_by = 'nvml'::text))),
    CONSTRAINT devices_vram_bytes_check CHECK ((vram_bytes > 0))
)
WITH (fillfactor='70');
ALTER TABLE public.devices ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.devices_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE public.disputes (
    escrow_id uuid NOT NULL,
    user_id uuid NOT NULL,
    evidence text NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
CREATE TABLE public.earnings (
    id uuid NOT NULL,
    escrow_id uuid NOT NULL,
    line text NOT NULL,
    asset smallint NOT NULL,
    payee_id bigint NOT NULL,
    account_id bigint NOT NULL,
    gross bigint NOT NULL,
    fee_bps integer NOT NULL,
    fee bigint NOT NULL,
    matures_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    state text DEFAULT 'PENDING'::text NOT NULL,
    to_payee bigint,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    frozen_at timestamp with time zone,
    ended_at timestamp with time zone,
    CONSTRAINT earnings_ended_check CHECK (((state = ANY (ARRAY['PENDING'::text, 'FROZEN'::text])) = (ended_at IS NULL))),
    CONSTRAINT earnings_fee_check CHECK (((gross > 0) AND ((fee_bps >= 0) AND (fee_bps <= 10000)) AND ((fee)::numeric = div(((gross)::numeric * (fee_bps)::numeric), (10000)::numeric)))),
    CONSTRAINT earnings_shape_check CHECK ((
CASE state
    WHEN 'PAID'::text THEN (to_payee = gross)
    WHEN 'REVERSED'::text THEN (to_payee = 0)
    WHEN 'SPLIT'::text THEN ((to_payee > 0) AND (to_payee < gross))
    ELSE (to_payee IS NULL)
END AND ((state = ANY (ARRAY['PENDING'::text, 'FROZEN'::text])) OR (to_payee IS NOT NULL)))),
    CONSTRAINT earnings_state_check CHECK ((state = ANY (ARRAY['PENDING'::text, 'FROZEN'::text, 'PAID'::text, 'REVERSED'::text, 'SPLIT'::text])))
);
CREATE TABLE public.escrows (
    id uuid NOT NULL,
    asset smallint NOT NULL,
    payer_id bigint NOT NULL,
    account_id bigint NOT NULL,
    state text DEFAULT 'PENDING'::text NOT NULL,
    funded bigint DEFAULT '0'::bigint NOT NULL,
    paid bigint DEFAULT '0'::bigint NOT NULL,
    refunded bigint DEFAULT '0'::bigint NOT NULL,
    digest bytea,
    proposal jsonb,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    disputed_at timestamp with time zone,
    settled_at timestamp with time zone,
    CONSTRAINT escrows_amounts_check CHECK (((funded >= 0) AND (paid >= 0) AND (refunded >= 0))),
    CONSTRAINT escrows_settled_check CHECK (((state = ANY (ARRAY['RELEASED'::text, 'REFUNDED'::text, 'SPLIT'::text])) = (settled_at IS NOT NULL))),
    CONSTRAINT escrows_shape_check CHECK (
CASE state
    WHEN 'PENDING'::text THEN (funded = 0)
    WHEN 'REFUNDED'::text THEN (paid = 0)
    WHEN 'SPLIT'::text THEN (paid > 0)
    ELSE (funded > 0)
END),
    CONSTRAINT escrows_state_check CHECK ((state = ANY (ARRAY['PENDING'::text, 'LOCKED'::text, 'DISPUTED'::text, 'RELEASED'::text, 'REFUNDED'::text, 'SPLIT'::text]))),
    CONSTRAINT escrows_whole_check CHECK (
CASE
    WHEN (state = ANY (ARRAY['RELEASED'::text, 'REFUNDED'::text, 'SPLIT'::text])) THEN ((paid + refunded) = funded)
    ELSE ((paid = 0) AND (refunded = 0))
END)
)
WITH (fillfactor='70');
COMMENT ON COLUMN public.escrows.digest IS 'of the settlement asked for, so that a repeat is known from another';
COMMENT ON COLUMN public.escrows.proposal IS 'the settlement that waits for an arbiter';
CREATE TABLE public.transfers (
    id uuid NOT NULL,
    act text NOT NULL,
    subject_id uuid NOT NULL,
    debit_id bigint NOT NULL,
    credit_id bigint NOT NULL,
    asset smallint NOT NULL,
    amount bigint NOT NULL,
    debit_seq bigint NOT NULL,
    credit_seq bigint NOT NULL,
    debit_after bigint NOT NULL,
    credit_after bigint NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT transfers_act_check CHECK ((act = ANY (ARRAY['fund'::text, 'pay'::text, 'rest'::text, 'fee'::text, 'net'::text, 'back'::text, 'deposit'::text, 'faucet'::text, 'withdrawal'::text, 'cost'::text]))),
    CONSTRAINT transfers_amount_check CHECK ((amount > 0)),
    CONSTRAINT transfers_two_sides_check CHECK ((debit_id <> credit_id))
);
CREATE VIEW public.escrow_audit AS
 SELECT 'an open escrow holds what was funded'::text AS rule,
    count(*) AS n,
    min((e.id)::text) AS example
   FROM (public.escrows e
     JOIN public.accounts a ON ((a.id = e.account_id)))
  WHERE ((e.state = ANY (ARRAY['PENDING'::text, 'LOCKED'::text, 'DISPUTED'::text])) AND (a.posted <> e.funded))
UNION ALL
 SELECT 'an open earning holds its gross'::text AS rule,
    count(*) AS n,
    min((g.id)::text) AS example
   FROM (public.earnings g
     JOIN public.accounts a ON ((a.id = g.account_id)))
  WHERE ((g.state = ANY (ARRAY['PENDING'::text, 'FROZEN'::text])) AND (a.posted <> g.gross))
UNION ALL
 SELECT 'an escrow paid the sum of its earnings'::text AS rule,
    count(*) AS n,
    min((e.id)::text) AS example
   FROM (public.escrows e
     LEFT JOIN ( SELECT earnings.escrow_id,
            sum(earnings.gross) AS gross
           FROM public.earnings
          GROUP BY earnings.escrow_id) g ON ((g.escrow_id = e.id)))
  WHERE ((e.paid)::numeric <> COALESCE(g.gross, (0)::numeric))
UNION ALL
 SELECT 'an escrow was funded by its transfers'::text AS rule,
    count(*) AS n,
    min((e.id)::text) AS example
   FROM (public.escrows e
     LEFT JOIN ( SELECT transfers.credit_id,
            sum(transfers.amount) AS amount
           FROM public.transfers
          WHERE (transfers.act = 'fund'::text)
          GROUP BY transfers.credit_id) t ON ((t.credit_id = e.account_id)))
  WHERE ((e.funded)::numeric <> COALESCE(t.amount, (0)::numeric))
UNION ALL
 SELECT 'an escrow is final exactly when its account is closed'::text AS rule,
    count(*) AS n,
    min((e.id)::text) AS example
   FROM (public.escrows e
     JOIN public.accounts a ON ((a.id = e.account_id)))
  WHERE ((e.state = ANY (ARRAY['RELEASED'::text, 'REFUNDED'::text, 'SPLIT'::text])) <> a.closed)
UNION ALL
 SELECT 'an earning is final exactly when its account is closed'::text AS rule,
    count(*) AS n,
    min((g.id)::text) AS example
   FROM (public.earnings g
     JOIN public.accounts a ON ((a.id = g.account_id)))
  WHERE ((g.state = ANY (ARRAY['PAID'::text, 'REVERSED'::text, 'SPLIT'::text])) <> a.closed)
UNION ALL
 SELECT 'every purse belongs to an escrow or an earning'::text AS rule,
    count(*) AS n,
    min((a.id)::text) AS example
   FROM public.accounts a
  WHERE (((a.kind = 'escrow'::text) AND (NOT (EXISTS ( SELECT 1
           FROM public.escrows e
          WHERE (e.account_id = a.id))))) OR ((a.kind = 'earning'::text) AND (NOT (EXISTS ( SELECT 1
           FROM public.earnings g
          WHERE (g.account_id = a.id))))));
CREATE TABLE public.escrow_lines (
    escrow_id uuid NOT NULL,
    line text NOT NULL,
    payee_user_id uuid NOT NULL,
    metered_gross bigint NOT NULL,
    gross bigint NOT NULL,
    metered_ms bigint NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT escrow_lines_amounts_check CHECK ((((gross >= 0) AND (gross <= metered_gross)) AND (metered_ms >= 0)))
);
CREATE TABLE public.events (
    id bigint NOT NULL,
    "position" bigint,
    type text NOT NULL,
    topics text[] NOT NULL,
    subject_id uuid NOT NULL,
    payload jsonb NOT NULL,
    key text,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
ALTER TABLE public.events ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.events_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE public.holds (
    id uuid NOT NULL,
    account_id bigint NOT NULL,
    asset smallint NOT NULL,
    amount bigint NOT NULL,
    address text NOT NULL,
    state text DEFAULT 'OPEN'::text NOT NULL,
    evidence text,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    ended_at timestamp with time zone,
    CONSTRAINT holds_amount_check CHECK ((amount > 0)),
    CONSTRAINT holds_ended_check CHECK ((((state = 'OPEN'::text) = (ended_at IS NULL)) AND ((state = 'OPEN'::text) = (evidence IS NULL)))),
    CONSTRAINT holds_state_check CHECK ((state = ANY (ARRAY['OPEN'::text, 'CAPTURED'::text, 'VOIDED'::text])))
);
CREATE TABLE public.idempotency_keys (
    user_id uuid NOT NULL,
    key text NOT NULL,
    request_hash bytea NOT NULL,
    status integer,
    response jsonb,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT idempotency_keys_answered_check CHECK (((status IS NULL) = (response IS NULL))),
    CONSTRAINT idempotency_keys_key_check CHECK (((length(key) >= 1) AND (length(key) <= 200))),
    CONSTRAINT idempotency_keys_request_hash_check CHECK ((length(request_hash) = 32))
);
CREATE TABLE public.incoming (
    tx_id text NOT NULL,
    place integer NOT NULL,
    address text NOT NULL,
    amount bigint NOT NULL,
    tick bigint NOT NULL,
    payer text NOT NULL,
    sender text NOT NULL,
    memo bytea DEFAULT '\x'::bytea NOT NULL,
    state text NOT NULL,
    confirmations smallint DEFAULT '0'::smallint NOT NULL,
    reason text DEFAULT ''::text NOT NULL,
    raw jsonb NOT NULL,
    seen_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    changed_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT incoming_amounts_check CHECK (((amount > 0) AND (tick > 0) AND ((place >= 0) AND (place <= 24)) AND ((confirmations >= 0) AND (confirmations <= 100)))),
    CONSTRAINT incoming_state_check CHECK ((state = ANY (ARRAY['SEEN'::text, 'WAITING'::text, 'CREDITED'::text, 'DOUBTFUL'::text, 'GONE'::text])))
);
COMMENT ON COLUMN public.incoming.state IS 'SEEN too early to count; WAITING for the second proof; a person looks at DOUBTFUL';
COMMENT ON COLUMN public.incoming.raw IS 'the archive''s own words: the network forgets them at the epoch''s end';
CREATE TABLE public.job_inputs (
    job_id uuid NOT NULL,
    name text NOT NULL,
    sha256 text NOT NULL,
    size bigint NOT NULL
);
CREATE TABLE public.jobs (
    id uuid NOT NULL,
    owner_id uuid NOT NULL,
    name text NOT NULL,
    kind text NOT NULL,
    params jsonb NOT NULL,
    needs jsonb NOT NULL,
    limits jsonb NOT NULL,
    state text NOT NULL,
    fence bigint DEFAULT '0'::bigint NOT NULL,
    attempts_max integer DEFAULT 3 NOT NULL,
    rate_max bigint NOT NULL,
    ceiling bigint NOT NULL,
    duration_max_s integer NOT NULL,
    asset smallint NOT NULL,
    quote_id uuid,
    offer_id uuid,
    retry_own_failures boolean DEFAULT false NOT NULL,
    wait_s integer NOT NULL,
    progress double precision DEFAULT '0'::double precision NOT NULL,
    operation text DEFAULT ''::text NOT NULL,
    reason text,
    reason_detail text,
    unplaceable jsonb,
    restore_attempt_id uuid,
    restore_n integer,
    wait_until timestamp with time zone,
    cancel_requested_at timestamp with time zone,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    pending_at timestamp with time zone,
    started_at timestamp with time zone,
    ended_at timestamp with time zone,
    CONSTRAINT jobs_amounts_check CHECK (((rate_max > 0) AND (ceiling > 0) AND (duration_max_s > 0) AND (attempts_max > 0))),
    CONSTRAINT jobs_ended_check CHECK (((ended_at IS NOT NULL) = (state = ANY (ARRAY['COMPLETED'::text, 'FAILED'::text, 'CANCELLED'::text])))),
    CONSTRAINT jobs_progress_check CHECK ((((progress >= (0)::double precision) AND (progress <= (100)::double precision)) AND ((progress < (100)::double precision) OR (state = 'COMPLETED'::text)))),
    CONSTRAINT jobs_state_check CHECK ((state = ANY (ARRAY['DRAFT'::text, 'QUOTED'::text, 'AWAITING_FUNDS'::text, 'PENDING'::text, 'ASSIGNED'::text, 'RUNNING'::text, 'COMPLETED'::text, 'FAILED'::text, 'CANCELLED'::text])))
);
CREATE TABLE public.join_tokens (
    id uuid NOT NULL,
    provider_id uuid NOT NULL,
    token_hash bytea NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    used_at timestamp with time zone,
    node_id uuid,
    by_label boolean DEFAULT false NOT NULL,
    CONSTRAINT join_tokens_used_check CHECK (((used_at IS NULL) = (node_id IS NULL)))
);
CREATE TABLE public.leaders (
    name text NOT NULL,
    epoch bigint NOT NULL,
    holder text NOT NULL,
    beat_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
CREATE VIEW public.ledger_audit AS
 WITH entries AS (
         SELECT transfers.debit_id AS account_id,
            transfers.asset,
            transfers.debit_seq AS seq,
            (- transfers.amount) AS change,
            transfers.debit_after AS after
           FROM public.transfers
        UNION ALL
         SELECT transfers.credit_id,
            transfers.asset,
            transfers.credit_seq,
            transfers.amount,
            transfers.credit_after
           FROM public.transfers
        ), chained AS (
         SELECT entries.account_id,
            entries.seq,
            entries.after,
            row_number() OVER w AS place,
            sum(entries.change) OVER w AS balance
           FROM entries
          WINDOW w AS (PARTITION BY entries.account_id ORDER BY entries.seq)
        ), sums AS (
         SELECT entries.account_id,
            sum(entries.change) AS change,
            count(*) AS n
           FROM entries
          GROUP BY entries.account_id
        ), open_holds AS (
         SELECT holds.account_id,
            sum(holds.amount) AS amount
           FROM public.holds
          WHERE (holds.state = 'OPEN'::text)
          GROUP BY holds.account_id
        )
 SELECT 'the balances of an asset sum to zero'::text AS rule,
    count(*) AS n,
    min((x.asset)::text) AS example
   FROM ( SELECT accounts.asset
           FROM public.accounts
          GROUP BY accounts.asset
         HAVING (sum(accounts.posted) <> (0)::numeric)) x
UNION ALL
 SELECT 'a balance is the sum of its entries'::text AS rule,
    count(*) AS n,
    min((a.id)::text) AS example
   FROM (public.accounts a
     LEFT JOIN sums s ON ((s.account_id = a.id)))
  WHERE ((a.posted)::numeric <> COALESCE(s.change, (0)::numeric))
UNION ALL
 SELECT 'an account has as many entries as its sequence says'::text AS rule,
    count(*) AS n,
    min((a.id)::text) AS example
   FROM (public.accounts a
     LEFT JOIN sums s ON ((s.account_id = a.id)))
  WHERE (a.seq <> COALESCE(s.n, (0)::bigint))
UNION ALL
 SELECT 'entries are numbered without gaps and carry the balance after them'::text AS rule,
    count(*) AS n,
    min((chained.account_id)::text) AS example
   FROM chained
  WHERE ((chained.seq <> chained.place) OR ((chained.after)::numeric <> chained.balance))
UNION ALL
 SELECT 'held is the sum of the open holds'::text AS rule,
    count(*) AS n,
    min((a.id)::text) AS example
   FROM (public.accounts a
     LEFT JOIN open_holds h ON ((h.account_id = a.id)))
  WHERE ((a.held)::numeric <> COALESCE(h.amount, (0)::numeric))
UNION ALL
 SELECT 'only the chain is overdrawn'::text AS rule,
    count(*) AS n,
    min((accounts.id)::text) AS example
   FROM public.accounts
  WHERE ((accounts.kind <> 'chain'::text) AND (accounts.posted < accounts.held))
UNION ALL
 SELECT 'a closed account is empty'::text AS rule,
    count(*) AS n,
    min((accounts.id)::text) AS example
   FROM public.accounts
  WHERE (accounts.closed AND ((accounts.posted <> 0) OR (accounts.held <> 0)));
CREATE TABLE public.ledger_network (
    the_only boolean DEFAULT true NOT NULL,
    network text NOT NULL,
    born_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT ledger_network_network_check CHECK ((network = ANY (ARRAY['none'::text, 'devnet'::text, 'mainnet'::text]))),
    CONSTRAINT ledger_network_the_only_check CHECK (the_only)
);
CREATE TABLE public.log_chunks (
    "position" bigint NOT NULL,
    attempt_id uuid NOT NULL,
    stream text NOT NULL,
    "offset" bigint NOT NULL,
    text text NOT NULL,
    node_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT log_chunks_stream_check CHECK ((stream = ANY (ARRAY['out'::text, 'err'::text, 'agent'::text])))
);
ALTER TABLE public.log_chunks ALTER COLUMN "position" ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.log_chunks_position_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE public.lost_verdicts (
    tx_id text NOT NULL,
    paid boolean,
    raised boolean NOT NULL,
    reason text NOT NULL,
    judged_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
COMMENT ON TABLE public.lost_verdicts IS 'after a restore: whether what a stranger sent has paid, by the rules of the payments that were signed here';
COMMENT ON COLUMN public.lost_verdicts.paid IS 'NULL while nothing proves it either way';
COMMENT ON COLUMN public.lost_verdicts.raised IS 'whether it raised its address''s outgoing counters';
COMMENT ON COLUMN public.lost_verdicts.reason IS 'the proof, or what lacks of one';
CREATE TABLE public.node_windows (
    node_id uuid NOT NULL,
    weekday smallint NOT NULL,
    opens smallint NOT NULL,
    closes smallint NOT NULL,
    CONSTRAINT node_windows_span_check CHECK ((((weekday >= 0) AND (weekday <= 6)) AND (0 <= opens) AND (opens < closes) AND (closes <= 1440)))
);
CREATE TABLE public.nodes (
    id uuid NOT NULL,
    provider_id uuid NOT NULL,
    worker_id text NOT NULL,
    public_key bytea NOT NULL,
    name text NOT NULL,
    region text NOT NULL,
    price_class text DEFAULT ''::text NOT NULL,
    ray_node_id text,
    state text DEFAULT 'registering'::text NOT NULL,
    paused boolean DEFAULT false NOT NULL,
    draining boolean DEFAULT false NOT NULL,
    generation bigint DEFAULT '0'::bigint NOT NULL,
    session uuid,
    session_seq bigint DEFAULT '0'::bigint NOT NULL,
    generation_seen bigint DEFAULT '0'::bigint NOT NULL,
    session_token_hash bytea,
    socket_open boolean DEFAULT false NOT NULL,
    last_status_at timestamp with time zone,
    metrics_at timestamp with time zone,
    dead_at timestamp with time zone,
    qubix_version text DEFAULT ''::text NOT NULL,
    ray_version text DEFAULT ''::text NOT NULL,
    python_version text DEFAULT ''::text NOT NULL,
    hostname text DEFAULT ''::text NOT NULL,
    cpu_model text DEFAULT ''::text NOT NULL,
    cpu_cores integer DEFAULT 0 NOT NULL,
    ram_bytes bigint DEFAULT '0'::bigint NOT NULL,
    disk_bytes bigint DEFAULT '0'::bigint NOT NULL,
    sandbox jsonb DEFAULT '{}'::jsonb NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT nodes_public_key_check CHECK ((length(public_key) = 32)),
    CONSTRAINT nodes_region_check CHECK ((region ~ '^[a-z0-9-]{1,40}$'::text)),
    CONSTRAINT nodes_state_check CHECK ((state = ANY (ARRAY['registering'::text, 'online'::text, 'offline'::text, 'left'::text])))
)
WITH (fillfactor='70');
CREATE TABLE public.offers (
    id uuid NOT NULL,
    node_id uuid NOT NULL,
    model text NOT NULL,
    asset smallint DEFAULT '1'::smallint NOT NULL,
    price_per_hour bigint NOT NULL,
    tflops double precision DEFAULT '0'::double precision NOT NULL,
    provider_id uuid,
    provider text DEFAULT ''::text NOT NULL,
    region text DEFAULT ''::text NOT NULL,
    cpu_model text DEFAULT ''::text NOT NULL,
    cpu_cores integer DEFAULT 0 NOT NULL,
    ram_bytes bigint DEFAULT '0'::bigint NOT NULL,
    vram_bytes bigint DEFAULT '0'::bigint NOT NULL,
    gpus integer DEFAULT 0 NOT NULL,
    gpus_free integer DEFAULT 0 NOT NULL,
    reliability double precision,
    attempts bigint DEFAULT '0'::bigint NOT NULL,
    verified boolean DEFAULT false NOT NULL,
    detected_by text DEFAULT 'declared'::text NOT NULL,
    listed boolean DEFAULT false NOT NULL,
    status text DEFAULT 'registering'::text NOT NULL,
    fresh_until timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL,
    recount_at timestamp with time zone,
    stale_told boolean DEFAULT true NOT NULL,
    search text DEFAULT ''::text NOT NULL,
    card text DEFAULT ''::text NOT NULL,
    told text DEFAULT ''::text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    model_key text GENERATED ALWAYS AS (upper(replace(model, '-'::text, '_'::text))) STORED NOT NULL,
    cost_per_tflop double precision GENERATED ALWAYS AS (
CASE
    WHEN (tflops > (0)::double precision) THEN ((price_per_hour)::double precision / tflops)
    ELSE 'Infinity'::double precision
END) STORED NOT NULL,
    CONSTRAINT offers_gpus_free_check CHECK (((gpus_free >= 0) AND (gpus_free <= gpus))),
    CONSTRAINT offers_price_per_hour_check CHECK (((price_per_hour >= 1) AND (price_per_hour <= '1000000000000000'::bigint))),
    CONSTRAINT offers_tflops_check CHECK ((tflops >= (0)::double precision))
)
WITH (fillfactor='50');
CREATE TABLE public.offers_walk (
    the_only boolean DEFAULT true NOT NULL,
    after uuid NOT NULL,
    CONSTRAINT offers_walk_the_only_check CHECK (the_only)
);
COMMENT ON COLUMN public.offers_walk.after IS 'how far the search for stale offers has come';
CREATE TABLE public.payment_holds (
    payment_id uuid NOT NULL,
    place integer NOT NULL,
    hold_id uuid NOT NULL,
    live boolean DEFAULT true NOT NULL,
    CONSTRAINT payment_holds_place_check CHECK (((place >= 0) AND (place <= 24)))
);
COMMENT ON COLUMN public.payment_holds.place IS '0 in a direct payment; the place in a send-many';
COMMENT ON COLUMN public.payment_holds.live IS 'false once the payment is proved dead';
CREATE TABLE public.payments (
    id uuid NOT NULL,
    kind text NOT NULL,
    source text NOT NULL,
    destination text NOT NULL,
    amount bigint NOT NULL,
    fee bigint NOT NULL,
    tick bigint NOT NULL,
    input_type integer NOT NULL,
    payload bytea NOT NULL,
    encoded bytea NOT NULL,
    tx_id text NOT NULL,
    before_transfers bigint NOT NULL,
    before_amount bigint NOT NULL,
    state text DEFAULT 'SIGNED'::text NOT NULL,
    reason text DEFAULT ''::text NOT NULL,
    broadcasts integer DEFAULT 0 NOT NULL,
    broadcast_at timestamp with time zone,
    raw jsonb,
    signed_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    ended_at timestamp with time zone,
    CONSTRAINT payments_amount_check CHECK (((amount > 0) AND (fee >= 0) AND (fee < amount) AND (tick > 0) AND (before_transfers >= 0) AND (before_amount >= 0))),
    CONSTRAINT payments_ended_check CHECK (((state = ANY (ARRAY['PAID'::text, 'DEAD'::text])) = (ended_at IS NOT NULL))),
    CONSTRAINT payments_kind_check CHECK ((kind = ANY (ARRAY['payout'::text, 'sweep'::text]))),
    CONSTRAINT payments_state_check CHECK ((state = ANY (ARRAY['SIGNED'::text, 'UNKNOWN'::text, 'PAID'::text, 'DEAD'::text])))
);
COMMENT ON COLUMN public.payments.amount IS 'what leaves the source, the contract''s fee included';
COMMENT ON COLUMN public.payments.encoded IS 'the signed bytes, stored before anything is sent; only these are ever sent';
COMMENT ON COLUMN public.payments.before_transfers IS 'the source''s outgoing counters when it was signed';
COMMENT ON COLUMN public.payments.reason IS 'the latest verdict in words';
COMMENT ON COLUMN public.payments.raw IS 'the archive''s own words';
CREATE TABLE public.payout_approvals (
    hold_id uuid NOT NULL,
    approved_by text NOT NULL,
    approved_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT payout_approvals_approved_by_check CHECK (((length(approved_by) >= 1) AND (length(approved_by) <= 200)))
);
CREATE TABLE public.payout_halts (
    subject text NOT NULL,
    rule text NOT NULL,
    figures jsonb NOT NULL,
    needs_person boolean DEFAULT false NOT NULL,
    since timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
COMMENT ON COLUMN public.payout_halts.subject IS '* for all payouts, or the deposit address of the one user whom it stops';
COMMENT ON COLUMN public.payout_halts.needs_person IS 'it does not end by itself';
CREATE TABLE public.signer_limits (
    the_only boolean DEFAULT true NOT NULL,
    payment_max bigint NOT NULL,
    user_day_max bigint NOT NULL,
    wallet_day_max bigint NOT NULL,
    CONSTRAINT signer_limits_amounts_check CHECK (((payment_max >= 0) AND (user_day_max >= 0) AND (wallet_day_max >= 0))),
    CONSTRAINT signer_limits_the_only_check CHECK (the_only)
);
CREATE VIEW public.payable_holds AS
 SELECT h.id,
    h.account_id,
    w.owner_id AS user_id,
    h.amount,
    h.address,
    h.created_at,
    (a.hold_id IS NOT NULL) AS approved,
    (EXISTS ( SELECT 1
           FROM public.payout_halts s
          WHERE ((s.subject = '*'::text) OR (s.subject = d.identity)))) AS halted,
    COALESCE(u.amount, (0)::numeric) AS user_day,
    ( SELECT COALESCE(sum(o.amount), (0)::numeric) AS "coalesce"
           FROM ((public.payment_holds l
             JOIN public.payments p ON ((p.id = l.payment_id)))
             JOIN public.holds o ON ((o.id = l.hold_id)))
          WHERE (l.live AND (p.signed_at > (clock_timestamp() - '1 day'::interval)))) AS wallet_day,
    u.signed_at AS user_signed_at,
    ((a.hold_id IS NULL) AND ((h.amount > m.payment_max) OR ((COALESCE(u.amount, (0)::numeric) + (h.amount)::numeric) > (m.user_day_max)::numeric))) AS waits_for_approval
   FROM (((((public.holds h
     JOIN public.accounts w ON ((w.id = h.account_id)))
     CROSS JOIN public.signer_limits m)
     LEFT JOIN public.payout_approvals a ON ((a.hold_id = h.id)))
     LEFT JOIN public.chain_addresses d ON ((d.user_id = w.owner_id)))
     LEFT JOIN ( SELECT o.account_id,
            sum(o.amount) AS amount,
            max(p.signed_at) AS signed_at
           FROM ((public.payment_holds l
             JOIN public.payments p ON ((p.id = l.payment_id)))
             JOIN public.holds o ON ((o.id = l.hold_id)))
          WHERE (l.live AND (p.signed_at > (clock_timestamp() - '1 day'::interval)))
          GROUP BY o.account_id) u ON ((u.account_id = h.account_id)))
  WHERE ((h.state = 'OPEN'::text) AND (h.asset = 1) AND (NOT (EXISTS ( SELECT 1
           FROM public.payment_holds l
          WHERE ((l.hold_id = h.id) AND l.live)))));
CREATE TABLE public.payment_requests (
    job_id uuid NOT NULL,
    address text NOT NULL,
    amount bigint NOT NULL,
    asked_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    extended boolean DEFAULT false NOT NULL,
    received bigint DEFAULT '0'::bigint NOT NULL,
    missing bigint NOT NULL,
    confirmations smallint DEFAULT '0'::smallint NOT NULL,
    tx_ids text[] DEFAULT '{}'::text[] NOT NULL,
    paid_at timestamp with time zone,
    CONSTRAINT payment_requests_amounts_check CHECK (((amount > 0) AND (received >= 0) AND (missing >= 0) AND ((confirmations >= 0) AND (confirmations <= 3))))
);
COMMENT ON COLUMN public.payment_requests.amount IS 'what was missing in the wallet when it was asked for';
COMMENT ON COLUMN public.payment_requests.extended IS 'its quote got the one extension';
COMMENT ON COLUMN public.payment_requests.confirmations IS 'as shown: proved once of the whole amount';
COMMENT ON COLUMN public.payment_requests.tx_ids IS 'the payments that count for the job';
COMMENT ON COLUMN public.payment_requests.paid_at IS 'when the escrow was funded; NULL: it waits, or it was never paid';
CREATE TABLE public.providers (
    id uuid NOT NULL,
    owner_id uuid NOT NULL,
    name text NOT NULL,
    attempts_ended bigint DEFAULT '0'::bigint NOT NULL,
    attempts_faulted bigint DEFAULT '0'::bigint NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT providers_attempts_check CHECK (((attempts_faulted >= 0) AND (attempts_faulted <= attempts_ended)))
);
CREATE TABLE public.quotes (
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    offer_id uuid NOT NULL,
    gpus integer NOT NULL,
    device_ids bigint[] NOT NULL,
    price_per_hour bigint NOT NULL,
    rate_max bigint NOT NULL,
    ceiling bigint NOT NULL,
    duration_max_s integer NOT NULL,
    state text DEFAULT 'open'::text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    CONSTRAINT quotes_gpus_check CHECK (((gpus > 0) AND (cardinality(device_ids) = gpus))),
    CONSTRAINT quotes_state_check CHECK ((state = ANY (ARRAY['open'::text, 'used'::text, 'expired'::text]))),
    CONSTRAINT quotes_terms_check CHECK (((rate_max > 0) AND (ceiling > 0) AND (duration_max_s > 0)))
);
CREATE TABLE public.reputations_due (
    id bigint NOT NULL,
    provider_id uuid NOT NULL
);
COMMENT ON COLUMN public.reputations_due.provider_id IS 'an attempt of theirs has ended; their offers do not show it yet';
ALTER TABLE public.reputations_due ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.reputations_due_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE public.rulings (
    escrow_id uuid NOT NULL,
    arbiter_id uuid NOT NULL,
    to_payee bigint,
    reason text NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT rulings_to_payee_check CHECK ((to_payee >= 0))
);
CREATE TABLE public.sessions (
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    token_hash bytea NOT NULL,
    kind text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    CONSTRAINT sessions_kind_check CHECK ((kind = ANY (ARRAY['browser'::text, 'bearer'::text]))),
    CONSTRAINT sessions_token_hash_check CHECK ((length(token_hash) = 32))
);
CREATE TABLE public.signer_keys (
    identity text NOT NULL,
    sealed bytea NOT NULL
);
COMMENT ON COLUMN public.signer_keys.sealed IS 'the seed, encrypted under the signer''s key file';
CREATE TABLE public.strangers (
    tx_id text NOT NULL,
    source text NOT NULL,
    destination text NOT NULL,
    amount bigint NOT NULL,
    tick bigint NOT NULL,
    input_type integer NOT NULL,
    payload bytea NOT NULL,
    encoded bytea NOT NULL,
    money_flew boolean,
    found_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
COMMENT ON TABLE public.strangers IS 'transactions from our addresses that no payment here is for: a thief''s, or what a restored backup does not know';
COMMENT ON COLUMN public.strangers.encoded IS 'with the signature that the archive shows';
COMMENT ON COLUMN public.strangers.money_flew IS 'by the archive, which proves nothing: see lost_verdicts';
CREATE TABLE public.sweeper_beats (
    name text NOT NULL,
    at timestamp with time zone NOT NULL,
    gap_s double precision DEFAULT '0'::double precision NOT NULL,
    resumed_at timestamp with time zone
);
CREATE VIEW public.treasury_audit AS
 SELECT 'recorded chain rows sum to what the chain account says'::text AS rule,
    count(*) AS n,
    min((x.asset)::text) AS example
   FROM ( SELECT c.asset
           FROM public.accounts c
          WHERE ((c.kind = 'chain'::text) AND (((- c.posted))::numeric <> (( SELECT COALESCE(sum(r.amount), (0)::numeric) AS "coalesce"
                   FROM public.chain_rows r
                  WHERE (r.asset = c.asset)) + ( SELECT COALESCE(sum(t.amount), (0)::numeric) AS "coalesce"
                   FROM public.transfers t
                  WHERE ((t.debit_id = c.id) AND (t.act = 'faucet'::text))))))) x
UNION ALL
 SELECT 'every recorded chain row has its transfer'::text AS rule,
    count(*) AS n,
    min((r.id)::text) AS example
   FROM public.chain_rows r
  WHERE ((r.kind = ANY (ARRAY['deposit'::text, 'cost'::text])) AND (NOT (EXISTS ( SELECT 1
           FROM public.transfers t
          WHERE ((t.id = public.transfer_id(r.id,
                CASE r.kind
                    WHEN 'deposit'::text THEN 'deposit'::text
                    ELSE 'fee'::text
                END)) AND (t.amount = abs(r.amount)))))))
UNION ALL
 SELECT 'what a sweep took from one address arrived at another'::text AS rule,
    count(*) AS n,
    min(x.tx_id) AS example
   FROM ( SELECT chain_rows.tx_id
           FROM public.chain_rows
          WHERE (chain_rows.kind = 'sweep'::text)
          GROUP BY chain_rows.tx_id
         HAVING ((sum(chain_rows.amount) <> (0)::numeric) OR (count(*) <> 2))) x
UNION ALL
 SELECT 'every captured hold has its payment, every payment that paid has captured its holds'::text AS rule,
    count(*) AS n,
    min((h.id)::text) AS example
   FROM ((public.holds h
     LEFT JOIN public.payment_holds l ON (((l.hold_id = h.id) AND l.live)))
     LEFT JOIN public.payments p ON ((p.id = l.payment_id)))
  WHERE (((h.state = 'CAPTURED'::text) AND ((p.id IS NULL) OR (p.state = 'DEAD'::text) OR (h.evidence <> ('tx '::text || p.tx_id)))) OR ((h.state <> 'CAPTURED'::text) AND (p.state = 'PAID'::text)) OR ((h.state = 'VOIDED'::text) AND (p.id IS NOT NULL)));
CREATE TABLE public.uploads (
    id uuid NOT NULL,
    owner_id uuid NOT NULL,
    filename text NOT NULL,
    sha256 text NOT NULL,
    size bigint NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT uploads_filename_check CHECK (((length(filename) >= 1) AND (length(filename) <= 200))),
    CONSTRAINT uploads_size_check CHECK ((size >= 0))
);
CREATE TABLE public.users (
    id uuid NOT NULL,
    email text,
    name text DEFAULT ''::text NOT NULL,
    password_hash text,
    roles text[] DEFAULT '{}'::text[] NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    disabled_at timestamp with time zone,
    CONSTRAINT users_email_check CHECK (((email = lower(email)) AND ((length(email) >= 3) AND (length(email) <= 320)))),
    CONSTRAINT users_roles_check CHECK ((roles <@ ARRAY['operator'::text, 'arbiter'::text]))
);
COMMENT ON COLUMN public.users.email IS 'NULL: made by a wallet''s login, which has set none yet';
CREATE TABLE public.wallet_challenges (
    nonce text NOT NULL,
    identity text NOT NULL,
    text text NOT NULL,
    purpose text NOT NULL,
    user_id uuid,
    created_at timestamp with time zone NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    used_at timestamp with time zone,
    CONSTRAINT wallet_challenges_identity_check CHECK ((identity ~ '^[A-Z]{60}$'::text)),
    CONSTRAINT wallet_challenges_nonce_check CHECK ((nonce ~ '^[0-9a-f]{32}$'::text)),
    CONSTRAINT wallet_challenges_purpose_check CHECK (((purpose = ANY (ARRAY['login'::text, 'link'::text])) AND ((purpose = 'link'::text) = (user_id IS NOT NULL)))),
    CONSTRAINT wallet_challenges_short_check CHECK (((expires_at > created_at) AND (expires_at <= (created_at + '00:05:00'::interval)))),
    CONSTRAINT wallet_challenges_text_check CHECK (((length(text) > 32) AND (POSITION((identity) IN (text)) > 0) AND (POSITION((nonce) IN (text)) > 0)))
);
COMMENT ON COLUMN public.wallet_challenges.text IS 'what is signed; nothing that a wallet says it has signed is looked at';
COMMENT ON COLUMN public.wallet_challenges.user_id IS 'the account that the identity is added to';
CREATE TABLE public.wallet_identities (
    identity text NOT NULL,
    user_id uuid NOT NULL,
    scheme text NOT NULL,
    linked_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT wallet_identities_identity_check CHECK ((identity ~ '^[A-Z]{60}$'::text)),
    CONSTRAINT wallet_identities_scheme_check CHECK ((scheme = ANY (ARRAY['walletconnect'::text, 'extension'::text, 'manual'::text])))
);
ALTER TABLE ONLY public.device_metrics ATTACH PARTITION public.device_metrics_default DEFAULT;
INSERT INTO public.accounts (id, asset, kind, owner_id, posted, held, seq, closed) VALUES (1, 1, 'chain', NULL, 0, 0, 0, false);
INSERT INTO public.accounts (id, asset, kind, owner_id, posted, held, seq, closed) VALUES (2, 1, 'fee', NULL, 0, 0, 0, false);
INSERT INTO public.accounts (id, asset, kind, owner_id, posted, held, seq, closed) VALUES (3, 1, 'house', NULL, 0, 0, 0, false);
INSERT INTO public.accounts (id, asset, kind, owner_id, posted, held, seq, closed) VALUES (4, 1, 'suspense', NULL, 0, 0, 0, false);
INSERT INTO public.accounts (id, asset, kind, owner_id, posted, held, seq, closed) VALUES (5, 2, 'chain', NULL, 0, 0, 0, false);
INSERT INTO public.accounts (id, asset, kind, owner_id, posted, held, seq, closed) VALUES (6, 2, 'fee', NULL, 0, 0, 0, false);
INSERT INTO public.accounts (id, asset, kind, owner_id, posted, held, seq, closed) VALUES (7, 2, 'house', NULL, 0, 0, 0, false);
INSERT INTO public.accounts (id, asset, kind, owner_id, posted, held, seq, closed) VALUES (8, 2, 'suspense', NULL, 0, 0, 0, false);
INSERT INTO public.assets (id, code, decimals) VALUES (1, 'QUBIC', 0);
INSERT INTO public.assets (id, code, decimals) VALUES (2, 'USDC', 6);
INSERT INTO public.offers_walk (the_only, after) VALUES (true, '00000000-0000-0000-0000-000000000000');
INSERT INTO public.signer_limits (the_only, payment_max, user_day_max, wallet_day_max) VALUES (true, 1000000000, 5000000000, 20000000000);
SELECT pg_catalog.setval('public.accounts_id_seq', 8, true);
SELECT pg_catalog.setval('public.device_leases_id_seq', 1, false);
SELECT pg_catalog.setval('public.devices_id_seq', 1, false);
SELECT pg_catalog.setval('public.events_id_seq', 1, false);
SELECT pg_catalog.setval('public.log_chunks_position_seq', 1, false);
SELECT pg_catalog.setval('public.reputations_due_id_seq', 1, false);
ALTER TABLE ONLY public.accounts
    ADD CONSTRAINT accounts_id_asset_key UNIQUE (id, asset);
ALTER TABLE ONLY public.accounts
    ADD CONSTRAINT accounts_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.api_keys
    ADD CONSTRAINT api_keys_key_hash_key UNIQUE (key_hash);
ALTER TABLE ONLY public.api_keys
    ADD CONSTRAINT api_keys_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.artefacts
    ADD CONSTRAINT artefacts_pkey PRIMARY KEY (attempt_id, name);
ALTER TABLE ONLY public.assets
    ADD CONSTRAINT assets_code_key UNIQUE (code);
ALTER TABLE ONLY public.assets
    ADD CONSTRAINT assets_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.attempt_blobs
    ADD CONSTRAINT attempt_blobs_pkey PRIMARY KEY (attempt_id, sha256);
ALTER TABLE ONLY public.attempts
    ADD CONSTRAINT attempts_job_id_fence_key UNIQUE (job_id, fence);
ALTER TABLE ONLY public.attempts
    ADD CONSTRAINT attempts_job_id_number_key UNIQUE (job_id, number);
ALTER TABLE ONLY public.attempts
    ADD CONSTRAINT attempts_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.blobs
    ADD CONSTRAINT blobs_pkey PRIMARY KEY (sha256);
ALTER TABLE ONLY public.chain_addresses
    ADD CONSTRAINT chain_addresses_pkey PRIMARY KEY (identity);
ALTER TABLE ONLY public.chain_addresses
    ADD CONSTRAINT chain_addresses_user_id_key UNIQUE (user_id);
ALTER TABLE ONLY public.chain_rows
    ADD CONSTRAINT chain_rows_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.chain_state
    ADD CONSTRAINT chain_state_pkey PRIMARY KEY (the_only);
ALTER TABLE ONLY public.checkpoints
    ADD CONSTRAINT checkpoints_pkey PRIMARY KEY (attempt_id, n);
ALTER TABLE ONLY public.device_leases
    ADD CONSTRAINT device_leases_one_holder_excl EXCLUDE USING gist (int8range(device_id, device_id, '[]'::text) WITH &&, during WITH &&);
ALTER TABLE ONLY public.device_leases
    ADD CONSTRAINT device_leases_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.device_quarantines
    ADD CONSTRAINT device_quarantines_pkey PRIMARY KEY (device_id);
ALTER TABLE ONLY public.devices
    ADD CONSTRAINT devices_node_id_uuid_key UNIQUE (node_id, uuid);
ALTER TABLE ONLY public.devices
    ADD CONSTRAINT devices_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.disputes
    ADD CONSTRAINT disputes_pkey PRIMARY KEY (escrow_id);
ALTER TABLE ONLY public.earnings
    ADD CONSTRAINT earnings_account_id_key UNIQUE (account_id);
ALTER TABLE ONLY public.earnings
    ADD CONSTRAINT earnings_escrow_id_line_key UNIQUE (escrow_id, line);
ALTER TABLE ONLY public.earnings
    ADD CONSTRAINT earnings_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.escrow_lines
    ADD CONSTRAINT escrow_lines_pkey PRIMARY KEY (escrow_id, line);
ALTER TABLE ONLY public.escrows
    ADD CONSTRAINT escrows_account_id_key UNIQUE (account_id);
ALTER TABLE ONLY public.escrows
    ADD CONSTRAINT escrows_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.events
    ADD CONSTRAINT events_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.holds
    ADD CONSTRAINT holds_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.idempotency_keys
    ADD CONSTRAINT idempotency_keys_pkey PRIMARY KEY (user_id, key);
ALTER TABLE ONLY public.incoming
    ADD CONSTRAINT incoming_pkey PRIMARY KEY (tx_id, place);
ALTER TABLE ONLY public.job_inputs
    ADD CONSTRAINT job_inputs_pkey PRIMARY KEY (job_id, name);
ALTER TABLE ONLY public.jobs
    ADD CONSTRAINT jobs_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.join_tokens
    ADD CONSTRAINT join_tokens_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.join_tokens
    ADD CONSTRAINT join_tokens_token_hash_key UNIQUE (token_hash);
ALTER TABLE ONLY public.leaders
    ADD CONSTRAINT leaders_pkey PRIMARY KEY (name);
ALTER TABLE ONLY public.ledger_network
    ADD CONSTRAINT ledger_network_pkey PRIMARY KEY (the_only);
ALTER TABLE ONLY public.log_chunks
    ADD CONSTRAINT log_chunks_pkey PRIMARY KEY (attempt_id, stream, "offset");
ALTER TABLE ONLY public.lost_verdicts
    ADD CONSTRAINT lost_verdicts_pkey PRIMARY KEY (tx_id);
ALTER TABLE ONLY public.node_windows
    ADD CONSTRAINT node_windows_pkey PRIMARY KEY (node_id, weekday, opens);
ALTER TABLE ONLY public.nodes
    ADD CONSTRAINT nodes_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.nodes
    ADD CONSTRAINT nodes_worker_id_key UNIQUE (worker_id);
ALTER TABLE ONLY public.offers
    ADD CONSTRAINT offers_node_id_model_key UNIQUE (node_id, model);
ALTER TABLE ONLY public.offers
    ADD CONSTRAINT offers_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.offers_walk
    ADD CONSTRAINT offers_walk_pkey PRIMARY KEY (the_only);
ALTER TABLE ONLY public.payment_holds
    ADD CONSTRAINT payment_holds_pkey PRIMARY KEY (payment_id, place);
ALTER TABLE ONLY public.payment_requests
    ADD CONSTRAINT payment_requests_pkey PRIMARY KEY (job_id);
ALTER TABLE ONLY public.payments
    ADD CONSTRAINT payments_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.payments
    ADD CONSTRAINT payments_tx_id_key UNIQUE (tx_id);
ALTER TABLE ONLY public.payout_approvals
    ADD CONSTRAINT payout_approvals_pkey PRIMARY KEY (hold_id);
ALTER TABLE ONLY public.payout_halts
    ADD CONSTRAINT payout_halts_pkey PRIMARY KEY (subject);
ALTER TABLE ONLY public.providers
    ADD CONSTRAINT providers_owner_id_key UNIQUE (owner_id);
ALTER TABLE ONLY public.providers
    ADD CONSTRAINT providers_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.quotes
    ADD CONSTRAINT quotes_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.reputations_due
    ADD CONSTRAINT reputations_due_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.rulings
    ADD CONSTRAINT rulings_pkey PRIMARY KEY (escrow_id);
ALTER TABLE ONLY public.sessions
    ADD CONSTRAINT sessions_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.sessions
    ADD CONSTRAINT sessions_token_hash_key UNIQUE (token_hash);
ALTER TABLE ONLY public.signer_keys
    ADD CONSTRAINT signer_keys_pkey PRIMARY KEY (identity);
ALTER TABLE ONLY public.signer_limits
    ADD CONSTRAINT signer_limits_pkey PRIMARY KEY (the_only);
ALTER TABLE ONLY public.strangers
    ADD CONSTRAINT strangers_pkey PRIMARY KEY (tx_id);
ALTER TABLE ONLY public.sweeper_beats
    ADD CONSTRAINT sweeper_beats_pkey PRIMARY KEY (name);
ALTER TABLE ONLY public.transfers
    ADD CONSTRAINT transfers_credit_id_credit_seq_key UNIQUE (credit_id, credit_seq);
ALTER TABLE ONLY public.transfers
    ADD CONSTRAINT transfers_debit_id_debit_seq_key UNIQUE (debit_id, debit_seq);
ALTER TABLE ONLY public.transfers
    ADD CONSTRAINT transfers_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.uploads
    ADD CONSTRAINT uploads_owner_id_filename_sha256_key UNIQUE (owner_id, filename, sha256);
ALTER TABLE ONLY public.uploads
    ADD CONSTRAINT uploads_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.users
    ADD CONSTRAINT users_email_key UNIQUE (email);
ALTER TABLE ONLY public.users
    ADD CONSTRAINT users_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.wallet_challenges
    ADD CONSTRAINT wallet_challenges_pkey PRIMARY KEY (nonce);
ALTER TABLE ONLY public.wallet_identities
    ADD CONSTRAINT wallet_identities_pkey PRIMARY KEY (identity);
CREATE INDEX accounts_owner_idx ON public.accounts USING btree (owner_id, kind);
CREATE UNIQUE INDEX accounts_platform_key ON public.accounts USING btree (kind, asset) WHERE (owner_id IS NULL);
CREATE UNIQUE INDEX accounts_wallet_key ON public.accounts USING btree (owner_id, asset) WHERE (kind = 'wallet'::text);
CREATE INDEX api_keys_user_id_idx ON public.api_keys USING btree (user_id);
CREATE INDEX artefacts_job_idx ON public.artefacts USING btree (job_id);
CREATE INDEX artefacts_sha256_idx ON public.artefacts USING btree (sha256);
CREATE INDEX attempt_blobs_sha256_idx ON public.attempt_blobs USING btree (sha256);
CREATE INDEX attempts_node_idx ON public.attempts USING btree (node_id, ended_at);
CREATE INDEX attempts_node_live_idx ON public.attempts USING btree (node_id) WHERE (state = ANY (ARRAY['CREATED'::text, 'ACCEPTED'::text, 'RUNNING'::text]));
CREATE UNIQUE INDEX attempts_one_live_key ON public.attempts USING btree (job_id) WHERE (state = ANY (ARRAY['CREATED'::text, 'ACCEPTED'::text, 'RUNNING'::text]));
CREATE INDEX attempts_provider_idx ON public.attempts USING btree (provider_id, created_at);
CREATE INDEX blobs_unreferenced_idx ON public.blobs USING btree (unreferenced_since);
CREATE INDEX chain_addresses_free_idx ON public.chain_addresses USING btree (made_at) WHERE ((purpose = 'user'::text) AND (user_id IS NULL));
CREATE UNIQUE INDEX chain_addresses_purpose_key ON public.chain_addresses USING btree (purpose) WHERE (purpose <> 'user'::text);
CREATE INDEX chain_rows_address_tick_idx ON public.chain_rows USING btree (address, tick);
CREATE INDEX checkpoints_sha256_idx ON public.checkpoints USING btree (sha256);
CREATE INDEX device_leases_holder_idx ON public.device_leases USING btree (holder_id);
CREATE INDEX device_metrics_device_id_at_idx ON ONLY public.device_metrics USING btree (device_id, at DESC);
CREATE INDEX device_metrics_default_device_id_at_idx ON public.device_metrics_default USING btree (device_id, at DESC);
CREATE INDEX earnings_due_idx ON public.earnings USING btree (matures_at) WHERE (state = 'PENDING'::text);
CREATE INDEX earnings_frozen_idx ON public.earnings USING btree (frozen_at) WHERE (state = 'FROZEN'::text);
CREATE INDEX earnings_payee_idx ON public.earnings USING btree (payee_id, created_at);
CREATE INDEX escrow_lines_payee_user_id_idx ON public.escrow_lines USING btree (payee_user_id);
CREATE INDEX escrows_disputed_idx ON public.escrows USING btree (disputed_at) WHERE (disputed_at IS NOT NULL);
CREATE UNIQUE INDEX events_key_key ON public.events USING btree (key) WHERE (key IS NOT NULL);
CREATE UNIQUE INDEX events_position_key ON public.events USING btree ("position") WHERE ("position" IS NOT NULL);
CREATE INDEX events_unpublished_idx ON public.events USING btree (id) WHERE ("position" IS NULL);
CREATE INDEX holds_account_idx ON public.holds USING btree (account_id, created_at);
CREATE INDEX holds_open_idx ON public.holds USING btree (created_at) WHERE (state = 'OPEN'::text);
CREATE INDEX idempotency_keys_created_at_idx ON public.idempotency_keys USING btree (created_at);
CREATE INDEX incoming_address_idx ON public.incoming USING btree (address, tick);
CREATE INDEX incoming_open_idx ON public.incoming USING btree (tick) WHERE (state = ANY (ARRAY['SEEN'::text, 'WAITING'::text, 'DOUBTFUL'::text]));
CREATE INDEX job_inputs_sha256_idx ON public.job_inputs USING btree (sha256);
CREATE INDEX jobs_awaiting_idx ON public.jobs USING btree (owner_id, id) WHERE (state = 'AWAITING_FUNDS'::text);
CREATE INDEX jobs_live_idx ON public.jobs USING btree (id) WHERE (state = ANY (ARRAY['ASSIGNED'::text, 'RUNNING'::text]));
CREATE INDEX jobs_owner_idx ON public.jobs USING btree (owner_id, created_at DESC, id DESC);
CREATE INDEX jobs_pending_idx ON public.jobs USING btree (pending_at, id) WHERE (state = 'PENDING'::text);
CREATE INDEX join_tokens_provider_id_idx ON public.join_tokens USING btree (provider_id);
CREATE INDEX log_chunks_position_idx ON public.log_chunks USING btree (attempt_id, "position");
CREATE INDEX nodes_provider_id_idx ON public.nodes USING btree (provider_id);
CREATE INDEX nodes_ray_node_id_idx ON public.nodes USING btree (ray_node_id) WHERE (ray_node_id IS NOT NULL);
CREATE INDEX nodes_session_token_hash_idx ON public.nodes USING btree (session_token_hash) WHERE (session_token_hash IS NOT NULL);
CREATE INDEX offers_any_price_idx ON public.offers USING btree (price_per_hour, id) WHERE (status <> 'left'::text);
CREATE INDEX offers_availability_idx ON public.offers USING btree (((- gpus_free)), id) WHERE listed;
CREATE INDEX offers_cost_benefit_idx ON public.offers USING btree (cost_per_tflop, id) WHERE listed;
CREATE INDEX offers_free_idx ON public.offers USING btree (price_per_hour, gpus_free, model_key, vram_bytes) WHERE (listed AND (gpus_free > 0));
CREATE INDEX offers_model_idx ON public.offers USING btree (model_key, price_per_hour, id) WHERE listed;
CREATE INDEX offers_performance_idx ON public.offers USING btree (((- tflops)), id) WHERE listed;
CREATE INDEX offers_price_desc_idx ON public.offers USING btree (((- price_per_hour)), id) WHERE listed;
CREATE INDEX offers_price_idx ON public.offers USING btree (price_per_hour, id, vram_bytes, model_key) WHERE listed;
CREATE INDEX offers_recount_idx ON public.offers USING btree (recount_at) WHERE (recount_at IS NOT NULL);
CREATE INDEX payment_holds_hold_idx ON public.payment_holds USING btree (hold_id);
CREATE UNIQUE INDEX payment_holds_hold_key ON public.payment_holds USING btree (hold_id) WHERE live;
CREATE INDEX payments_signed_at_idx ON public.payments USING btree (signed_at);
CREATE UNIQUE INDEX payments_source_key ON public.payments USING btree (source) WHERE (state = ANY (ARRAY['SIGNED'::text, 'UNKNOWN'::text]));
CREATE INDEX payments_source_tick_idx ON public.payments USING btree (source, tick);
CREATE INDEX payments_tick_idx ON public.payments USING btree (tick);
CREATE INDEX quotes_expires_at_idx ON public.quotes USING btree (expires_at) WHERE (state = 'open'::text);
CREATE INDEX quotes_offer_id_idx ON public.quotes USING btree (offer_id);
CREATE UNIQUE INDEX quotes_one_open_per_user_key ON public.quotes USING btree (user_id) WHERE (state = 'open'::text);
CREATE INDEX sessions_expires_at_idx ON public.sessions USING btree (expires_at);
CREATE INDEX sessions_user_id_idx ON public.sessions USING btree (user_id);
CREATE INDEX uploads_sha256_idx ON public.uploads USING btree (sha256);
CREATE INDEX wallet_challenges_expires_at_idx ON public.wallet_challenges USING btree (expires_at);
CREATE INDEX wallet_challenges_user_id_idx ON public.wallet_challenges USING btree (user_id);
CREATE INDEX wallet_identities_user_id_idx ON public.wallet_identities USING btree (user_id);
ALTER INDEX public.device_metrics_device_id_at_idx ATTACH PARTITION public.device_metrics_default_device_id_at_idx;
CREATE CONSTRAINT TRIGGER accounts_end AFTER INSERT OR UPDATE OF closed ON public.accounts DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (new.closed) EXECUTE FUNCTION public.final_is_closed();
CREATE TRIGGER accounts_keep AFTER DELETE OR UPDATE OF id, asset, kind, owner_id ON public.accounts FOR EACH ROW EXECUTE FUNCTION public.refuse_change();
CREATE TRIGGER accounts_keep_all BEFORE TRUNCATE ON public.accounts FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();
CREATE TRIGGER accounts_keep_closed AFTER UPDATE ON public.accounts FOR EACH ROW WHEN (old.closed) EXECUTE FUNCTION public.refuse_change();
CREATE TRIGGER assets_keep BEFORE DELETE OR UPDATE ON public.assets FOR EACH ROW EXECUTE FUNCTION public.refuse_change();
CREATE TRIGGER assets_keep_all BEFORE TRUNCATE ON public.assets FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();
CREATE TRIGGER attempt_is_funded BEFORE INSERT ON public.attempts FOR EACH ROW EXECUTE FUNCTION public.attempt_is_funded();
CREATE TRIGGER attempt_moves BEFORE UPDATE ON public.attempts FOR EACH ROW EXECUTE FUNCTION public.attempt_moves();
CREATE TRIGGER attempts_count AFTER UPDATE OF state ON public.attempts FOR EACH ROW WHEN (((old.state = ANY (ARRAY['CREATED'::text, 'ACCEPTED'::text, 'RUNNING'::text])) AND (new.state <> ALL (ARRAY['CREATED'::text, 'ACCEPTED'::text, 'RUNNING'::text])))) EXECUTE FUNCTION public.count_attempt();
CREATE TRIGGER chain_addresses_keep BEFORE DELETE OR UPDATE OF identity, purpose, made_at ON public.chain_addresses FOR EACH ROW EXECUTE FUNCTION public.refuse_change();
CREATE TRIGGER chain_addresses_keep_all BEFORE TRUNCATE ON public.chain_addresses FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();
CREATE TRIGGER chain_addresses_keep_given BEFORE UPDATE ON public.chain_addresses FOR EACH ROW WHEN ((old.user_id IS NOT NULL)) EXECUTE FUNCTION public.refuse_change();
CREATE TRIGGER chain_rows_keep BEFORE DELETE OR UPDATE ON public.chain_rows FOR EACH ROW EXECUTE FUNCTION public.refuse_change();
CREATE TRIGGER chain_rows_keep_all BEFORE TRUNCATE ON public.chain_rows FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();
CREATE TRIGGER devices_added AFTER INSERT ON public.devices FOR EACH ROW EXECUTE FUNCTION public.offers_follow_device();
CREATE TRIGGER devices_changed AFTER UPDATE ON public.devices FOR EACH ROW WHEN (((((((old.model IS DISTINCT FROM new.model) OR (old.vram_bytes IS DISTINCT FROM new.vram_bytes)) OR (old.detected_by IS DISTINCT FROM new.detected_by)) OR (old.verified IS DISTINCT FROM new.verified)) OR (old.usable IS DISTINCT FROM new.usable)) OR (old.gone_at IS DISTINCT FROM new.gone_at))) EXECUTE FUNCTION public.offers_follow_device();
CREATE TRIGGER disputes_keep BEFORE DELETE OR UPDATE ON public.disputes FOR EACH ROW EXECUTE FUNCTION public.refuse_change();
CREATE TRIGGER disputes_keep_all BEFORE TRUNCATE ON public.disputes FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();
CREATE CONSTRAINT TRIGGER earnings_end AFTER INSERT OR UPDATE OF state ON public.earnings DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN ((new.state = ANY (ARRAY['PAID'::text, 'REVERSED'::text, 'SPLIT'::text]))) EXECUTE FUNCTION public.final_is_closed();
CREATE TRIGGER earnings_keep AFTER DELETE OR UPDATE OF id, escrow_id, line, asset, payee_id, account_id, gross, fee, fee_bps, matures_at, created_at ON public.earnings FOR EACH ROW EXECUTE FUNCTION public.refuse_change();
CREATE TRIGGER earnings_keep_all BEFORE TRUNCATE ON public.earnings FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();
CREATE TRIGGER earnings_keep_final AFTER UPDATE ON public.earnings FOR EACH ROW WHEN ((old.state = ANY (ARRAY['PAID'::text, 'REVERSED'::text, 'SPLIT'::text]))) EXECUTE FUNCTION public.refuse_change();
CREATE TRIGGER earnings_way AFTER UPDATE OF state ON public.earnings FOR EACH ROW WHEN (((old.state <> new.state) AND (NOT ((old.state = 'PENDING'::text) AND (new.state = 'PAID'::text))))) EXECUTE FUNCTION public.refuse_transition();
CREATE TRIGGER escrow_lines_keep BEFORE DELETE OR UPDATE ON public.escrow_lines FOR EACH ROW EXECUTE FUNCTION public.refuse_change();
CREATE TRIGGER escrow_lines_keep_all BEFORE TRUNCATE ON public.escrow_lines FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();
CREATE CONSTRAINT TRIGGER escrows_end AFTER INSERT OR UPDATE OF state ON public.escrows DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN ((new.state = ANY (ARRAY['RELEASED'::text, 'REFUNDED'::text, 'SPLIT'::text]))) EXECUTE FUNCTION public.final_is_closed();
CREATE TRIGGER escrows_keep AFTER DELETE OR UPDATE OF id, asset, payer_id, account_id, created_at ON public.escrows FOR EACH ROW EXECUTE FUNCTION public.refuse_change();
CREATE TRIGGER escrows_keep_all BEFORE TRUNCATE ON public.escrows FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();
CREATE TRIGGER escrows_keep_final AFTER UPDATE ON public.escrows FOR EACH ROW WHEN ((old.state = ANY (ARRAY['RELEASED'::text, 'REFUNDED'::text, 'SPLIT'::text]))) EXECUTE FUNCTION public.refuse_change();
CREATE TRIGGER escrows_way AFTER UPDATE OF state ON public.escrows FOR EACH ROW WHEN (((old.state <> new.state) AND (NOT ((old.state = 'PENDING'::text) AND (new.state = 'LOCKED'::text))))) EXECUTE FUNCTION public.refuse_transition();
CREATE TRIGGER holds_keep BEFORE DELETE OR UPDATE OF id, account_id, asset, amount, address, created_at ON public.holds FOR EACH ROW EXECUTE FUNCTION public.refuse_change();
CREATE TRIGGER holds_keep_all BEFORE TRUNCATE ON public.holds FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();
CREATE TRIGGER holds_keep_ended BEFORE UPDATE ON public.holds FOR EACH ROW WHEN ((old.state <> 'OPEN'::text)) EXECUTE FUNCTION public.refuse_change();
CREATE TRIGGER job_moves BEFORE UPDATE ON public.jobs FOR EACH ROW EXECUTE FUNCTION public.job_moves();
CREATE TRIGGER leases_ended AFTER DELETE ON public.device_leases REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION public.offers_note_devices();
CREATE CONSTRAINT TRIGGER leases_settled AFTER INSERT OR DELETE ON public.device_leases DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.offers_follow_devices();
CREATE TRIGGER leases_taken AFTER INSERT ON public.device_leases REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION public.offers_note_devices();
CREATE TRIGGER ledger_network_keep BEFORE DELETE OR UPDATE ON public.ledger_network FOR EACH ROW EXECUTE FUNCTION public.refuse_change();
CREATE TRIGGER ledger_network_keep_all BEFORE TRUNCATE ON public.ledger_network FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();
CREATE TRIGGER lost_verdicts_keep BEFORE DELETE OR UPDATE OF tx_id ON public.lost_verdicts FOR EACH ROW EXECUTE FUNCTION public.refuse_change();
CREATE TRIGGER lost_verdicts_keep_all BEFORE TRUNCATE ON public.lost_verdicts FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();
CREATE TRIGGER lost_verdicts_keep_proved BEFORE UPDATE ON public.lost_verdicts FOR EACH ROW WHEN ((old.paid IS NOT NULL)) EXECUTE FUNCTION public.refuse_change();
CREATE TRIGGER nodes_changed AFTER UPDATE ON public.nodes FOR EACH ROW WHEN ((((((((((old.state IS DISTINCT FROM new.state) OR (old.paused IS DISTINCT FROM new.paused)) OR (old.draining IS DISTINCT FROM new.draining)) OR (old.region IS DISTINCT FROM new.region)) OR (old.sandbox IS DISTINCT FROM new.sandbox)) OR (old.cpu_model IS DISTINCT FROM new.cpu_model)) OR (old.cpu_cores IS DISTINCT FROM new.cpu_cores)) OR (old.ram_bytes IS DISTINCT FROM new.ram_bytes)) OR (old.provider_id IS DISTINCT FROM new.provider_id))) EXECUTE FUNCTION public.offers_follow_node();
CREATE TRIGGER nodes_measured AFTER UPDATE OF metrics_at ON public.nodes FOR EACH ROW WHEN ((old.metrics_at IS DISTINCT FROM new.metrics_at)) EXECUTE FUNCTION public.offers_stay_fresh();
CREATE TRIGGER payment_holds_keep BEFORE DELETE OR UPDATE OF payment_id, place, hold_id ON public.payment_holds FOR EACH ROW EXECUTE FUNCTION public.refuse_change();
CREATE TRIGGER payment_holds_keep_all BEFORE TRUNCATE ON public.payment_holds FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();
CREATE TRIGGER payment_holds_keep_dead BEFORE UPDATE ON public.payment_holds FOR EACH ROW WHEN ((NOT old.live)) EXECUTE FUNCTION public.refuse_change();
CREATE TRIGGER payment_request_moves BEFORE UPDATE ON public.payment_requests FOR EACH ROW EXECUTE FUNCTION public.payment_request_moves();
CREATE TRIGGER payments_keep BEFORE DELETE OR UPDATE OF id, kind, source, destination, amount, fee, tick, input_type, payload, encoded, tx_id, before_transfers, before_amount, signed_at ON public.payments FOR EACH ROW EXECUTE FUNCTION public.refuse_change();
CREATE TRIGGER payments_keep_all BEFORE TRUNCATE ON public.payments FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();
CREATE TRIGGER payments_keep_ended BEFORE UPDATE ON public.payments FOR EACH ROW WHEN ((old.ended_at IS NOT NULL)) EXECUTE FUNCTION public.refuse_change();
CREATE TRIGGER providers_changed AFTER UPDATE ON public.providers FOR EACH ROW WHEN ((old.name IS DISTINCT FROM new.name)) EXECUTE FUNCTION public.offers_follow_provider();
CREATE TRIGGER providers_judged AFTER UPDATE ON public.providers FOR EACH ROW WHEN ((old.attempts_ended <> new.attempts_ended)) EXECUTE FUNCTION public.offers_follow_reputation();
CREATE TRIGGER quarantines_begun AFTER INSERT ON public.device_quarantines REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION public.offers_note_devices();
CREATE TRIGGER quarantines_ended AFTER DELETE ON public.device_quarantines REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION public.offers_note_devices();
CREATE CONSTRAINT TRIGGER quarantines_settled AFTER INSERT OR DELETE ON public.device_quarantines DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.offers_follow_devices();
CREATE TRIGGER rulings_keep BEFORE DELETE OR UPDATE ON public.rulings FOR EACH ROW EXECUTE FUNCTION public.refuse_change();
CREATE TRIGGER rulings_keep_all BEFORE TRUNCATE ON public.rulings FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();
CREATE TRIGGER signer_keys_keep BEFORE DELETE OR UPDATE OF identity ON public.signer_keys FOR EACH ROW EXECUTE FUNCTION public.refuse_change();
CREATE TRIGGER signer_keys_keep_all BEFORE TRUNCATE ON public.signer_keys FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();
CREATE TRIGGER strangers_keep BEFORE DELETE OR UPDATE ON public.strangers FOR EACH ROW EXECUTE FUNCTION public.refuse_change();
CREATE TRIGGER strangers_keep_all BEFORE TRUNCATE ON public.strangers FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();
CREATE TRIGGER transfers_keep BEFORE DELETE OR UPDATE ON public.transfers FOR EACH ROW EXECUTE FUNCTION public.refuse_change();
CREATE TRIGGER transfers_keep_all BEFORE TRUNCATE ON public.transfers FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();
ALTER TABLE ONLY public.accounts
    ADD CONSTRAINT accounts_asset_fkey FOREIGN KEY (asset) REFERENCES public.assets(id);
ALTER TABLE ONLY public.accounts
    ADD CONSTRAINT accounts_owner_id_fkey FOREIGN KEY (owner_id) REFERENCES public.users(id);
ALTER TABLE ONLY public.api_keys
    ADD CONSTRAINT api_keys_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.artefacts
    ADD CONSTRAINT artefacts_attempt_id_fkey FOREIGN KEY (attempt_id) REFERENCES public.attempts(id);
ALTER TABLE ONLY public.artefacts
    ADD CONSTRAINT artefacts_job_id_fkey FOREIGN KEY (job_id) REFERENCES public.jobs(id);
ALTER TABLE ONLY public.artefacts
    ADD CONSTRAINT artefacts_sha256_fkey FOREIGN KEY (sha256) REFERENCES public.blobs(sha256);
ALTER TABLE ONLY public.attempt_blobs
    ADD CONSTRAINT attempt_blobs_attempt_id_fkey FOREIGN KEY (attempt_id) REFERENCES public.attempts(id);
ALTER TABLE ONLY public.attempt_blobs
    ADD CONSTRAINT attempt_blobs_sha256_fkey FOREIGN KEY (sha256) REFERENCES public.blobs(sha256) ON DELETE CASCADE;
ALTER TABLE ONLY public.attempts
    ADD CONSTRAINT attempts_job_id_fkey FOREIGN KEY (job_id) REFERENCES public.jobs(id);
ALTER TABLE ONLY public.attempts
    ADD CONSTRAINT attempts_node_id_fkey FOREIGN KEY (node_id) REFERENCES public.nodes(id);
ALTER TABLE ONLY public.attempts
    ADD CONSTRAINT attempts_offer_id_fkey FOREIGN KEY (offer_id) REFERENCES public.offers(id);
ALTER TABLE ONLY public.attempts
    ADD CONSTRAINT attempts_provider_id_fkey FOREIGN KEY (provider_id) REFERENCES public.providers(id);
ALTER TABLE ONLY public.attempts
    ADD CONSTRAINT attempts_restore_attempt_id_fkey FOREIGN KEY (restore_attempt_id) REFERENCES public.attempts(id);
ALTER TABLE ONLY public.chain_addresses
    ADD CONSTRAINT chain_addresses_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id);
ALTER TABLE ONLY public.checkpoints
    ADD CONSTRAINT checkpoints_attempt_id_fkey FOREIGN KEY (attempt_id) REFERENCES public.attempts(id);
ALTER TABLE ONLY public.checkpoints
    ADD CONSTRAINT checkpoints_sha256_fkey FOREIGN KEY (sha256) REFERENCES public.blobs(sha256);
ALTER TABLE ONLY public.device_leases
    ADD CONSTRAINT device_leases_device_id_fkey FOREIGN KEY (device_id) REFERENCES public.devices(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.device_quarantines
    ADD CONSTRAINT device_quarantines_device_id_fkey FOREIGN KEY (device_id) REFERENCES public.devices(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.devices
    ADD CONSTRAINT devices_node_id_fkey FOREIGN KEY (node_id) REFERENCES public.nodes(id);
ALTER TABLE ONLY public.disputes
    ADD CONSTRAINT disputes_escrow_id_fkey FOREIGN KEY (escrow_id) REFERENCES public.escrows(id);
ALTER TABLE ONLY public.disputes
    ADD CONSTRAINT disputes_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id);
ALTER TABLE ONLY public.earnings
    ADD CONSTRAINT earnings_account_id_asset_fkey FOREIGN KEY (account_id, asset) REFERENCES public.accounts(id, asset);
ALTER TABLE ONLY public.earnings
    ADD CONSTRAINT earnings_escrow_id_fkey FOREIGN KEY (escrow_id) REFERENCES public.escrows(id);
ALTER TABLE ONLY public.earnings
    ADD CONSTRAINT earnings_payee_id_asset_fkey FOREIGN KEY (payee_id, asset) REFERENCES public.accounts(id, asset);
ALTER TABLE ONLY public.escrow_lines
    ADD CONSTRAINT escrow_lines_escrow_id_fkey FOREIGN KEY (escrow_id) REFERENCES public.escrows(id);
ALTER TABLE ONLY public.escrow_lines
    ADD CONSTRAINT escrow_lines_payee_user_id_fkey FOREIGN KEY (payee_user_id) REFERENCES public.users(id);
ALTER TABLE ONLY public.escrows
    ADD CONSTRAINT escrows_account_id_asset_fkey FOREIGN KEY (account_id, asset) REFERENCES public.accounts(id, asset);
ALTER TABLE ONLY public.escrows
    ADD CONSTRAINT escrows_payer_id_asset_fkey FOREIGN KEY (payer_id, asset) REFERENCES public.accounts(id, asset);
ALTER TABLE ONLY public.holds
    ADD CONSTRAINT holds_account_id_asset_fkey FOREIGN KEY (account_id, asset) REFERENCES public.accounts(id, asset);
ALTER TABLE ONLY public.idempotency_keys
    ADD CONSTRAINT idempotency_keys_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.incoming
    ADD CONSTRAINT incoming_address_fkey FOREIGN KEY (address) REFERENCES public.chain_addresses(identity);
ALTER TABLE ONLY public.job_inputs
    ADD CONSTRAINT job_inputs_job_id_fkey FOREIGN KEY (job_id) REFERENCES public.jobs(id);
ALTER TABLE ONLY public.job_inputs
    ADD CONSTRAINT job_inputs_sha256_fkey FOREIGN KEY (sha256) REFERENCES public.blobs(sha256);
ALTER TABLE ONLY public.jobs
    ADD CONSTRAINT jobs_owner_id_fkey FOREIGN KEY (owner_id) REFERENCES public.users(id);
ALTER TABLE ONLY public.join_tokens
    ADD CONSTRAINT join_tokens_node_id_fkey FOREIGN KEY (node_id) REFERENCES public.nodes(id);
ALTER TABLE ONLY public.join_tokens
    ADD CONSTRAINT join_tokens_provider_id_fkey FOREIGN KEY (provider_id) REFERENCES public.providers(id);
ALTER TABLE ONLY public.log_chunks
    ADD CONSTRAINT log_chunks_attempt_id_fkey FOREIGN KEY (attempt_id) REFERENCES public.attempts(id);
ALTER TABLE ONLY public.lost_verdicts
    ADD CONSTRAINT lost_verdicts_tx_id_fkey FOREIGN KEY (tx_id) REFERENCES public.strangers(tx_id);
ALTER TABLE ONLY public.node_windows
    ADD CONSTRAINT node_windows_node_id_fkey FOREIGN KEY (node_id) REFERENCES public.nodes(id);
ALTER TABLE ONLY public.nodes
    ADD CONSTRAINT nodes_provider_id_fkey FOREIGN KEY (provider_id) REFERENCES public.providers(id);
ALTER TABLE ONLY public.offers
    ADD CONSTRAINT offers_node_id_fkey FOREIGN KEY (node_id) REFERENCES public.nodes(id);
ALTER TABLE ONLY public.payment_holds
    ADD CONSTRAINT payment_holds_hold_id_fkey FOREIGN KEY (hold_id) REFERENCES public.holds(id);
ALTER TABLE ONLY public.payment_holds
    ADD CONSTRAINT payment_holds_payment_id_fkey FOREIGN KEY (payment_id) REFERENCES public.payments(id);
ALTER TABLE ONLY public.payment_requests
    ADD CONSTRAINT payment_requests_address_fkey FOREIGN KEY (address) REFERENCES public.chain_addresses(identity);
ALTER TABLE ONLY public.payment_requests
    ADD CONSTRAINT payment_requests_job_id_fkey FOREIGN KEY (job_id) REFERENCES public.jobs(id);
ALTER TABLE ONLY public.payments
    ADD CONSTRAINT payments_source_fkey FOREIGN KEY (source) REFERENCES public.chain_addresses(identity);
ALTER TABLE ONLY public.payout_approvals
    ADD CONSTRAINT payout_approvals_hold_id_fkey FOREIGN KEY (hold_id) REFERENCES public.holds(id);
ALTER TABLE ONLY public.providers
    ADD CONSTRAINT providers_owner_id_fkey FOREIGN KEY (owner_id) REFERENCES public.users(id);
ALTER TABLE ONLY public.quotes
    ADD CONSTRAINT quotes_offer_id_fkey FOREIGN KEY (offer_id) REFERENCES public.offers(id);
ALTER TABLE ONLY public.quotes
    ADD CONSTRAINT quotes_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id);
ALTER TABLE ONLY public.rulings
    ADD CONSTRAINT rulings_arbiter_id_fkey FOREIGN KEY (arbiter_id) REFERENCES public.users(id);
ALTER TABLE ONLY public.rulings
    ADD CONSTRAINT rulings_escrow_id_fkey FOREIGN KEY (escrow_id) REFERENCES public.escrows(id);
ALTER TABLE ONLY public.sessions
    ADD CONSTRAINT sessions_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.signer_keys
    ADD CONSTRAINT signer_keys_identity_fkey FOREIGN KEY (identity) REFERENCES public.chain_addresses(identity);
ALTER TABLE ONLY public.strangers
    ADD CONSTRAINT strangers_source_fkey FOREIGN KEY (source) REFERENCES public.chain_addresses(identity);
ALTER TABLE ONLY public.transfers
    ADD CONSTRAINT transfers_credit_id_asset_fkey FOREIGN KEY (credit_id, asset) REFERENCES public.accounts(id, asset);
ALTER TABLE ONLY public.transfers
    ADD CONSTRAINT transfers_debit_id_asset_fkey FOREIGN KEY (debit_id, asset) REFERENCES public.accounts(id, asset);
ALTER TABLE ONLY public.uploads
    ADD CONSTRAINT uploads_owner_id_fkey FOREIGN KEY (owner_id) REFERENCES public.users(id);
ALTER TABLE ONLY public.uploads
    ADD CONSTRAINT uploads_sha256_fkey FOREIGN KEY (sha256) REFERENCES public.blobs(sha256);
ALTER TABLE ONLY public.wallet_challenges
    ADD CONSTRAINT wallet_challenges_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.wallet_identities
    ADD CONSTRAINT wallet_identities_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE;
GRANT USAGE ON SCHEMA public TO qubix_web;
GRANT USAGE ON SCHEMA public TO qubix_controller;
GRANT USAGE ON SCHEMA public TO qubix_fabric;
GRANT USAGE ON SCHEMA public TO qubix_treasury;
GRANT USAGE ON SCHEMA public TO qubix_signer;
REVOKE ALL ON FUNCTION public.attempt_is_funded() FROM PUBLIC;
REVOKE ALL ON FUNCTION public.audit() FROM PUBLIC;
GRANT ALL ON FUNCTION public.audit() TO qubix_web;
GRANT ALL ON FUNCTION public.audit() TO qubix_controller;
GRANT ALL ON FUNCTION public.audit() TO qubix_treasury;
REVOKE ALL ON FUNCTION public.begin_request(p_user uuid, p_key text, p_hash bytea, OUT outcome text, OUT status integer, OUT response jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION public.begin_request(p_user uuid, p_key text, p_hash bytea, OUT outcome text, OUT status integer, OUT response jsonb) TO qubix_web;
REVOKE ALL ON FUNCTION public.cancel_pending_escrow(p_escrow uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION public.cancel_pending_escrow(p_escrow uuid) TO qubix_web;
GRANT ALL ON FUNCTION public.cancel_pending_escrow(p_escrow uuid) TO qubix_controller;
REVOKE ALL ON FUNCTION public.cancel_withdrawal(p_hold uuid, p_user uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION public.cancel_withdrawal(p_hold uuid, p_user uuid) TO qubix_web;
REVOKE ALL ON FUNCTION public.chain_row_id(p_kind text, p_asset smallint, p_tx_id text, p_index integer) FROM PUBLIC;
REVOKE ALL ON FUNCTION public.cost(p_tx_id text, p_asset smallint, p_amount bigint, p_address text, p_tick bigint, p_proof text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.cost(p_tx_id text, p_asset smallint, p_amount bigint, p_address text, p_tick bigint, p_proof text) TO qubix_treasury;
REVOKE ALL ON FUNCTION public.count_attempt() FROM PUBLIC;
REVOKE ALL ON FUNCTION public.deposit(p_tx_ids text[], p_indexes integer[], p_assets smallint[], p_amounts bigint[], p_addresses text[], p_ticks bigint[], p_proofs text[], p_payers text[]) FROM PUBLIC;
GRANT ALL ON FUNCTION public.deposit(p_tx_ids text[], p_indexes integer[], p_assets smallint[], p_amounts bigint[], p_addresses text[], p_ticks bigint[], p_proofs text[], p_payers text[]) TO qubix_treasury;
REVOKE ALL ON FUNCTION public.deposit_codes(p_ids uuid[], p_assets smallint[], p_amounts bigint[], p_addresses text[], p_targets bigint[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION public.dispute(p_escrow uuid, p_user uuid, p_evidence text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.dispute(p_escrow uuid, p_user uuid, p_evidence text) TO qubix_web;
REVOKE ALL ON FUNCTION public.drop_metric_partitions(p_keep_days integer) FROM PUBLIC;
GRANT ALL ON FUNCTION public.drop_metric_partitions(p_keep_days integer) TO qubix_web;
GRANT ALL ON FUNCTION public.drop_metric_partitions(p_keep_days integer) TO qubix_controller;
REVOKE ALL ON FUNCTION public.escrow_is_final(p_state text) FROM PUBLIC;
REVOKE ALL ON FUNCTION public.faucet(p_user uuid, p_asset smallint, p_amount bigint, p_n text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.faucet(p_user uuid, p_asset smallint, p_amount bigint, p_n text) TO qubix_web;
REVOKE ALL ON FUNCTION public.final_is_closed() FROM PUBLIC;
REVOKE ALL ON FUNCTION public.found_ledger(p_network text) FROM PUBLIC;
REVOKE ALL ON FUNCTION public.fund(p_escrow uuid, p_n integer, p_amount bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION public.fund(p_escrow uuid, p_n integer, p_amount bigint) TO qubix_web;
GRANT ALL ON FUNCTION public.fund(p_escrow uuid, p_n integer, p_amount bigint) TO qubix_controller;
REVOKE ALL ON FUNCTION public.give_address(p_user uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION public.give_address(p_user uuid) TO qubix_web;
REVOKE ALL ON FUNCTION public.is_restored() FROM PUBLIC;
GRANT ALL ON FUNCTION public.is_restored() TO qubix_treasury;
REVOKE ALL ON FUNCTION public.issue_join_token(p_provider uuid, OUT token text, OUT expires_at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION public.issue_join_token(p_provider uuid, OUT token text, OUT expires_at timestamp with time zone) TO qubix_fabric;
REVOKE ALL ON FUNCTION public.make_hold(p_hold uuid, p_user uuid, p_asset smallint, p_amount bigint, p_address text) FROM PUBLIC;
REVOKE ALL ON FUNCTION public.make_metric_partitions(p_days integer) FROM PUBLIC;
GRANT ALL ON FUNCTION public.make_metric_partitions(p_days integer) TO qubix_web;
GRANT ALL ON FUNCTION public.make_metric_partitions(p_days integer) TO qubix_controller;
REVOKE ALL ON FUNCTION public.mature(p_earnings uuid[]) FROM PUBLIC;
GRANT ALL ON FUNCTION public.mature(p_earnings uuid[]) TO qubix_controller;
REVOKE ALL ON FUNCTION public.move(p_id uuid, p_act text, p_subject uuid, p_debit bigint, p_credit bigint, p_asset smallint, p_amount bigint, p_unheld bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION public.network_is(p_networks text[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION public.node_dead(p_ray_node_id text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.node_dead(p_ray_node_id text) TO qubix_fabric;
REVOKE ALL ON FUNCTION public.node_seen(p_worker_id text, p_ray_node_id text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.node_seen(p_worker_id text, p_ray_node_id text) TO qubix_fabric;
REVOKE ALL ON FUNCTION public.node_window(p_node uuid, p_at timestamp with time zone, OUT is_open boolean, OUT changes_at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION public.node_window(p_node uuid, p_at timestamp with time zone, OUT is_open boolean, OUT changes_at timestamp with time zone) TO qubix_web;
GRANT ALL ON FUNCTION public.node_window(p_node uuid, p_at timestamp with time zone, OUT is_open boolean, OUT changes_at timestamp with time zone) TO qubix_controller;
REVOKE ALL ON FUNCTION public.offer_live(p_node uuid, p_model text, OUT gpus integer, OUT gpus_free integer, OUT recount_at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION public.offer_live(p_node uuid, p_model text, OUT gpus integer, OUT gpus_free integer, OUT recount_at timestamp with time zone) TO qubix_web;
GRANT ALL ON FUNCTION public.offer_live(p_node uuid, p_model text, OUT gpus integer, OUT gpus_free integer, OUT recount_at timestamp with time zone) TO qubix_controller;
REVOKE ALL ON FUNCTION public.offers_follow_device() FROM PUBLIC;
REVOKE ALL ON FUNCTION public.offers_follow_devices() FROM PUBLIC;
REVOKE ALL ON FUNCTION public.offers_follow_node() FROM PUBLIC;
REVOKE ALL ON FUNCTION public.offers_follow_provider() FROM PUBLIC;
REVOKE ALL ON FUNCTION public.offers_follow_reputation() FROM PUBLIC;
REVOKE ALL ON FUNCTION public.offers_note_devices() FROM PUBLIC;
REVOKE ALL ON FUNCTION public.offers_stay_fresh() FROM PUBLIC;
REVOKE ALL ON FUNCTION public.open_escrow(p_escrow uuid, p_user uuid, p_asset smallint) FROM PUBLIC;
GRANT ALL ON FUNCTION public.open_escrow(p_escrow uuid, p_user uuid, p_asset smallint) TO qubix_web;
GRANT ALL ON FUNCTION public.open_escrow(p_escrow uuid, p_user uuid, p_asset smallint) TO qubix_controller;
REVOKE ALL ON FUNCTION public.open_wallets(p_user uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION public.open_wallets(p_user uuid) TO qubix_web;
REVOKE ALL ON FUNCTION public.payment_ended(p_id uuid, p_paid boolean, p_proof text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.payment_ended(p_id uuid, p_paid boolean, p_proof text) TO qubix_treasury;
REVOKE ALL ON FUNCTION public.payment_unknown(p_id uuid, p_reason text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.payment_unknown(p_id uuid, p_reason text) TO qubix_treasury;
REVOKE ALL ON FUNCTION public.platform_account(p_kind text, p_asset smallint) FROM PUBLIC;
REVOKE ALL ON FUNCTION public.post_batch(p_ids uuid[], p_acts text[], p_subjects uuid[], p_debits bigint[], p_credits bigint[], p_amounts bigint[], p_close bigint[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION public.recover_cost(p_tx_id text, p_proof text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.recover_cost(p_tx_id text, p_proof text) TO qubix_treasury;
REVOKE ALL ON FUNCTION public.recover_hold(p_hold uuid, p_user uuid, p_amount bigint, p_address text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.recover_hold(p_hold uuid, p_user uuid, p_amount bigint, p_address text) TO qubix_treasury;
REVOKE ALL ON FUNCTION public.recover_payment(p_id uuid, p_tx_id text, p_fee bigint, p_holds uuid[]) FROM PUBLIC;
GRANT ALL ON FUNCTION public.recover_payment(p_id uuid, p_tx_id text, p_fee bigint, p_holds uuid[]) TO qubix_treasury;
REVOKE ALL ON FUNCTION public.refresh_due_offers(p_most integer) FROM PUBLIC;
GRANT ALL ON FUNCTION public.refresh_due_offers(p_most integer) TO qubix_web;
GRANT ALL ON FUNCTION public.refresh_due_offers(p_most integer) TO qubix_controller;
REVOKE ALL ON FUNCTION public.refresh_offers(p_nodes uuid[]) FROM PUBLIC;
GRANT ALL ON FUNCTION public.refresh_offers(p_nodes uuid[]) TO qubix_web;
GRANT ALL ON FUNCTION public.refresh_offers(p_nodes uuid[]) TO qubix_controller;
REVOKE ALL ON FUNCTION public.refuse_change() FROM PUBLIC;
REVOKE ALL ON FUNCTION public.refuse_transition() FROM PUBLIC;
REVOKE ALL ON FUNCTION public.resolve(p_earning uuid, p_decision interval) FROM PUBLIC;
GRANT ALL ON FUNCTION public.resolve(p_earning uuid, p_decision interval) TO qubix_controller;
REVOKE ALL ON FUNCTION public.rule(p_escrow uuid, p_arbiter uuid, p_to_payee bigint, p_reason text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.rule(p_escrow uuid, p_arbiter uuid, p_to_payee bigint, p_reason text) TO qubix_web;
REVOKE ALL ON FUNCTION public.set_email(p_user uuid, p_email text, OUT outcome text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.set_email(p_user uuid, p_email text, OUT outcome text) TO qubix_web;
REVOKE ALL ON FUNCTION public.settle(p_escrow uuid, p_outcome text, p_lines text[], p_payees uuid[], p_gross bigint[], p_metered_ms bigint[], p_fee_bps integer, p_window interval, p_decision interval) FROM PUBLIC;
GRANT ALL ON FUNCTION public.settle(p_escrow uuid, p_outcome text, p_lines text[], p_payees uuid[], p_gross bigint[], p_metered_ms bigint[], p_fee_bps integer, p_window interval, p_decision interval) TO qubix_controller;
REVOKE ALL ON FUNCTION public.share_of(p_total bigint, p_before numeric, p_weight bigint, p_sum numeric) FROM PUBLIC;
REVOKE ALL ON FUNCTION public.sign_payout(p_id uuid, p_source text, p_destination text, p_amount bigint, p_fee bigint, p_tick bigint, p_input_type integer, p_payload bytea, p_encoded bytea, p_tx_id text, p_before_transfers bigint, p_before_amount bigint, p_holds uuid[]) FROM PUBLIC;
GRANT ALL ON FUNCTION public.sign_payout(p_id uuid, p_source text, p_destination text, p_amount bigint, p_fee bigint, p_tick bigint, p_input_type integer, p_payload bytea, p_encoded bytea, p_tx_id text, p_before_transfers bigint, p_before_amount bigint, p_holds uuid[]) TO qubix_signer;
REVOKE ALL ON FUNCTION public.sign_sweep(p_id uuid, p_source text, p_destination text, p_amount bigint, p_tick bigint, p_encoded bytea, p_tx_id text, p_before_transfers bigint, p_before_amount bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION public.sign_sweep(p_id uuid, p_source text, p_destination text, p_amount bigint, p_tick bigint, p_encoded bytea, p_tx_id text, p_before_transfers bigint, p_before_amount bigint) TO qubix_signer;
REVOKE ALL ON FUNCTION public.transfer_id(p_subject uuid, p_step text) FROM PUBLIC;
REVOKE ALL ON FUNCTION public.wallet_of(p_user uuid, p_asset smallint) FROM PUBLIC;
REVOKE ALL ON FUNCTION public.web_beat(p_begun boolean, p_gap_max_s double precision) FROM PUBLIC;
GRANT ALL ON FUNCTION public.web_beat(p_begun boolean, p_gap_max_s double precision) TO qubix_web;
REVOKE ALL ON FUNCTION public.withdraw(p_hold uuid, p_user uuid, p_asset smallint, p_amount bigint, p_address text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.withdraw(p_hold uuid, p_user uuid, p_asset smallint, p_amount bigint, p_address text) TO qubix_web;
REVOKE ALL ON FUNCTION public.withdrawn(p_hold uuid, p_captured boolean, p_tx_id text, p_tick bigint, p_proof text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.withdrawn(p_hold uuid, p_captured boolean, p_tx_id text, p_tick bigint, p_proof text) TO qubix_treasury;
GRANT SELECT ON TABLE public.accounts TO qubix_web;
GRANT SELECT ON TABLE public.accounts TO qubix_controller;
GRANT SELECT ON TABLE public.accounts TO qubix_treasury;
GRANT SELECT ON TABLE public.accounts TO qubix_signer;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.api_keys TO qubix_web;
GRANT SELECT,INSERT,UPDATE ON TABLE public.artefacts TO qubix_web;
GRANT SELECT,INSERT,UPDATE ON TABLE public.artefacts TO qubix_controller;
GRANT SELECT ON TABLE public.assets TO qubix_web;
GRANT SELECT ON TABLE public.assets TO qubix_controller;
GRANT SELECT ON TABLE public.assets TO qubix_treasury;
GRANT SELECT ON TABLE public.assets TO qubix_signer;
GRANT SELECT,INSERT ON TABLE public.attempt_blobs TO qubix_web;
GRANT SELECT,INSERT,UPDATE ON TABLE public.attempts TO qubix_web;
GRANT SELECT,INSERT,UPDATE ON TABLE public.attempts TO qubix_controller;
GRANT SELECT ON TABLE public.attempts TO qubix_fabric;
GRANT SELECT,INSERT,UPDATE ON TABLE public.blobs TO qubix_web;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.blobs TO qubix_controller;
GRANT SELECT ON TABLE public.chain_addresses TO qubix_web;
GRANT SELECT ON TABLE public.chain_addresses TO qubix_controller;
GRANT SELECT ON TABLE public.chain_addresses TO qubix_treasury;
GRANT SELECT ON TABLE public.chain_addresses TO qubix_signer;
GRANT INSERT(identity) ON TABLE public.chain_addresses TO qubix_signer;
GRANT INSERT(purpose) ON TABLE public.chain_addresses TO qubix_signer;
GRANT SELECT ON TABLE public.chain_rows TO qubix_web;
GRANT SELECT ON TABLE public.chain_rows TO qubix_controller;
GRANT SELECT ON TABLE public.chain_rows TO qubix_treasury;
GRANT SELECT ON TABLE public.chain_rows TO qubix_signer;
GRANT SELECT ON TABLE public.chain_state TO qubix_web;
GRANT SELECT ON TABLE public.chain_state TO qubix_controller;
GRANT SELECT,INSERT,UPDATE ON TABLE public.chain_state TO qubix_treasury;
GRANT SELECT ON TABLE public.chain_state TO qubix_signer;
GRANT SELECT,INSERT,UPDATE ON TABLE public.checkpoints TO qubix_web;
GRANT SELECT,INSERT,UPDATE ON TABLE public.checkpoints TO qubix_controller;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.device_leases TO qubix_web;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.device_leases TO qubix_controller;
GRANT SELECT ON TABLE public.device_leases TO qubix_fabric;
GRANT SELECT,INSERT ON TABLE public.device_metrics TO qubix_web;
GRANT SELECT ON TABLE public.device_metrics TO qubix_controller;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.device_quarantines TO qubix_web;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.device_quarantines TO qubix_controller;
GRANT SELECT ON TABLE public.device_quarantines TO qubix_fabric;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.devices TO qubix_web;
GRANT SELECT ON TABLE public.devices TO qubix_controller;
GRANT SELECT ON TABLE public.devices TO qubix_treasury;
GRANT UPDATE(overheating) ON TABLE public.devices TO qubix_controller;
GRANT SELECT ON TABLE public.disputes TO qubix_web;
GRANT SELECT ON TABLE public.disputes TO qubix_controller;
GRANT SELECT ON TABLE public.earnings TO qubix_web;
GRANT SELECT ON TABLE public.earnings TO qubix_controller;
GRANT SELECT ON TABLE public.escrows TO qubix_web;
GRANT SELECT ON TABLE public.escrows TO qubix_controller;
GRANT SELECT ON TABLE public.transfers TO qubix_web;
GRANT SELECT ON TABLE public.transfers TO qubix_controller;
GRANT SELECT ON TABLE public.transfers TO qubix_treasury;
GRANT SELECT ON TABLE public.transfers TO qubix_signer;
GRANT SELECT ON TABLE public.escrow_lines TO qubix_web;
GRANT SELECT ON TABLE public.escrow_lines TO qubix_controller;
GRANT SELECT,INSERT ON TABLE public.events TO qubix_web;
GRANT SELECT,INSERT,DELETE ON TABLE public.events TO qubix_controller;
GRANT SELECT,INSERT ON TABLE public.events TO qubix_treasury;
GRANT UPDATE("position") ON TABLE public.events TO qubix_web;
GRANT UPDATE("position") ON TABLE public.events TO qubix_controller;
GRANT SELECT ON TABLE public.holds TO qubix_web;
GRANT SELECT ON TABLE public.holds TO qubix_controller;
GRANT SELECT ON TABLE public.holds TO qubix_treasury;
GRANT SELECT ON TABLE public.holds TO qubix_signer;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.idempotency_keys TO qubix_web;
GRANT SELECT,DELETE ON TABLE public.idempotency_keys TO qubix_controller;
GRANT SELECT ON TABLE public.incoming TO qubix_web;
GRANT SELECT ON TABLE public.incoming TO qubix_controller;
GRANT SELECT,INSERT,UPDATE ON TABLE public.incoming TO qubix_treasury;
GRANT SELECT ON TABLE public.incoming TO qubix_signer;
GRANT SELECT,INSERT,UPDATE ON TABLE public.job_inputs TO qubix_web;
GRANT SELECT,INSERT,UPDATE ON TABLE public.job_inputs TO qubix_controller;
GRANT SELECT,INSERT,UPDATE ON TABLE public.jobs TO qubix_web;
GRANT SELECT,INSERT,UPDATE ON TABLE public.jobs TO qubix_controller;
GRANT SELECT ON TABLE public.jobs TO qubix_fabric;
GRANT SELECT,INSERT,UPDATE ON TABLE public.join_tokens TO qubix_web;
GRANT SELECT,DELETE ON TABLE public.join_tokens TO qubix_controller;
GRANT SELECT,INSERT,UPDATE ON TABLE public.leaders TO qubix_controller;
GRANT SELECT,INSERT,UPDATE ON TABLE public.leaders TO qubix_fabric;
GRANT SELECT,INSERT,UPDATE ON TABLE public.leaders TO qubix_treasury;
GRANT SELECT,INSERT,UPDATE ON TABLE public.leaders TO qubix_signer;
GRANT SELECT ON TABLE public.leaders TO qubix_web;
GRANT SELECT ON TABLE public.ledger_network TO qubix_web;
GRANT SELECT ON TABLE public.ledger_network TO qubix_controller;
GRANT SELECT ON TABLE public.ledger_network TO qubix_treasury;
GRANT SELECT ON TABLE public.ledger_network TO qubix_signer;
GRANT SELECT,INSERT,UPDATE ON TABLE public.log_chunks TO qubix_web;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.log_chunks TO qubix_controller;
GRANT SELECT,INSERT,UPDATE ON TABLE public.lost_verdicts TO qubix_treasury;
GRANT SELECT,INSERT,DELETE ON TABLE public.node_windows TO qubix_web;
GRANT SELECT ON TABLE public.node_windows TO qubix_controller;
GRANT SELECT,INSERT,UPDATE ON TABLE public.nodes TO qubix_web;
GRANT SELECT,UPDATE ON TABLE public.nodes TO qubix_controller;
GRANT SELECT ON TABLE public.nodes TO qubix_treasury;
GRANT SELECT(id) ON TABLE public.nodes TO qubix_fabric;
GRANT SELECT(provider_id) ON TABLE public.nodes TO qubix_fabric;
GRANT SELECT(worker_id) ON TABLE public.nodes TO qubix_fabric;
GRANT SELECT(name) ON TABLE public.nodes TO qubix_fabric;
GRANT SELECT(region) ON TABLE public.nodes TO qubix_fabric;
GRANT SELECT(ray_node_id) ON TABLE public.nodes TO qubix_fabric;
GRANT SELECT(state) ON TABLE public.nodes TO qubix_fabric;
GRANT SELECT(dead_at) ON TABLE public.nodes TO qubix_fabric;
GRANT SELECT,INSERT,UPDATE ON TABLE public.offers TO qubix_web;
GRANT SELECT ON TABLE public.offers TO qubix_controller;
GRANT SELECT ON TABLE public.payment_holds TO qubix_web;
GRANT SELECT ON TABLE public.payment_holds TO qubix_controller;
GRANT SELECT ON TABLE public.payment_holds TO qubix_treasury;
GRANT SELECT ON TABLE public.payment_holds TO qubix_signer;
GRANT SELECT ON TABLE public.payments TO qubix_web;
GRANT SELECT ON TABLE public.payments TO qubix_controller;
GRANT SELECT ON TABLE public.payments TO qubix_treasury;
GRANT SELECT ON TABLE public.payments TO qubix_signer;
GRANT UPDATE(reason) ON TABLE public.payments TO qubix_treasury;
GRANT UPDATE(broadcasts) ON TABLE public.payments TO qubix_treasury;
GRANT UPDATE(broadcast_at) ON TABLE public.payments TO qubix_treasury;
GRANT UPDATE(raw) ON TABLE public.payments TO qubix_treasury;
GRANT SELECT ON TABLE public.payout_approvals TO qubix_web;
GRANT SELECT ON TABLE public.payout_approvals TO qubix_controller;
GRANT SELECT ON TABLE public.payout_approvals TO qubix_treasury;
GRANT SELECT ON TABLE public.payout_approvals TO qubix_signer;
GRANT INSERT(hold_id) ON TABLE public.payout_approvals TO qubix_signer;
GRANT INSERT(approved_by) ON TABLE public.payout_approvals TO qubix_signer;
GRANT SELECT ON TABLE public.payout_halts TO qubix_web;
GRANT SELECT ON TABLE public.payout_halts TO qubix_controller;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.payout_halts TO qubix_treasury;
GRANT SELECT ON TABLE public.payout_halts TO qubix_signer;
GRANT SELECT ON TABLE public.signer_limits TO qubix_signer;
GRANT UPDATE(payment_max) ON TABLE public.signer_limits TO qubix_signer;
GRANT UPDATE(user_day_max) ON TABLE public.signer_limits TO qubix_signer;
GRANT UPDATE(wallet_day_max) ON TABLE public.signer_limits TO qubix_signer;
GRANT SELECT ON TABLE public.payable_holds TO qubix_web;
GRANT SELECT ON TABLE public.payable_holds TO qubix_treasury;
GRANT SELECT ON TABLE public.payable_holds TO qubix_signer;
GRANT SELECT,INSERT ON TABLE public.payment_requests TO qubix_web;
GRANT SELECT ON TABLE public.payment_requests TO qubix_controller;
GRANT UPDATE(extended) ON TABLE public.payment_requests TO qubix_controller;
GRANT UPDATE(received) ON TABLE public.payment_requests TO qubix_controller;
GRANT UPDATE(missing) ON TABLE public.payment_requests TO qubix_controller;
GRANT UPDATE(confirmations) ON TABLE public.payment_requests TO qubix_controller;
GRANT UPDATE(tx_ids) ON TABLE public.payment_requests TO qubix_controller;
GRANT UPDATE(paid_at) ON TABLE public.payment_requests TO qubix_controller;
GRANT SELECT,INSERT,UPDATE ON TABLE public.providers TO qubix_web;
GRANT SELECT ON TABLE public.providers TO qubix_controller;
GRANT SELECT ON TABLE public.providers TO qubix_treasury;
GRANT SELECT,INSERT,UPDATE ON TABLE public.quotes TO qubix_web;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.quotes TO qubix_controller;
GRANT SELECT ON TABLE public.rulings TO qubix_web;
GRANT SELECT ON TABLE public.rulings TO qubix_controller;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.sessions TO qubix_web;
GRANT SELECT,DELETE ON TABLE public.sessions TO qubix_controller;
GRANT SELECT,INSERT ON TABLE public.signer_keys TO qubix_signer;
GRANT SELECT,INSERT ON TABLE public.strangers TO qubix_treasury;
GRANT SELECT ON TABLE public.strangers TO qubix_signer;
GRANT SELECT,INSERT,UPDATE ON TABLE public.sweeper_beats TO qubix_controller;
GRANT SELECT ON TABLE public.sweeper_beats TO qubix_web;
GRANT SELECT,INSERT,DELETE ON TABLE public.uploads TO qubix_web;
GRANT SELECT ON TABLE public.uploads TO qubix_controller;
GRANT SELECT ON TABLE public.users TO qubix_web;
GRANT INSERT(id) ON TABLE public.users TO qubix_web;
GRANT SELECT(id) ON TABLE public.users TO qubix_controller;
GRANT SELECT(id) ON TABLE public.users TO qubix_treasury;
GRANT INSERT(email) ON TABLE public.users TO qubix_web;
GRANT SELECT(email) ON TABLE public.users TO qubix_controller;
GRANT SELECT(email) ON TABLE public.users TO qubix_treasury;
GRANT INSERT(name),UPDATE(name) ON TABLE public.users TO qubix_web;
GRANT SELECT(name) ON TABLE public.users TO qubix_controller;
GRANT SELECT(name) ON TABLE public.users TO qubix_treasury;
GRANT INSERT(password_hash),UPDATE(password_hash) ON TABLE public.users TO qubix_web;
GRANT SELECT(roles) ON TABLE public.users TO qubix_controller;
GRANT SELECT(roles) ON TABLE public.users TO qubix_treasury;
GRANT SELECT(created_at) ON TABLE public.users TO qubix_controller;
GRANT SELECT(created_at) ON TABLE public.users TO qubix_treasury;
GRANT SELECT,INSERT ON TABLE public.wallet_challenges TO qubix_web;
GRANT SELECT,DELETE ON TABLE public.wallet_challenges TO qubix_controller;
GRANT UPDATE(used_at) ON TABLE public.wallet_challenges TO qubix_web;
GRANT SELECT,INSERT,DELETE ON TABLE public.wallet_identities TO qubix_web;
