-- What is known of each suggestion besides what became of it: how it was asked for, how long it was on screen, how much of it
-- was typed along; and how much of the implicit reward the surviving characters are worth. Rows and rights as in 0001.

ALTER TABLE suggestions
    ADD COLUMN asked    boolean NOT NULL DEFAULT false,  -- by a key of the person's own, not by typing
    ADD COLUMN requests integer NOT NULL DEFAULT 1;  -- that it took in its language and project: this one, and those before
                                                     -- it since the last suggestion that were answered with nothing
ALTER TABLE outcomes
    ADD COLUMN weight float8 NOT NULL DEFAULT 1,  -- `implicit` holds it; 1 = none, as in all that was written before this
    ADD COLUMN typed  integer NOT NULL DEFAULT 0,  -- characters that were typed by hand while it was on screen
    ADD COLUMN seen_s float8;  -- seconds on screen, until something became of it or now; NULL = not known

-- Typed out by hand was told by its reward alone before there was a word for it.
UPDATE outcomes SET detail = 'typed out' WHERE kind = 'accepted' AND implicit <= 0.5 AND detail = '';
