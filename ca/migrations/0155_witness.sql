-- As a witness (C2SP tlog-witness): the checkpoint of each log of others that was cosigned last.
CREATE TABLE witnessed_logs (
    -- The log's name.
    origin TEXT PRIMARY KEY,
    size BIGINT NOT NULL,
    -- 64 hex digits.
    root TEXT NOT NULL,
    -- The signed note, with this cloud's cosignature.
    note TEXT NOT NULL,
    cosigned BIGINT NOT NULL,
    -- The first note of a tree of a known size with another root, and when it came: with the note above, or with what
    -- others kept, it proves that the log was signed twice.
    fork TEXT,
    forked BIGINT
);

-- Checkpoints of the own log that a witness has cosigned.
CREATE TABLE cosigned_checkpoints (
    size BIGINT PRIMARY KEY,
    -- The signed note, without cosignatures.
    note TEXT NOT NULL,
    signed BIGINT NOT NULL,
    -- `signed` in hours: of each the first stays.
    hour BIGINT NOT NULL
);
CREATE INDEX cosigned_checkpoints_hour ON cosigned_checkpoints (hour, size);

-- Their cosignatures, each verified before it came here.
CREATE TABLE log_cosignatures (
    size BIGINT NOT NULL,
    -- The witness's key as signed notes write keys.
    witness TEXT NOT NULL,
    -- Its line under the note.
    line TEXT NOT NULL,
    -- When it signed, by its own clock.
    time BIGINT NOT NULL,
    PRIMARY KEY (size, witness)
);
CREATE INDEX log_cosignatures_witness ON log_cosignatures (witness, size);
