-- name: history
-- What was seen and what became of it at the last look, oldest first: of the newest ones, so many.
SELECT * FROM (
    SELECT s.text, s.mean_logprob, s.language, s.source, right(s.prefix, 200) AS prefix, left(s.suffix, 200) AS suffix,
        s.created_at, o.kind IN ('accepted', 'partially_accepted', 'edited', 'deleted') AS taken
    FROM suggestions s
    CROSS JOIN LATERAL (SELECT * FROM outcomes o WHERE o.suggestion_id = s.id AND o.owner = current_user
        ORDER BY o.revision DESC LIMIT 1) o
    WHERE s.owner = current_user AND o.kind NOT IN ('unseen', 'superseded') AND s.kind <> 'rewrite'
    ORDER BY s.created_at DESC LIMIT :limit) AS newest
ORDER BY created_at;

-- name: standing
-- How much of what was taken as a whole still stood so many seconds later, at the first save and at the first commit after
-- it; each time of those that were followed for so long.
WITH taken AS MATERIALIZED (
    SELECT o.suggestion_id, min(o.created_at) AS at, length(regexp_replace(min(o.suggested), '\s', '', 'g')) AS size
    FROM outcomes o JOIN suggestions s ON s.id = o.suggestion_id
    WHERE o.owner = current_user AND s.owner = current_user
      AND (CAST(:since AS timestamptz) IS NULL OR s.created_at >= :since)
      AND (o.kind IN ('edited', 'deleted') OR (o.kind = 'accepted' AND o.detail NOT IN ('typed out', 'by other means')))
    GROUP BY o.suggestion_id),
timed AS (
    SELECT t.after, '' AS occasion, k.size, l.survival
    FROM taken k CROSS JOIN (VALUES (15), (30), (120), (300), (600)) AS t (after)
    CROSS JOIN LATERAL (SELECT o.survival FROM outcomes o WHERE o.suggestion_id = k.suggestion_id
        AND o.owner = current_user AND o.created_at <= k.at + make_interval(secs => t.after + 1)
        ORDER BY o.revision DESC LIMIT 1) l
    WHERE EXISTS (SELECT 1 FROM outcomes f WHERE f.suggestion_id = k.suggestion_id AND f.owner = current_user
        AND f.created_at >= k.at + make_interval(secs => t.after - 1))),
marked AS (
    SELECT DISTINCT ON (o.suggestion_id, o.occasion) CAST(NULL AS integer) AS after, o.occasion, k.size, o.survival
    FROM taken k JOIN outcomes o ON o.suggestion_id = k.suggestion_id AND o.owner = current_user
    WHERE o.occasion IN ('save', 'commit') ORDER BY o.suggestion_id, o.occasion, o.revision)
SELECT coalesce(after || ' s', occasion) AS occasion, count(*) AS texts, sum(size) AS characters,
    sum(size * survival) AS characters_kept
FROM (SELECT * FROM timed UNION ALL SELECT * FROM marked) AS looks
GROUP BY after, occasion ORDER BY after NULLS LAST, occasion DESC;

-- name: stages^
-- Through which states suggestions came, since a moment (all if null): asked for, offered, seen, typed along.
SELECT coalesce(sum(s.requests), 0) AS requested, count(*) FILTER (WHERE s.asked) AS asked, count(*) AS offered,
    count(*) FILTER (WHERE o.kind NOT IN ('unseen', 'superseded')) AS seen, count(*) FILTER (WHERE o.typed > 0) AS typed_along
FROM suggestions s LEFT JOIN LATERAL (SELECT * FROM outcomes o WHERE o.suggestion_id = s.id AND o.owner = current_user
    ORDER BY o.revision DESC LIMIT 1) o ON true
WHERE s.owner = current_user AND (CAST(:since AS timestamptz) IS NULL OR s.created_at >= :since);

-- name: ends
-- Which state each has reached by the last word about it, since a moment (all if null); what is not in the kind, in `detail`.
SELECT coalesce(o.kind, '') AS kind, CASE WHEN o.kind = 'rejected' OR o.kind IS NULL THEN '' ELSE o.detail END AS detail,
    count(*) AS count
FROM suggestions s LEFT JOIN LATERAL (SELECT * FROM outcomes o WHERE o.suggestion_id = s.id AND o.owner = current_user
    ORDER BY o.revision DESC LIMIT 1) o ON true
WHERE s.owner = current_user AND (CAST(:since AS timestamptz) IS NULL OR s.created_at >= :since)
GROUP BY 1, 2 ORDER BY 1, 2;

-- name: moods^
-- What the person said, and signs of frustration in what they did, since a moment (all if null).
SELECT (SELECT count(*) FROM feedback f WHERE f.owner = current_user AND f.reward > 0
        AND (CAST(:since AS timestamptz) IS NULL OR f.created_at >= :since)) AS glad,
    (SELECT count(*) FROM feedback f WHERE f.owner = current_user AND f.reward < 0
        AND (CAST(:since AS timestamptz) IS NULL OR f.created_at >= :since)) AS frustrated,
    (SELECT count(*) FROM feedback f WHERE f.owner = current_user AND f.reward = 0
        AND (CAST(:since AS timestamptz) IS NULL OR f.created_at >= :since)) AS neither,
    (SELECT count(*) FROM signs g WHERE g.owner = current_user AND g.kind = 'refusals'
        AND (CAST(:since AS timestamptz) IS NULL OR g.created_at >= :since)) AS refusals,
    (SELECT count(*) FROM signs g WHERE g.owner = current_user AND g.kind = 'undo_storm'
        AND (CAST(:since AS timestamptz) IS NULL OR g.created_at >= :since)) AS undo_storms;

