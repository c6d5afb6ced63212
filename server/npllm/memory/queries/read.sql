-- name: counts^
-- How much there is, of this database user.
SELECT (SELECT count(*) FROM suggestions WHERE owner = current_user) AS suggestions,
       (SELECT count(*) FROM outcomes WHERE owner = current_user) AS outcomes,
       (SELECT count(*) FROM feedback WHERE owner = current_user) AS feedback,
       (SELECT count(*) FROM experiences WHERE owner = current_user) AS experiences,
       (SELECT count(*) FROM adapter_versions WHERE owner = current_user) AS adapter_versions,
       (SELECT count(*) FROM consolidations WHERE owner = current_user) AS consolidations;

-- name: experiences_since
-- What was learned since a moment (all if null), oldest first.
SELECT e.*, p.path AS project FROM experiences e JOIN projects p ON p.id = e.project_id
WHERE e.owner = current_user
  AND (CAST(:since AS timestamptz) IS NULL OR e.created_at >= :since)
  AND (CAST(:context AS text) IS NULL OR e.contexts @> ARRAY[CAST(:context AS text)])
ORDER BY e.created_at, e.id LIMIT :limit;

-- name: newest_experiences_since
-- The same, newest first.
SELECT e.*, p.path AS project FROM experiences e JOIN projects p ON p.id = e.project_id
WHERE e.owner = current_user
  AND (CAST(:since AS timestamptz) IS NULL OR e.created_at >= :since)
  AND (CAST(:context AS text) IS NULL OR e.contexts @> ARRAY[CAST(:context AS text)])
ORDER BY e.created_at DESC, e.id DESC LIMIT :limit;

-- name: experiences_before
-- Older ones, for replay: newest first.
SELECT e.*, p.path AS project FROM experiences e JOIN projects p ON p.id = e.project_id
WHERE e.owner = current_user AND e.created_at < :before
  AND (CAST(:context AS text) IS NULL OR e.contexts @> ARRAY[CAST(:context AS text)])
ORDER BY e.created_at DESC, e.id DESC LIMIT :limit;

-- name: experiences_among
-- Those with these ids, newest first.
SELECT e.*, p.path AS project FROM experiences e JOIN projects p ON p.id = e.project_id
WHERE e.owner = current_user AND e.id = ANY(CAST(:ids AS uuid[]))
  AND (CAST(:context AS text) IS NULL OR e.contexts @> ARRAY[CAST(:context AS text)])
ORDER BY e.created_at DESC, e.id DESC LIMIT :limit;

-- name: contexts_with_new
-- How many experiences each context has gained since a moment (all if null).
SELECT context, count(*) AS count FROM experiences
WHERE owner = current_user AND (CAST(:since AS timestamptz) IS NULL OR created_at >= :since)
GROUP BY context ORDER BY count DESC, context;

-- name: families
-- How many experiences belong to each context; one belongs to several.
SELECT name AS context, count(*) AS count FROM experiences e, unnest(e.contexts) AS name
WHERE e.owner = current_user GROUP BY name ORDER BY count DESC, name;

-- name: avoided
-- What is never to be suggested again: newest first, of one project or of all.
SELECT e.*, p.path AS project FROM experiences e JOIN projects p ON p.id = e.project_id
WHERE e.owner = current_user AND e.decision = 'avoid' AND (CAST(:project AS text) IS NULL OR p.path = :project)
ORDER BY e.created_at DESC, e.id DESC LIMIT :limit;

-- name: traces
-- What the person ended up with, and where: newest first, without what is long and not needed.
SELECT e.id, e.revision, e.uri, e.path, p.path AS project, e.language, e.cursor_offset, right(e.prefix, 1000) AS prefix, e.suggested,
       e.final_text, e.outcome, e.decision, e.created_at
FROM experiences e JOIN projects p ON p.id = e.project_id
WHERE e.owner = current_user
  AND (CAST(:since AS timestamptz) IS NULL OR e.created_at >= :since)
  AND (CAST(:language AS text) IS NULL OR e.language = :language)
ORDER BY e.created_at DESC, e.id DESC LIMIT :limit;

