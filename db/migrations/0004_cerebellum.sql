-- The cerebellum's versions, and the patterns that the one in use knows. Runs with search_path = npllm, public.
--
-- A version belongs to the model that it grew from (`origin`), not to a base: another base leaves it alone.
-- Patterns are derived from experiences and the project's files, and made anew with every published version: all of
-- them may be deleted at any time.

CREATE TABLE cerebellum_versions (
    id               uuid        PRIMARY KEY,
    owner            name        NOT NULL DEFAULT current_user,
    origin           text        NOT NULL,  -- fingerprint of the weights that the first version began with
    parent           uuid,
    consolidation_id uuid        NOT NULL,
    folder           text        NOT NULL,
    sha256           text        NOT NULL,
    state            text        NOT NULL,
    reason           text        NOT NULL,
    metrics          jsonb       NOT NULL,
    created_at       timestamptz NOT NULL
);
CREATE UNIQUE INDEX cerebellum_versions_one_published ON cerebellum_versions (owner, origin) WHERE state = 'published';

CREATE TABLE patterns (
    owner      name        NOT NULL DEFAULT current_user,
    language   text        NOT NULL,
    hash       text        NOT NULL,  -- hex sha256 of the text with white space folded
    text       text        NOT NULL,
    count      integer     NOT NULL,  -- how often the person wrote it, and the project has it
    last_seen  timestamptz NOT NULL,
    version_id uuid        NOT NULL,  -- the cerebellum version that knows it
    PRIMARY KEY (owner, language, hash)
);

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['cerebellum_versions', 'patterns'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY own_rows ON %I USING (owner = current_user) WITH CHECK (owner = current_user)',
                       name);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO PUBLIC', name);
    END LOOP;
END
$$;
