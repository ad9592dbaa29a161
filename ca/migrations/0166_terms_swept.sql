-- How far the index of terms was swept of what was pruned: behind `deleted`, it is swept again, also after a restart.
ALTER TABLE log_pruned ADD COLUMN terms_swept BIGINT NOT NULL DEFAULT 0;
