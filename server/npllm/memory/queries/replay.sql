-- name: draw_experiences
-- Old experiences in the order in which they are drawn for replay, without putting back: by ascending -ln(u) / mass
-- (Efraimidis & Spirakis 2006), where u is a hash of id and seed, uniform in (0, 1), and mass = priority ^ alpha
-- (npllm/sleep/replay.py has the equations). What was never measured has the highest priority of all. A session ends with
-- a pause; `size` is how many there are to draw from. Nothing that is kept apart to judge by. Of experiences that belong
-- to all of `belongs`; to anything, where that is empty.
WITH rated AS MATERIALIZED (
    SELECT e.id, e.created_at,
        CASE WHEN e.created_at - lag(e.created_at) OVER (ORDER BY e.created_at, e.id)
            > make_interval(secs => :pause_s) THEN 1 ELSE 0 END AS begins,
        (r.surprise + CAST(:epsilon AS float8))
            * CASE e.decision WHEN 'low' THEN CAST(:low AS float8) WHEN 'discard' THEN CAST(:discard AS float8)
                ELSE 1.0::float8 END
            * (0.5 + 0.5 * least(1.0, greatest(0.0, e.relevance, (1.0 + e.emotional) / 2.0))) AS priority
    FROM experiences e
    LEFT JOIN replay r ON r.experience_id = e.id AND r.context = :context AND r.base_fingerprint = :base_fingerprint
    WHERE e.owner = current_user AND e.contexts @> CAST(:belongs AS text[]) AND e.created_at < :before
      AND (btrim(e.final_text, E' \t\r\n') <> '' OR btrim(e.suggested, E' \t\r\n') <> '')
      AND NOT (e.id = ANY(CAST(:exclude AS uuid[])))
      AND NOT EXISTS (SELECT 1 FROM held_out h WHERE h.experience_id = e.id AND h.context = :context)),
whole AS MATERIALIZED (SELECT count(*) AS size, coalesce(max(priority), 1.0) AS highest FROM rated),
massed AS (
    SELECT id, whole.size, sum(begins) OVER (ORDER BY created_at, id) AS session,
        coalesce(priority, whole.highest) AS priority,
        power(coalesce(priority, whole.highest), CAST(:alpha AS float8)) AS mass
    FROM rated, whole),
drawn AS (
    SELECT *, -ln(((hashtextextended(CAST(id AS text) || :seed, 0) & 4503599627370495) + 0.5::float8)
        / 4503599627370496.0::float8) / mass AS key
    FROM massed ORDER BY key, id LIMIT :limit)
SELECT e.*, p.path AS project, drawn.size, drawn.session, drawn.priority, drawn.mass, drawn.key
FROM drawn JOIN experiences e ON e.id = drawn.id JOIN projects p ON p.id = e.project_id
ORDER BY drawn.key, e.id;

-- name: note_surprise*!
-- A later measurement replaces an earlier one.
INSERT INTO replay (experience_id, context, base_fingerprint, surprise)
SELECT e.id, :context, :base_fingerprint, :surprise FROM experiences e WHERE e.id = :id AND e.owner = current_user
ON CONFLICT (experience_id, context, base_fingerprint, owner) DO UPDATE SET
    surprise = excluded.surprise, measured_at = now();

-- name: hold_out!
-- Keep experiences apart for good. What is apart already stays in the slice that it belongs to.
INSERT INTO held_out (experience_id, context, version_id, held_at)
SELECT e.id, :context, :version_id, :held_at
FROM experiences e WHERE e.id = ANY(CAST(:ids AS uuid[])) AND e.owner = current_user
ON CONFLICT (experience_id, context, owner) DO NOTHING;

-- name: held_out_slices
-- The earlier sleeps whose held-out texts are still there, newest first.
SELECT version_id, min(held_at) AS held_at FROM held_out
WHERE owner = current_user AND context = :context GROUP BY version_id ORDER BY held_at DESC, version_id DESC;

-- name: held_out_of
-- The texts of some slices, of each the first `most` by the hash of their ids.
SELECT e.*, p.path AS project, h.version_id
FROM (SELECT experience_id, version_id, row_number() OVER (
          PARTITION BY version_id ORDER BY sha256(uuid_send(experience_id))) AS number
      FROM held_out
      WHERE owner = current_user AND context = :context AND version_id = ANY(CAST(:versions AS uuid[]))) h
JOIN experiences e ON e.id = h.experience_id JOIN projects p ON p.id = e.project_id
WHERE h.number <= :most AND e.owner = current_user
ORDER BY h.version_id, h.number;

-- name: held_out_lines
-- What is kept apart, newest first: the end of what stood above, and the text.
SELECT e.id, e.uri, e.path, e.language, e.cursor_offset, right(e.prefix, :tail) AS prefix, '' AS suffix, e.context,
    e.suggested, e.final_text, e.outcome, e.implicit, e.emotional, e.reward, e.relevance, e.decision, e.created_at,
    e.revision, e.contexts, p.path AS project
FROM held_out h JOIN experiences e ON e.id = h.experience_id JOIN projects p ON p.id = e.project_id
WHERE h.owner = current_user AND h.context = :context
ORDER BY h.held_at DESC, e.id LIMIT :limit;
