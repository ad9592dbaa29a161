-- Every policy ever applied, with its sources and the signature of the operator who applied it.
CREATE TABLE policies (
    number BIGINT NOT NULL PRIMARY KEY,
    hash TEXT NOT NULL,
    applied BIGINT NOT NULL,
    applied_by TEXT NOT NULL,
    public_key TEXT NOT NULL,
    signature TEXT NOT NULL,
    summary TEXT NOT NULL,
    files TEXT NOT NULL
);
