-- Which connection keeps the index of a project, by a number that only this person can make of its path.
CREATE TABLE index_keepers (
    owner   name        NOT NULL DEFAULT current_user,
    project bigint      NOT NULL,
    pid     integer,
    started timestamptz,
    PRIMARY KEY (owner, project)
);

-- Whether this connection is the one that keeps a project's index for its user, from now on until it ends.
CREATE FUNCTION keep_index(path text) RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    number bigint;
BEGIN
    INSERT INTO npllm.persons DEFAULT VALUES ON CONFLICT DO NOTHING;
    SELECT hashtextextended(p.channel || path, 0) INTO number FROM npllm.persons p WHERE p.owner = current_user;
    INSERT INTO npllm.index_keepers (project) VALUES (number) ON CONFLICT DO NOTHING;
    PERFORM 1 FROM npllm.index_keepers WHERE owner = current_user AND project = number FOR UPDATE;
    PERFORM pg_stat_clear_snapshot();  -- who is connected *now*, with the row locked
    UPDATE npllm.index_keepers k
    SET pid = pg_backend_pid(),
        started = (SELECT a.backend_start FROM pg_stat_activity a WHERE a.pid = pg_backend_pid())
    WHERE k.owner = current_user AND k.project = number AND (k.pid = pg_backend_pid() OR NOT EXISTS (
        SELECT 1 FROM pg_stat_activity a WHERE a.pid = k.pid AND a.backend_start = k.started));
    RETURN FOUND;
END
$$;

CREATE POLICY own_rows ON index_keepers USING (owner = current_user) WITH CHECK (owner = current_user);
GRANT SELECT, INSERT, UPDATE, DELETE ON index_keepers TO PUBLIC;
