-- As before, but a row for each range: several ranges of one boot may be missing, and what is known of each differs.
-- `MAX_FAULTS` of `ca/src/store/audit/faults.rs` bounds how many rows of one boot there are.
CREATE TABLE journal_ranges (
    node TEXT NOT NULL,
    boot TEXT NOT NULL,
    kind TEXT NOT NULL,
    first_seq BIGINT NOT NULL,
    last_seq BIGINT NOT NULL,
    noticed BIGINT NOT NULL,
    -- When the node signed that it does not have them any more.
    lost BIGINT,
    -- When the missing records arrived after all.
    resolved BIGINT,
    PRIMARY KEY (node, boot, kind, first_seq)
);
INSERT INTO journal_ranges (node, boot, kind, first_seq, last_seq, noticed, lost, resolved)
    SELECT node, boot, kind, first_seq, last_seq, noticed, NULL, resolved FROM journal_faults;
DROP TABLE journal_faults;
ALTER TABLE journal_ranges RENAME TO journal_faults;

-- Where a node said, signed, that a boot's journal ends, as far as it said more than was stored then.
CREATE TABLE journal_heads (
    node TEXT NOT NULL,
    boot TEXT NOT NULL,
    seq BIGINT NOT NULL,
    hash TEXT NOT NULL,
    heard BIGINT NOT NULL,
    PRIMARY KEY (node, boot)
);
