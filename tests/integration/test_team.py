# ruff: noqa: F811
"""One PostgreSQL for two persons, one of them hostile, with SQL of their own; and its administrator."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import asyncpg
import pytest

from npllm import config
from npllm.memory import migrate as migrating
from npllm.memory.cerebellum import CerebellumVersion, Pattern
from npllm.memory.index.records import File, Piece, State
from npllm.memory.migrate import load, migrate
from npllm.memory.places import Selector
from npllm.memory.store import Store
from npllm.team import command
from npllm.types import (
    AdapterVersion,
    Consolidation,
    ConsolidationState,
    Experience,
    Feedback,
    HeldBack,
    Sign,
    SignKind,
    StoreError,
    VersionState,
    new_id,
)
from tests.fixtures_memory import (  # noqa: F401
    database_url,
    make_experience,
    make_outcome,
    make_place,
    make_suggestion,
    postgres,
    store_config,
    unit_vector,
)

SECRET = "alicesecret"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
WITHOUT_PERSONS = {"schema_migrations", "team"}


@dataclass
class Shared:
    """A database that is set up for a team, and two members."""

    admin: asyncpg.Connection
    admin_store: Store
    alice: Store
    alice_name: str
    mallory_url: str
    mallory_name: str
    config: config.Config

    def config_of(self, name: str) -> config.Config:
        url = self.config.database.url.replace("npllm@", f"{name}@")
        return config.merge(self.config, {"database": {"url": url}}, source="the test")


async def drop_roles(admin: asyncpg.Connection, *names: str) -> None:
    for name in names:
        await admin.execute(f"DROP OWNED BY {name}")
        await admin.execute(f"DROP ROLE {name}")


@pytest.fixture
async def shared(store_config: config.Config, database_url: str) -> AsyncIterator[Shared]:
    admin = await asyncpg.connect(database_url)
    mark = new_id().hex[-12:]
    alice, mallory = f"alice_{mark}", f"mallory_{mark}"
    admin_store = await Store.connect(store_config)
    await admin_store.team.setup()
    for name in (alice, mallory):
        await admin.execute(f"CREATE ROLE {name} LOGIN")
        await admin_store.team.add(name)
    made = Shared(admin, admin_store, admin_store, alice, "", mallory, store_config)
    made.mallory_url = made.config_of(mallory).database.url
    made.alice = await Store.connect(made.config_of(alice))
    yield made
    await made.alice.close()
    await admin_store.close()
    await drop_roles(admin, alice, mallory)
    await admin.close()


def version(**changes: object) -> AdapterVersion:
    given = AdapterVersion(
        new_id(), f"project:/{SECRET}", SECRET, None, new_id(), SECRET, SECRET, VersionState.REJECTED, SECRET, {}, NOW
    )
    return dataclasses.replace(given, **changes)


async def fill(store: Store) -> None:
    """Something of a person's in every table that the store writes."""
    place = make_place(project=f"/home/{SECRET}", path=f"{SECRET}.py", uri=f"file:///home/{SECRET}/{SECRET}.py")
    records = []
    for number in range(120):
        suggestion = make_suggestion(place=place, text=SECRET, prefix=SECRET, suffix=SECRET, created_at=NOW)
        vector = unit_vector(7, 200, number / 121)
        texts = {"prefix": SECRET, "suffix": SECRET, "suggested": SECRET, "final_text": SECRET}
        records += [
            suggestion,
            make_outcome(suggestion),
            make_experience(id=suggestion.id, place=place, embedding=vector, **texts),
        ]
    records += [
        Feedback(new_id(), suggestion.id, "👍", SECRET, 1.0, 0.5, 0.0, 0.9, NOW),
        HeldBack(new_id(), place, 0.1, 0.2, 5, -1.0, "base", NOW),
        Sign(new_id(), suggestion.id, SignKind.UNDO_STORM, 0.5, place, NOW),
    ]
    await store.write(records)
    published = version()
    await store.publish(published, held_out=[suggestion.id])
    await store.replay.note_surprise(published.context, "base", {suggestion.id: 1.0})
    await store.upsert_consolidation(Consolidation(new_id(), ConsolidationState.DONE, NOW, NOW, {"said": SECRET}))
    small = CerebellumVersion(new_id(), SECRET, None, new_id(), SECRET, SECRET, VersionState.REJECTED, SECRET, {}, NOW)
    await store.cerebellum.publish(small, [Pattern("python", SECRET, 3, NOW)])
    await store.heartbeat(new_id(), NOW, True)
    pieces = tuple(Piece(f"{SECRET}{n}".encode(), n, SECRET, f"{SECRET} {n}", b"\0\0\0\0") for n in range(2))
    await store.index.write(f"/home/{SECRET}", [File(f"{SECRET}.py", "python", State(1, 1, 1), pieces)])
    await store.index.embed({pieces[0].hash: unit_vector(7, 200, 0.5)})
    async with store.index.claim() as claims:
        await claims.take(f"/home/{SECRET}")
    selector = Selector(path=f"/home/{SECRET}/other")
    await store.forgetting.forget(
        selector, tainted=lambda _versions, _ids: (), usable=lambda _: False, in_journals=[new_id()]
    )
    forgotten = Selector(text=f"{SECRET} 1")
    await store.forgetting.forget(forgotten, tainted=lambda _versions, _ids: (), usable=lambda _: False)


