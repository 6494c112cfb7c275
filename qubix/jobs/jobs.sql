-- The walls behind the state tables: whatever Python does, an end is an end, a fence only grows, and no attempt exists
-- whose job had no locked escrow when it was inserted.
CREATE FUNCTION job_moves() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
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
CREATE TRIGGER job_moves BEFORE UPDATE ON jobs FOR EACH ROW EXECUTE FUNCTION job_moves();

CREATE FUNCTION attempt_moves() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
  IF OLD.state NOT IN ('CREATED', 'ACCEPTED', 'RUNNING') AND NEW.state <> OLD.state THEN
    RAISE EXCEPTION 'attempt % has ended as % and cannot become %', OLD.id, OLD.state, NEW.state USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.fence <> OLD.fence OR NEW.job_id <> OLD.job_id OR NEW.node_id <> OLD.node_id THEN
    RAISE EXCEPTION 'attempt % keeps its job, node and fence', OLD.id USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER attempt_moves BEFORE UPDATE ON attempts FOR EACH ROW EXECUTE FUNCTION attempt_moves();

CREATE FUNCTION attempt_is_funded() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
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
REVOKE ALL ON FUNCTION attempt_is_funded() FROM PUBLIC;
CREATE TRIGGER attempt_is_funded BEFORE INSERT ON attempts FOR EACH ROW EXECUTE FUNCTION attempt_is_funded();

-- What was asked for stays; what is shown of a payment never falls.
CREATE FUNCTION payment_request_moves() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
  IF NEW.confirmations < OLD.confirmations OR (OLD.extended AND NOT NEW.extended)
     OR (OLD.paid_at IS NOT NULL AND (NEW.paid_at, NEW.tx_ids) IS DISTINCT FROM (OLD.paid_at, OLD.tx_ids)) THEN
    RAISE EXCEPTION 'what was shown of the payment for job % stays', OLD.job_id USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER payment_request_moves BEFORE UPDATE ON payment_requests FOR EACH ROW EXECUTE FUNCTION payment_request_moves();

GRANT SELECT, INSERT ON payment_requests TO qubix_web;
GRANT SELECT, UPDATE (extended, received, missing, confirmations, tx_ids, paid_at) ON payment_requests TO qubix_controller;
GRANT SELECT, INSERT, UPDATE ON jobs, attempts, checkpoints, artefacts, job_inputs, log_chunks, blobs TO qubix_web, qubix_controller;
GRANT SELECT, INSERT ON attempt_blobs TO qubix_web;
GRANT DELETE ON blobs, log_chunks TO qubix_controller;
GRANT SELECT ON jobs, attempts TO qubix_fabric;
