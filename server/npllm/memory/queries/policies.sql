-- name: insert_policy_version!
-- A policy that a sleep produced; a second arrival of the same one brings it up to date.
INSERT INTO policy_versions (id, base_fingerprint, parent, consolidation_id, folder, sha256, state, reason, metrics,
    created_at)
VALUES (:id, :base_fingerprint, :parent, :consolidation_id, :folder, :sha256, :state, :reason,
    CAST(CAST(:metrics AS text) AS jsonb), :created_at)
ON CONFLICT (id, owner) DO UPDATE SET state = excluded.state, reason = excluded.reason, metrics = excluded.metrics;

-- name: retire_policies!
-- Make room for a newly published policy of the same base.
UPDATE policy_versions SET state = 'retired'
WHERE owner = current_user AND base_fingerprint = :base_fingerprint AND state = 'published' AND id <> :id;

-- name: policy_versions
-- Policies for a base, newest first.
SELECT * FROM policy_versions
WHERE owner = current_user AND base_fingerprint = :base_fingerprint ORDER BY created_at DESC, id DESC;

-- name: decided
-- What the modulator decided by chance and what came of it, newest first; what nobody saw has no label.
SELECT s.id, s.decision_id, s.uri, s.families, s.action, s.propensity, s.features, e.reward
FROM suggestions s JOIN experiences e ON e.id = s.id AND e.owner = s.owner
WHERE s.owner = current_user AND s.base_fingerprint = :base_fingerprint AND s.decision_id IS NOT NULL
  AND s.propensity < 1 AND e.outcome NOT IN ('unseen', 'superseded')
ORDER BY s.created_at DESC LIMIT :limit;
