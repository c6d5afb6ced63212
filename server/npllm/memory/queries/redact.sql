-- name: suggestions_named
SELECT s.*, p.path AS project FROM suggestions s JOIN projects p ON p.id = s.project_id
WHERE s.owner = current_user AND s.id = ANY(CAST(:ids AS uuid[]));

-- name: redact_suggestions*!
UPDATE suggestions SET text = :text, prefix = :prefix, suffix = :suffix WHERE owner = current_user AND id = :id;

-- name: redact_outcomes*!
UPDATE outcomes SET suggested = :suggested, final_text = :final_text WHERE owner = current_user AND id = :id;

-- name: redact_feedback*!
UPDATE feedback SET comment = :comment WHERE owner = current_user AND id = :id;

-- name: experiences_held
-- In the order in which they are written, and nobody changes them before this transaction ends.
SELECT e.*, p.path AS project FROM experiences e JOIN projects p ON p.id = e.project_id
WHERE e.owner = current_user AND e.id = ANY(CAST(:ids AS uuid[])) ORDER BY e.id FOR UPDATE OF e;

-- name: redact_experiences*!
-- What was embedded held the secret: it is embedded anew.
UPDATE experiences SET prefix = :prefix, suffix = :suffix, suggested = :suggested, final_text = :final_text,
    embedding = NULL
WHERE owner = current_user AND id = :id;

-- name: every_pattern
SELECT language, hash, text FROM patterns WHERE owner = current_user ORDER BY language, hash;

-- name: delete_patterns*!
DELETE FROM patterns WHERE owner = current_user AND language = :language AND hash = :hash;
