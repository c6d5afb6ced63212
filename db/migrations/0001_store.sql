-- The store's first tables. Runs with search_path = npllm, public (see server/npllm/memory/migrate.py).
--
-- Every table has an owner, the database user: a team can share a database, and each sees only their own rows.
-- Ids are UUIDv7 made by the writer, so that writing twice is writing once. There are no foreign keys between
-- suggestions, outcomes, feedback and experiences: they arrive from a journal, and a damaged line of it must
-- not hold up what refers to it.

CREATE EXTENSION IF NOT EXISTS vector;

CREATE TABLE projects (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    owner       name        NOT NULL DEFAULT current_user,
    path        text        NOT NULL,  -- absolute path of the workspace folder, '' where there is none
    first_seen  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (owner, path)
);

CREATE TABLE suggestions (
    id               uuid        PRIMARY KEY,
    owner            name        NOT NULL DEFAULT current_user,
    project_id       bigint      NOT NULL REFERENCES projects (id),
    uri              text        NOT NULL,
    path             text        NOT NULL,
    language         text        NOT NULL,
    cursor_offset    integer     NOT NULL,  -- code points from the start of the document
    text             text        NOT NULL,
    prefix           text        NOT NULL,
    suffix           text        NOT NULL,
    context          text        NOT NULL,
    base_fingerprint text        NOT NULL,
    adapter_versions uuid[]      NOT NULL,
    memory_ids       uuid[]      NOT NULL,
    mean_logprob     float8      NOT NULL,  -- nats per token
    latency_ms       float8      NOT NULL,
    created_at       timestamptz NOT NULL,
    source           text        NOT NULL,
    kind             text        NOT NULL
);
CREATE INDEX suggestions_newest ON suggestions (owner, created_at DESC);

CREATE TABLE outcomes (
    id            uuid        PRIMARY KEY,
    owner         name        NOT NULL DEFAULT current_user,
    suggestion_id uuid        NOT NULL,
    revision      integer     NOT NULL,
    kind          text        NOT NULL,
    suggested     text        NOT NULL,
    final_text    text        NOT NULL,
    survival      float8      NOT NULL,
    implicit      float8      NOT NULL,
    created_at    timestamptz NOT NULL,
    final         boolean     NOT NULL
);
CREATE INDEX outcomes_of_suggestion ON outcomes (suggestion_id, revision DESC);

CREATE TABLE feedback (
    id            uuid        PRIMARY KEY,
    owner         name        NOT NULL DEFAULT current_user,
    suggestion_id uuid        NOT NULL,
    emoji         text        NOT NULL,
    comment       text        NOT NULL,
    satisfaction  float8      NOT NULL,
    confidence    float8      NOT NULL,
    frustration   float8      NOT NULL,
    reward        float8      NOT NULL,
    created_at    timestamptz NOT NULL
);
CREATE INDEX feedback_of_suggestion ON feedback (suggestion_id);

CREATE TABLE experiences (
    id            uuid         PRIMARY KEY,  -- the suggestion's
    owner         name         NOT NULL DEFAULT current_user,
    project_id    bigint       NOT NULL REFERENCES projects (id),
    uri           text         NOT NULL,
    path          text         NOT NULL,
    language      text         NOT NULL,
    cursor_offset integer      NOT NULL,
    prefix        text         NOT NULL,
    suffix        text         NOT NULL,
    context       text         NOT NULL,
    suggested     text         NOT NULL,
    final_text    text         NOT NULL,
    outcome       text         NOT NULL,
    implicit      float8       NOT NULL,
    emotional     float8,
    reward        float8       NOT NULL,
    relevance     float8       NOT NULL,
    decision      text         NOT NULL,
    created_at    timestamptz  NOT NULL,
    revision      integer      NOT NULL,
    embedding     halfvec(384)
);
CREATE INDEX experiences_newest ON experiences (owner, created_at DESC);
CREATE INDEX experiences_of_context ON experiences (owner, context, created_at DESC);
CREATE INDEX experiences_of_project ON experiences (project_id, language);
CREATE INDEX experiences_avoided ON experiences (owner, language) WHERE decision = 'avoid';
CREATE INDEX experiences_nearest ON experiences USING hnsw (embedding halfvec_cosine_ops);

CREATE TABLE consolidations (
    id         uuid        PRIMARY KEY,
    owner      name        NOT NULL DEFAULT current_user,
    state      text        NOT NULL,
    started_at timestamptz NOT NULL,
    ended_at   timestamptz,
    report     jsonb       NOT NULL
);
CREATE INDEX consolidations_newest ON consolidations (owner, started_at DESC);

CREATE TABLE adapter_versions (
    id               uuid        PRIMARY KEY,
    owner            name        NOT NULL DEFAULT current_user,
    context          text        NOT NULL,
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
CREATE UNIQUE INDEX adapter_versions_one_published
    ON adapter_versions (owner, context, base_fingerprint) WHERE state = 'published';

CREATE TABLE editor_sessions (
    id            uuid        PRIMARY KEY,
    owner         name        NOT NULL DEFAULT current_user,
    last_activity timestamptz NOT NULL,
    asleep_ok     boolean     NOT NULL,
    seen_at       timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Whoever may connect to the database may keep rows of their own here, and see no others.
GRANT USAGE ON SCHEMA npllm TO PUBLIC;
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['projects', 'suggestions', 'outcomes', 'feedback', 'experiences', 'consolidations',
                                'adapter_versions', 'editor_sessions'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY own_rows ON %I USING (owner = current_user) WITH CHECK (owner = current_user)',
                       name);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO PUBLIC', name);
    END LOOP;
END
$$;
