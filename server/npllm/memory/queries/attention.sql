-- name: insert_attention_version!
-- Gains that a sleep learned; a second arrival of the same ones brings them up to date.
INSERT INTO attention_versions (id, base_fingerprint, parent, consolidation_id, folder, sha256, state, reason, metrics,
    created_at)
VALUES (:id, :base_fingerprint, :parent, :consolidation_id, :folder, :sha256, :state, :reason,
    CAST(CAST(:metrics AS text) AS jsonb), :created_at)
ON CONFLICT (id, owner) DO UPDATE SET state = excluded.state, reason = excluded.reason, metrics = excluded.metrics;

-- name: retire_attention!
-- Make room for newly published gains for the same base.
UPDATE attention_versions SET state = 'retired'
WHERE owner = current_user AND base_fingerprint = :base_fingerprint AND state = 'published' AND id <> :id;

-- name: attention_versions
-- Those for a base, newest first, in one state or in any (null).
SELECT * FROM attention_versions
WHERE owner = current_user AND base_fingerprint = :base_fingerprint
  AND (CAST(:state AS text) IS NULL OR state = :state)
ORDER BY created_at DESC, id DESC;

-- name: experiences_with_memories
-- Those in whose prompts something remembered stood, since a moment (all if null): newest first, with what stood there.
SELECT e.*, p.path AS project, s.memory_ids
FROM experiences e JOIN suggestions s ON s.id = e.id JOIN projects p ON p.id = e.project_id
WHERE e.owner = current_user AND s.owner = current_user AND cardinality(s.memory_ids) > 0
  AND (CAST(:since AS timestamptz) IS NULL OR e.created_at >= :since)
ORDER BY e.created_at DESC, e.id DESC LIMIT :limit;
