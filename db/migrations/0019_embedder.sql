-- Which embedder a person's vectors are of: those of two mean nothing to one another. Changing it drops all of them, in
-- batches, and they are made anew in the background.

ALTER TABLE persons ADD COLUMN embedder text;  -- its fingerprint; NULL = the one that npllm brings, '' = none: being changed
CREATE INDEX experiences_bare ON experiences (owner, created_at DESC) WHERE embedding IS NULL;
