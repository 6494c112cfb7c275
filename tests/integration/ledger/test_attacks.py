"""What each role may not do, tried as that role, and what not even the owner may."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import asyncpg
import pytest

from qubix.postgres.embedded import OWNER, EmbeddedServer
from tests.integration.ledger.desk import CONTROLLER, FABRIC, SIGNER, TREASURY, WEB, Desk, open_desk

ROLES = (WEB, CONTROLLER, FABRIC, TREASURY, SIGNER)
LEDGER_TABLES = (
    "assets",
    "ledger_network",
    "accounts",
    "transfers",
    "holds",
    "escrows",
    "earnings",
    "escrow_lines",
    "disputes",
    "rulings",
    "chain_rows",
    "chain_addresses",
    "payments",
    "payment_holds",
)
MAY_CALL = {
    "open_wallets": {WEB},
    "faucet": {WEB},
    "open_escrow": {WEB, CONTROLLER},
    "fund": {WEB, CONTROLLER},
    "cancel_pending_escrow": {WEB, CONTROLLER},
    "settle": {CONTROLLER},
    "mature": {CONTROLLER},
    "resolve": {CONTROLLER},
    "dispute": {WEB},
    "rule": {WEB},
    "withdraw": {WEB},
    "deposit": {TREASURY},
    "withdrawn": {TREASURY},
    "cost": {TREASURY},
    "give_address": {WEB},
    "cancel_withdrawal": {WEB},
    "sign_payout": {SIGNER},
    "sign_sweep": {SIGNER},
    "payment_unknown": {TREASURY},
    "payment_ended": {TREASURY},
    "recover_cost": {TREASURY},
    "recover_hold": {TREASURY},
    "recover_payment": {TREASURY},
    "audit": {WEB, CONTROLLER, TREASURY},
    "found_ledger": set(),
    "make_hold": set(),
    "move": set(),
    "post_batch": set(),
    "deposit_codes": set(),
    "share_of": set(),
    "transfer_id": set(),
    "chain_row_id": set(),
    "wallet_of": set(),
    "platform_account": set(),
    "network_is": set(),
    "escrow_is_final": set(),
    "refuse_change": set(),
    "refuse_transition": set(),
    "final_is_closed": set(),
}


@pytest.fixture(scope="module")
def desk(postgres: EmbeddedServer) -> Iterator[Desk]:
    with open_desk(postgres) as desk:
        yield desk


@pytest.mark.parametrize("role", ROLES)
def test_a_role_may_call_exactly_its_acts(desk: Desk, role: str) -> None:
    for name, may in MAY_CALL.items():
        signatures = desk.rows("SELECT oid::regprocedure::text AS it FROM pg_proc WHERE proname = $1", name)
        assert signatures, f"there is no function {name}"
        for row in signatures:
            assert desk.value(OWNER, "SELECT has_function_privilege($1, $2, 'EXECUTE')", role, row["it"]) == (role in may), (role, name)


def test_every_function_that_writes_money_is_in_the_list_above(desk: Desk) -> None:
    writers = desk.rows(
        "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
        " AND prosrc ~* '(insert into|update|delete from)\\s+(accounts|transfers|escrows|earnings|holds|chain_rows|ledger_network)\\M'"
    )
    assert len(writers) > 8
    assert {row["proname"] for row in writers} - set(MAY_CALL) == set()


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("table", LEDGER_TABLES)
def test_no_role_writes_a_ledger_table(desk: Desk, role: str, table: str) -> None:
    for right in ("INSERT", "UPDATE", "DELETE", "TRUNCATE", "TRIGGER", "REFERENCES"):
        assert not desk.value(OWNER, "SELECT has_table_privilege($1, $2, $3)", role, table, right), (role, table, right)


def test_the_fabric_knows_no_money(desk: Desk) -> None:
    for table in LEDGER_TABLES:
        assert not desk.value(OWNER, "SELECT has_table_privilege($1, $2, 'SELECT')", FABRIC, table)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    "attack",
    [
        "UPDATE accounts SET posted = posted + 1000000",
        "UPDATE accounts SET closed = false",
        "INSERT INTO transfers SELECT * FROM transfers",
        "DELETE FROM transfers",
        "TRUNCATE transfers",
        "TRUNCATE accounts CASCADE",
        "ALTER TABLE transfers DISABLE TRIGGER ALL",
        "DROP TRIGGER transfers_keep ON transfers",
        "DROP TABLE transfers CASCADE",
        "SET session_replication_role = replica",
        "CREATE FUNCTION public.wallet_of(uuid, integer) RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint'",
        "CREATE OR REPLACE FUNCTION network_is(p_networks text[]) RETURNS boolean LANGUAGE sql STABLE AS 'SELECT true'",
        "SELECT move(gen_random_uuid(), 'deposit', gen_random_uuid(), 1, 2, 1::smallint, 1000)",
        "SELECT post_batch('{}','{}','{}','{}','{}','{}','{}')",
        "SELECT found_ledger('none')",
        "UPDATE ledger_network SET network = 'none'",
        "GRANT qubix_owner TO CURRENT_USER",
        "SET ROLE qubix_owner",
        "SET ROLE qubix_controller; SELECT mature('{}')",
    ],
)
def test_an_attack_is_refused_by_the_database(desk: Desk, role: str, attack: str) -> None:
    if role == CONTROLLER and attack.startswith("SET ROLE qubix_controller"):
        return
    with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.InvalidGrantOperationError)):
        for statement in attack.split("; "):
            desk.value(role, statement)


def test_a_temporary_table_does_not_stand_in_for_a_ledger_table(desk: Desk) -> None:
    poor = desk.person()
    desk.value(WEB, "CREATE TEMPORARY TABLE accounts AS SELECT * FROM public.accounts")
    desk.value(WEB, "UPDATE pg_temp.accounts SET posted = 1000000 WHERE owner_id = $1", poor)
    try:
        escrow = uuid4()
        assert desk.value(WEB, "SELECT open_escrow($1, $2, 1::smallint)", escrow, poor) == 0
        assert desk.value(WEB, "SELECT fund($1, 1, 5)", escrow) == -3
    finally:
        desk.value(WEB, "DROP TABLE pg_temp.accounts")


@pytest.mark.parametrize(
    "mistake",
    [
        "UPDATE transfers SET amount = amount + 1",
        "DELETE FROM transfers",
        "TRUNCATE transfers",
        "UPDATE ledger_network SET network = 'mainnet'",
        "DELETE FROM ledger_network",
        "TRUNCATE ledger_network",
        "INSERT INTO ledger_network (the_only, network) VALUES (false, 'devnet')",
        "DELETE FROM accounts",
        "TRUNCATE accounts CASCADE",
        "UPDATE accounts SET asset = 3 - asset",
        "UPDATE accounts SET kind = 'chain' WHERE kind = 'wallet'",
        "UPDATE accounts SET owner_id = NULL WHERE kind = 'wallet'",
        "UPDATE accounts SET posted = -1 WHERE kind = 'wallet'",
        "UPDATE accounts SET posted = 1 WHERE kind = 'chain'",
        "UPDATE accounts SET held = 1 WHERE kind = 'fee'",
        "UPDATE accounts SET closed = true WHERE kind = 'wallet'",
        "UPDATE accounts SET closed = false WHERE closed",
        "UPDATE escrows SET state = 'LOCKED' WHERE state = 'RELEASED'",
        "UPDATE escrows SET state = 'RELEASED', settled_at = now(), paid = funded WHERE state = 'LOCKED'",
        "UPDATE escrows SET state = 'DISPUTED' WHERE state = 'PENDING'",
        "UPDATE escrows SET payer_id = 1",
        "DELETE FROM escrows",
        "TRUNCATE escrows CASCADE",
        "UPDATE earnings SET gross = gross + 1",
        "UPDATE earnings SET state = 'REVERSED', to_payee = 0, ended_at = now() WHERE state = 'PENDING'",
        "UPDATE earnings SET state = 'PAID', to_payee = gross, ended_at = now() WHERE state = 'PENDING'",
        "DELETE FROM earnings",
        "UPDATE escrow_lines SET gross = 0",
        "DELETE FROM escrow_lines",
        "INSERT INTO transfers (id, act, subject_id, debit_id, credit_id, asset, amount, debit_seq, credit_seq, debit_after, credit_after)"
        " SELECT gen_random_uuid(), 'net', gen_random_uuid(), c.id, w.id, 1, 5, 999, 999, 0, 0 FROM accounts c, accounts w"
        " WHERE c.kind = 'chain' AND c.asset = 1 AND w.kind = 'wallet' AND w.asset = 2",
        "INSERT INTO transfers (id, act, subject_id, debit_id, credit_id, asset, amount, debit_seq, credit_seq, debit_after, credit_after)"
        " SELECT gen_random_uuid(), 'net', gen_random_uuid(), 1, 2, 1, 0, 999, 999, 0, 0",
    ],
)
def test_not_even_the_owner_breaks_a_wall_by_mistake(desk: Desk, mistake: str) -> None:
    payer, payee = desk.person(1000), desk.person()
    ended, running = desk.locked(payer, 100), desk.locked(payer, 100)
    desk.value(WEB, "SELECT open_escrow($1, $2, 1::smallint)", uuid4(), payer)
    assert desk.settle(ended, "COMPLETED", [("a", payee, 60)], window_s=1000) == 0
    before = desk.rows("SELECT id, posted, held, closed FROM accounts ORDER BY id")
    with pytest.raises((asyncpg.IntegrityConstraintViolationError, asyncpg.RestrictViolationError, asyncpg.FeatureNotSupportedError)):
        desk.value(OWNER, mistake)
    assert desk.rows("SELECT id, posted, held, closed FROM accounts ORDER BY id") == before
    assert desk.audit() == []
    assert running


def test_a_ledger_keeps_its_network(desk: Desk) -> None:
    assert desk.value(OWNER, "SELECT found_ledger('none')") == 1
    assert desk.value(OWNER, "SELECT found_ledger('mainnet')") == -1
    with pytest.raises(asyncpg.CheckViolationError):
        desk.value(OWNER, "INSERT INTO ledger_network (the_only, network) VALUES (false, 'none')")


def test_money_made_behind_the_acts_is_seen_by_the_audit(postgres: EmbeddedServer) -> None:
    with open_desk(postgres) as desk:
        desk.person(10)
        desk.value(OWNER, "UPDATE accounts SET posted = posted + 1 WHERE kind = 'wallet' AND asset = 1")
        assert {rule for rule, _, _ in desk.audit()} >= {"the balances of an asset sum to zero", "a balance is the sum of its entries"}
