-- What must always be true of the ledger, as rows of (rule, n, example); n = 0 everywhere is health. escrow and treasury add theirs.
CREATE VIEW ledger_audit AS
WITH entries AS (
  SELECT debit_id AS account_id, asset, debit_seq AS seq, -amount AS change, debit_after AS after FROM transfers
  UNION ALL SELECT credit_id, asset, credit_seq, amount, credit_after FROM transfers),
chained AS (
  SELECT account_id, seq, after, row_number() OVER w AS place, sum(change) OVER w AS balance FROM entries WINDOW w AS (PARTITION BY account_id ORDER BY seq)),
sums AS (SELECT account_id, sum(change) AS change, count(*) AS n FROM entries GROUP BY account_id),
open_holds AS (SELECT account_id, sum(amount) AS amount FROM holds WHERE state = 'OPEN' GROUP BY account_id)
SELECT 'the balances of an asset sum to zero' AS rule, count(*) AS n, min(asset::text) AS example
FROM (SELECT asset FROM accounts GROUP BY asset HAVING sum(posted) <> 0) x
UNION ALL
SELECT 'a balance is the sum of its entries', count(*), min(a.id::text)
FROM accounts a LEFT JOIN sums s ON s.account_id = a.id WHERE a.posted <> coalesce(s.change, 0)
UNION ALL
SELECT 'an account has as many entries as its sequence says', count(*), min(a.id::text)
FROM accounts a LEFT JOIN sums s ON s.account_id = a.id WHERE a.seq <> coalesce(s.n, 0)
UNION ALL
SELECT 'entries are numbered without gaps and carry the balance after them', count(*), min(account_id::text)
FROM chained WHERE seq <> place OR after <> balance
UNION ALL
SELECT 'held is the sum of the open holds', count(*), min(a.id::text)
FROM accounts a LEFT JOIN open_holds h ON h.account_id = a.id WHERE a.held <> coalesce(h.amount, 0)
UNION ALL
SELECT 'only the chain is overdrawn', count(*), min(id::text) FROM accounts WHERE kind <> 'chain' AND posted < held
UNION ALL
SELECT 'a closed account is empty', count(*), min(id::text) FROM accounts WHERE closed AND (posted <> 0 OR held <> 0);