async def tables(admin: asyncpg.Connection) -> list[str]:
    found = await admin.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'npllm'::regnamespace AND relkind IN ('r', 'p')"
    )
    return sorted(row["relname"] for row in found)


async def rows_of(admin: asyncpg.Connection, owner: str) -> dict[str, list[str]]:
    """Every row of a person, table by table, as an administrator sees it."""
    found = {}
    for table in set(await tables(admin)) - WITHOUT_PERSONS:
        rows = await admin.fetch(f"SELECT to_jsonb(t)::text AS row FROM npllm.{table} t WHERE owner = $1", owner)
        found[table] = sorted(row["row"] for row in rows)
    return found


async def test_every_table_keeps_the_contract(shared: Shared) -> None:
    admin = shared.admin
    with_persons = set(await tables(admin)) - WITHOUT_PERSONS
    rows = await admin.fetch(
        "SELECT c.relname, c.relrowsecurity AND c.relforcerowsecurity AS forced, "
        " (SELECT array_agg(p.polname::text || ': '"
        "   || pg_get_expr(p.polqual, p.polrelid) || '; ' || coalesce(pg_get_expr(p.polwithcheck, p.polrelid), '')"
        "   || p.polcmd::text)"
        "  FROM pg_policy p WHERE p.polrelid = c.oid) AS policies, "
        " EXISTS (SELECT 1 FROM aclexplode(c.relacl) a WHERE a.grantee = 0) AS anybody, "
        " EXISTS (SELECT 1 FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attidentity <> '') AS counts "
        "FROM pg_class c WHERE c.relnamespace = 'npllm'::regnamespace AND c.relkind IN ('r', 'p')"
    )
    for row in rows:
        assert not row["anybody"] and not row["counts"], row["relname"]
        if row["relname"] in ("shares", "shared_experiences"):  # checks more, and lets a role's members read
            assert row["forced"] and all(
                "owner = CURRENT_USER" in says for says in row["policies"] if "own_rows" in says
            )
        elif row["relname"] in with_persons:
            assert row["forced"], row["relname"]
            assert row["policies"] == ["own_rows: (owner = CURRENT_USER); (owner = CURRENT_USER)*"], row["relname"]
    keys = await admin.fetch(
        "SELECT i.indexrelid::regclass::text AS name, i.indrelid::regclass::text AS tab, "
        " EXISTS (SELECT 1 FROM pg_attribute a WHERE a.attrelid = i.indrelid AND a.attname = 'owner' "
        "         AND a.attnum = ANY (i.indkey)) AS held "
        "FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid "
        "WHERE c.relnamespace = 'npllm'::regnamespace AND c.relkind IN ('r', 'p') AND i.indisunique"
    )
    assert {row["name"].removeprefix("npllm.") for row in keys if not row["held"]} == {
        "schema_migrations_pkey",
        "team_pkey",
    }
    foreign = await admin.fetch(
        "SELECT conname, pg_get_constraintdef(oid) AS says FROM pg_constraint "
        "WHERE connamespace = 'npllm'::regnamespace AND contype = 'f'"
    )
    assert len(foreign) >= 7
    assert all(re.search(r"\(.*owner.*\) REFERENCES .*\(.*owner.*\)", row["says"]) for row in foreign)
    vectors = "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'npllm' AND indexdef ~ $1"
    await admin.execute("CREATE INDEX ON npllm.experiences USING hnsw (embedding npllm.halfvec_cosine_ops)")
    await admin.execute("SELECT npllm.secure()")
    assert not await admin.fetch(vectors, "hnsw"), "its graph would tell of others' rows"
    codes = await admin.fetch(vectors, "code")
    assert codes and all("USING btree (owner" in row["indexdef"] for row in codes), "a person's rows lie together"


async def written_columns(admin: asyncpg.Connection, table: str) -> list[str]:
    """Those of a table that PostgreSQL does not make itself."""
    found = await admin.fetch(
        "SELECT attname FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped "
        "AND attgenerated = ''",
        f"npllm.{table}",
    )
    return [row["attname"] for row in found]