-- name: pacing^
-- How the estimated chances fare against what became of the suggestions, since a moment (all if null).
WITH cases AS (
    SELECT s.chance, s.audited, o.kind IN ('accepted', 'partially_accepted', 'edited', 'deleted') AS taken
    FROM suggestions s CROSS JOIN LATERAL (SELECT * FROM outcomes o WHERE o.suggestion_id = s.id
        AND o.owner = current_user ORDER BY o.revision DESC LIMIT 1) o
    WHERE s.owner = current_user AND s.chance IS NOT NULL AND o.kind NOT IN ('unseen', 'superseded')
      AND (CAST(:since AS timestamptz) IS NULL OR s.created_at >= :since))
SELECT (SELECT count(*) FROM held_back h WHERE h.owner = current_user
        AND (CAST(:since AS timestamptz) IS NULL OR h.created_at >= :since)) AS held_back,
    count(*) AS estimated, count(*) FILTER (WHERE taken) AS estimated_taken, coalesce(sum(chance), 0.0) AS expected_taken,
    count(*) FILTER (WHERE audited) AS audited, count(*) FILTER (WHERE audited AND taken) AS audited_taken
FROM cases;

-- name: statistics
-- What became of suggestions since a moment (all if null), by the last word about each: in all, and by language, project,
-- version and day. White space is no character. Taken: by a key, in whole or in part, whatever became of it; typed out by
-- hand is not. A suggestion with several versions counts with each; without one, with ''.
WITH cases AS MATERIALIZED (
    SELECT s.language, p.path AS project, s.adapter_versions,
        to_char((s.created_at AT TIME ZONE 'UTC') + CAST(:offset AS interval), 'YYYY-MM-DD') AS day,
        o.kind, o.kind NOT IN ('unseen', 'superseded') AS seen, o.survival,
        o.kind IN ('edited', 'deleted', 'partially_accepted') OR (o.kind = 'accepted' AND o.detail NOT IN ('typed out', 'by other means')) AS taken,
        o.kind = 'accepted' AND o.detail = 'typed out' AS typed,
        length(regexp_replace(s.text, '\s', '', 'g')) AS size
    FROM suggestions s JOIN projects p ON p.id = s.project_id
    LEFT JOIN LATERAL (SELECT * FROM outcomes o WHERE o.suggestion_id = s.id AND o.owner = current_user
        ORDER BY o.revision DESC LIMIT 1) o ON true
    WHERE s.owner = current_user AND (CAST(:since AS timestamptz) IS NULL OR s.created_at >= :since)),
versioned AS (
    SELECT c.*, v.id AS version
    FROM cases c LEFT JOIN LATERAL (SELECT DISTINCT id FROM unnest(c.adapter_versions) AS id) v ON true),
grouped AS (
    SELECT CASE GROUPING(language, project, day) WHEN 3 THEN 'language' WHEN 5 THEN 'project' WHEN 6 THEN 'day'
            ELSE 'all' END AS dimension,
        coalesce(language, project, day, '') AS name,
        count(*) AS offered, count(*) FILTER (WHERE seen) AS seen, count(*) FILTER (WHERE taken) AS taken,
        count(*) FILTER (WHERE typed) AS typed, count(*) FILTER (WHERE kind = 'deleted') AS deleted,
        coalesce(sum(size) FILTER (WHERE seen), 0) AS characters_seen,
        coalesce(sum(size) FILTER (WHERE taken), 0) AS characters_taken,
        coalesce(sum(survival * size) FILTER (WHERE taken), 0.0) AS characters_kept
    FROM cases GROUP BY GROUPING SETS ((), (language), (project), (day))
    UNION ALL
    SELECT 'version', coalesce(CAST(version AS text), ''),
        count(*), count(*) FILTER (WHERE seen), count(*) FILTER (WHERE taken),
        count(*) FILTER (WHERE typed), count(*) FILTER (WHERE kind = 'deleted'),
        coalesce(sum(size) FILTER (WHERE seen), 0),
        coalesce(sum(size) FILTER (WHERE taken), 0),
        coalesce(sum(survival * size) FILTER (WHERE taken), 0.0)
    FROM versioned GROUP BY version)
SELECT g.*, coalesce(a.context, CASE WHEN c.id IS NOT NULL THEN 'cerebellum' END, '') AS context
FROM grouped g
LEFT JOIN adapter_versions a ON g.dimension = 'version' AND a.owner = current_user AND CAST(a.id AS text) = g.name
LEFT JOIN cerebellum_versions c ON g.dimension = 'version' AND c.owner = current_user AND CAST(c.id AS text) = g.name
ORDER BY g.dimension, CASE WHEN g.dimension = 'day' THEN g.name END DESC, g.offered DESC, g.name;
