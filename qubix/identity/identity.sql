-- Insert first: a second request with the same key waits here until the first one's transaction ends (at most 5 s), then sees its
-- answer, or, where the first rolled back, becomes the first itself.
CREATE FUNCTION begin_request(p_user uuid, p_key text, p_hash bytea, OUT outcome text, OUT status integer, OUT response jsonb)
LANGUAGE plpgsql SET search_path = public, pg_temp SET lock_timeout = '5s' AS $$
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
REVOKE ALL ON FUNCTION begin_request FROM PUBLIC;
GRANT EXECUTE ON FUNCTION begin_request TO qubix_web;

-- An account made by a wallet's login has no address until it sets one, once: nobody's account is ever given to another address.
CREATE FUNCTION set_email(p_user uuid, p_email text, OUT outcome text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
  UPDATE users SET email = p_email WHERE id = p_user AND (email IS NULL OR email = p_email);
  outcome := CASE WHEN FOUND THEN 'set' ELSE 'kept' END;
EXCEPTION WHEN unique_violation THEN outcome := 'taken';
END $$;
REVOKE ALL ON FUNCTION set_email FROM PUBLIC;
GRANT EXECUTE ON FUNCTION set_email TO qubix_web;

-- Column by column: the web layer makes nobody operator or arbiter, gives no account to another address and enables no disabled one.
-- It does log people in: whoever runs code as this role can speak for an account until its new sessions and keys are taken away.
GRANT SELECT, INSERT (id, email, name, password_hash), UPDATE (name, password_hash) ON users TO qubix_web;
GRANT SELECT, INSERT, UPDATE, DELETE ON api_keys, sessions, idempotency_keys TO qubix_web;
-- A challenge's text and whose it is never change; an identity moves to another account only by leaving the first.
GRANT SELECT, INSERT, UPDATE (used_at) ON wallet_challenges TO qubix_web;
GRANT SELECT, INSERT, DELETE ON wallet_identities TO qubix_web;
GRANT SELECT (id, email, name, roles, created_at) ON users TO qubix_controller, qubix_treasury;
GRANT SELECT, DELETE ON sessions, idempotency_keys, wallet_challenges TO qubix_controller;