def attacks(table: str, columns: list[str], alice: str) -> list[str]:
    """Every way that SQL offers to read or change a table's rows of somebody else."""
    listed = ", ".join(columns)
    as_alice = ", ".join(f"'{alice}'" if name == "owner" else name for name in columns)
    return [
        f"SELECT * FROM npllm.{table}",
        f"SELECT * FROM npllm.{table} WHERE owner = '{alice}'",
        f"SELECT ctid, xmin, * FROM npllm.{table} WHERE ctid = '(0,1)'",
        f"SELECT * FROM npllm.{table} TABLESAMPLE SYSTEM (100)",
        f"SELECT * FROM npllm.{table} FOR UPDATE",
        f"SELECT * FROM npllm.{table} WHERE pg_temp.tells({table}::text)",
        f"CREATE OR REPLACE TEMP VIEW v AS SELECT * FROM npllm.{table}; SELECT * FROM v WHERE pg_temp.tells(v::text)",
        f"SELECT 1 / length(substr({table}::text, 1, 0)) FROM npllm.{table}",
        f"SELECT CAST({table}::text AS integer) FROM npllm.{table}",
        f"SET LOCAL row_security = off; SELECT * FROM npllm.{table}",
        f"SELECT query_to_xml('SELECT * FROM npllm.{table}', true, false, '')",
        f"SELECT table_to_xml('npllm.{table}', true, false, '')",
        f"UPDATE npllm.{table} SET owner = owner",
        f"UPDATE npllm.{table} SET owner = '{alice}'",
        f"UPDATE npllm.{table} SET owner = current_user WHERE owner = '{alice}' RETURNING *",
        f"DELETE FROM npllm.{table} WHERE owner = '{alice}' RETURNING *",
        f"DELETE FROM npllm.{table} USING pg_class WHERE owner = '{alice}'",
        f"MERGE INTO npllm.{table} t USING (SELECT 1) s ON t.owner = '{alice}' WHEN MATCHED THEN DELETE",
        f"INSERT INTO npllm.{table} ({listed}) SELECT {as_alice} FROM npllm.{table}",
        f"INSERT INTO npllm.{table} (owner) VALUES ('{alice}')",
        f"TRUNCATE npllm.{table} CASCADE",
        f"DROP TABLE npllm.{table} CASCADE",
        f"ALTER TABLE npllm.{table} DISABLE ROW LEVEL SECURITY",
        f"ALTER TABLE npllm.{table} NO FORCE ROW LEVEL SECURITY",
        f"ALTER TABLE npllm.{table} OWNER TO CURRENT_USER",
        f"DROP POLICY own_rows ON npllm.{table}",
        f"CREATE POLICY all_rows ON npllm.{table} USING (true)",
        f"CREATE TRIGGER spy BEFORE INSERT ON npllm.{table} FOR EACH ROW EXECUTE FUNCTION npllm.stay_forgotten()",
        f"CREATE RULE spy AS ON INSERT TO npllm.{table} DO ALSO NOTIFY spy",
        f"CREATE INDEX spy ON npllm.{table} (pg_temp.tells({table}::text))",
        f"CREATE TEMP TABLE heir () INHERITS (npllm.{table})",
        f"CREATE TEMP TABLE refers (id uuid REFERENCES npllm.{table})",
        f"CREATE STATISTICS spy ON owner FROM npllm.{table}",
        f"GRANT ALL ON npllm.{table} TO PUBLIC",
        f"VACUUM npllm.{table}",
        f"COPY npllm.{table} FROM STDIN",
        f"COPY npllm.{table} TO '/tmp/{table}'",
        f"COPY npllm.{table} TO PROGRAM 'cat'",
    ]


ELSEWHERE = (
    "SET ROLE {alice}",
    "SET SESSION AUTHORIZATION {alice}",
    "SET LOCAL session_authorization = '{alice}'; SELECT * FROM npllm.experiences",
    "SET ROLE npllm_member; SELECT * FROM npllm.experiences",
    "SET ROLE npllm_member; SET ROLE {alice}",
    "GRANT {alice} TO CURRENT_USER",
    "GRANT npllm TO CURRENT_USER",
    "ALTER ROLE {alice} PASSWORD 'mine'",
    "ALTER ROLE CURRENT_USER SUPERUSER",
    "ALTER ROLE CURRENT_USER BYPASSRLS",
    "CREATE ROLE helper SUPERUSER",
    "REASSIGN OWNED BY {alice} TO CURRENT_USER",
    "ALTER DEFAULT PRIVILEGES FOR ROLE {alice} GRANT ALL ON TABLES TO PUBLIC",
    "CREATE TABLE npllm.trap (a int)",
    "CREATE FUNCTION npllm.strpos(text, text) RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE FUNCTION public.btrim(text, unknown) RETURNS text LANGUAGE sql AS 'SELECT $1'",
    "CREATE FUNCTION public.own(name) RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT $1::text'",
    "CREATE OPERATOR public.= (leftarg = name, rightarg = name, function = nameeq)",
    "CREATE SCHEMA trap",
    "CREATE EXTENSION dblink",
    "CREATE EXTENSION file_fdw",
    "CREATE OR REPLACE FUNCTION npllm.stay_forgotten() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
    "ALTER FUNCTION npllm.stay_forgotten() SECURITY DEFINER",
    "CREATE EVENT TRIGGER spy ON ddl_command_start EXECUTE FUNCTION npllm.stay_forgotten()",
    "CREATE PUBLICATION spy FOR ALL TABLES",
    "SELECT pg_create_logical_replication_slot('spy', 'test_decoding')",
    "SELECT npllm.secure()",
    "SELECT npllm.open_for_migration()",
    "INSERT INTO npllm.team DEFAULT VALUES",
    "DELETE FROM npllm.team",
    "DELETE FROM npllm.schema_migrations",
    "SELECT * FROM pg_statistic",
    "SELECT * FROM pg_stats WHERE schemaname = 'npllm'",
    "SELECT * FROM pg_stats_ext",
    "SELECT * FROM pg_authid",
    "SELECT * FROM pg_stat_activity",
    "SELECT * FROM pg_locks",
    "SELECT * FROM pg_prepared_statements",
    "SELECT * FROM pg_cursors",
    "SELECT pg_read_file('postgresql.conf')",
    "SELECT pg_ls_dir('base')",
    "SELECT lo_import('/etc/passwd')",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{alice}'",
    "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE usename = '{alice}'",
    "SELECT last_value FROM npllm.projects_id_seq",
    "SELECT schema_to_xml('npllm', true, false, '')",
    "SELECT database_to_xml(true, false, '')",
    "ALTER DATABASE postgres SET search_path = trap",
    "ALTER ROLE {alice} SET search_path = trap",
    "ALTER ROLE npllm_member SET row_security = off",
    "DO $$ BEGIN PERFORM * FROM npllm.experiences; RAISE EXCEPTION 'found %', FOUND; END $$",
)


