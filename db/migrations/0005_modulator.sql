-- Contexts (an experience belongs to several), what the modulator decided at each suggestion, and its policies.

ALTER TABLE suggestions
    ADD COLUMN contexts text[] NOT NULL DEFAULT '{}',  -- the most specific first
    ADD COLUMN decision_id uuid,  -- one decision may serve many suggestions in a row
    ADD COLUMN policy_version uuid,  -- NULL where the rules decided
    ADD COLUMN families text[],  -- contexts that had an adapter to choose
    ADD COLUMN action real[],  -- how strongly each of them acted
    ADD COLUMN propensity float8,  -- the probability with which that action was chosen
    ADD COLUMN features real[];  -- what the policy saw
CREATE INDEX suggestions_decided ON suggestions (owner, base_fingerprint, created_at DESC) WHERE decision_id IS NOT NULL;

ALTER TABLE experiences ADD COLUMN contexts text[] NOT NULL DEFAULT '{}';
UPDATE experiences e SET contexts = (
    SELECT array_remove(ARRAY[CASE WHEN p.path <> '' THEN 'project:' || p.path END,
                              CASE WHEN e.context = 'generic' THEN 'language:plaintext' ELSE e.context END,
                              'generic'], NULL)
    FROM projects p WHERE p.id = e.project_id);
CREATE INDEX experiences_contexts ON experiences USING gin (contexts);

CREATE TABLE policy_versions (
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
CREATE UNIQUE INDEX policy_versions_one_published
    ON policy_versions (owner, base_fingerprint) WHERE state = 'published';
ALTER TABLE policy_versions ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON policy_versions USING (owner = current_user) WITH CHECK (owner = current_user);
GRANT SELECT, INSERT, UPDATE, DELETE ON policy_versions TO PUBLIC;
