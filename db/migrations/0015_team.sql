-- A database that a team shares: what one person can learn about another by any means that SQL has.
--
-- The contract of every table with an `owner`, checked by tests/integration/test_team.py:
-- - row level security is enabled and *forced* (also for the tables' owner), with the policy own_rows of 0001;
-- - primary keys, unique indexes and foreign keys hold the owner: otherwise a refused insert tells that somebody else has
--   that key, and a row that refers to another person's keeps them from deleting it;
-- - numbers that are given out are random: a counter tells how busy the others are.
-- Rights belong to the role npllm_member, where it could be made; `secure()` below sees to that for later tables, too.

DO $$
DECLARE
    found record;
    again text[] := '{}';
    command text;
BEGIN
    FOR found IN
        SELECT a.attrelid::regclass AS tab, a.attname AS name FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        WHERE c.relnamespace = 'npllm'::regnamespace AND a.attidentity <> '' LOOP
        EXECUTE format('ALTER TABLE %s ALTER COLUMN %I DROP IDENTITY, '
                       'ALTER COLUMN %I SET DEFAULT hashtextextended(CAST(gen_random_uuid() AS text), 0)',
                       found.tab, found.name, found.name);
    END LOOP;
    -- Foreign keys first: they rest on the primary keys.
    FOR found IN
        SELECT k.conname, k.conrelid::regclass AS tab, k.confrelid::regclass AS target,
            CASE k.confdeltype WHEN 'c' THEN ' ON DELETE CASCADE' ELSE '' END AS action,
            (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY c.position)
             FROM unnest(k.conkey) WITH ORDINALITY AS c (number, position)
             JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = c.number) AS columns,
            (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY c.position)
             FROM unnest(k.confkey) WITH ORDINALITY AS c (number, position)
             JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = c.number) AS targets
        FROM pg_constraint k
        JOIN pg_attribute o ON o.attrelid = k.conrelid AND o.attname = 'owner'
        JOIN pg_attribute t ON t.attrelid = k.confrelid AND t.attname = 'owner'
        WHERE k.contype = 'f' AND k.connamespace = 'npllm'::regnamespace AND NOT (o.attnum = ANY (k.conkey)) LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', found.tab, found.conname);
        again := again || format('ALTER TABLE %s ADD FOREIGN KEY (%s, owner) REFERENCES %s (%s, owner)%s',
                                 found.tab, found.columns, found.target, found.targets, found.action);
    END LOOP;
    FOR found IN
        SELECT k.conname, k.conrelid::regclass AS tab,
            CASE k.contype WHEN 'p' THEN 'PRIMARY KEY' ELSE 'UNIQUE' END AS kind,
            (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY c.position)
             FROM unnest(k.conkey) WITH ORDINALITY AS c (number, position)
             JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = c.number) AS columns
        FROM pg_constraint k JOIN pg_attribute o ON o.attrelid = k.conrelid AND o.attname = 'owner'
        WHERE k.contype IN ('p', 'u') AND k.connamespace = 'npllm'::regnamespace AND NOT (o.attnum = ANY (k.conkey)) LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I, ADD %s (%s, owner)',
                       found.tab, found.conname, found.kind, found.columns);
    END LOOP;
    FOREACH command IN ARRAY again LOOP
        EXECUTE command;
    END LOOP;
END
$$;

-- Lookups by what another person may know end at the owner within the index, not in a filter behind it.
DROP INDEX outcomes_of_suggestion, feedback_of_suggestion, signs_of_suggestion, pruned_of_project, experiences_of_project;
CREATE INDEX outcomes_of_suggestion ON outcomes (suggestion_id, owner, revision DESC);
CREATE INDEX feedback_of_suggestion ON feedback (suggestion_id, owner);
CREATE INDEX signs_of_suggestion ON signs (suggestion_id, owner);
CREATE INDEX pruned_of_project ON pruned (project_id, owner);
CREATE INDEX experiences_of_project ON experiences (project_id, owner, language);

-- One row for each person: where their announcements go, and who trains for them. Not advisory locks and no common
-- channel: anybody can take those, and listen.
CREATE TABLE persons (
    owner         name        PRIMARY KEY DEFAULT current_user,
    channel       text        NOT NULL DEFAULT 'npllm_' || replace(CAST(gen_random_uuid() AS text), '-', ''),
    trainer_pid   integer,      -- the backend whose connection is training,
    trainer_start timestamptz   -- since when it runs: numbers of processes come again
);
CREATE POLICY own_rows ON persons USING (owner = current_user) WITH CHECK (owner = current_user);
GRANT SELECT, INSERT, UPDATE, DELETE ON persons TO PUBLIC;

