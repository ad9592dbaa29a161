-- Keys refused although their certificates have not ended. The list's number is the fact `deny.number`.
CREATE TABLE denied (
    key_hash TEXT NOT NULL PRIMARY KEY,
    node TEXT NOT NULL,
    reason TEXT NOT NULL,
    until BIGINT NOT NULL
);
CREATE INDEX denied_node ON denied (node);
