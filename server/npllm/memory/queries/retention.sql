-- name: prune_experiences$
-- Delete some of the oldest experiences beyond so many; how many that were. Those that versions are judged by stay, and
-- those that are never to be suggested again.
WITH beyond AS MATERIALIZED (
    SELECT e.id, e.created_at FROM experiences e
    WHERE e.owner = current_user ORDER BY e.created_at DESC, e.id DESC OFFSET :keep),
old AS MATERIALIZED (
    SELECT b.id FROM beyond b JOIN experiences e ON e.id = b.id
    WHERE e.decision <> 'avoid' AND NOT EXISTS (SELECT 1 FROM held_out h WHERE h.experience_id = b.id)
    ORDER BY b.created_at, b.id LIMIT :batch),
noted AS (
    INSERT INTO pruned AS known (id, project_id, uri, path, created_at, words)
    SELECT e.id, e.project_id, e.uri, e.path, e.created_at,
        word_sketch(concat_ws(E'\n', e.prefix, e.suffix, e.suggested, e.final_text), i.salt)
    FROM experiences e JOIN old ON old.id = e.id JOIN persons i ON i.owner = current_user
    ON CONFLICT (id, owner) DO UPDATE SET words = coalesce(known.words | excluded.words, excluded.words)),
gone AS (DELETE FROM experiences e USING old WHERE e.id = old.id RETURNING 1)
SELECT count(*) FROM gone;

-- name: prune_suggestions$
-- The same of suggestions, with what became of them and what was said about them. Their experiences stay.
WITH old AS MATERIALIZED (
    SELECT id FROM (
        SELECT s.id, s.created_at FROM suggestions s
        WHERE s.owner = current_user ORDER BY s.created_at DESC, s.id DESC OFFSET :keep) AS beyond
    ORDER BY created_at, id LIMIT :batch),
noted AS (
    INSERT INTO pruned AS known (id, project_id, uri, path, created_at, words)
    SELECT s.id, s.project_id, s.uri, s.path, s.created_at,
        word_sketch(concat_ws(E'\n', s.text, s.prefix, s.suffix,
            (SELECT string_agg(o.suggested || E'\n' || o.final_text, E'\n') FROM outcomes o
             WHERE o.owner = current_user AND o.suggestion_id = s.id),
            (SELECT string_agg(f.comment, E'\n') FROM feedback f
             WHERE f.owner = current_user AND f.suggestion_id = s.id)), i.salt)
    FROM suggestions s JOIN old ON old.id = s.id JOIN persons i ON i.owner = current_user
    ON CONFLICT (id, owner) DO UPDATE SET words = coalesce(known.words | excluded.words, excluded.words)),
became AS (DELETE FROM outcomes o USING old WHERE o.owner = current_user AND o.suggestion_id = old.id),
said AS (DELETE FROM feedback f USING old WHERE f.owner = current_user AND f.suggestion_id = old.id),
gone AS (DELETE FROM suggestions s USING old WHERE s.id = old.id RETURNING 1)
SELECT count(*) FROM gone;

-- name: prune_held_back$
WITH old AS MATERIALIZED (
    SELECT h.suggestion_id FROM held_back h
    WHERE h.owner = current_user ORDER BY h.created_at DESC, h.suggestion_id DESC OFFSET :keep LIMIT :batch),
gone AS (DELETE FROM held_back h USING old WHERE h.suggestion_id = old.suggestion_id RETURNING 1)
SELECT count(*) FROM gone;

-- name: prune_signs$
WITH old AS MATERIALIZED (
    SELECT s.id FROM signs s
    WHERE s.owner = current_user ORDER BY s.created_at DESC, s.id DESC OFFSET :keep LIMIT :batch),
gone AS (DELETE FROM signs s USING old WHERE s.id = old.id RETURNING 1)
SELECT count(*) FROM gone;
