-- The segments that were written to each archive: what is not there any more in its length holds pruning up.
CREATE TABLE log_segments (
    archive TEXT NOT NULL,
    first_leaf BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    PRIMARY KEY (archive, first_leaf)
);
