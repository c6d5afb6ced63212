-- name: wait_for_forgetting!
-- Before anything is written to the index: a forgetting holds this lock, and what is off limits is read after it.
LOCK TABLE projects IN ROW EXCLUSIVE MODE;

-- name: indexed_project^
SELECT id FROM projects WHERE owner = current_user AND path = :project;

-- name: indexed_files
SELECT f.id, f.path, f.mtime_ns, f.size, f.made_by FROM indexed_files f
WHERE f.owner = current_user AND f.project_id = :project_id;

-- name: put_files
-- The files as they were read; their ids, in no order.
INSERT INTO indexed_files AS kept (project_id, path, language, mtime_ns, size, made_by)
SELECT CAST(:project_id AS bigint), f.path, f.language, f.mtime_ns, f.size, CAST(:made_by AS integer)
FROM unnest(CAST(:paths AS text[]), CAST(:languages AS text[]), CAST(:mtimes AS bigint[]), CAST(:sizes AS bigint[]))
    AS f (path, language, mtime_ns, size)
ON CONFLICT (project_id, path, owner) DO UPDATE SET language = excluded.language, mtime_ns = excluded.mtime_ns,
    size = excluded.size, made_by = excluded.made_by, read_at = now()
RETURNING kept.id, kept.path;

-- name: drop_files$
WITH gone AS (DELETE FROM indexed_files WHERE owner = current_user AND id = ANY(CAST(:ids AS bigint[])) RETURNING 1)
SELECT count(*) FROM gone;

-- name: drop_every_file$
WITH gone AS (DELETE FROM indexed_files WHERE owner = current_user RETURNING 1)
SELECT count(*) FROM gone;

-- name: chunks_of
SELECT file_id, hash, line, symbol FROM chunks WHERE owner = current_user AND file_id = ANY(CAST(:ids AS bigint[]))
ORDER BY file_id, position;

-- name: drop_chunks!
DELETE FROM chunks WHERE owner = current_user AND file_id = ANY(CAST(:ids AS bigint[]));

-- name: put_chunks!
INSERT INTO chunks (file_id, position, hash, line, symbol)
SELECT * FROM unnest(CAST(:file_ids AS bigint[]), CAST(:positions AS integer[]), CAST(:hashes AS bytea[]),
    CAST(:lines AS integer[]), CAST(:symbols AS text[]));

-- name: put_texts!
INSERT INTO chunk_texts AS kept (hash, content, terms)
SELECT * FROM unnest(CAST(:hashes AS bytea[]), CAST(:contents AS text[]), CAST(:terms AS bytea[]))
ON CONFLICT (owner, hash) DO UPDATE SET used_at = now() WHERE kept.used_at < now() - interval '1 day';

-- name: forgotten_chunks_among
SELECT hash FROM forgotten_chunks WHERE owner = current_user AND hash = ANY(CAST(:hashes AS bytea[]));

-- name: chunks_without_embedding
-- Of some projects, those that were read last first.
SELECT t.hash, t.content FROM chunk_texts t
WHERE t.owner = current_user AND t.embedding IS NULL AND EXISTS (
    SELECT 1 FROM chunks c JOIN indexed_files f ON f.id = c.file_id AND f.owner = current_user
    JOIN projects p ON p.id = f.project_id AND p.owner = current_user
    WHERE c.owner = current_user AND c.hash = t.hash AND p.path = ANY(CAST(:projects AS text[])))
LIMIT :limit;

-- name: embed_chunks!
UPDATE chunk_texts t SET embedding = CAST(e.embedding AS halfvec)
FROM unnest(CAST(:hashes AS bytea[]), CAST(:embeddings AS text[])) AS e (hash, embedding)
WHERE t.owner = current_user AND t.hash = e.hash;

