-- By what a comment was read: a classifier, where the person has one, corrects what the word list made of it. Rows and rights as
-- in 0001.

ALTER TABLE feedback ADD COLUMN read_by text NOT NULL DEFAULT 'lexicon';
