-- One row for each export of the audit log that was ever configured: how far its receiver has come.
CREATE TABLE exports (
    name TEXT NOT NULL PRIMARY KEY,
    -- Index in the log of the last event that the receiver has; -1: none.
    position BIGINT NOT NULL,
    -- Which cloud process sends, and until when nobody else does.
    holder TEXT NOT NULL,
    leased BIGINT NOT NULL,
    -- Events given to the receiver, those that were given twice included.
    sent BIGINT NOT NULL,
    -- Events that the receiver refuses and that were put aside.
    refused BIGINT NOT NULL,
    updated BIGINT NOT NULL,
    -- Why nothing goes out, and since when.
    error TEXT,
    failing BIGINT
);

-- Events that a receiver refuses for what they are: they are in the log, and not with the receiver.
CREATE TABLE export_refused (
    name TEXT NOT NULL,
    first_leaf BIGINT NOT NULL,
    last_leaf BIGINT NOT NULL,
    count BIGINT NOT NULL,
    reason TEXT NOT NULL,
    noticed BIGINT NOT NULL,
    PRIMARY KEY (name, first_leaf)
);