-- name: chunk_terms
-- All that the search by identifiers needs of a project, in some languages.
SELECT c.hash, f.path, t.terms FROM indexed_files f
JOIN chunks c ON c.file_id = f.id AND c.owner = current_user
JOIN chunk_texts t ON t.owner = current_user AND t.hash = c.hash
JOIN projects p ON p.id = f.project_id AND p.owner = current_user
WHERE f.owner = current_user AND p.path = :project AND f.language = ANY(CAST(:languages AS text[]))
ORDER BY f.path, c.position;

-- name: chunk_contents
SELECT hash, content FROM chunk_texts WHERE owner = current_user AND hash = ANY(CAST(:hashes AS bytea[]));

-- name: chunk_count^
-- How many chunks a project has in some languages, counted no further than `ceiling`; no row where it is not known.
SELECT p.id, (SELECT count(*) FROM (
    SELECT 1 FROM indexed_files f JOIN chunks c ON c.file_id = f.id AND c.owner = current_user
    WHERE f.owner = current_user AND f.project_id = p.id AND f.language = ANY(CAST(:languages AS text[])) LIMIT :ceiling) AS counted) AS size
FROM projects p WHERE p.owner = current_user AND p.path = :project;

-- name: nearest_chunks_exact
-- By looking at each chunk of a project: for as many as can be looked at.
WITH near AS MATERIALIZED (
    SELECT c.hash, f.path, t.embedding <=> CAST(:embedding AS halfvec) AS distance
    FROM indexed_files f JOIN chunks c ON c.file_id = f.id AND c.owner = current_user
    JOIN chunk_texts t ON t.owner = current_user AND t.hash = c.hash
    WHERE f.owner = current_user AND f.project_id = :project_id AND f.language = ANY(CAST(:languages AS text[]))
      AND f.path <> :without AND t.embedding IS NOT NULL)
SELECT hash, path, distance FROM near WHERE distance <= :max_distance ORDER BY distance LIMIT :limit;

-- name: nearest_chunks_coded
-- In a project with many: all codes of its chunks are looked at, and so many of the nearest by those (Hamming distance) are
-- compared exactly.
WITH held AS MATERIALIZED (
    SELECT DISTINCT c.hash FROM chunks c JOIN indexed_files f ON f.id = c.file_id AND f.owner = current_user
    WHERE c.owner = current_user AND f.project_id = :project_id AND f.language = ANY(CAST(:languages AS text[]))
      AND f.path <> :without),
likely AS MATERIALIZED (
    SELECT t.hash FROM held JOIN chunk_texts t ON t.owner = current_user AND t.hash = held.hash AND t.code IS NOT NULL
    ORDER BY t.code <~> CAST(binary_quantize(CAST(:embedding AS halfvec)) AS bit(384)) LIMIT :candidates),
near AS (
    SELECT t.hash, t.embedding <=> CAST(:embedding AS halfvec) AS distance
    FROM likely JOIN chunk_texts t ON t.owner = current_user AND t.hash = likely.hash
    ORDER BY distance LIMIT :limit)
SELECT DISTINCT ON (near.distance, near.hash) near.hash, f.path, near.distance
FROM near JOIN chunks c ON c.owner = current_user AND c.hash = near.hash
JOIN indexed_files f ON f.id = c.file_id AND f.owner = current_user AND f.project_id = :project_id AND f.path <> :without
WHERE near.distance <= :max_distance ORDER BY near.distance, near.hash, f.path;

-- name: count_kept_chunks$
-- The chunks of a project, and of those whose index a process keeps just now.
SELECT count(*) FROM chunks c JOIN indexed_files f ON f.id = c.file_id AND f.owner = current_user
JOIN projects p ON p.id = f.project_id AND p.owner = current_user
WHERE c.owner = current_user AND (p.path = :project OR EXISTS (
    SELECT 1 FROM index_keepers k JOIN persons o ON o.owner = current_user
    JOIN pg_stat_activity a ON a.pid = k.pid AND a.backend_start = k.started
    WHERE k.owner = current_user AND k.project = hashtextextended(o.channel || p.path, 0)));

-- name: keep_index$
-- One connection keeps the index of a project of a database user, until it ends.
SELECT keep_index(:project);