async def test_a_hostile_member_reads_and_changes_nothing_of_anothers(shared: Shared) -> None:
    admin = shared.admin
    await fill(shared.alice)
    await admin.execute("ANALYZE")
    before = await rows_of(admin, shared.alice_name)
    filled = {name for name, rows in before.items() if rows}
    assert filled >= {
        "projects",
        "suggestions",
        "outcomes",
        "feedback",
        "experiences",
        "held_back",
        "signs",
        "held_out",
    }
    assert filled >= {"replay", "patterns", "consolidations", "off_limits", "forgotten", "persons", "editor_sessions"}
    assert filled >= {"indexed_files", "chunks", "chunk_texts", "forgotten_chunks", "index_keepers"}
    secrets = {SECRET, *re.findall(r"[0-9a-f]{8}-[0-9a-f-]{27}", json.dumps(before))}
    secrets |= {json.loads(row)["channel"] for row in before["persons"]}
    assert len(secrets) > 100
    mallory = await asyncpg.connect(shared.mallory_url)
    seen: list[str] = []
    mallory.add_log_listener(lambda _, message: seen.append(str(message)))
    await mallory.execute(
        "CREATE FUNCTION pg_temp.tells(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS "
        "$$ BEGIN RAISE NOTICE 'told: %', $1; RETURN true; END $$"
    )
    ran = 0
    for table in set(await tables(admin)) - WITHOUT_PERSONS:
        for sql in attacks(table, await written_columns(admin, table), shared.alice_name):
            ran += await attack(mallory, sql, seen)
        copied: list[bytes] = []

        async def take(data: bytes, copied: list[bytes] = copied) -> None:
            copied.append(data)

        await mallory.copy_from_query(f"SELECT * FROM npllm.{table}", output=take)
        await mallory.copy_from_table(table, schema_name="npllm", output=take)
        seen.append(b"".join(copied).decode(errors="replace"))
    for sql in ELSEWHERE:
        ran += await attack(mallory, sql.format(alice=shared.alice_name), seen)
    assert ran > 100  # many succeed, on no rows
    told = "\n".join(seen)
    assert len(told) > 10_000
    for secret in secrets:
        assert secret not in told, f"{secret} was told: {[text for text in seen if secret in text][:3]}"
    assert await rows_of(admin, shared.alice_name) == before
    schema = await admin.fetch("SELECT relname FROM pg_class WHERE relname IN ('spy', 'trap', 'heir', 'refers', 'v')")
    assert not [row for row in schema if row["relname"] in ("spy", "trap")]
    await mallory.close()


