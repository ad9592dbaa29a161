-- What of the audit log was pruned: one row once something was.
CREATE TABLE log_pruned (
    one BIGINT NOT NULL PRIMARY KEY,
    -- The smallest index whose event is kept.
    minimum BIGINT NOT NULL,
    -- Everything below is deleted; between the two it is being deleted.
    deleted BIGINT NOT NULL,
    -- The policy under which it was, in words.
    policy TEXT NOT NULL,
    pruned BIGINT NOT NULL
);
