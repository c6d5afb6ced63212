-- name: lock_memory!
-- In the order in which the journal's pump writes: what it is writing is waited for, what comes later waits.
LOCK TABLE projects, suggestions, outcomes, feedback, held_back, signs, experiences, indexed_files, chunk_texts, chunks
IN SHARE ROW EXCLUSIVE MODE;

-- name: cases
-- Every suggestion that is remembered, with its place, once.
SELECT DISTINCT ON (c.id) c.id, p.path AS project, c.path, c.uri, c.created_at FROM (
    SELECT s.id, s.project_id, s.path, s.uri, s.created_at FROM suggestions s WHERE s.owner = current_user
    UNION ALL
    SELECT e.id, e.project_id, e.path, e.uri, e.created_at FROM experiences e WHERE e.owner = current_user
    UNION ALL
    SELECT h.suggestion_id, h.project_id, h.path, h.uri, h.created_at FROM held_back h WHERE h.owner = current_user
    UNION ALL
    SELECT q.id, q.project_id, q.path, q.uri, q.created_at FROM pruned q WHERE q.owner = current_user
    UNION ALL
    SELECT g.suggestion_id, g.project_id, g.path, g.uri, g.created_at FROM signs g WHERE g.owner = current_user
) AS c JOIN projects p ON p.id = c.project_id
ORDER BY c.id, c.created_at;

-- name: ids_with_text
-- Suggestions of which any text holds this one; of those that were pruned, all that may have held its words. Where it begins
-- or ends within a word, that one is not asked for.
WITH inner_words AS (SELECT regexp_replace(:text, '^\w+|\w+$', '', 'g') AS text),
sought AS MATERIALIZED (
    SELECT word_sketch(CASE WHEN w.text ~ '\w' THEN w.text ELSE :text END, i.salt) AS words
    FROM inner_words w, persons i WHERE i.owner = current_user AND :text ~ '\w')
SELECT s.id FROM suggestions s WHERE s.owner = current_user
  AND (strpos(s.text, :text) > 0 OR strpos(s.prefix, :text) > 0 OR strpos(s.suffix, :text) > 0)
UNION
SELECT e.id FROM experiences e WHERE e.owner = current_user
  AND (strpos(e.prefix, :text) > 0 OR strpos(e.suffix, :text) > 0 OR strpos(e.suggested, :text) > 0
       OR strpos(e.final_text, :text) > 0)
UNION
SELECT o.suggestion_id FROM outcomes o WHERE o.owner = current_user
  AND (strpos(o.suggested, :text) > 0 OR strpos(o.final_text, :text) > 0)
UNION
SELECT f.suggestion_id FROM feedback f WHERE f.owner = current_user AND strpos(f.comment, :text) > 0
UNION
SELECT q.id FROM pruned q JOIN sought ON q.words & sought.words = sought.words WHERE q.owner = current_user;

-- name: remember_forgotten!
INSERT INTO forgotten (id) SELECT unnest(CAST(:ids AS uuid[])) ON CONFLICT DO NOTHING;

-- name: forgotten_among
SELECT id FROM forgotten WHERE owner = current_user AND id = ANY(CAST(:ids AS uuid[]));

-- name: delete_suggestions$
WITH gone AS (DELETE FROM suggestions WHERE owner = current_user AND id = ANY(CAST(:ids AS uuid[])) RETURNING 1)
SELECT count(*) FROM gone;

-- name: delete_outcomes$
WITH gone AS (DELETE FROM outcomes WHERE owner = current_user AND suggestion_id = ANY(CAST(:ids AS uuid[])) RETURNING 1)
SELECT count(*) FROM gone;

-- name: delete_feedback$
WITH gone AS (DELETE FROM feedback WHERE owner = current_user AND suggestion_id = ANY(CAST(:ids AS uuid[])) RETURNING 1)
SELECT count(*) FROM gone;

-- name: delete_held_back$
WITH gone AS (DELETE FROM held_back WHERE owner = current_user AND suggestion_id = ANY(CAST(:ids AS uuid[])) RETURNING 1)
SELECT count(*) FROM gone;

-- name: delete_signs$
WITH gone AS (DELETE FROM signs WHERE owner = current_user AND suggestion_id = ANY(CAST(:ids AS uuid[])) RETURNING 1)
SELECT count(*) FROM gone;

-- name: delete_experiences$
WITH gone AS (DELETE FROM experiences WHERE owner = current_user AND id = ANY(CAST(:ids AS uuid[])) RETURNING 1)
SELECT count(*) FROM gone;

-- name: delete_pruned!
DELETE FROM pruned WHERE owner = current_user AND id = ANY(CAST(:ids AS uuid[]));

-- name: delete_unused_projects!
-- Their paths say something, too. Only while the tables are locked: a pump may be about to use one. One that is shared
-- stays, as that would end the share; unless it is itself what is put off limits.
DELETE FROM projects p WHERE p.owner = current_user
  AND NOT EXISTS (SELECT 1 FROM suggestions s WHERE s.project_id = p.id)
  AND NOT EXISTS (SELECT 1 FROM pruned q WHERE q.project_id = p.id)
  AND NOT EXISTS (SELECT 1 FROM experiences e WHERE e.project_id = p.id)
  AND NOT EXISTS (SELECT 1 FROM held_back h WHERE h.project_id = p.id)
  AND NOT EXISTS (SELECT 1 FROM indexed_files f WHERE f.project_id = p.id)
  AND NOT EXISTS (SELECT 1 FROM signs g WHERE g.project_id = p.id)
  AND (NOT EXISTS (SELECT 1 FROM shares h WHERE h.project_id = p.id) OR EXISTS (
      SELECT 1 FROM unnest(CAST(:limits AS text[])) AS l
      WHERE p.path = l OR starts_with(p.path, rtrim(l, '/') || '/')));

-- name: version_tables
-- Every table of versions that a sleep makes, of whatever kind.
SELECT c.table_name::text AS name, bool_or(c.column_name = 'context') AS has_context,
       bool_or(c.column_name = 'base_fingerprint') AS has_base, bool_or(c.column_name = 'origin') AS has_origin
FROM information_schema.columns c
WHERE c.table_schema = 'npllm'
GROUP BY c.table_name
HAVING count(*) FILTER (WHERE c.column_name IN
    ('id', 'owner', 'parent', 'consolidation_id', 'folder', 'sha256', 'state', 'reason', 'metrics', 'created_at')) = 10
ORDER BY c.table_name;

-- name: reports
SELECT id, started_at, ended_at, report FROM consolidations WHERE owner = current_user;

-- name: replace_report!
UPDATE consolidations SET report = CAST(CAST(:report AS text) AS jsonb) WHERE owner = current_user AND id = :id;

-- name: begin_forgetting!
INSERT INTO forgettings (id) VALUES (:id) ON CONFLICT DO NOTHING;

-- name: unfinished_forgettings$
SELECT count(*) FROM forgettings WHERE owner = current_user AND NOT done;

-- name: last_forgetting$
SELECT max(at) FROM forgettings WHERE owner = current_user;

-- name: finish_forgettings!
UPDATE forgettings SET done = true WHERE owner = current_user AND NOT done;

-- name: put_off_limits!
INSERT INTO off_limits (path) VALUES (:path) ON CONFLICT DO NOTHING;

-- name: off_limits
SELECT path FROM off_limits WHERE owner = current_user ORDER BY path;

-- name: take_off_limits$
WITH gone AS (DELETE FROM off_limits WHERE owner = current_user AND path = :path RETURNING 1)
SELECT count(*) FROM gone;