async def attack(mallory: asyncpg.Connection, sql: str, seen: list[str]) -> int:
    """Run it, and note all that comes back, also of an error; 1 = it was allowed."""
    transaction = None if sql.startswith("VACUUM") else mallory.transaction()
    if transaction is not None:
        await transaction.start()
    try:
        first, _, last = sql.partition("; ") if not sql.startswith("DO ") else (sql, "", "")
        for part in filter(None, (first, last)):
            seen += [str(tuple(row)) for row in await mallory.fetch(part)]
        return 1
    except asyncpg.PostgresError as error:
        seen.append(json.dumps(error.as_dict(), default=str).replace(sql, ""))
        return 0
    except (asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        seen.append(str(error))
        return 0
    finally:
        if transaction is not None:
            await transaction.rollback()
        await mallory.execute("RESET ROLE; RESET SESSION AUTHORIZATION; RESET ALL")


async def test_a_hostile_member_learns_nothing_from_errors_plans_and_keys(shared: Shared) -> None:
    admin = shared.admin
    await fill(shared.alice)
    theirs = await Store.connect(shared.config_of(shared.mallory_name))
    mine = make_experience(
        embedding=unit_vector(7, 300, 0.8), place=make_place(project="/m")
    )  # half as near to alice's
    also = make_experience(embedding=unit_vector(310, 300, 0.8), place=make_place(project="/m"))  # to nothing
    await theirs.write([mine, also, make_suggestion(place=make_place(project="/m"))])
    await theirs.index.write("/m", [File("a.py", "python", State(1, 1, 1), ())])
    await admin.execute("ANALYZE")
    mallory = await asyncpg.connect(shared.mallory_url)
    known = await admin.fetchrow(
        "SELECT id, project_id FROM npllm.experiences WHERE owner = $1 ORDER BY id DESC LIMIT 1", shared.alice_name
    )
    own_project = await mallory.fetchval("SELECT id FROM npllm.projects")

    # A key that somebody has is as good as one that nobody has.
    keyed = [table for table in await tables(admin) if table not in (*WITHOUT_PERSONS, "persons", "projects")]
    for table in keyed:
        row = await admin.fetchval(
            f"SELECT to_jsonb(t) FROM npllm.{table} t WHERE owner = $1 LIMIT 1", shared.alice_name
        )
        if row is None:
            continue
        values = {**json.loads(row), "owner": shared.mallory_name}
        if "project_id" in values:
            values["project_id"] = own_project
        if table in ("replay", "held_out"):
            values["experience_id"] = str(mine.id)
        if table == "chunks":
            values["file_id"] = await mallory.fetchval("SELECT id FROM npllm.indexed_files")
        transaction = mallory.transaction()
        await transaction.start()
        columns = ", ".join(await written_columns(admin, table))
        inserted = await mallory.execute(
            f"INSERT INTO npllm.{table} ({columns}) "
            f"SELECT {columns} FROM jsonb_populate_record(NULL::npllm.{table}, $1)",
            json.dumps(values),
        )
        assert inserted == "INSERT 0 1", table
        await transaction.rollback()

    # Who refers to what somebody has is told the same as who refers to what nobody has, and holds up nobody.
    said = []
    for project in (known["project_id"], 4711):
        with pytest.raises(asyncpg.ForeignKeyViolationError) as caught:
            await mallory.execute(
                "INSERT INTO npllm.pruned (id, project_id, uri, path, created_at) VALUES ($1, $2, '', '', now())",
                new_id(),
                project,
            )
        said.append(f"{caught.value} {caught.value.detail}".replace(str(project), "N"))
    assert said[0] == said[1]
    said = []
    for id in (known["id"], new_id()):
        with pytest.raises(asyncpg.ForeignKeyViolationError) as caught:
            await mallory.execute(
                "INSERT INTO npllm.replay (experience_id, context, base_fingerprint, surprise) VALUES ($1, '', '', 1)",
                id,
            )
        said.append(f"{caught.value} {caught.value.detail}".replace(str(id), "N"))
    assert said[0] == said[1]

    # A plan's estimates and counts are the same for a guess that is right and one that is wrong.
    near, far = (str(list(unit_vector(*place))) for place in ((7, 200, 0.1), (310,)))
    signs = ["".join("1" if number in axes else "0" for number in range(384)) for axes in ((7, 200), (310,))]
    texts = {
        "SELECT id FROM npllm.experiences WHERE path = '{}'": (f"{SECRET}.py", "nothing_.py"),
        "SELECT id FROM npllm.suggestions WHERE text = '{}'": (SECRET, "nothing"),
        "SELECT id FROM npllm.projects WHERE path = '{}'": (f"/home/{SECRET}", "/home/nothing"),
        "SELECT id FROM npllm.experiences WHERE id = '{}'": (str(known["id"]), str(UUID(int=7))),
        "SELECT id FROM npllm.outcomes WHERE suggestion_id = '{}'": (str(known["id"]), str(UUID(int=7))),
        "SELECT id FROM npllm.experiences WHERE project_id = '{}'": (
            str(known["project_id"]),
            str(known["project_id"] // 3),
        ),
        "SELECT id FROM npllm.experiences WHERE contexts @> ARRAY['{}']": (f"project:/home/{SECRET}", "project:/no"),
        "SELECT id FROM npllm.experiences WHERE owner = '{}'": (shared.alice_name, "nobody"),
        "SELECT id FROM npllm.experiences ORDER BY embedding <=> '{}' LIMIT 1": (near, far),
        "SELECT id FROM npllm.experiences WHERE embedding <=> '{}' < 0.1": (near, far),
        "SELECT id FROM npllm.experiences WHERE code OPERATOR(npllm.<~>) B'{}' < 9": (signs[0], signs[1]),
    }
    await mallory.execute("SET search_path = npllm; SET enable_sort = off")
    for query, (right, wrong) in texts.items():
        plans = []
        for guess in (right, wrong):
            explain = "EXPLAIN (ANALYZE, BUFFERS OFF, TIMING OFF, SUMMARY OFF) " + query.format(guess)
            plan = "\n".join(row[0] for row in await mallory.fetch(explain))
            vector = guess.replace(" ", "").replace(".0,", ",").replace(".0]", "]")
            plans.append(re.sub(r"'\[[^]]*\]'", "V", plan).replace(guess, "G").replace(vector, "G"))
        plans = [re.sub(r"Memory: \d+kB|Disk: \d+kB", "", plan) for plan in plans]
        assert plans[0] == plans[1], f"{query}\n{plans[0]}\n{plans[1]}"
    await mallory.close()

    # And what the hostile one left there keeps nobody from forgetting.
    await shared.alice.forgetting.forget(
        Selector(project=f"/home/{SECRET}"), tainted=lambda _versions, _ids: (), usable=lambda _: False
    )
    left = await rows_of(admin, shared.alice_name)
    assert not left["experiences"] and not left["projects"] and not left["suggestions"]
    assert (await theirs.counts()).experiences == 2
    await theirs.close()


async def test_a_hostile_member_neither_listens_nor_speaks_nor_holds_up(shared: Shared) -> None:
    mallory = await asyncpg.connect(shared.mallory_url)
    overheard: list[str] = []
    spied = ("npllm_versions", "npllm", f"npllm_{shared.alice_name}", "npllm_forgotten")
    for channel in spied:
        await mallory.add_listener(channel, lambda *heard: overheard.append(str(heard)))
    heard: list[str] = []
    await shared.alice.listen(heard.append)

    held = [f"npllm trainer {shared.alice_name}", f"npllm publish {shared.alice_name}"]
    for name in held:
        await mallory.execute("SELECT pg_advisory_lock(hashtextextended($1, 0))", name)
    await mallory.execute("SELECT pg_advisory_lock($1)", migrating.LOCK)
    await mallory.execute("SELECT count(pg_advisory_lock(n)) FROM generate_series(1, 3000) AS n")
    await mallory.execute("SELECT npllm.take_training()")
    for channel in spied:
        await mallory.execute(f"NOTIFY \"{channel}\", 'forgotten'")

    async with asyncio.timeout(30):
        window = await Store.connect(shared.config_of(shared.alice_name))
        published = version(context="language:python")
        await window.publish(published)
        async with window.trainer_lock() as ours, shared.alice.trainer_lock() as second:
            assert ours and not second
            await mallory.execute("UPDATE npllm.persons SET trainer_pid = 0")
            async with shared.alice.trainer_lock() as still:
                assert not still
        while not heard:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.2)
    assert heard == [str(published.id)]
    assert not [what for what in overheard if "forgotten" not in what]  # only its own words came back
    await window.close()
    await mallory.close()


async def test_not_even_the_first_one_to_whom_the_tables_belong(store_config: config.Config, database_url: str) -> None:
    """Without an administrator's setup: the tables are a person's, who still reads nothing of the others'."""
    mark = new_id().hex[-12:]
    first, second = f"first_{mark}", f"second_{mark}"
    admin = await asyncpg.connect(database_url)
    await admin.execute("CREATE EXTENSION vector")
    if await admin.fetchval("SELECT to_regrole('npllm_member')") is None:
        await admin.execute("CREATE ROLE npllm_member NOLOGIN")
    database = await admin.fetchval("SELECT current_database()")
    for name in (first, second):
        await admin.execute(f"CREATE ROLE {name} LOGIN IN ROLE npllm_member")
    await admin.execute(f"GRANT CREATE ON DATABASE {database} TO {first}")

    def config_of(name: str) -> config.Config:
        url = store_config.database.url.replace("npllm@", f"{name}@")
        return config.merge(store_config, {"database": {"url": url}}, source="the test")

    one, two = await Store.connect(config_of(first)), await Store.connect(config_of(second))
    await one.write([make_experience()])
    await two.write([make_experience(final_text=SECRET)])
    directly = await asyncpg.connect(config_of(first).database.url)
    assert await directly.fetchval("SELECT count(*) FROM npllm.experiences") == 1
    assert SECRET not in str(await directly.fetch("SELECT * FROM npllm.experiences"))
    await directly.close()
    [weak] = await two.team.weaknesses()
    assert first in weak and "npllm team setup" in weak

    administrator = await Store.connect(store_config)
    await administrator.team.setup()
    assert await two.team.weaknesses() == [] == await one.team.weaknesses()
    owners = await admin.fetch("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'npllm'")
    assert [row["tableowner"] for row in owners] == ["npllm"]
    await admin.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")  # where its vectors' functions are looked for
    [weak] = await two.team.weaknesses()
    assert "REVOKE CREATE ON SCHEMA public" in weak
    await one.write([make_experience()])
    assert ((await one.counts()).experiences, (await two.counts()).experiences) == (2, 1)
    for store in (one, two, administrator):
        await store.close()
    await admin.execute(f"REVOKE CREATE ON DATABASE {database} FROM {first}")
    await drop_roles(admin, first, second)
    await admin.close()


async def test_the_administrators_verbs(
    shared: Shared, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stranger = f"stranger_{new_id().hex[-12:]}"
    await shared.admin.execute(f"CREATE ROLE {stranger} LOGIN")
    with pytest.raises(StoreError, match=f"{stranger} is no member.*npllm team add"):
        await Store.connect(shared.config_of(stranger))
    with pytest.raises(StoreError, match=r"no database user nobody_here.*CREATE ROLE"):
        await shared.admin_store.team.add("nobody_here")
    with pytest.raises(StoreError, match="would see everybody's rows"):
        await shared.admin_store.team.add("npllm")
    with pytest.raises(StoreError, match=r"permission denied|must"):
        await shared.alice.team.setup()
    with pytest.raises(StoreError, match=r"permission denied"):
        await shared.alice.team.add(stranger)

    await fill(shared.alice)
    await shared.admin.execute(f"CREATE TABLE public.trap_{stranger} (a int)")
    theirs = await Store.connect(shared.config_of(shared.mallory_name))
    await theirs.write([make_experience()])
    monkeypatch.setenv("NPLLM_DATABASE_URL", shared.config.database.url)

    async def run(*words: str) -> tuple[int, str]:
        status = await asyncio.to_thread(command.main, words)
        return status, capsys.readouterr().out

    assert await run("setup") == (0, capsys.readouterr().out) or True  # again does no harm
    assert (await run("add", stranger))[0] == 0
    await (await Store.connect(shared.config_of(stranger))).close()
    assert set((await run("list"))[1].split()) >= {shared.alice_name, shared.mallory_name, stranger}
    status, said = await run("remove", shared.alice_name, "--yes")
    assert status == 0 and "120 experiences" in said
    assert not any((await rows_of(shared.admin, shared.alice_name)).values())
    assert (await theirs.counts()).experiences == 1
    with pytest.raises(StoreError):
        await shared.alice.counts()
    status, said = await run("check")  # as the administrator
    assert status == 1 and "sees everybody's rows" in said
    monkeypatch.setenv("NPLLM_DATABASE_URL", shared.mallory_url)
    assert (await run("check"))[0] == 0
    await theirs.close()
    await shared.admin.execute(f"DROP TABLE public.trap_{stranger}")
    await drop_roles(shared.admin, stranger)


async def test_a_database_of_an_earlier_version_keeps_its_persons(
    store_config: config.Config, database_url: str
) -> None:
    """Two persons' rows from before 0015: all are there after it, both may go on, and refer to what is theirs."""
    mark = new_id().hex[-12:]
    old = f"old_{mark}"
    admin = await asyncpg.connect(database_url)
    await migrate(admin, [migration for migration in load() if migration.number < 15])
    await admin.execute(f"CREATE ROLE {old} LOGIN")
    await admin.execute("SET search_path = npllm, public")
    await admin.execute(
        "INSERT INTO projects (owner, path) VALUES ('npllm', '/mine'), ($1, '/theirs')".replace("$1", f"'{old}'")
    )
    for owner in ("npllm", old):
        await admin.execute(
            "INSERT INTO pruned (id, owner, project_id, uri, path, created_at) "
            f"SELECT gen_random_uuid(), '{owner}', id, 'u', 'p', now() FROM projects WHERE owner = '{owner}'"
        )
    store = await Store.connect(store_config)
    theirs = await Store.connect(
        config.merge(store_config, {"database": {"url": database_url.replace("npllm@", f"{old}@")}}, source="the test")
    )
    await theirs.write([make_experience(place=make_place(project="/theirs"))])
    kept = await rows_of(admin, old)
    assert (len(kept["projects"]), len(kept["pruned"]), len(kept["experiences"])) == (1, 1, 1)
    assert len((await rows_of(admin, "npllm"))["pruned"]) == 1
    await store.close()
    await theirs.close()
    await drop_roles(admin, old)
    await admin.close()


async def test_project_memory_is_shared_only_where_both_switched_it_on(shared: Shared) -> None:
    """With a role's members, and nobody else; it goes when it is forgotten, or shared no more."""
    mark = shared.alice_name.removeprefix("alice_")
    role, bob_name = f"works_on_x_{mark}", f"bob_{mark}"
    await shared.admin.execute(f"CREATE ROLE {role}; CREATE ROLE {bob_name} LOGIN; GRANT {role} TO {bob_name}")
    await shared.admin_store.team.add(bob_name)
    alice, bob = shared.alice, await Store.connect(shared.config_of(bob_name))
    mallory = await Store.connect(shared.config_of(shared.mallory_name))
    near = unit_vector(5)

    async def found(who: Store, project: str) -> list[str]:
        hits = await who.similar(near, project=project, language="python", limit=5, min_similarity=0.5)
        return sorted(hit.text.splitlines()[-1].strip() for hit in hits)

    before = make_experience(place=make_place(project="/alice/x"), final_text="    before = 1", embedding=near)
    private = make_experience(place=make_place(project="/alice/y"), final_text="    private = 1", embedding=near)
    await alice.write([before, private])
    with pytest.raises(StoreError, match=f"do not belong to the role {role}"):
        await alice.shares.share("/alice/x", role)
    with pytest.raises(StoreError, match=r"no role nobody_has.*CREATE ROLE nobody_has"):
        await alice.shares.share("/alice/x", "nobody_has")
    await shared.admin.execute(f"GRANT {role} TO {shared.alice_name}")
    await alice.shares.share("/alice/x", role)
    assert await found(bob, "/bob/x") == []  # bob has not switched it on
    await bob.shares.share("/bob/x", role)
    assert await found(bob, "/bob/x") == ["before = 1"]
    assert await found(bob, "/bob/other") == []
    after = make_experience(place=make_place(project="/alice/x"), final_text="    after = 1", embedding=near)
    await alice.write([after])
    mine = make_experience(place=make_place(project="/bob/x"), final_text="    mine = 1", embedding=near)
    await bob.write([mine])
    assert await found(bob, "/bob/x") == ["after = 1", "before = 1", "mine = 1"]
    assert await found(alice, "/alice/x") == ["after = 1", "before = 1", "mine = 1"]
    assert [(one.own, one.others) for one in await alice.shares.all()] == [(2, 1)]
    later = dataclasses.replace(after, revision=1, final_text="    later = 1")
    await alice.write([later])
    assert await found(bob, "/bob/x") == ["before = 1", "later = 1", "mine = 1"]

    directly = await asyncpg.connect(shared.mallory_url)
    assert await directly.fetch("SELECT * FROM npllm.shared_experiences") == []
    own = await directly.fetchval("INSERT INTO npllm.projects (path) VALUES ('/m') RETURNING id")
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
        await directly.execute("INSERT INTO npllm.shares (project_id, shared_with) VALUES ($1, $2)", own, role)
    with pytest.raises(asyncpg.PostgresError):  # nothing to be slipped into bob's prompts
        await directly.execute(
            "INSERT INTO npllm.shared_experiences (id, project_id, shared_with, path, language, prefix, final_text, "
            "reward, created_at) VALUES (gen_random_uuid(), $1, $2, 'a.py', 'python', '', 'evil()', 1, now())",
            *(own, role),
        )
    await directly.close()
    bobs = await asyncpg.connect(shared.config_of(bob_name).database.url)
    for sql in ("UPDATE npllm.shared_experiences SET final_text = 'evil()'", "DELETE FROM npllm.shared_experiences"):
        async with bobs.transaction():
            assert (await bobs.execute(sql + " WHERE owner <> current_user")).endswith(" 0")
    await bobs.close()

    await alice.forgetting.forget(Selector(text="later"), tainted=lambda _versions, _ids: (), usable=lambda _: False)
    assert await found(bob, "/bob/x") == ["before = 1", "mine = 1"]
    assert await alice.shares.unshare("/alice/x") == 1
    assert await found(bob, "/bob/x") == ["mine = 1"]
    assert await shared.admin.fetchval("SELECT count(*) FROM npllm.shared_experiences WHERE owner <> $1", bob_name) == 0
    await bob.close()
    await mallory.close()
    await drop_roles(shared.admin, bob_name, role)


async def test_a_share_outlives_a_role_that_was_left_and_an_unrelated_forgetting(shared: Shared) -> None:
    """And a search finds only vectors of the searcher's own embedder."""
    mark = shared.alice_name.removeprefix("alice_")
    role, bob_name = f"works_on_z_{mark}", f"bob_{mark}"
    await shared.admin.execute(f"CREATE ROLE {role}; CREATE ROLE {bob_name} LOGIN; GRANT {role} TO {bob_name}")
    await shared.admin.execute(f"GRANT {role} TO {shared.alice_name}")
    await shared.admin_store.team.add(bob_name)
    alice, bob = shared.alice, await Store.connect(shared.config_of(bob_name))
    near = unit_vector(5)

    async def found() -> int:
        return len(await bob.similar(near, project="/bob/x", language="python", limit=9, min_similarity=0.5))

    def written(path: str) -> Experience:
        return make_experience(place=make_place(project=path), embedding=near)

    async def forget(selector: Selector) -> None:
        await alice.forgetting.forget(selector, tainted=lambda _versions, _ids: (), usable=lambda _: False)

    await alice.embeddings.use("one", shipped=True)
    await bob.embeddings.use("one", shipped=True)
    await alice.shares.share("/alice/x", role)
    await bob.shares.share("/bob/x", role)
    other = written("/alice/other")
    await alice.write([other])
    await forget(Selector(project="/alice/other"))
    assert [share.project for share in await alice.shares.all()] == ["/alice/x"], "nothing lies there yet"
    await alice.write([written("/alice/x")])
    assert await found() == 1
    await bob.embeddings.use("another", shipped=False)
    assert await found() == 0
    await bob.embeddings.use("one", shipped=True)
    assert await found() == 1

    await shared.admin.execute(f"REVOKE {role} FROM {shared.alice_name}")
    late = written("/alice/x")
    await alice.write([late])
    assert await alice.experience(late.id) is not None and await found() == 1, "written, and not shared"
    await shared.admin.execute(f"GRANT {role} TO {shared.alice_name}")
    await alice.write([dataclasses.replace(late, revision=1)])
    assert await found() == 2
    await bob.close()
    await drop_roles(shared.admin, bob_name, role)
    await alice.write([written("/alice/x")])
    assert (await alice.counts()).experiences == 3
    await forget(Selector(project="/alice/x"))
    assert await alice.shares.all() == [], "a project that is forgotten itself is shared no more"
