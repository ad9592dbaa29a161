-- The turns of each boot's journal key that hold, so that what fills a gap late is checked against its neighbours.
CREATE TABLE journal_turns (
    -- SPIFFE ID.
    node TEXT NOT NULL,
    -- 32 hex digits.
    boot TEXT NOT NULL,
    seq BIGINT NOT NULL,
    number BIGINT NOT NULL,
    -- The next key's point, the signature of the key before, and the hash of the record before: hex.
    public_key TEXT NOT NULL,
    signature TEXT NOT NULL,
    prev TEXT NOT NULL,
    -- 1: the turn before is missing, and this one was taken on trust.
    trusted BIGINT NOT NULL,
    PRIMARY KEY (node, boot, seq)
);

-- Lost ranges of which an operator has taken note. One counts for a fault that lies within it as a whole.
CREATE TABLE journal_losses (
    node TEXT NOT NULL,
    boot TEXT NOT NULL,
    first_seq BIGINT NOT NULL,
    last_seq BIGINT NOT NULL,
    acknowledged BIGINT NOT NULL,
    operator TEXT NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (node, boot, first_seq)
);

-- When somebody asked that these be given once more.
ALTER TABLE export_refused ADD COLUMN retry BIGINT;
