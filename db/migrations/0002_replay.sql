-- What sleeping learns about experiences: how surprising each was, and which are kept apart for good to judge by.
-- Runs with search_path = npllm, public. Both are written by sleep alone, about experiences that are there, and go with
-- them: forgetting an experience forgets this, too. Not columns of `experiences`: a row there carries an embedding, and
-- its HNSW index would grow with every update.

CREATE TABLE replay (
    experience_id    uuid        NOT NULL REFERENCES experiences (id) ON DELETE CASCADE,
    context          text        NOT NULL,
    base_fingerprint text        NOT NULL,
    owner            name        NOT NULL DEFAULT current_user,
    surprise         float8      NOT NULL,  -- nats per UTF-8 byte of the final text, under the version then in use
    measured_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (experience_id, context, base_fingerprint)
);

CREATE TABLE held_out (
    experience_id uuid        NOT NULL REFERENCES experiences (id) ON DELETE CASCADE,
    context       text        NOT NULL,
    owner         name        NOT NULL DEFAULT current_user,
    version_id    uuid        NOT NULL,  -- the adapter version that was judged by it first
    held_at       timestamptz NOT NULL,
    PRIMARY KEY (experience_id, context)
);
CREATE INDEX held_out_newest ON held_out (owner, context, held_at DESC);

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['replay', 'held_out'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY own_rows ON %I USING (owner = current_user) WITH CHECK (owner = current_user)',
                       name);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO PUBLIC', name);
    END LOOP;
END
$$;
