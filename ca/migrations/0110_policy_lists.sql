-- Lists of digests beside policies, by the SHA-256 of their bytes: `policies.files` names them.
CREATE TABLE policy_lists (
    hash TEXT NOT NULL PRIMARY KEY,
    list TEXT NOT NULL
);
