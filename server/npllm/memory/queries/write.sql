-- name: upsert_project*!
-- A project is known by its path.
INSERT INTO projects (path) VALUES (:path) ON CONFLICT (owner, path) DO NOTHING;

-- name: insert_suggestions*!
-- What was offered. A second arrival of the same one is the same one.
INSERT INTO suggestions (id, project_id, uri, path, language, cursor_offset, text, prefix, suffix, context,
    base_fingerprint, adapter_versions, memory_ids, mean_logprob, latency_ms, created_at, source, kind,
    contexts, decision_id, policy_version, families, action, propensity, features, chance, audited,
    asked, requests)
VALUES (:id, (SELECT p.id FROM projects p WHERE p.owner = current_user AND p.path = :project), :uri, :path,
    :language, :cursor_offset, :text, :prefix, :suffix, :context, :base_fingerprint, :adapter_versions, :memory_ids,
    :mean_logprob, :latency_ms, :created_at, :source, :kind,
    :contexts, :decision_id, :policy_version, :families, :action, :propensity, :features, :chance, :audited,
    :asked, :requests)
ON CONFLICT (id, owner) DO NOTHING;

-- name: insert_outcomes*!
-- What became of a suggestion, one row per look.
INSERT INTO outcomes (id, suggestion_id, revision, kind, suggested, final_text, survival, implicit, created_at, final,
    occasion, detail, weight, typed, seen_s)
VALUES (:id, :suggestion_id, :revision, :kind, :suggested, :final_text, :survival, :implicit, :created_at, :final,
    :occasion, :detail, :weight, :typed, :seen_s)
ON CONFLICT (id, owner) DO NOTHING;

-- name: insert_feedback*!
-- What the person said. A classifier's reading of it replaces the word list's, in whatever order they arrive.
INSERT INTO feedback AS kept (id, suggestion_id, emoji, comment, satisfaction, confidence, frustration, reward, created_at,
    read_by)
VALUES (:id, :suggestion_id, :emoji, :comment, :satisfaction, :confidence, :frustration, :reward, :created_at, :read_by)
ON CONFLICT (id, owner) DO UPDATE SET satisfaction = excluded.satisfaction, confidence = excluded.confidence,
    frustration = excluded.frustration, reward = excluded.reward, read_by = excluded.read_by
WHERE kept.read_by = 'lexicon' AND excluded.read_by <> 'lexicon';

-- name: insert_held_back*!
-- What was made and not shown.
INSERT INTO held_back (suggestion_id, project_id, uri, path, language, cursor_offset, chance, threshold, size,
    mean_logprob, source, created_at)
VALUES (:suggestion_id, (SELECT p.id FROM projects p WHERE p.owner = current_user AND p.path = :project), :uri, :path,
    :language, :cursor_offset, :chance, :threshold, :size, :mean_logprob, :source, :created_at)
ON CONFLICT (suggestion_id, owner) DO NOTHING;

-- name: insert_signs*!
-- Signs of frustration.
INSERT INTO signs (id, suggestion_id, kind, strength, project_id, uri, path, language, cursor_offset, created_at)
VALUES (:id, :suggestion_id, :kind, :strength,
    (SELECT p.id FROM projects p WHERE p.owner = current_user AND p.path = :project), :uri, :path, :language,
    :cursor_offset, :created_at)
ON CONFLICT (id, owner) DO NOTHING;

-- name: upsert_experiences*!
-- A later look (higher revision) replaces an earlier one, in whatever order they arrive; an embedding that the newer
-- one lacks is kept if the text is the same, and one that the same look lacked is filled in, where its texts are still those: they may have been redacted.
INSERT INTO experiences AS kept (id, project_id, uri, path, language, cursor_offset, prefix, suffix, context,
    suggested, final_text, outcome, implicit, emotional, reward, relevance, decision, created_at, revision, contexts, embedding)
VALUES (:id, (SELECT p.id FROM projects p WHERE p.owner = current_user AND p.path = :project), :uri, :path,
    :language, :cursor_offset, :prefix, :suffix, :context, :suggested, :final_text, :outcome, :implicit, :emotional,
    :reward, :relevance, :decision, :created_at, :revision, :contexts, CAST(:embedding AS halfvec))
ON CONFLICT (id, owner) DO UPDATE SET
    project_id = excluded.project_id, uri = excluded.uri, path = excluded.path, language = excluded.language,
    cursor_offset = excluded.cursor_offset, prefix = excluded.prefix, suffix = excluded.suffix,
    context = excluded.context, suggested = excluded.suggested, final_text = excluded.final_text,
    outcome = excluded.outcome, implicit = excluded.implicit, emotional = excluded.emotional,
    reward = excluded.reward, relevance = excluded.relevance, decision = excluded.decision,
    created_at = excluded.created_at, revision = excluded.revision, contexts = excluded.contexts,
    embedding = coalesce(excluded.embedding, CASE
        WHEN kept.final_text = excluded.final_text AND kept.prefix = excluded.prefix THEN kept.embedding END)
WHERE excluded.revision > kept.revision
   OR (excluded.revision = kept.revision AND kept.embedding IS NULL AND excluded.embedding IS NOT NULL
       AND kept.prefix = excluded.prefix AND kept.suffix = excluded.suffix AND kept.suggested = excluded.suggested
       AND kept.final_text = excluded.final_text);
