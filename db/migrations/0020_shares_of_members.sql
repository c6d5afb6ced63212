-- Shares, as what was found later wants them: what is shared with a role that a person no longer belongs to, or that is
-- gone, holds up no write; and a copy says whose embedder made its vector (see 0019), since others may use another.

ALTER TABLE shared_experiences ADD COLUMN embedder text;  -- persons.embedder when it was copied; NULL = not known
UPDATE shared_experiences x SET embedder = (SELECT p.embedder FROM persons p WHERE p.owner = x.owner);

CREATE OR REPLACE FUNCTION share_experience() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT 1 FROM npllm.shares s WHERE s.owner = NEW.owner) THEN
        RETURN NULL;
    END IF;
    DELETE FROM npllm.shared_experiences x WHERE x.id = NEW.id AND x.owner = NEW.owner;
    INSERT INTO npllm.shared_experiences
        (id, owner, project_id, shared_with, path, language, prefix, final_text, reward, created_at, embedding, embedder)
    SELECT NEW.id, NEW.owner, NEW.project_id, s.shared_with, NEW.path, NEW.language, right(NEW.prefix, 1000),
        NEW.final_text, NEW.reward, NEW.created_at, NEW.embedding,
        (SELECT p.embedder FROM npllm.persons p WHERE p.owner = NEW.owner)
    FROM npllm.shares s
    WHERE s.owner = NEW.owner AND s.project_id = NEW.project_id AND btrim(NEW.final_text, E' \t\r\n') <> ''
      AND (NEW.decision IN ('keep', 'low') OR btrim(NEW.final_text) <> btrim(NEW.suggested))
      AND s.shared_with IN (SELECT r.rolname FROM pg_roles r WHERE pg_has_role(r.oid, 'MEMBER'));
    RETURN NULL;
END
$$;
