-- What is read from an editor's events, finer than an outcome's kind; and signs of frustration in what a person does.
-- Rows and rights as in 0001.

ALTER TABLE outcomes
    ADD COLUMN occasion text NOT NULL DEFAULT '',  -- what made us look: a time ("30 s"), "save", "commit", "close"; '' = the change
    ADD COLUMN detail   text NOT NULL DEFAULT '';  -- how it came about, e.g. "undone", "typed out", "moved away"

-- Apart from feedback: that is what the person said. No text.
CREATE TABLE signs (
    id            uuid        PRIMARY KEY,
    owner         name        NOT NULL DEFAULT current_user,
    suggestion_id uuid        NOT NULL,  -- the last one that was seen there; where there was none, the sign's own id
    kind          text        NOT NULL,
    strength      float8      NOT NULL,  -- (0, 1]
    project_id    bigint      NOT NULL REFERENCES projects (id),
    uri           text        NOT NULL,
    path          text        NOT NULL,
    language      text        NOT NULL,
    cursor_offset integer     NOT NULL,
    created_at    timestamptz NOT NULL
);
CREATE INDEX signs_newest ON signs (owner, created_at DESC);
CREATE INDEX signs_of_suggestion ON signs (suggestion_id);
ALTER TABLE signs ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON signs USING (owner = current_user) WITH CHECK (owner = current_user);
GRANT SELECT, INSERT, UPDATE, DELETE ON signs TO PUBLIC;
CREATE TRIGGER stay_forgotten BEFORE INSERT ON signs FOR EACH ROW EXECUTE FUNCTION stay_forgotten();
