-- Day partitions of device_metrics, made ahead. Whoever waits for the parent's lock keeps every heartbeat waiting behind: where a backup reads it, they give up soon
-- and are tried again; a day that the default partition already took rows for is left to it.
CREATE TABLE device_metrics_default PARTITION OF device_metrics DEFAULT;

CREATE FUNCTION make_metric_partitions(p_days integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '1s' AS $$
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

CREATE FUNCTION drop_metric_partitions(p_keep_days integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '1s' AS $$
DECLARE name text; gone integer := 0; oldest date := (now() AT TIME ZONE 'UTC')::date - greatest(p_keep_days, 1);
BEGIN
  FOR name IN SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
              WHERE i.inhparent = 'device_metrics'::regclass AND c.relname ~ '^device_metrics_\d{8}$' LOOP
    IF to_date(right(name, 8), 'YYYYMMDD') < oldest THEN EXECUTE format('DROP TABLE %I', name); gone := gone + 1; END IF;
  END LOOP;
  DELETE FROM device_metrics_default WHERE at < oldest::timestamp AT TIME ZONE 'UTC';
  RETURN gone;
END $$;

-- The fabric role's whole power: saying which Ray node a worker is, that a Ray node died, and asking for a token for a labelled node.
CREATE FUNCTION node_seen(p_worker_id text, p_ray_node_id text) RETURNS uuid
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
  UPDATE nodes SET ray_node_id = p_ray_node_id, dead_at = NULL WHERE worker_id = p_worker_id AND state <> 'left' RETURNING id
$$;

CREATE FUNCTION node_dead(p_ray_node_id text) RETURNS uuid
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
  UPDATE nodes SET dead_at = coalesce(dead_at, clock_timestamp()) WHERE ray_node_id = p_ray_node_id RETURNING id
$$;

CREATE FUNCTION issue_join_token(p_provider uuid, OUT token text, OUT expires_at timestamptz)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM providers WHERE id = p_provider) THEN RETURN; END IF;
  token := 'qj_' || replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', '');
  INSERT INTO join_tokens (id, provider_id, token_hash, expires_at, by_label)
  VALUES (gen_random_uuid(), p_provider, sha256(token::bytea), now() + interval '30 minutes', true) RETURNING join_tokens.expires_at INTO expires_at;
END $$;

-- Reputation follows the attempts themselves: counted when one ends, by whichever code ends it.
CREATE FUNCTION count_attempt() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
  UPDATE providers SET attempts_ended = attempts_ended + 1, attempts_faulted = attempts_faulted + (NEW.fault IS NOT DISTINCT FROM 'provider')::integer
  WHERE id = NEW.provider_id;
  RETURN NULL;
END $$;

REVOKE ALL ON FUNCTION make_metric_partitions, drop_metric_partitions, node_seen, node_dead, issue_join_token, count_attempt FROM PUBLIC;
GRANT EXECUTE ON FUNCTION make_metric_partitions, drop_metric_partitions TO qubix_web, qubix_controller;
GRANT EXECUTE ON FUNCTION node_seen, node_dead, issue_join_token TO qubix_fabric;

GRANT SELECT, INSERT, UPDATE ON providers, nodes, devices, join_tokens TO qubix_web;
GRANT DELETE ON devices TO qubix_web;
GRANT SELECT, INSERT, DELETE ON node_windows TO qubix_web;
GRANT SELECT, INSERT ON device_metrics TO qubix_web;
GRANT SELECT ON providers, devices, node_windows, device_metrics TO qubix_controller;
GRANT UPDATE (overheating) ON devices TO qubix_controller;
GRANT SELECT, UPDATE ON nodes TO qubix_controller;
GRANT SELECT, DELETE ON join_tokens TO qubix_controller;
GRANT SELECT ON providers, nodes, devices TO qubix_treasury;
GRANT SELECT (id, provider_id, worker_id, name, region, ray_node_id, state, dead_at) ON nodes TO qubix_fabric;
