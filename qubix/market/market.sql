-- Offers carry what a search reads, so that a page is one index scan over one table. Whatever changes a node, its devices or their
-- leases brings the offer's row up to date in the same transaction, by triggers: no caller can forget it. What passes with time alone
-- (a lease ends, a window opens, metrics grow stale) is judged when it is read: fresh_until, and recount_at with offer_live.

CREATE FUNCTION node_window(p_node uuid, p_at timestamptz, OUT is_open boolean, OUT changes_at timestamptz)
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
  WITH spans AS (
    SELECT (day + make_interval(mins => w.opens)) AT TIME ZONE 'UTC' AS opens, (day + make_interval(mins => w.closes)) AT TIME ZONE 'UTC' AS closes
    FROM node_windows w, generate_series(0, 7) AS n, LATERAL (SELECT date_trunc('day', p_at AT TIME ZONE 'UTC') + make_interval(days => n) AS day) d
    WHERE w.node_id = p_node AND extract(isodow FROM d.day) - 1 = w.weekday)
  SELECT count(*) = 0 OR bool_or(opens <= p_at AND p_at < closes),
         least(min(opens) FILTER (WHERE opens > p_at), min(closes) FILTER (WHERE closes > p_at))
  FROM spans
$$;

CREATE FUNCTION offer_live(p_node uuid, p_model text, OUT gpus integer, OUT gpus_free integer, OUT recount_at timestamptz)
LANGUAGE plpgsql STABLE SET search_path = public, pg_temp AS $$
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

