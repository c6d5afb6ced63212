-- Pacing: the estimated chance of each suggestion, and what was held back by it. Rows and rights as in 0001.

ALTER TABLE suggestions
    ADD COLUMN chance float8,  -- estimated before it was shown; NULL where nothing was estimated
    ADD COLUMN audited boolean NOT NULL DEFAULT false;  -- shown although the chance was too small, to see whether that is so

-- No text: what nobody saw cannot be learned from. The place says what it belongs to, so that it can be forgotten.
CREATE TABLE held_back (
    suggestion_id uuid        PRIMARY KEY,  -- of a suggestion that was made and not shown
    owner         name        NOT NULL DEFAULT current_user,
    project_id    bigint      NOT NULL REFERENCES projects (id),
    uri           text        NOT NULL,
    path          text        NOT NULL,
    language      text        NOT NULL,
    cursor_offset integer     NOT NULL,
    chance        float8      NOT NULL,
    threshold     float8      NOT NULL,
    size          integer     NOT NULL,  -- characters, white space aside
    mean_logprob  float8      NOT NULL,
    source        text        NOT NULL,
    created_at    timestamptz NOT NULL
);
CREATE INDEX held_back_newest ON held_back (owner, created_at DESC);
ALTER TABLE held_back ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON held_back USING (owner = current_user) WITH CHECK (owner = current_user);
GRANT SELECT, INSERT, UPDATE, DELETE ON held_back TO PUBLIC;
CREATE TRIGGER stay_forgotten BEFORE INSERT ON held_back FOR EACH ROW EXECUTE FUNCTION stay_forgotten();
