-- What did not match in the newest evidence of a node: JSON; absent: nothing.
ALTER TABLE attestations ADD COLUMN findings TEXT;

-- The newest evidence of a node, and the newest that passed. Written when something in it has changed.
CREATE TABLE evidence (
    node TEXT NOT NULL,
    -- `latest` or `passed`.
    which TEXT NOT NULL,
    taken BIGINT NOT NULL,
    -- Reason code, where it did not pass.
    code TEXT,
    bank TEXT NOT NULL,
    -- JSON: index to value in hex.
    pcrs TEXT NOT NULL,
    -- 64 bits in hex.
    firmware TEXT NOT NULL,
    tier TEXT NOT NULL,
    -- What the boot log says: 0, 1, or absent.
    secure_boot BIGINT,
    -- SHA-256 of the boot log.
    boot_log TEXT,
    -- How much of the node's IMA list belongs to it, in bytes.
    ima BIGINT,
    findings TEXT NOT NULL,
    PRIMARY KEY (node, which)
);

-- Boot logs that rows of `evidence` name, in base64: the newest and the one that passed are mostly one.
CREATE TABLE evidence_logs (
    node TEXT NOT NULL,
    hash TEXT NOT NULL,
    log TEXT NOT NULL,
    PRIMARY KEY (node, hash)
);

-- The IMA list of a node since its boot, as the kernel has it, in hex: it is added to at the end.
CREATE TABLE evidence_ima (
    node TEXT NOT NULL PRIMARY KEY,
    list TEXT NOT NULL
);
