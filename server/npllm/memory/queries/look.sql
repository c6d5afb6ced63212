-- name: suggestions_after
-- A page of suggestions, by their ids, which rise with time. The first page: after the smallest uuid.
SELECT s.*, p.path AS project FROM suggestions s JOIN projects p ON p.id = s.project_id
WHERE s.owner = current_user AND s.id > :after ORDER BY s.id LIMIT :limit;

-- name: outcomes_after
SELECT o.* FROM outcomes o WHERE o.owner = current_user AND o.id > :after ORDER BY o.id LIMIT :limit;

-- name: feedback_after
SELECT f.* FROM feedback f WHERE f.owner = current_user AND f.id > :after ORDER BY f.id LIMIT :limit;

-- name: experiences_after
SELECT e.*, p.path AS project FROM experiences e JOIN projects p ON p.id = e.project_id
WHERE e.owner = current_user AND e.id > :after ORDER BY e.id LIMIT :limit;

-- name: held_back_after
SELECT h.*, h.suggestion_id AS id, p.path AS project FROM held_back h JOIN projects p ON p.id = h.project_id
WHERE h.owner = current_user AND h.suggestion_id > :after ORDER BY h.suggestion_id LIMIT :limit;

-- name: outcomes_of
SELECT o.* FROM outcomes o WHERE o.owner = current_user AND o.suggestion_id = :id ORDER BY o.revision, o.created_at;

-- name: feedback_of
SELECT f.* FROM feedback f WHERE f.owner = current_user AND f.suggestion_id = :id ORDER BY f.created_at, f.id;

-- name: signs_of
-- What the person's doing said about a suggestion, in order.
SELECT g.*, p.path AS project FROM signs g JOIN projects p ON p.id = g.project_id
WHERE g.owner = current_user AND g.suggestion_id = :id ORDER BY g.created_at, g.id;

-- name: signs_after
SELECT g.*, p.path AS project FROM signs g JOIN projects p ON p.id = g.project_id
WHERE g.owner = current_user AND g.id > :after ORDER BY g.id LIMIT :limit;

-- name: ids_like
-- Suggestions whose id begins so, and experiences whose suggestion is not there.
SELECT id FROM suggestions WHERE owner = current_user AND id::text LIKE :beginning
UNION SELECT id FROM experiences WHERE owner = current_user AND id::text LIKE :beginning
LIMIT :limit;

-- name: newest_experience^
SELECT e.*, p.path AS project FROM experiences e JOIN projects p ON p.id = e.project_id
WHERE e.owner = current_user ORDER BY e.created_at DESC, e.id DESC LIMIT 1;

-- name: experiences_with_words
-- Experiences of which the texts hold every word, in any case; newest first.
SELECT e.*, p.path AS project FROM experiences e JOIN projects p ON p.id = e.project_id
WHERE e.owner = current_user
  AND (CAST(:language AS text) IS NULL OR e.language = :language)
  AND (CAST(:project AS text) IS NULL OR p.path = :project)
  AND NOT EXISTS (
      SELECT 1 FROM unnest(CAST(:words AS text[])) AS word
      WHERE strpos(lower(e.path || E'\n' || e.prefix || e.final_text || e.suffix || E'\n' || e.suggested), lower(word)) = 0)
ORDER BY e.created_at DESC, e.id DESC LIMIT :limit;

-- name: experiences_nearest
-- The nearest of all, by looking at each: exact; for a person who can wait.
WITH near AS MATERIALIZED (
    SELECT e.id, e.embedding <=> CAST(:embedding AS halfvec) AS distance
    FROM experiences e JOIN projects p ON p.id = e.project_id
    WHERE e.owner = current_user AND e.embedding IS NOT NULL
      AND (CAST(:language AS text) IS NULL OR e.language = :language)
      AND (CAST(:project AS text) IS NULL OR p.path = :project))
SELECT e.*, p.path AS project, near.distance
FROM near JOIN experiences e ON e.id = near.id JOIN projects p ON p.id = e.project_id
ORDER BY near.distance, e.created_at DESC LIMIT :limit;

-- name: table_sizes
-- Every table of the schema: bytes with its indexes, of all users together.
SELECT c.relname::text AS name, pg_total_relation_size(c.oid) AS bytes
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'npllm' AND c.relkind = 'r' ORDER BY 2 DESC, 1;

-- name: database_size$
SELECT pg_database_size(current_database());

-- name: experience_groups
-- How many experiences there are of each language and decision.
SELECT language, decision, count(*) AS count FROM experiences WHERE owner = current_user
GROUP BY language, decision ORDER BY count DESC, language, decision;

-- name: experience_span^
SELECT min(created_at) AS first, max(created_at) AS last, count(*) FILTER (WHERE embedding IS NULL) AS unembedded
FROM experiences WHERE owner = current_user;

-- name: project_counts
SELECT p.path AS project, count(e.id) AS count FROM projects p LEFT JOIN experiences e ON e.project_id = p.id
WHERE p.owner = current_user GROUP BY p.path ORDER BY count DESC, p.path;
