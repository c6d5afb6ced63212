-- name: embedder$
SELECT embedder FROM persons WHERE owner = current_user;

-- name: embedder_held$
-- The same, which nobody changes before this transaction ends.
SELECT embedder FROM persons WHERE owner = current_user FOR SHARE;

-- name: use_embedder!
UPDATE persons SET embedder = :embedder WHERE owner = current_user;

-- name: fill_experiences*!
-- Of the text that was embedded, and no other: it may have been redacted, replaced or forgotten meanwhile.
UPDATE experiences SET embedding = CAST(:embedding AS halfvec)
WHERE owner = current_user AND id = :id AND embedding IS NULL AND prefix = :prefix AND final_text = :final_text;

-- name: drop_experiences_embeddings$
WITH few AS (SELECT id FROM experiences WHERE owner = current_user AND embedding IS NOT NULL LIMIT :batch),
gone AS (UPDATE experiences e SET embedding = NULL FROM few
    WHERE e.owner = current_user AND e.id = few.id RETURNING 1)
SELECT count(*) FROM gone;

-- name: drop_chunk_embeddings$
WITH few AS (SELECT hash FROM chunk_texts WHERE owner = current_user AND embedding IS NOT NULL LIMIT :batch),
gone AS (UPDATE chunk_texts t SET embedding = NULL FROM few
    WHERE t.owner = current_user AND t.hash = few.hash RETURNING 1)
SELECT count(*) FROM gone;
