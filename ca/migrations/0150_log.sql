-- The log's tree as hash tiles (C2SP tlog-tiles). A tile is written again, wider, until it has 256 hashes.
CREATE TABLE log_tiles (
    level BIGINT NOT NULL,
    idx BIGINT NOT NULL,
    -- Hex, one hash after the other.
    hashes TEXT NOT NULL,
    PRIMARY KEY (level, idx)
);

-- Signed checkpoints: the newest, and the first of each hour.
CREATE TABLE log_checkpoints (
    size BIGINT NOT NULL PRIMARY KEY,
    root TEXT NOT NULL,
    -- The signed note, without cosignatures.
    note TEXT NOT NULL,
    signed BIGINT NOT NULL,
    -- Since the epoch.
    hour BIGINT NOT NULL
);
CREATE INDEX log_checkpoints_hour ON log_checkpoints (hour, size);
