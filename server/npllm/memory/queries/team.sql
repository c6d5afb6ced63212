-- name: me^
-- Who this connection is, and what that user may do.
SELECT current_user::text AS name, r.rolsuper AS is_superuser, r.rolsuper OR r.rolbypassrls AS sees_all,
    coalesce((SELECT s.ssl FROM pg_stat_ssl s WHERE s.pid = pg_backend_pid()), false) AS encrypted,
    coalesce(host(inet_server_addr()), '') AS address,
    EXISTS (SELECT 1 FROM team) AS for_a_team
FROM pg_roles r WHERE r.rolname = current_user;

-- name: tables_owner$
-- The database user to whom npllm's tables belong, if that is another one who can log in.
SELECT r.rolname::text FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner
WHERE c.oid = 'npllm.projects'::regclass AND r.rolname <> current_user AND r.rolcanlogin AND NOT r.rolsuper;

-- name: unguarded
-- Tables with rows of persons where nothing keeps these apart.
SELECT c.relname::text AS name FROM pg_class c
WHERE c.relnamespace = 'npllm'::regnamespace AND c.relkind IN ('r', 'p')
  AND EXISTS (SELECT 1 FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'owner' AND NOT a.attisdropped)
  AND NOT (c.relrowsecurity AND c.relforcerowsecurity)
ORDER BY 1;

-- name: open_schemas
-- Schemas that are searched for names, and in which everybody may make things that others would use unawares.
SELECT n.nspname::text AS name FROM pg_namespace n
WHERE n.nspname = ANY (current_schemas(false))
  AND EXISTS (SELECT 1 FROM aclexplode(n.nspacl) a WHERE a.grantee = 0 AND a.privilege_type = 'CREATE');

-- name: members
-- Who may keep rows here.
SELECT r.rolname::text AS name FROM pg_roles r
JOIN pg_auth_members m ON m.member = r.oid JOIN pg_roles g ON g.oid = m.roleid
WHERE g.rolname = 'npllm_member' ORDER BY 1;

-- name: role^
SELECT r.rolsuper OR r.rolbypassrls AS sees_all, r.rolcanlogin AS can_login FROM pg_roles r WHERE r.rolname = :name;

-- name: open_for_a_team!
INSERT INTO team DEFAULT VALUES ON CONFLICT DO NOTHING;

-- name: foreign_things
-- What of the schema belongs to somebody else than the present user, as ALTER commands name it.
SELECT 'SCHEMA npllm' AS what FROM pg_namespace WHERE nspname = 'npllm' AND nspowner <> current_user::regrole
UNION ALL
SELECT 'TABLE ' || c.oid::regclass FROM pg_class c
WHERE c.relnamespace = 'npllm'::regnamespace AND c.relkind IN ('r', 'p') AND c.relowner <> current_user::regrole
UNION ALL
SELECT 'FUNCTION ' || p.oid::regprocedure FROM pg_proc p
WHERE p.pronamespace = 'npllm'::regnamespace AND p.proowner <> current_user::regrole
  AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e');

-- name: owned_tables
-- Tables with rows of persons; those that others refer to come last.
SELECT c.oid::regclass::text AS name FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'owner' AND NOT a.attisdropped
WHERE c.relnamespace = 'npllm'::regnamespace AND c.relkind IN ('r', 'p')
ORDER BY (SELECT count(*) FROM pg_constraint k WHERE k.confrelid = c.oid), 1;
