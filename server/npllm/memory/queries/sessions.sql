-- name: heartbeat!
-- An editor window is alive, was last used then, and would or would not let the person's adapters be trained now.
INSERT INTO editor_sessions (id, last_activity, asleep_ok) VALUES (:id, :last_activity, :asleep_ok)
ON CONFLICT (id, owner) DO UPDATE SET last_activity = excluded.last_activity, asleep_ok = excluded.asleep_ok,
    seen_at = clock_timestamp();

-- name: end_session!
DELETE FROM editor_sessions WHERE id = :id;

-- name: forget_sessions!
-- Windows that ended without saying so.
DELETE FROM editor_sessions WHERE owner = current_user AND seen_at < clock_timestamp() - interval '1 day';

-- name: latest_activity$
-- When any live window was last used.
SELECT max(last_activity) FROM editor_sessions
WHERE owner = current_user AND seen_at > clock_timestamp() - make_interval(secs => :stale_s);

-- name: sleep_vetoed$
-- Whether a live window does not want sleep to begin by itself.
SELECT coalesce(bool_or(NOT asleep_ok), false) FROM editor_sessions
WHERE owner = current_user AND seen_at > clock_timestamp() - make_interval(secs => :stale_s);

-- name: introduce!
-- This person has a row, from the first connection on.
INSERT INTO persons DEFAULT VALUES ON CONFLICT DO NOTHING;

-- name: try_trainer_lock$
-- Until the connection ends, however it ends.
SELECT take_training();
