-- What was pruned because there was too much: where it lay, so that forgetting a path or a project still finds the versions
-- that had learned from it. No text. Rows and rights as in 0001.

CREATE TABLE pruned (
    id         uuid        PRIMARY KEY,  -- the suggestion's
    owner      name        NOT NULL DEFAULT current_user,
    project_id bigint      NOT NULL REFERENCES projects (id),
    uri        text        NOT NULL,
    path       text        NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE INDEX pruned_of_project ON pruned (project_id);
ALTER TABLE pruned ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON pruned USING (owner = current_user) WITH CHECK (owner = current_user);
GRANT SELECT, INSERT, UPDATE, DELETE ON pruned TO PUBLIC;
