-- A cerebellum's version that stays in use, as an adapter's may. Runs with search_path = npllm, public.
ALTER TABLE cerebellum_versions ADD COLUMN pinned boolean NOT NULL DEFAULT false;