-- Whether this connection is the one that may train for its user: from now on until it ends, however it ends.
CREATE FUNCTION take_training() RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO npllm.persons DEFAULT VALUES ON CONFLICT DO NOTHING;
    PERFORM 1 FROM npllm.persons WHERE owner = current_user FOR UPDATE;
    PERFORM pg_stat_clear_snapshot();  -- who is connected *now*, with the row locked
    UPDATE npllm.persons p
    SET trainer_pid = pg_backend_pid(),
        trainer_start = (SELECT a.backend_start FROM pg_stat_activity a WHERE a.pid = pg_backend_pid())
    WHERE p.owner = current_user AND NOT EXISTS (
        SELECT 1 FROM pg_stat_activity a WHERE a.pid = p.trainer_pid AND a.backend_start = p.trainer_start);
    RETURN FOUND;
END
$$;

-- Whether an administrator has set this database up for a team (`npllm team setup`). One row at most.
CREATE TABLE team (one boolean PRIMARY KEY DEFAULT true CHECK (one), since timestamptz NOT NULL DEFAULT now());
GRANT SELECT ON team TO PUBLIC;

-- Whoever has rows here already stays a member.
DO $$
DECLARE
    found record;
BEGIN
    IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'npllm_member') THEN
        BEGIN
            CREATE ROLE npllm_member NOLOGIN;
        EXCEPTION WHEN insufficient_privilege OR duplicate_object OR unique_violation THEN
            NULL;  -- no right to, or another database of this server was quicker
        END;
    END IF;
    FOR found IN
        SELECT r.rolname FROM pg_roles r
        WHERE r.rolcanlogin AND NOT r.rolsuper AND r.rolname IN (SELECT owner FROM projects UNION SELECT owner FROM
            consolidations) LOOP
        BEGIN
            EXECUTE format('GRANT npllm_member TO %I', found.rolname);
        EXCEPTION WHEN insufficient_privilege OR undefined_object THEN
            NULL;
        END;
    END LOOP;
END
$$;

-- Bring every table under the contract's first point, and rights from everybody to the members. After each migration.
-- For a team, also: no vector index over everybody's rows (a plan's counts tell how many of the others' vectors lie
-- nearer than one's own), and no statistics (a plan's estimates tell whether a guess is frequent).
CREATE FUNCTION secure() RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found record;
    members boolean := EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'npllm_member');
    for_a_team boolean := EXISTS (SELECT 1 FROM npllm.team);
BEGIN
    FOR found IN
        SELECT c.oid::regclass AS tab, c.relrowsecurity AND c.relforcerowsecurity AS forced
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'owner' AND NOT a.attisdropped
        WHERE c.relnamespace = 'npllm'::regnamespace AND c.relkind IN ('r', 'p') LOOP
        IF NOT found.forced THEN
            EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', found.tab);
        END IF;
        IF members THEN
            EXECUTE format('REVOKE ALL ON %s FROM PUBLIC', found.tab);
            EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO npllm_member', found.tab);
        END IF;
    END LOOP;
    IF members THEN
        REVOKE ALL ON npllm.team, npllm.schema_migrations FROM PUBLIC;
        GRANT SELECT ON npllm.team, npllm.schema_migrations TO npllm_member;
        REVOKE ALL ON SCHEMA npllm FROM PUBLIC;
        GRANT USAGE ON SCHEMA npllm TO npllm_member;
    END IF;
    IF for_a_team THEN
        FOR found IN
            SELECT c.oid::regclass AS index FROM pg_class c JOIN pg_am m ON m.oid = c.relam
            WHERE c.relnamespace = 'npllm'::regnamespace AND c.relkind = 'i' AND m.amname IN ('hnsw', 'ivfflat') LOOP
            EXECUTE format('DROP INDEX %s', found.index);
        END LOOP;
        FOR found IN
            SELECT c.oid::regclass AS tab, a.attname AS name
            FROM pg_class c
            JOIN pg_attribute o ON o.attrelid = c.oid AND o.attname = 'owner' AND NOT o.attisdropped
            JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
            WHERE c.relnamespace = 'npllm'::regnamespace AND c.relkind IN ('r', 'p')
              AND a.attstattarget IS DISTINCT FROM 0 LOOP
            EXECUTE format('ALTER TABLE %s ALTER COLUMN %I SET STATISTICS 0', found.tab, found.name);
        END LOOP;
    END IF;
END
$$;

-- The tables' owner sees all rows again, so that a later migration can change them; in its transaction alone.
CREATE FUNCTION open_for_migration() RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found record;
BEGIN
    FOR found IN SELECT c.oid::regclass AS tab FROM pg_class c
        WHERE c.relnamespace = 'npllm'::regnamespace AND c.relforcerowsecurity LOOP
        EXECUTE format('ALTER TABLE %s NO FORCE ROW LEVEL SECURITY', found.tab);
    END LOOP;
END
$$;
REVOKE ALL ON FUNCTION secure(), open_for_migration() FROM PUBLIC;
