-- What must not be believed any more once a backup is restored; runs in the transaction that fills the database.
SET LOCAL search_path = public;

-- The chain may have paid what this database believes unpaid. Nothing is signed until a person has reconciled.
INSERT INTO payout_halts (subject, rule, figures, needs_person)
SELECT '*', 'restored', jsonb_build_object('restored', jsonb_build_array(jsonb_build_object(
         'reason', 'restored from a backup: what was paid since is on the chain and not here', 'taken_at', '{taken_at}', 'tick', (SELECT cursor FROM chain_state)))), true
FROM ledger_network WHERE network <> 'none'
ON CONFLICT (subject) DO UPDATE SET rule = payout_halts.rule || ', ' || excluded.rule, figures = payout_halts.figures || excluded.figures, needs_person = true,
  since = clock_timestamp();

-- An address that is free here may have been given to somebody since, who pays to it: nobody else ever gets it.
UPDATE chain_addresses SET retired_at = clock_timestamp() WHERE purpose = 'user' AND user_id IS NULL AND retired_at IS NULL;

-- Who was logged in at that time may have been logged out since; a token that lets in once may have let in.
DELETE FROM sessions;
DELETE FROM wallet_challenges;
DELETE FROM join_tokens WHERE used_at IS NULL;

-- No node speaks for itself before it has said hello again. What ran on it then is lost, and tried again from its last checkpoint: the node would not send
-- again what was taken from it since. Neither side answers for that.
UPDATE attempts SET storage_failed_at = coalesce(storage_failed_at, clock_timestamp()) WHERE ended_at IS NULL AND reported_at IS NULL;
UPDATE nodes SET session = NULL, session_token_hash = NULL, socket_open = false, dead_at = coalesce(dead_at, clock_timestamp()) WHERE state <> 'left';

-- Every position that a client may have is older than the oldest one here: it takes new snapshots, instead of waiting for numbers that were given before.
UPDATE events SET position = position + 1000000000 WHERE position IS NOT NULL;
