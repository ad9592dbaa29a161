-- One row for each boot of each keeper of a journal (a node, or a cloud process): where its chain stands.
CREATE TABLE journals (
    node TEXT NOT NULL,
    boot TEXT NOT NULL,
    last_seq BIGINT NOT NULL,
    head TEXT NOT NULL,
    -- Leaf of the boot's first record: boots of one keeper are ordered by it.
    opened_leaf BIGINT NOT NULL,
    opened BIGINT NOT NULL,
    updated BIGINT NOT NULL,
    PRIMARY KEY (node, boot)
);

-- Every record ever accepted, in the one global order. Rows are only ever added.
CREATE TABLE events (
    leaf BIGINT NOT NULL PRIMARY KEY,
    node TEXT NOT NULL,
    boot TEXT NOT NULL,
    seq BIGINT NOT NULL,
    hash TEXT NOT NULL,
    leaf_hash TEXT NOT NULL,
    time BIGINT NOT NULL,
    received BIGINT NOT NULL,
    type TEXT NOT NULL,
    actor TEXT NOT NULL,
    subject TEXT,
    verdict TEXT NOT NULL,
    rule TEXT,
    record TEXT NOT NULL,
    UNIQUE (node, boot, seq)
);
CREATE INDEX events_node ON events (node, leaf);
CREATE INDEX events_actor ON events (actor, leaf);
CREATE INDEX events_subject ON events (subject, leaf);
CREATE INDEX events_type ON events (type, leaf);
CREATE INDEX events_verdict ON events (verdict, leaf);
CREATE INDEX events_rule ON events (rule, leaf);
CREATE INDEX events_time ON events (time);

-- What is wrong with a journal: records missing, two records for one number, a journal that went back. One row for
-- each boot and kind, so that a hostile node cannot fill the table.
CREATE TABLE journal_faults (
    node TEXT NOT NULL,
    boot TEXT NOT NULL,
    first_seq BIGINT NOT NULL,
    last_seq BIGINT NOT NULL,
    kind TEXT NOT NULL,
    noticed BIGINT NOT NULL,
    -- When the missing records arrived after all.
    resolved BIGINT,
    PRIMARY KEY (node, boot, kind)
);
