-- Gains of neuromodulated attention: one line of versions for each base. Rows and rights as in 0001.

CREATE TABLE attention_versions (
    id               uuid        PRIMARY KEY,
    owner            name        NOT NULL DEFAULT current_user,
    base_fingerprint text        NOT NULL,
    parent           uuid,
    consolidation_id uuid        NOT NULL,
    folder           text        NOT NULL,
    sha256           text        NOT NULL,
    state            text        NOT NULL,
    reason           text        NOT NULL,
    metrics          jsonb       NOT NULL,
    created_at       timestamptz NOT NULL
);
CREATE UNIQUE INDEX attention_versions_one_published
    ON attention_versions (owner, base_fingerprint) WHERE state = 'published';

ALTER TABLE attention_versions ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON attention_versions USING (owner = current_user) WITH CHECK (owner = current_user);
GRANT SELECT, INSERT, UPDATE, DELETE ON attention_versions TO PUBLIC;
