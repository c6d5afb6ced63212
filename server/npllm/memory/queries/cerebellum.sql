-- name: insert_cerebellum_version!
-- A version that a sleep produced; a second arrival of the same one brings it up to date.
INSERT INTO cerebellum_versions (id, origin, parent, consolidation_id, folder, sha256, state, reason, metrics,
    created_at)
VALUES (:id, :origin, :parent, :consolidation_id, :folder, :sha256, :state, :reason,
    CAST(CAST(:metrics AS text) AS jsonb), :created_at)
ON CONFLICT (id, owner) DO UPDATE SET state = excluded.state, reason = excluded.reason, metrics = excluded.metrics;

-- name: retire_cerebellum!
-- Make room for a newly published version of the same origin.
UPDATE cerebellum_versions SET state = 'retired'
WHERE owner = current_user AND origin = :origin AND state = 'published' AND id <> :id;

-- name: cerebellum_versions
-- Versions, newest first, narrowed by what is not null.
SELECT * FROM cerebellum_versions
WHERE owner = current_user
  AND (CAST(:origin AS text) IS NULL OR origin = :origin)
  AND (CAST(:state AS text) IS NULL OR state = :state)
ORDER BY created_at DESC, id DESC;

-- name: set_cerebellum_state!
UPDATE cerebellum_versions SET state = :state WHERE owner = current_user AND id = :id;

-- name: pin_cerebellum!
UPDATE cerebellum_versions SET pinned = :pinned WHERE owner = current_user AND id = :id;

-- name: forget_patterns!
DELETE FROM patterns WHERE owner = current_user;

-- name: insert_patterns*!
INSERT INTO patterns (language, hash, text, count, last_seen, version_id)
VALUES (:language, :hash, :text, :count, :last_seen, :version_id)
ON CONFLICT (owner, language, hash) DO UPDATE SET
    text = excluded.text, count = excluded.count, last_seen = excluded.last_seen, version_id = excluded.version_id;

-- name: patterns
-- What the cerebellum in use knows, most frequent first.
SELECT * FROM patterns
WHERE owner = current_user AND (CAST(:language AS text) IS NULL OR language = :language)
ORDER BY count DESC, last_seen DESC, hash LIMIT :limit;

-- name: reflex_count$
-- How many suggestions the cerebellum gave alone.
SELECT count(*) FROM suggestions WHERE owner = current_user AND source = 'reflex';