-- Brings offers up to date. Rows are locked first and in the order of their ids, then read anew: a count that was taken before a
-- concurrent lease committed cannot overwrite the one taken after. News goes to the outbox when what a page shows has changed.
CREATE FUNCTION refresh_offers(p_nodes uuid[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
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

-- What time alone changed since: leases that ended, windows, nodes that grew stale; and reputations, which no attempt's end waits for
-- (its transaction would lock every offer of the provider). Run about once a second; free devices and staleness are right without
-- it, but open pages hear of them only here. Leases and reputations are found by what is due. Staleness has no index (each heartbeat
-- would have to write it), so it is looked for in 20 000 offers a time, and a larger market is walked through in several.
CREATE FUNCTION refresh_due_offers(p_most integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
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

-- Leases and quarantines: which nodes they are of is noted at once, their offers are brought up to date when the transaction commits. An
-- offer's row is the meeting place of all who want a device of the node: locked at the lease, it would let only one of them make a job at a time.
CREATE FUNCTION offers_note_devices() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
  PERFORM set_config('qubix.offers_due', (noted || ARRAY(SELECT DISTINCT d.node_id FROM changed c JOIN devices d ON d.id = c.device_id))::text, true)
  FROM coalesce(nullif(current_setting('qubix.offers_due', true), '')::uuid[], '{}') AS noted;
  RETURN NULL;
END $$;
CREATE FUNCTION offers_follow_devices() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE due uuid[] := nullif(current_setting('qubix.offers_due', true), '')::uuid[];
BEGIN
  IF due IS NOT NULL THEN  -- the first row's trigger does it for all
    PERFORM set_config('qubix.offers_due', '', true);
    PERFORM refresh_offers(due);
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER leases_taken AFTER INSERT ON device_leases REFERENCING NEW TABLE AS changed
FOR EACH STATEMENT EXECUTE FUNCTION offers_note_devices();
CREATE TRIGGER leases_ended AFTER DELETE ON device_leases REFERENCING OLD TABLE AS changed
FOR EACH STATEMENT EXECUTE FUNCTION offers_note_devices();
CREATE TRIGGER quarantines_begun AFTER INSERT ON device_quarantines REFERENCING NEW TABLE AS changed
FOR EACH STATEMENT EXECUTE FUNCTION offers_note_devices();
CREATE TRIGGER quarantines_ended AFTER DELETE ON device_quarantines REFERENCING OLD TABLE AS changed
FOR EACH STATEMENT EXECUTE FUNCTION offers_note_devices();
CREATE CONSTRAINT TRIGGER leases_settled AFTER INSERT OR DELETE ON device_leases DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION offers_follow_devices();
CREATE CONSTRAINT TRIGGER quarantines_settled AFTER INSERT OR DELETE ON device_quarantines DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION offers_follow_devices();

CREATE FUNCTION offers_follow_node() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN PERFORM refresh_offers(ARRAY[NEW.id]); RETURN NULL; END $$;
CREATE TRIGGER nodes_changed AFTER UPDATE ON nodes FOR EACH ROW
WHEN ((OLD.state, OLD.paused, OLD.draining, OLD.region, OLD.sandbox, OLD.cpu_model, OLD.cpu_cores, OLD.ram_bytes, OLD.provider_id)
  IS DISTINCT FROM (NEW.state, NEW.paused, NEW.draining, NEW.region, NEW.sandbox, NEW.cpu_model, NEW.cpu_cores, NEW.ram_bytes, NEW.provider_id))
EXECUTE FUNCTION offers_follow_node();

-- The heartbeat's way: one column, no index on it, nothing recounted; unless the offers were shown as stale until now.
CREATE FUNCTION offers_stay_fresh() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
  UPDATE offers SET fresh_until = coalesce(NEW.metrics_at + interval '60 seconds', '-infinity') WHERE node_id = NEW.id;
  IF EXISTS (SELECT FROM offers WHERE node_id = NEW.id AND stale_told AND fresh_until > clock_timestamp()) THEN PERFORM refresh_offers(ARRAY[NEW.id]); END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER nodes_measured AFTER UPDATE OF metrics_at ON nodes FOR EACH ROW
WHEN (OLD.metrics_at IS DISTINCT FROM NEW.metrics_at) EXECUTE FUNCTION offers_stay_fresh();

CREATE FUNCTION offers_follow_device() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN PERFORM refresh_offers(ARRAY[NEW.node_id]); RETURN NULL; END $$;
CREATE TRIGGER devices_added AFTER INSERT ON devices FOR EACH ROW EXECUTE FUNCTION offers_follow_device();
CREATE TRIGGER devices_changed AFTER UPDATE ON devices FOR EACH ROW
WHEN ((OLD.model, OLD.vram_bytes, OLD.detected_by, OLD.verified, OLD.usable, OLD.gone_at)
  IS DISTINCT FROM (NEW.model, NEW.vram_bytes, NEW.detected_by, NEW.verified, NEW.usable, NEW.gone_at))
EXECUTE FUNCTION offers_follow_device();

CREATE FUNCTION offers_follow_provider() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN PERFORM refresh_offers(ARRAY(SELECT id FROM nodes WHERE provider_id = NEW.id)); RETURN NULL; END $$;
CREATE TRIGGER providers_changed AFTER UPDATE ON providers FOR EACH ROW
WHEN (OLD.name IS DISTINCT FROM NEW.name)
EXECUTE FUNCTION offers_follow_provider();

CREATE FUNCTION offers_follow_reputation() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN INSERT INTO reputations_due (provider_id) VALUES (NEW.id); RETURN NULL; END $$;
CREATE TRIGGER providers_judged AFTER UPDATE ON providers FOR EACH ROW
WHEN (OLD.attempts_ended <> NEW.attempts_ended)
EXECUTE FUNCTION offers_follow_reputation();
INSERT INTO offers_walk (after) VALUES ('00000000-0000-0000-0000-000000000000');

REVOKE ALL ON FUNCTION node_window, offer_live, refresh_offers, refresh_due_offers, offers_note_devices, offers_follow_devices, offers_follow_node,
  offers_stay_fresh, offers_follow_device, offers_follow_provider, offers_follow_reputation FROM PUBLIC;
GRANT EXECUTE ON FUNCTION node_window, offer_live, refresh_offers, refresh_due_offers TO qubix_web, qubix_controller;
GRANT SELECT, INSERT, UPDATE ON offers, quotes TO qubix_web;
GRANT SELECT ON offers TO qubix_controller;
GRANT SELECT, INSERT, UPDATE, DELETE ON quotes TO qubix_controller;
