-- Recoveries: certificates that a node got back by its EK alone, without a token. Each is counted.
CREATE TABLE recoveries (
    -- Of the certificate that it gave.
    serial TEXT NOT NULL PRIMARY KEY,
    node TEXT NOT NULL,
    recovered BIGINT NOT NULL,
    -- 1: an operator let this one through, so it counts against nothing.
    approved BIGINT NOT NULL
);
CREATE INDEX recoveries_node ON recoveries (node, recovered);

-- Nodes whose recoveries are used up: the next one waits for an operator.
CREATE TABLE recovery_waits (
    node TEXT NOT NULL PRIMARY KEY,
    since BIGINT NOT NULL,
    -- 1: an operator lets the next one through.
    approved BIGINT NOT NULL
);

-- Tokens that let one other TPM take over a name that is in use.
CREATE TABLE replacements (
    token TEXT NOT NULL PRIMARY KEY,
    node TEXT NOT NULL,
    -- The lowest tier that the other TPM may have.
    least_tier TEXT NOT NULL
);

-- How often each SVID key has joined, as far as its node is known to have stored it.
CREATE TABLE joins (
    key_hash TEXT NOT NULL PRIMARY KEY,
    node TEXT NOT NULL,
    confirmed BIGINT NOT NULL
);
CREATE INDEX joins_node ON joins (node);
