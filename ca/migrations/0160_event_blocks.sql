-- Events: the newest one row each, all others in blocks of 256 leaves, compressed and sealed (ca/src/store/audit/).
-- What stands in the old table `events` is moved over by the program, once, when the store is opened.

-- Not in a block yet.
CREATE TABLE event_tail (
    leaf INTEGER PRIMARY KEY,
    -- Of the record: the entry of the leaf.
    hash BLOB NOT NULL,
    received BIGINT NOT NULL,
    -- Which key sealed the body.
    site_key BIGINT NOT NULL,
    -- The record.
    body BLOB NOT NULL
);

-- 256 leaves that a checkpoint covers: block N holds those from 256 * N on, as does the log's tile N of level 0.
CREATE TABLE event_blocks (
    block INTEGER PRIMARY KEY,
    -- Of the events' own times: a question for a time goes where such events are. Clocks of nodes differ, and may be
    -- wrong; each wrong one costs its own block only.
    earliest BIGINT NOT NULL,
    latest BIGINT NOT NULL,
    -- 256 hashes of records.
    entries BLOB NOT NULL
);
CREATE INDEX event_blocks_times ON event_blocks (block, earliest, latest);

-- The events of a block that one key sealed.
CREATE TABLE event_parts (
    block BIGINT NOT NULL,
    site_key BIGINT NOT NULL,
    -- Which of the 256.
    places BLOB NOT NULL,
    -- What filters and charts ask. Empty: gone.
    columns BLOB NOT NULL,
    -- The records. Empty: gone.
    bodies BLOB NOT NULL,
    PRIMARY KEY (block, site_key)
);

-- Which blocks hold a value that filters ask for, and where in them. A term is a keyed hash of field and value.
CREATE TABLE event_terms (
    term BIGINT NOT NULL,
    block BIGINT NOT NULL,
    places BLOB NOT NULL,
    PRIMARY KEY (term, block)
) WITHOUT ROWID;

-- Where the records of each boot stand in the log. A journal is named by the leaf of its first record.
CREATE TABLE journal_runs (
    journal BIGINT NOT NULL,
    first_seq BIGINT NOT NULL,
    first_leaf BIGINT NOT NULL,
    length BIGINT NOT NULL,
    PRIMARY KEY (journal, first_seq)
) WITHOUT ROWID;

-- The last leaf of any of its records: what filled a hole later stands behind what follows it.
ALTER TABLE journals ADD COLUMN last_leaf BIGINT NOT NULL DEFAULT 0;
