-- Project memory that a person lets others use, and uses of theirs: only where both have switched it on.
--
-- What is shared are copies, made here: what a person ended up with in a project that they share, with the lines above it;
-- no suggestion, no feedback. They go with the experience (forgotten, pruned) and with the share. With whom is a role of
-- the server: its administrator says who belongs to it, so nobody can let themselves in. Rights as in 0015.

CREATE TABLE shares (
    owner       name        NOT NULL DEFAULT current_user,
    project_id  bigint      NOT NULL,
    shared_with name        NOT NULL,  -- a role; its members
    since       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (project_id, owner, shared_with),
    FOREIGN KEY (project_id, owner) REFERENCES projects (id, owner) ON DELETE CASCADE
);
CREATE INDEX shares_of_person ON shares (owner);

-- No index by role or language: a plan's counts would tell those who do not belong to it how much there is.
CREATE TABLE shared_experiences (
    id          uuid        NOT NULL,  -- the experience's
    owner       name        NOT NULL DEFAULT current_user,
    project_id  bigint      NOT NULL,
    shared_with name        NOT NULL,
    path        text        NOT NULL,  -- relative to the project's folder
    language    text        NOT NULL,
    prefix      text        NOT NULL,  -- the end of it
    final_text  text        NOT NULL,
    reward      float8      NOT NULL,
    created_at  timestamptz NOT NULL,
    embedding   halfvec(384),
    PRIMARY KEY (id, owner, shared_with),
    FOREIGN KEY (id, owner) REFERENCES experiences (id, owner) ON DELETE CASCADE,
    FOREIGN KEY (project_id, owner, shared_with) REFERENCES shares (project_id, owner, shared_with) ON DELETE CASCADE
);
CREATE INDEX shared_experiences_of_share ON shared_experiences (project_id, owner, shared_with);

CREATE POLICY own_rows ON shares USING (owner = current_user) WITH CHECK (
    owner = current_user
    AND shared_with IN (SELECT r.rolname FROM pg_catalog.pg_roles r WHERE pg_catalog.pg_has_role(r.oid, 'MEMBER')));
CREATE POLICY own_rows ON shared_experiences USING (owner = current_user) WITH CHECK (
    owner = current_user
    AND shared_with IN (SELECT r.rolname FROM pg_catalog.pg_roles r WHERE pg_catalog.pg_has_role(r.oid, 'MEMBER')));
-- Whoever belongs to the role may read; to write is each one's own.
CREATE POLICY shared_rows ON shared_experiences FOR SELECT USING (
    shared_with IN (SELECT r.rolname FROM pg_catalog.pg_roles r WHERE pg_catalog.pg_has_role(r.oid, 'MEMBER')));
GRANT SELECT, INSERT, UPDATE, DELETE ON shares, shared_experiences TO PUBLIC;

CREATE FUNCTION share_experience() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT 1 FROM npllm.shares s WHERE s.owner = NEW.owner) THEN
        RETURN NULL;
    END IF;
    DELETE FROM npllm.shared_experiences x WHERE x.id = NEW.id AND x.owner = NEW.owner;
    INSERT INTO npllm.shared_experiences
        (id, owner, project_id, shared_with, path, language, prefix, final_text, reward, created_at, embedding)
    SELECT NEW.id, NEW.owner, NEW.project_id, s.shared_with, NEW.path, NEW.language, right(NEW.prefix, 1000),
        NEW.final_text, NEW.reward, NEW.created_at, NEW.embedding
    FROM npllm.shares s
    WHERE s.owner = NEW.owner AND s.project_id = NEW.project_id AND btrim(NEW.final_text, E' \t\r\n') <> ''
      AND (NEW.decision IN ('keep', 'low') OR btrim(NEW.final_text) <> btrim(NEW.suggested));
    RETURN NULL;
END
$$;
CREATE TRIGGER share_experience AFTER INSERT OR UPDATE ON experiences
    FOR EACH ROW EXECUTE FUNCTION share_experience();
