-- What the newest evidence of a node said, and the TPM's counters that the next must not fall behind.
CREATE TABLE attestations (
    node TEXT NOT NULL PRIMARY KEY,
    state TEXT NOT NULL,
    -- Of the last refusal.
    code TEXT,
    changed BIGINT NOT NULL,
    passed BIGINT,
    -- The newest signed result in hex.
    result TEXT,
    boot_key TEXT,
    reset_count BIGINT NOT NULL,
    restart_count BIGINT NOT NULL,
    clock BIGINT NOT NULL,
    safe BIGINT NOT NULL
);
