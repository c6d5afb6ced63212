-- name: share!
INSERT INTO shares (project_id, shared_with)
SELECT p.id, CAST(:role AS name) FROM projects p WHERE p.owner = current_user AND p.path = :project
ON CONFLICT DO NOTHING;

-- name: share_what_there_is!
-- Touch the project's experiences, so that the trigger copies them.
UPDATE experiences SET revision = revision
WHERE owner = current_user AND project_id = (SELECT p.id FROM projects p WHERE p.owner = current_user AND p.path = :project);

-- name: unshare$
-- Its copies go with it.
WITH gone AS (
    DELETE FROM shares s USING projects p
    WHERE s.owner = current_user AND p.owner = current_user AND p.id = s.project_id AND p.path = :project
      AND (CAST(:role AS name) IS NULL OR s.shared_with = CAST(:role AS name)) RETURNING 1)
SELECT count(*) FROM gone;

-- name: shares
-- What this person shares, with how much there is of theirs and of the others'.
SELECT p.path AS project, s.shared_with::text AS role,
    (SELECT count(*) FROM shared_experiences x WHERE x.owner = current_user AND x.project_id = s.project_id
        AND x.shared_with = s.shared_with) AS own,
    (SELECT count(*) FROM shared_experiences x WHERE x.owner <> current_user AND x.shared_with = s.shared_with) AS others
FROM shares s JOIN projects p ON p.id = s.project_id AND p.owner = s.owner
WHERE s.owner = current_user ORDER BY 1, 2;

-- name: may_share_with$
-- Whether there is such a role and this person belongs to it; null: there is none.
SELECT pg_has_role(r.oid, 'MEMBER') FROM pg_roles r WHERE r.rolname = CAST(:role AS name);

-- name: similar_shared
-- The nearest of what others share with a role that this person shares the same project with; exact. Vectors of another
-- embedder mean nothing here.
WITH roles AS MATERIALIZED (
    SELECT s.shared_with FROM shares s JOIN projects p ON p.id = s.project_id AND p.owner = s.owner
    WHERE s.owner = current_user AND p.path = :project),
mine AS MATERIALIZED (SELECT i.embedder FROM persons i WHERE i.owner = current_user)
SELECT x.id, x.path, x.prefix, x.final_text, x.reward, x.embedding <=> CAST(:embedding AS halfvec) AS distance
FROM shared_experiences x
WHERE EXISTS (SELECT 1 FROM roles) AND x.shared_with IN (SELECT shared_with FROM roles) AND x.owner <> current_user
  AND x.language = :language AND coalesce(x.embedder = (SELECT embedder FROM mine), true) AND x.embedding IS NOT NULL AND NOT (x.id = ANY(CAST(:exclude AS uuid[])))
  AND x.embedding <=> CAST(:embedding AS halfvec) <= :max_distance
ORDER BY distance LIMIT :limit;