-- name: experience^
SELECT e.*, p.path AS project FROM experiences e JOIN projects p ON p.id = e.project_id
WHERE e.owner = current_user AND e.id = :id;

-- name: suggestion^
SELECT s.*, p.path AS project FROM suggestions s JOIN projects p ON p.id = s.project_id
WHERE s.owner = current_user AND s.id = :id;

-- name: latest_suggestion^
SELECT s.*, p.path AS project FROM suggestions s JOIN projects p ON p.id = s.project_id
WHERE s.owner = current_user ORDER BY s.created_at DESC, s.id DESC LIMIT 1;

-- name: project_size^
-- The project's id, and how many rows a search in it has to look at (counted up to a ceiling).
SELECT p.id, (SELECT count(*) FROM (
    SELECT 1 FROM experiences e WHERE e.project_id = p.id AND e.language = :language LIMIT :ceiling) AS counted) AS size
FROM projects p WHERE p.owner = current_user AND p.path = :project;

-- name: similar_exact
-- The nearest experiences of one project, by looking at each: exact, for projects that are not huge.
WITH near AS MATERIALIZED (
    SELECT e.id, e.embedding <=> CAST(:embedding AS halfvec) AS distance
    FROM experiences e
    WHERE e.project_id = :project_id AND e.language = :language AND e.owner = current_user
      AND e.embedding IS NOT NULL AND NOT (e.id = ANY(CAST(:exclude AS uuid[]))))
SELECT e.id, e.path, e.uri, p.path AS project, e.prefix, e.suggested, e.final_text, e.decision, e.reward, near.distance
FROM near JOIN experiences e ON e.id = near.id JOIN projects p ON p.id = e.project_id
WHERE near.distance <= :max_distance AND btrim(e.final_text, E' \t\r\n') <> ''
  AND (e.decision IN ('keep', 'low') OR btrim(e.final_text) <> btrim(e.suggested))
ORDER BY near.distance, e.created_at DESC LIMIT :limit;

-- name: similar_coded
-- The nearest experiences of one project or of all (null), where there are many: all codes are looked at, and so many of
-- the nearest by those (Hamming distance) are compared exactly.
WITH likely AS MATERIALIZED (
    SELECT e.id FROM experiences e
    WHERE e.owner = current_user AND e.language = :language AND e.code IS NOT NULL
      AND (CAST(:project_id AS bigint) IS NULL OR e.project_id = :project_id)
    ORDER BY e.code <~> CAST(binary_quantize(CAST(:embedding AS halfvec)) AS bit(384)) LIMIT :candidates),
near AS MATERIALIZED (
    SELECT e.id, e.path, e.uri, e.project_id, e.prefix, e.suggested, e.final_text, e.decision, e.reward, e.created_at,
           e.embedding <=> CAST(:embedding AS halfvec) AS distance
    FROM likely JOIN experiences e ON e.id = likely.id
    WHERE e.owner = current_user AND NOT (e.id = ANY(CAST(:exclude AS uuid[])))
      AND btrim(e.final_text, E' \t\r\n') <> ''
      AND (e.decision IN ('keep', 'low') OR btrim(e.final_text) <> btrim(e.suggested))
    ORDER BY e.embedding <=> CAST(:embedding AS halfvec) LIMIT :limit)
SELECT near.*, p.path AS project FROM near JOIN projects p ON p.id = near.project_id
WHERE distance <= :max_distance ORDER BY distance, near.created_at DESC;

-- name: avoided_texts
-- The texts of avoided suggestions in a language, newest first.
SELECT suggested FROM experiences
WHERE owner = current_user AND decision = 'avoid' AND language = :language AND btrim(suggested, E' \t\r\n') <> ''
ORDER BY created_at DESC LIMIT :limit;

-- name: experiences_without_embedding
-- What the search cannot find yet, newest first.
SELECT e.*, p.path AS project FROM experiences e JOIN projects p ON p.id = e.project_id
WHERE e.owner = current_user AND e.embedding IS NULL AND btrim(e.final_text, E' \t\r\n') <> ''
ORDER BY e.created_at DESC LIMIT :limit;
