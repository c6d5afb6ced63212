-- Versions that stay in use whatever a sleep makes, and what is forgotten on purpose. Rows and rights as in 0001.

ALTER TABLE adapter_versions ADD COLUMN pinned boolean NOT NULL DEFAULT false;

-- Ids of suggestions that were forgotten: what a journal still holds of them is never stored again.
CREATE TABLE forgotten (
    owner name        NOT NULL DEFAULT current_user,
    id    uuid        NOT NULL,
    at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (owner, id)
);

-- Files and folders, by their absolute paths, from which nothing is learned.
CREATE TABLE off_limits (
    owner name        NOT NULL DEFAULT current_user,
    path  text        NOT NULL,
    at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (owner, path)
);

-- One row for each act of forgetting; while files still hold some of it, it is not done. No text, no path.
CREATE TABLE forgettings (
    id    uuid        PRIMARY KEY,
    owner name        NOT NULL DEFAULT current_user,
    at    timestamptz NOT NULL DEFAULT now(),
    done  boolean     NOT NULL DEFAULT false
);

CREATE FUNCTION stay_forgotten() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    suggestion uuid;
BEGIN
    IF TG_TABLE_NAME IN ('suggestions', 'experiences') THEN
        suggestion := NEW.id;
    ELSE
        suggestion := NEW.suggestion_id;
    END IF;
    IF EXISTS (SELECT 1 FROM npllm.forgotten f WHERE f.owner = current_user AND f.id = suggestion) THEN
        RETURN NULL;
    END IF;
    RETURN NEW;
END
$$;

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['suggestions', 'outcomes', 'feedback', 'experiences'] LOOP
        EXECUTE format('CREATE TRIGGER stay_forgotten BEFORE INSERT ON %I FOR EACH ROW EXECUTE FUNCTION stay_forgotten()',
                       name);
    END LOOP;
    FOREACH name IN ARRAY ARRAY['forgotten', 'off_limits', 'forgettings'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY own_rows ON %I USING (owner = current_user) WITH CHECK (owner = current_user)',
                       name);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO PUBLIC', name);
    END LOOP;
END
$$;
