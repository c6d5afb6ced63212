-- So that `forget --text` finds the versions that had learned from what was pruned: of each pruned text, which words stood
-- in it, as a sketch (Bloom 1970) of salted hashes. It answers "may hold these words", wrongly yes for about one in a
-- hundred, and tells no word to whoever does not know the salt and guess it. 256 bytes a row.

ALTER TABLE persons ADD COLUMN salt text NOT NULL DEFAULT gen_random_uuid();
ALTER TABLE pruned ADD COLUMN words bit(2048);  -- NULL: pruned before this

-- 4 of 2048 bits for each word.
CREATE FUNCTION word_sketch(text, salt text) RETURNS bit(2048) LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(bit_or(set_bit(CAST(B'0' AS bit(2048)), CAST((hash >> (11 * number)) & 2047 AS integer), 1)),
                    CAST(B'0' AS bit(2048)))
    FROM (SELECT DISTINCT ('x' || left(encode(sha256(convert_to(salt || found[1], 'UTF8')), 'hex'), 16))::bit(64)::bigint
              AS hash FROM regexp_matches($1, '\w+', 'g') AS found) AS words, generate_series(0, 3) AS number
$$;
