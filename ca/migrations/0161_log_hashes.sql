-- The log's tiles as bytes. Those in hex are moved over by the program, once, when the store is opened.
ALTER TABLE log_tiles RENAME TO log_tiles_hex;
CREATE TABLE log_tiles (
    level BIGINT NOT NULL,
    idx BIGINT NOT NULL,
    -- One hash after the other.
    hashes BLOB NOT NULL,
    PRIMARY KEY (level, idx)
);
INSERT INTO facts (name, value) VALUES ('audit_storage', 'rows');
