-- One row for each archive of the audit log that was ever configured: how far segments of the log are in it.
CREATE TABLE log_archives (
    -- Where it is, as configured: another archive begins anew.
    name TEXT NOT NULL PRIMARY KEY,
    -- The first leaf that is not in it.
    next_leaf BIGINT NOT NULL,
    -- Which cloud process writes, and until when nobody else does.
    holder TEXT NOT NULL,
    leased BIGINT NOT NULL,
    segments BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    updated BIGINT NOT NULL,
    -- Why nothing goes there, and since when.
    error TEXT,
    failing BIGINT
);
