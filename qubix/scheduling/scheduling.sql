GRANT SELECT, INSERT, UPDATE ON sweeper_beats TO qubix_controller;
GRANT SELECT ON sweeper_beats TO qubix_web;

-- The web layer lives, says one of its replicas; the sweeper's row is none of its business. A replica that has just begun, after a pause in
-- which none beat, knows that no agent's socket can be open but those that were opened since: the nodes are told so, for nobody else could.
CREATE FUNCTION web_beat(p_begun boolean, p_gap_max_s double precision) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
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
REVOKE ALL ON FUNCTION web_beat FROM PUBLIC;
GRANT EXECUTE ON FUNCTION web_beat TO qubix_web;
