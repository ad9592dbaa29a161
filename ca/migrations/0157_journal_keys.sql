-- The newest key of each boot's journal, as its turns prove it (edgeward_audit::record::KeyChain).
CREATE TABLE journal_keys (
    -- SPIFFE ID.
    node TEXT NOT NULL,
    -- 32 hex digits.
    boot TEXT NOT NULL,
    number BIGINT NOT NULL,
    -- The key's point, hex.
    public_key TEXT NOT NULL,
    -- Sequence number of its turn.
    seq BIGINT NOT NULL,
    -- Sequence number of the record at which it was noticed that the next turn is overdue.
    overdue BIGINT,
    PRIMARY KEY (node, boot)
);
