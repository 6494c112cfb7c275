CREATE VIEW escrow_audit AS
SELECT 'an open escrow holds what was funded' AS rule, count(*) AS n, min(e.id::text) AS example
FROM escrows e JOIN accounts a ON a.id = e.account_id WHERE e.state IN ('PENDING','LOCKED','DISPUTED') AND a.posted <> e.funded
UNION ALL
SELECT 'an open earning holds its gross', count(*), min(g.id::text)
FROM earnings g JOIN accounts a ON a.id = g.account_id WHERE g.state IN ('PENDING','FROZEN') AND a.posted <> g.gross
UNION ALL
SELECT 'an escrow paid the sum of its earnings', count(*), min(e.id::text)
FROM escrows e LEFT JOIN (SELECT escrow_id, sum(gross) AS gross FROM earnings GROUP BY escrow_id) g ON g.escrow_id = e.id WHERE e.paid <> coalesce(g.gross, 0)
UNION ALL
SELECT 'an escrow was funded by its transfers', count(*), min(e.id::text)
FROM escrows e LEFT JOIN (SELECT credit_id, sum(amount) AS amount FROM transfers WHERE act = 'fund' GROUP BY credit_id) t ON t.credit_id = e.account_id
WHERE e.funded <> coalesce(t.amount, 0)
UNION ALL
SELECT 'an escrow is final exactly when its account is closed', count(*), min(e.id::text)
FROM escrows e JOIN accounts a ON a.id = e.account_id WHERE (e.state IN ('RELEASED','REFUNDED','SPLIT')) <> a.closed
UNION ALL
SELECT 'an earning is final exactly when its account is closed', count(*), min(g.id::text)
FROM earnings g JOIN accounts a ON a.id = g.account_id WHERE (g.state IN ('PAID','REVERSED','SPLIT')) <> a.closed
UNION ALL
SELECT 'every purse belongs to an escrow or an earning', count(*), min(a.id::text)
FROM accounts a WHERE (a.kind = 'escrow' AND NOT EXISTS (SELECT 1 FROM escrows e WHERE e.account_id = a.id))
   OR (a.kind = 'earning' AND NOT EXISTS (SELECT 1 FROM earnings g WHERE g.account_id = a.id));

CREATE FUNCTION audit() RETURNS TABLE (rule text, n bigint, example text) LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
  SELECT * FROM ledger_audit UNION ALL SELECT * FROM treasury_audit UNION ALL SELECT * FROM escrow_audit
$$;
REVOKE ALL ON FUNCTION audit FROM PUBLIC;
GRANT EXECUTE ON FUNCTION audit TO qubix_web, qubix_controller, qubix_treasury;