-- name: leave_index!
UPDATE index_keepers SET pid = NULL, started = NULL WHERE owner = current_user AND pid = pg_backend_pid()
  AND project = (SELECT hashtextextended(p.channel || :project, 0) FROM persons p WHERE p.owner = current_user);

-- name: index_places
-- Every indexed file, for a forgetting.
SELECT f.id, p.path AS project, f.path, to_timestamp(f.mtime_ns / 1e9) AS changed_at
FROM indexed_files f JOIN projects p ON p.id = f.project_id
WHERE f.owner = current_user;

-- name: chunks_with_text
SELECT c.file_id, c.hash FROM chunks c JOIN chunk_texts t ON t.owner = current_user AND t.hash = c.hash
WHERE c.owner = current_user AND strpos(t.content, :text) > 0;

-- name: count_chunks$
SELECT count(*) FROM chunks WHERE owner = current_user AND file_id = ANY(CAST(:ids AS bigint[]));

-- name: remember_forgotten_chunks!
INSERT INTO forgotten_chunks (hash) SELECT unnest(CAST(:hashes AS bytea[])) ON CONFLICT DO NOTHING;

-- name: drop_chunks_by_hash$
WITH gone AS (DELETE FROM chunks WHERE owner = current_user AND hash = ANY(CAST(:hashes AS bytea[])) RETURNING 1)
SELECT count(*) FROM gone;

-- name: chunk_texts_after
-- A page of texts, by their hashes, in the language of a file that holds them.
SELECT t.hash, t.content, coalesce((SELECT f.language FROM chunks c
    JOIN indexed_files f ON f.id = c.file_id AND f.owner = current_user
    WHERE c.owner = current_user AND c.hash = t.hash LIMIT 1), '') AS language
FROM chunk_texts t WHERE t.owner = current_user AND t.hash > :after ORDER BY t.hash LIMIT :limit;

-- name: read_again!
-- Files that hold these chunks count as not read yet.
UPDATE indexed_files f SET made_by = 0 WHERE f.owner = current_user
  AND f.id IN (SELECT c.file_id FROM chunks c WHERE c.owner = current_user AND c.hash = ANY(CAST(:hashes AS bytea[])));

-- name: drop_texts!
DELETE FROM chunk_texts WHERE owner = current_user AND hash = ANY(CAST(:hashes AS bytea[]));

-- name: drop_unused_texts$
-- What no file holds any more.
WITH gone AS (DELETE FROM chunk_texts t WHERE t.owner = current_user
    AND NOT EXISTS (SELECT 1 FROM chunks c WHERE c.owner = current_user AND c.hash = t.hash) RETURNING 1)
SELECT count(*) FROM gone;

-- name: prune_chunk_texts$
-- Texts that no file has held for a month; and files of the projects that were read longest ago, beyond so many chunks.
WITH counted AS MATERIALIZED (
    SELECT f.id, max(f.read_at) OVER (PARTITION BY f.project_id) AS read_at, f.project_id,
        (SELECT count(*) FROM chunks c WHERE c.file_id = f.id AND c.owner = f.owner) AS size
    FROM indexed_files f WHERE f.owner = current_user),
running AS MATERIALIZED (
    SELECT id, sum(size) OVER (ORDER BY read_at DESC, project_id, id) AS total FROM counted),
dropped AS (
    DELETE FROM indexed_files f USING (SELECT id FROM running WHERE total > :keep LIMIT :batch) AS old
    WHERE f.owner = current_user AND f.id = old.id
    RETURNING 1),
gone AS (
    DELETE FROM chunk_texts t WHERE t.owner = current_user AND t.used_at < now() - interval '30 days'
    AND NOT EXISTS (SELECT 1 FROM chunks c WHERE c.owner = current_user AND c.hash = t.hash) RETURNING 1)
SELECT (SELECT count(*) FROM dropped) + 0 * (SELECT count(*) FROM gone);
