-- Machines with an agent. A removed node keeps its row, so that its address is not given to another one.
CREATE TABLE nodes (
    name TEXT NOT NULL PRIMARY KEY,
    status TEXT NOT NULL,
    tier TEXT NOT NULL,
    -- What the identity stands on: `ek:<sha-256>`, or `key:<sha-256>` in tier software.
    root TEXT NOT NULL,
    -- TPMT_PUBLIC of the attestation key in hex; empty in tier software.
    ak TEXT NOT NULL,
    labels TEXT NOT NULL,
    -- Offset into 100.64.0.0/10.
    v4 BIGINT NOT NULL UNIQUE,
    token TEXT NOT NULL,
    enrolled BIGINT NOT NULL,
    updated BIGINT NOT NULL
);
CREATE INDEX nodes_root ON nodes (root);

-- Every certificate issued to a node.
CREATE TABLE svids (
    serial TEXT NOT NULL PRIMARY KEY,
    node TEXT NOT NULL,
    key_hash TEXT NOT NULL,
    -- TPMT_PUBLIC of the key in hex, or its point in tier software.
    public TEXT NOT NULL,
    issued BIGINT NOT NULL,
    not_after BIGINT NOT NULL,
    acknowledged BIGINT NOT NULL
);
CREATE INDEX svids_node ON svids (node, not_after);
CREATE INDEX svids_key ON svids (key_hash);
