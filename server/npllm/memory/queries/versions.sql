-- name: insert_adapter_version!
-- A version that a sleep produced; a second arrival of the same one brings it up to date.
INSERT INTO adapter_versions (id, context, base_fingerprint, parent, consolidation_id, folder, sha256, state, reason,
    metrics, created_at)
VALUES (:id, :context, :base_fingerprint, :parent, :consolidation_id, :folder, :sha256, :state, :reason,
    CAST(CAST(:metrics AS text) AS jsonb), :created_at)
ON CONFLICT (id, owner) DO UPDATE SET state = excluded.state, reason = excluded.reason, metrics = excluded.metrics;

-- name: retire_published!
-- Make room for a newly published version of the same context and base.
UPDATE adapter_versions SET state = 'retired'
WHERE owner = current_user AND context = :context AND base_fingerprint = :base_fingerprint AND state = 'published'
  AND id <> :id;

-- name: lock_versions!
-- One publication at a time, of this database user. A row that nobody else can lock, unlike an advisory lock.
SELECT 1 FROM persons WHERE owner = current_user FOR UPDATE;

-- name: announce!
-- Delivered to those who listen when the transaction commits, on a channel that only this person knows.
SELECT pg_notify(channel, CAST(:id AS text)) FROM persons WHERE owner = current_user;

-- name: channel$
SELECT channel FROM persons WHERE owner = current_user;

-- name: adapter_versions
-- Versions, newest first, narrowed by what is not null.
SELECT * FROM adapter_versions
WHERE owner = current_user
  AND (CAST(:state AS text) IS NULL OR state = :state)
  AND (CAST(:base_fingerprint AS text) IS NULL OR base_fingerprint = :base_fingerprint)
  AND (CAST(:context AS text) IS NULL OR context = :context)
ORDER BY created_at DESC, id DESC;

-- name: upsert_consolidation!
INSERT INTO consolidations (id, state, started_at, ended_at, report)
VALUES (:id, :state, :started_at, :ended_at, CAST(CAST(:report AS text) AS jsonb))
ON CONFLICT (id, owner) DO UPDATE SET state = excluded.state, ended_at = excluded.ended_at, report = excluded.report;

-- name: last_consolidation^
-- The newest sleep, in one state or in any (null), beside one base or any (null).
SELECT * FROM consolidations
WHERE owner = current_user AND (CAST(:state AS text) IS NULL OR state = :state)
  AND (CAST(:base_fingerprint AS text) IS NULL OR report ->> 'base_fingerprint' = :base_fingerprint)
ORDER BY started_at DESC, id DESC LIMIT 1;

-- name: pin_version!
-- At most one of a context and base is pinned: the one in use.
UPDATE adapter_versions SET pinned = :pinned WHERE owner = current_user AND id = :id;

-- name: set_version_state!
UPDATE adapter_versions SET state = :state WHERE owner = current_user AND id = :id;

-- name: consolidation^
SELECT * FROM consolidations WHERE owner = current_user AND id = :id;
