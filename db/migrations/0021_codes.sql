-- Search by meaning where there is much: the sign of each number of an embedding (binary quantization), 48 bytes, beside
-- the columns that a search filters by, so that one index alone is read, all of it; the nearest codes' embeddings are
-- then compared exactly. In the place of the HNSW indexes: among a million rows they missed six of the ten nearest, let
-- 14 rows a second in, and a team had to do without (their graph tells of others' rows).

DROP INDEX IF EXISTS experiences_nearest;
ALTER TABLE experiences ADD COLUMN code bit(384) GENERATED ALWAYS AS (CAST(binary_quantize(embedding) AS bit(384))) STORED;
CREATE INDEX experiences_codes ON experiences (owner, language, project_id) INCLUDE (id, code) WHERE code IS NOT NULL;

DROP INDEX IF EXISTS chunk_texts_nearest;
ALTER TABLE chunk_texts ADD COLUMN code bit(384) GENERATED ALWAYS AS (CAST(binary_quantize(embedding) AS bit(384))) STORED;
CREATE INDEX chunk_texts_codes ON chunk_texts (owner) INCLUDE (hash, code) WHERE code IS NOT NULL;
