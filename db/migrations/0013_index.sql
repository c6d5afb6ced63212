-- The index of projects' code. Rows and rights as in 0001.
--
-- What a chunk says lies once, by its hash, with its terms and its embedding, however many files hold it and however
-- often a branch comes back; where it lies is apart. Texts that no file holds any more are kept for a while, so that
-- nothing is embedded twice; a forgetting deletes all of them.

CREATE TABLE indexed_files (
    id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    owner      name        NOT NULL DEFAULT current_user,
    project_id bigint      NOT NULL REFERENCES projects (id),
    path       text        NOT NULL,  -- relative to the project's folder
    language   text        NOT NULL,
    mtime_ns   bigint      NOT NULL,  -- of the file, as it was read
    size       bigint      NOT NULL,
    made_by    integer     NOT NULL,  -- which way of reading and cutting
    read_at    timestamptz NOT NULL DEFAULT now(),
    UNIQUE (project_id, path)
);

CREATE TABLE chunk_texts (
    owner     name          NOT NULL DEFAULT current_user,
    hash      bytea         NOT NULL,
    content   text          NOT NULL,  -- without secrets
    terms     bytea         NOT NULL,  -- see server/npllm/memory/index/terms.py
    embedding halfvec(384),
    used_at   timestamptz   NOT NULL DEFAULT now(),
    PRIMARY KEY (owner, hash)
);
CREATE INDEX chunk_texts_nearest ON chunk_texts USING hnsw (embedding halfvec_cosine_ops);
CREATE INDEX chunk_texts_bare ON chunk_texts (owner) WHERE embedding IS NULL;

CREATE TABLE chunks (
    file_id  bigint  NOT NULL REFERENCES indexed_files (id) ON DELETE CASCADE,
    position integer NOT NULL,  -- among the file's chunks, from 0
    owner    name    NOT NULL DEFAULT current_user,
    hash     bytea   NOT NULL,
    line     integer NOT NULL,  -- its first one, from 0
    symbol   text    NOT NULL,
    PRIMARY KEY (file_id, position)
);
CREATE INDEX chunks_by_hash ON chunks (owner, hash);

-- Chunks that were forgotten by their text or their time: as they are, they do not come back from a file that still holds
-- them.
CREATE TABLE forgotten_chunks (
    owner name  NOT NULL DEFAULT current_user,
    hash  bytea NOT NULL,
    PRIMARY KEY (owner, hash)
);

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['indexed_files', 'chunk_texts', 'chunks', 'forgotten_chunks'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY own_rows ON %I USING (owner = current_user) WITH CHECK (owner = current_user)',
                       name);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO PUBLIC', name);
    END LOOP;
END
$$;
